"""Whether there are enough reference images to judge by, and what to do where there are not.

    smallest p-value of a pool held against M reference images     1 / (M + 1)
    so at the false-discovery rate α nothing is flagged unless     1 / (α (M + 1)) of the pool, or more, is bad

(`sava_ops.decisions.conformal`, where every class weighs alike). Ranking takes less than deciding: `make benchmark` has
rows with 5 reference images a class.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from sava_assets.formats.names import some
from sava_assets.home.resources import Knobs
from sava_ops.frame import ENOUGH_TO_JUDGE

FEW = 5
"""Reference images of a class, the fewest with which ranking was measured (`benchmarks/other_sets.md`)."""
USUAL_BAD_SHARE = 0.1
"""Of a pool with which the cut must be able to begin: about the least that is published of real data (8 % to 38.5 %,
Song et al. 2022)."""


@dataclass(frozen=True)
class Judges:
    """The reference images that judge, by class."""

    counts: Mapping[str, int]
    knobs: Knobs
    promoted: int = 0
    """Of them, those that come from the pool: no p-value is made of them."""

    @property
    def total(self) -> int:
        return sum(self.counts.values())

    @property
    def few(self) -> dict[str, int]:
        """Classes that are judged by fewer than `FEW`."""
        return {name: count for name, count in sorted(self.counts.items()) if count < FEW}

    @property
    def least_bad_share(self) -> float:
        """Of the pool, below which nothing is flagged, 0..1; 0 where a fixed share is cut."""
        prune = self.knobs.prune
        return (
            0.0
            if prune.fraction is not None
            else min(1.0, 1 / (prune.false_discovery_rate * (self.total - self.promoted + 1)))
        )

    @property
    def enough(self) -> bool:
        return not self.few and self.least_bad_share <= USUAL_BAD_SHARE

    def in_words(self) -> str:
        """How many judge, what that is enough for, and what to do where it is too few."""
        said = f"{self.total:,} reference images judge {len(self.counts):,} classes"
        if self.enough:
            return f"{said}, at least {min(self.counts.values()):,} each"
        return "; ".join(filter(None, [said, self._of_classes(), self._of_all(), self._half()]))

    def _of_classes(self) -> str:
        if not self.few:
            return ""
        told = some([f"{name} ({count})" for name, count in self.few.items()])
        alone = sum(count < ENOUGH_TO_JUDGE for count in self.few.values())
        never = f", of which {alone:,} are never blamed, having one image" if alone else ""
        return f"values mean little for classes that fewer than {FEW} judge, {told}{never}: add images of them"

    def _of_all(self) -> str:
        if self.least_bad_share <= USUAL_BAD_SHARE:
            return ""
        rate = self.knobs.prune.false_discovery_rate
        enough = math.ceil(1 / (rate * USUAL_BAD_SHARE)) - 1
        return (
            f"at a false-discovery rate of {rate:.0%} nothing is flagged of a pool that is less than "
            f"{self.least_bad_share:.0%} bad: let {enough:,} judge, raise `prune.false_discovery_rate`, or set "
            "`prune.fraction`"
        )

    def _half(self) -> str:
        if self.knobs.encoder.source != "train" or self.knobs.clean_train is not None:
            return ""
        return (
            "half of the reference set trains the encoder: with `clean_train`, or a finished encoder, all of it judges"
        )
