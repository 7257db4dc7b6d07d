"""What a result's inputs are. The one place that says what each asset depends on.

A result is named by the digest of its inputs: code version, knobs, and the data versions of what it reads. The asset
uses `inputs` to name its result; whatever asks "is it due?" (`sava_assets.freshness.survey`) compares the same name
with the current one.
"""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from upath import UPath

from sava_assets.formats.decision_files import decisions_version
from sava_assets.formats.names import misnamed, shown, some
from sava_assets.freshness.copies import has_copies
from sava_assets.freshness.limits import judged
from sava_assets.freshness.overlap import CLEAN_SETS, overlap
from sava_assets.freshness.promotion import confirmed
from sava_assets.freshness.proof import PROBED, TRAINED
from sava_assets.freshness.sources import Home, checkpoint_version, listing_of, looked_into, observed_version, source_of
from sava_assets.home.resources import Knobs
from sava_assets.home.result import Result, digest
from sava_ops.errors import BadInput
from sava_ops.images.kinds import HEIC


def _own_name() -> str | None:
    name = os.environ.get("SAVA_NAME") or None
    if name and not re.fullmatch(r"[A-Za-z0-9_-]+", name):
        raise BadInput(f"SAVA_NAME is {name!r}: name the home by letters without accents, digits, - and _ alone")
    return name


NAME = _own_name()
"""Of the home among those that share a Dagster instance: it comes before its assets' keys there."""
SHARDS_NAME = "/".join(filter(None, [NAME, "shards"]))
"""Of the dynamic partitions in Dagster."""


@dataclass(frozen=True)
class Rule:
    """What an asset reads."""

    code_version: str
    upstream: tuple[str, ...] = ()
    """Assets whose content names the result. A sharded asset reads one shard of a sharded one, any other all."""
    pinned: tuple[str, ...] = ()
    """Assets that are read but do not name the result: new content there does not make it stale."""
    findings: tuple[str, ...] = ()
    """Assets of which only what they found names the result; nothing where they found nothing."""
    knobs: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    """Knobs that name folders whose content is read."""
    observed: tuple[str, ...] = ()
    """Source assets, and the knobs that name their folders of decisions: missing or empty ones name no result."""
    apart_from: tuple[str, ...] = ()
    """Sets that its training images must not stand in. Those that do are set aside, and only they may name the result:
    not the rest of these sets."""
    promoted_from: tuple[str, ...] = ()
    """Of which `review.promote` takes images: only those name the result."""
    sharded: bool = False
    published: bool = False
    """Its result stands for files outside the store, in `curated/`: where they are missing or damaged it is due."""

    @property
    def reads(self) -> tuple[str, ...]:
        return self.upstream + self.pinned + self.findings

    @property
    def dependencies(self) -> tuple[str, ...]:
        """What it stands below of in the lineage."""
        further = self.observed + self.apart_from + self.promoted_from
        return self.reads + tuple(name for name in further if name not in self.reads)


_LABELS = ("valuation.label_metric", "valuation.class_sample", "valuation.calibration_sample")
_BATCHING = ("valuation.batch_size", "valuation.batching", "valuation.seed")
_PAIR = ("epsilon", "rho", "tolerance", "max_sweeps", "unit_norm", "held_out_sample", "class_shares")
_PRUNE = ("fraction", "false_discovery_rate", "class_floor", "cap", "relabel_confidence", "relabel", "dry_run")
_BRAKE = ("brake", "confirm")
"""Named by results since before they were limits of the publication."""
_WEIGHTS = ("label_weight", "classifier_weight", "shift_weight")

