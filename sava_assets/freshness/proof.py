"""When the proof is measured: `proof` in sava.yaml, as rules of what is known. The curation never waits for it.

| `when`      | probes (`probe_accuracy`)                  | whole networks (`classifier_accuracy`)             |
|-------------|--------------------------------------------|----------------------------------------------------|
| `never`     | no command, and nothing by itself          | the same                                           |
| `on_demand` | asked for                                  | asked for                                          |
| `nightly`   | every night, by `sava curate`              | asked for                                          |
| `changed`   | with every curation                        | more than `share` of the decisions changed         |

Asked for is what `sava curate --prove` runs, and a click in the UI.
"""

import pyarrow as pa
import pyarrow.compute as pc

from sava_assets.home.resources import ProofKnobs
from sava_assets.home.result import DamagedResult, Result
from sava_assets.home.store import Store

PROBED = ("test_embeddings", "probe_accuracy")
TRAINED = "classifier_accuracy"
ACCURACIES = {"probe_accuracy": "probe", TRAINED: "accuracy"}
"""Asset → what its numbers are called in the history."""
SETS = ("all", "random", "pruned", "relabelled", "reweighted")
"""Training sets whose accuracies are compared."""
NOTE = "looks/decisions_changed.json"
ASK = "`sava curate --prove` measures it"


def held(asset: str, proof: ProofKnobs) -> str:
    """Why an asset does not run though its inputs changed, as far as the settings say it; empty if it runs."""
    if asset not in (*PROBED, TRAINED) or proof.when == "changed":
        return ""
    if proof.when == "never":
        return "`proof.when` is never"
    if proof.when == "on_demand" or asset == TRAINED:
        return f"`proof.when` is {proof.when}: {ASK}"
    return ""


def held_by_share(share: float | None, proof: ProofKnobs) -> str:
    """The same of whole networks under `changed`; `share`: of the decisions that changed since they were trained, None
    if nobody knows."""
    if share is None or share > proof.share:
        return ""
    return f"{share:.1%} of the decisions changed since, not more than `proof.share` ({proof.share:.1%}): {ASK}"


def waits_for_night(asset: str, proof: ProofKnobs) -> bool:
    """Whether the automation leaves it to the night, and to whoever runs `sava curate`."""
    return asset in PROBED and proof.when == "nightly"


def tonight(asset: str, proof: ProofKnobs) -> bool:
    """Whether the nightly run computes it. Whole networks are left to the automation: whether they are due is known
    when the night's decisions are there."""
    return asset != TRAINED and not held(asset, proof)


def is_of(accuracy: Result, pruned: Result) -> bool:
    """Whether an accuracy was measured on these decisions."""
    return accuracy.inputs["pruned_dataset"] == {"": pruned.data_version}


def changed_since(store: Store, measured: Result, pruned: Result) -> float | None:
    """Share of the decisions that are other ones than those an accuracy was measured on; None if those are gone."""
    if is_of(measured, pruned):
        return 0.0
    curation = measured.numbers.get("curation")  # results of earlier releases do not say it
    before = store.find("pruned_dataset", curation) if curation else None
    if before is None:
        return None
    compared = [before.key, pruned.key]
    known = store.read_json(NOTE) or {}
    if known.get("compared") != compared:
        try:
            one, other = (_decisions(result) for result in (before, pruned))
        except DamagedResult:  # whoever reads them says so, and until then nobody knows
            return None
        known = {"compared": compared, "share": changed_share(one, other)}
        store.put_json(NOTE, known)
    return known["share"]


def changed_share(before: pa.Table, now: pa.Table) -> float:
    """Of the images of both curations together (`id`, `action`, `curated_label`): those with another action or label,
    and those that are in one of them only."""
    both = before.join(now, "id", join_type="inner", right_suffix="_now")
    label, other = pc.field("curated_label"), pc.field("curated_label_now")
    kept = (pc.field("action") == pc.field("action_now")) & ((label == other) | (label.is_null() & other.is_null()))
    everything = len(before) + len(now) - len(both)
    return 1 - len(both.filter(kept)) / everything if everything else 0.0


def _decisions(pruned: Result) -> pa.Table:
    return pruned.table("points.parquet", ["id", "action", "curated_label"])
