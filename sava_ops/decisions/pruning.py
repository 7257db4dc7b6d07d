"""What to do with each point: which to flag, within which bounds, and whether the image or its label is to blame.

flagged  = the most evidence: a fixed fraction, or as many as keep the false-discovery rate (`decisions.conformal`)
relabel  = flagged, but not under its suggested label, and the suggestion is trusted
review   = flagged, but not under its suggested label, and the suggestion is doubtful; or spared by a bound
drop     = flagged under any label
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int64, Shaped

from sava_ops.decisions.assessment import Assessment
from sava_ops.decisions.conformal import benjamini_hochberg
from sava_ops.errors import BadInput

Action = Literal["keep", "drop", "relabel", "review"]


@dataclass(frozen=True)
class PruneRule:
    """How much to flag, and what to do with it."""

    fraction: float | None = None
    """Flag this share of the points; None = as many as `false_discovery_rate` allows."""
    false_discovery_rate: float = 0.05
    """Share of clean points that is accepted among the flagged ones."""
    class_floor: float = 0.1
    """At least this share of the points of every given label is kept."""
    cap: float = 0.6
    """At most this share of all points is taken out."""
    relabel_confidence: float = 0.8
    """A suggested label is trusted from here on."""

    def __post_init__(self) -> None:
        bounds = {
            "fraction": (self.fraction is None or 0 <= self.fraction < 1, "0 or above and below 1, or null"),
            "false_discovery_rate": (0 < self.false_discovery_rate < 1, "above 0 and below 1"),
            "class_floor": (0 <= self.class_floor <= 1, "between 0 and 1"),
            "cap": (0 <= self.cap <= 1, "between 0 and 1"),
            "relabel_confidence": (0 <= self.relabel_confidence <= 1, "between 0 and 1"),
        }
        for name, (holds, allowed) in bounds.items():
            if not holds:
                raise BadInput(f"`{name}` is {getattr(self, name)!r}: it must be {allowed}")


@dataclass(frozen=True)
class Decision:
    """What becomes of n points."""

    keep: Bool[np.ndarray, " n"]
    """Whether the point stays with the label it has."""
    action: Shaped[np.ndarray, " n"]
    """"keep", "drop", "relabel" or "review"; a point that a bound spared is kept and to be reviewed."""
    flagged: Bool[np.ndarray, " n"]
    """Whether it looked bad, whatever the bounds."""
    threshold: float | None
    """Least evidence of a flagged point; None if nothing is flagged."""


def decide(found: Assessment, labels: Int64[np.ndarray, " n"], rule: PruneRule) -> Decision:
    """Flag, apply the bounds, and tell wrong labels from foreign images."""
    values = found.evidence
    if rule.fraction is None:
        flagged = benjamini_hochberg(found.p_values, rate=rule.false_discovery_rate)
    else:
        flagged = ~keep_lowest(values, fraction=rule.fraction)
    threshold = float(values[flagged].min()) if flagged.any() else None
    out = flagged & ~_spared(values, labels, flagged, rule)
    # Under its best label nothing but the image speaks against a point.
    curable = found.image_evidence < (np.inf if threshold is None else threshold)
    trusted = found.confidence >= rule.relabel_confidence
    action = np.select([~flagged, ~out | (curable & ~trusted), curable], ["keep", "review", "relabel"], "drop")
    return Decision(~out, action, flagged, threshold)


def _spared(values: np.ndarray, labels: np.ndarray, flagged: np.ndarray, rule: PruneRule) -> np.ndarray:
    """Flagged points that the bounds keep: the lowest of their class, and the lowest of all."""
    spared = np.zeros(len(values), dtype=bool)
    for label in np.unique(labels[flagged]):
        own = (labels == label).nonzero()[0]
        lowest = own[np.argsort(values[own], kind="stable")]
        spared[lowest[: int(np.ceil(rule.class_floor * len(own)))]] = True
    spared &= flagged
    out = (flagged & ~spared).nonzero()[0]
    allowed = int(rule.cap * len(values))
    spared[out[np.argsort(-values[out], kind="stable")[allowed:]]] = True
    return spared


def keep_lowest(values: Float[np.ndarray, " n"], *, fraction: float) -> Bool[np.ndarray, " n"]:
    """Mask that prunes the floor(fraction · n) highest values (ties: the later point goes first)."""
    keep = np.zeros(len(values), dtype=bool)
    keep[np.argsort(values, kind="stable")[: len(values) - _pruned_count(len(values), fraction)]] = True
    return keep


def keep_random(count: int, *, pruned: int, seed: int) -> Bool[np.ndarray, " count"]:
    """Mask that prunes as many points as another one, chosen blindly: the control of every comparison."""
    keep = np.zeros(count, dtype=bool)
    keep[np.random.default_rng(seed).permutation(count)[: count - pruned]] = True
    return keep


def _pruned_count(count: int, fraction: float) -> int:
    if not 0 <= fraction < 1:
        raise BadInput(f"`fraction` is {fraction}: it must be 0 or above and below 1")
    return int(fraction * count)