RULES = {
    "raw_images": Rule("4", knobs=("classes",), sources=("landing",), sharded=True),
    "reference_images": Rule(
        "4",
        knobs=("classes", "encoder.seed"),
        sources=("reference", "clean_train"),
        promoted_from=("raw_images", "decisions"),
    ),
    "test_images": Rule("3", knobs=("classes",), sources=("test",)),
    "encoder": Rule("1", upstream=("reference_images",), knobs=("encoder",)),
    "embeddings": Rule("2", upstream=("raw_images", "encoder"), sharded=True),
    "reference_embeddings": Rule("2", upstream=("reference_images", "encoder")),
    "batches": Rule("1", upstream=("embeddings",), knobs=_BATCHING, apart_from=CLEAN_SETS, sharded=True),
    "reference_batches": Rule("1", upstream=("reference_embeddings",), knobs=_BATCHING),
    "reference_values": Rule("17", upstream=("reference_embeddings",), knobs=("valuation",)),
    "label_distances": Rule(
        "20",
        upstream=("reference_embeddings",),
        pinned=("embeddings",),
        knobs=(*_LABELS, "valuation.unit_norm", "valuation.shorten_columns", "valuation.seed"),
        apart_from=CLEAN_SETS,
    ),
    "batch_ot": Rule(
        "11",
        upstream=("batches", "embeddings", "reference_batches", "reference_embeddings", "label_distances"),
        pinned=("raw_images", "reference_images"),
        knobs=tuple(f"valuation.{name}" for name in _PAIR + _WEIGHTS),
    ),
    "batch_plan": Rule(
        "2",
        upstream=("batch_ot", "reference_batches"),
        knobs=("valuation.plan_epsilon", "valuation.rho", "valuation.batch_weights", "valuation.hierarchical"),
    ),
    "point_values": Rule(
        "14",
        upstream=("raw_images", "batches", "batch_ot", "batch_plan"),
        pinned=("label_distances", "reference_embeddings", "reference_images", "reference_batches"),
        knobs=("valuation.gradient",),
    ),
    # Raised, too, with another perceptual hash: that is no part of the content of images.
    "near_copies": Rule("1", upstream=("raw_images", "reference_images")),
    "pruned_dataset": Rule(
        "3",
        upstream=("point_values", "raw_images"),
        pinned=("reference_images",),
        findings=("near_copies",),
        knobs=tuple(f"prune.{name}" for name in _PRUNE + _BRAKE),
        observed=("decisions",),
        apart_from=CLEAN_SETS,
    ),
    "curation_report": Rule(
        "1",
        upstream=("pruned_dataset", "raw_images"),
        pinned=("embeddings", "reference_embeddings", "reference_images"),
        knobs=("review", "prune.fraction", "prune.false_discovery_rate", "valuation.unit_norm"),
    ),
    "curated_dataset": Rule(
        "1",
        upstream=("pruned_dataset", "raw_images"),
        knobs=("prune.export_images", "prune.dry_run"),
        published=True,
    ),
    "test_embeddings": Rule("1", upstream=("test_images", "encoder")),
    "probe_accuracy": Rule(
        "1",
        upstream=("pruned_dataset", "embeddings", "test_embeddings"),
        pinned=("raw_images", "reference_images", "test_images"),
    ),
    "classifier_accuracy": Rule(
        "3",
        upstream=("pruned_dataset", "raw_images", "test_images"),
        pinned=("reference_images",),
        knobs=("classifier", "encoder.image_size"),
    ),
}
PROOF = ("test_images", *PROBED, TRAINED)
"""What a home without a test set has not."""


def wanted(home: Home) -> list[str]:
    """The assets of a home, in the order data flows."""
    tested = has_test_set(home)
    return [asset for asset in RULES if tested or asset not in PROOF]


def has_test_set(home: Home) -> bool:
    """Whether there is a test set, or one is named that should be there."""
    knobs = home.knobs
    return knobs.test is not None and ("test" in knobs.model_fields_set or home.folder(knobs.test).exists())


def key(inputs_of_result: Mapping[str, Any]) -> str:
    """The name of the result with these inputs."""
    return digest(inputs_of_result)


