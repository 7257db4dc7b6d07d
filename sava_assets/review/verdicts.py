"""What holds where people and the algorithm disagree, or people among each other.

of several decisions on one image the latest holds; of equally late ones the one that is read last
whatever holds outranks what the algorithm would do
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from sava_assets.formats.decision_files import PersonDecision, standing
from sava_assets.formats.names import near_misses, shown, some
from sava_ops.errors import BadInput

EXAMPLES = 5
"""Of contradictions, named."""


@dataclass(frozen=True)
class Verdicts:
    """Decisions of people, with their contradictions resolved."""

    standing: Mapping[str, PersonDecision]
    """Pixel hash → the decision that holds."""
    overruled: Sequence[tuple[PersonDecision, PersonDecision]]
    """A decision that does not hold, and the later one on the same image that contradicts it."""

    @property
    def contradicted(self) -> int:
        """Images that were decided in more than one way."""
        return len({loser.pixel_hash for loser, _ in self.overruled})

    def examples(self) -> list[str]:
        """The first contradictions, in words."""
        return [f"{loser} gives way to {winner}" for loser, winner in self.overruled[:EXAMPLES]]


def resolved(decisions: Iterable[PersonDecision]) -> Verdicts:
    """Which decisions hold."""
    ordered = sorted(decisions, key=lambda decision: decision.when)  # stable
    holding = standing(ordered)
    pairs = [(decision, holding[decision.pixel_hash]) for decision in ordered]
    return Verdicts(holding, [(one, other) for one, other in pairs if one.outcome != other.outcome])


def ruled(
    actions: Sequence[str],
    curated: Sequence[str | None],
    own: Sequence[str],
    hashes: Sequence[str],
    verdicts: Verdicts,
) -> tuple[dict[str, pa.Array], np.ndarray]:
    """What becomes of n points: columns `keep`, `action`, `curated_label` with the decisions of people in force,
    `decided_by` (null where the algorithm stands), `decision_note`, and what the algorithm alone would have said
    (`algorithm_action`, `algorithm_label`); and the mask of the points that a person decided.

    `actions` and `curated` are the algorithm's, `own` the labels that the points came with.
    """
    holding = [verdicts.standing.get(each) for each in hashes]
    # Another label that is the one it came with is none.
    stays = [
        "keep" if each and each.label == came else each and each.action for each, came in zip(holding, own, strict=True)
    ]
    action = [mine or word for mine, word in zip(stays, actions, strict=True)]
    label = [
        {"keep": came, "drop": None, "relabel": each.label}[each.action] if each else given
        for each, given, came in zip(holding, curated, own, strict=True)
    ]
    # Of the algorithm's own, "review" is also what a bound spared: its label says whether it stays.
    keep = [word in ("keep", "review") and name is not None for word, name in zip(action, label, strict=True)]
    columns = {
        "keep": pa.array(keep, pa.bool_()),
        "action": pa.array(action, pa.string()),
        "curated_label": pa.array(label, pa.string()),
        "decided_by": pa.array([each.who if each else None for each in holding], pa.string()),
        "decision_note": pa.array([each.note if each else None for each in holding], pa.string()),
        "algorithm_action": pa.array(actions, pa.string()),
        "algorithm_label": pa.array(curated, pa.string()),
    }
    return columns, np.array([each is not None for each in holding])


def refuse_unknown_labels(verdicts: Verdicts, present: Collection[str], known: Collection[str]) -> None:
    """Raise BadInput for a label, given to an image that is `present`, which is no class that is `known`."""
    asked = {d.label: d for d in verdicts.standing.values() if d.label is not None and d.pixel_hash in present}
    for label in sorted(asked.keys() - set(known)):
        near = near_misses([label], known)
        hint = f"it is written {shown(near[label])!r}" if near else f"there are {some(known)}"
        raise BadInput(
            f"{asked[label].place}: no class is called {shown(label)!r} ({hint}): correct the label, or put images of "
            "that class into the reference set"
        )


def facts(verdicts: Verdicts, decided: np.ndarray, changed: np.ndarray, present: Collection[str]) -> dict[str, Any]:
    """Numbers about the decisions of people: of n points those that are `decided`, and otherwise than before."""
    elsewhere = sum(each not in present for each in verdicts.standing)
    return {
        "decided_by_people": int(decided.sum()),
        "changed_by_people": int(changed.sum()),
        "contradictions": verdicts.contradicted,
        "decisions_not_in_pool": elsewhere,
    }