def inputs(asset: str, home: Home, shards: Sequence[str], shard: str | None = None) -> dict[str, Any]:
    """Everything that names the asset's result, as JSON. Raises BadInput if something it reads does not exist yet."""
    rule, knobs = RULES[asset], home.knobs
    named: dict[str, Any] = {"code_version": rule.code_version}
    named["knobs"] = {name: knobs.value(name) for name in rule.knobs}
    found = {name: looked_into(home, source_of(home, name, shard)) for name in rule.sources if knobs.value(name)}
    named["sources"] = {name: seen["fingerprint"] for name, seen in found.items()}
    if asset == "raw_images" and (columns := found["landing"]["columns"]):
        named["columns"] = columns
    named["sources"] |= {name: version for name in rule.observed if (version := observed_version(home, name))}
    if asset == "raw_images" and source_of(home, "landing", shard).is_dir():
        # Ids begin with it. The fingerprint of a file holds its name, that of a folder does not.
        named["shard"] = shard
    for name in named_upstream(asset, knobs):
        found_upstream = upstream_results(asset, name, home, shards, shard)
        named[name] = {s or "": _version(asset, result) for s, result in found_upstream.items()}
    if HEIC and RULES[asset].sources and _has_heic(home.store.current(asset, shard)):
        named["extras"] = ["heic"]  # by which more of it is read than was without
    if asset == "reference_images":
        named["split"] = knobs.encoder.source == "train"
        if joining := promoted(home, shards):
            named["promoted_images"] = digest(joining)
    if asset == "encoder" and knobs.encoder.source not in ("train", "imagenet"):
        named["checkpoint"] = checkpoint_version(home, knobs.encoder.source)
    named_alike = {"embeddings": "raw_images", "test_embeddings": "test_images", TRAINED: "test_images"}.get(asset)
    if named_alike and (fault := refusal(home, named_alike, shard)):
        raise BadInput(fault)
    if asset == "curated_dataset" and (versions := _columns_versions(home, shards)):
        named["columns"] = versions
    if asset == "curated_dataset":
        named |= judged(home, proven=has_test_set(home))
    # The calibration leaves them out, too, but is pinned: a later shard that shares an image must not undo it.
    if asset == "batches" and (aside := set_aside(home, shard or "")):
        named["set_aside"] = digest(sorted(aside))
    if asset == "pruned_dataset" and (every := _set_aside_of_all(home, shards)):
        named["set_aside"] = digest(every)
    if asset == "pruned_dataset":
        named |= _copies(home, shards)
    if asset == "label_distances":
        named["classes"] = class_names(home, shards)
    return named


def promoted(home: Home, shards: Sequence[str]) -> dict[str, dict[str, str]]:
    """Shard → id → label of the images that people confirmed, and that may judge if the reference has their class."""
    return confirmed(home, shards, proven=has_test_set(home))


def set_aside(home: Home, shard: str) -> dict[str, str]:
    """Id of each image of the shard that values and cut are to do without, and why."""
    if home.knobs.overlap == "refuse":  # who runs the chain refuses it
        return {}
    return overlap(home.store, shard, [name for name in wanted(home) if name in CLEAN_SETS])


def _copies(home: Home, shards: Sequence[str]) -> dict[str, str]:
    """What names a cut because of exact or near copies in the pool; nothing where there are none."""
    near = upstream_results("pruned_dataset", "near_copies", home, shards)[None]
    found = {"near_copies": near.data_version} if near.numbers["near_images"] else {}
    if found or has_copies(home.store, upstream_results("pruned_dataset", "raw_images", home, shards)):
        found["copies"] = home.knobs.prune.copies
    return found


def named_upstream(asset: str, knobs: Knobs) -> tuple[str, ...]:
    """Upstream assets whose content names the result, under these knobs."""
    # A finished encoder does not look at the reference set; only one that is trained here does.
    return () if asset == "encoder" and knobs.encoder.source != "train" else RULES[asset].upstream


def sources(asset: str, home: Home, shard: str | None) -> list[UPath]:
    """Files and folders outside the store that the asset reads. Raises BadInput for what is not there."""
    knobs = home.knobs
    return [source_of(home, name, shard) for name in RULES[asset].sources if knobs.value(name)]


def look(asset: str, home: Home, shard: str | None) -> tuple[str, ...]:
    """Digests of the listings of all that the asset reads outside the store."""
    observed = [decisions_version(home.folder(home.knobs.value(name))) or "" for name in RULES[asset].observed]
    return (*(listing_of(home, path).digest for path in sources(asset, home, shard)), *observed)


def upstream_results(
    asset: str, upstream: str, home: Home, shards: Sequence[str], shard: str | None = None
) -> dict[str | None, Result]:
    """What `upstream` produced last, by shard (None for what has no shards): all that `asset` reads of it.

    A collecting asset takes the shards that are there and that the reference set can judge: one broken shard must not
    stop the others.
    """
    wanted: Sequence[str | None] = [None]
    if RULES[upstream].sharded:
        wanted = [shard] if RULES[asset].sharded else [s for s in sorted(shards) if not refusal(home, "raw_images", s)]
    found = {s: home.store.current(upstream, s) for s in wanted}
    results = {s: result for s, result in found.items() if result is not None}
    if not results:
        for s in shards if RULES[upstream].sharded and not RULES[asset].sharded else []:
            if fault := refusal(home, "raw_images", s):
                raise BadInput(fault)
        missing = upstream if shard is None else f"{upstream}[{shard}]"
        raise BadInput(f"{asset} needs {missing}, which has no result yet: materialize {upstream} first")
    return results


def class_names(home: Home, shards: Sequence[str]) -> list[str]:
    """Global class ids: the classes of the reference set by name, then those that only training data has."""
    reference = upstream_results("label_distances", "reference_embeddings", home, shards)
    training = upstream_results("label_distances", "embeddings", home, shards)
    known = sorted({name for result in reference.values() for name in result.numbers["classes"]})
    seen = {name for result in training.values() for name in result.numbers["classes"]}
    if not seen & set(known):
        raise BadInput(
            f"training and reference set have no class in common (training: {some(seen)}; reference: {some(known)}): "
            "name the classes alike, or list them as `classes` in sava.yaml"
        )
    return known + sorted(seen - set(known))


def refusal(home: Home, asset: str, shard: str | None = None) -> str:
    """Why the reference set cannot judge a set by its class names; empty if it can, or if either is not there."""
    found, reference = home.store.current(asset, shard), home.store.current("reference_images")
    if found is None or reference is None:
        return ""
    who = f"the shard {shown(shard)}" if shard else f"the {asset.removesuffix('_images')} set"
    return misnamed(who, found.numbers["classes"], reference.numbers["classes"])


def _version(asset: str, read: Result) -> str:
    """What names a result of what it reads: neither encoder nor near copies learn anything of promoted images."""
    given_alone = asset in ("encoder", "near_copies")
    return read.numbers.get("version_without_promoted", read.data_version) if given_alone else read.data_version


def _has_heic(result: Result | None) -> bool:
    return result is not None and bool(result.numbers.get("heic_set_aside") or result.inputs.get("extras"))


def _columns_versions(home: Home, shards: Sequence[str]) -> dict[str, str]:
    """Digest of the further columns of each shard that has some: no part of the data version of its images."""
    found = upstream_results("curated_dataset", "raw_images", home, shards)
    versions = {str(s): result.numbers.get("columns_version") for s, result in found.items()}
    return {s: version for s, version in versions.items() if version}


def _set_aside_of_all(home: Home, shards: Sequence[str]) -> dict[str, dict[str, str]]:
    """What is set aside of each shard, of those that have some."""
    found = upstream_results("pruned_dataset", "raw_images", home, shards)
    return {str(s): aside for s in found if (aside := set_aside(home, str(s)))}
