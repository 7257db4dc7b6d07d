"""The knobs of a training, without what it takes to run one."""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, get_args

from sava_ops.errors import BadInput

Augmentation = Literal["none", "crop", "crop+flip"]


@dataclass(frozen=True)
class TrainingConfig:
    """One training: SGD with momentum on a schedule of learning rates."""

    steps: int = 300
    """Gradient steps: the same number whatever the size of the set, so that sets can be compared."""
    batch_size: int = 128
    learning_rate: float = 0.1
    """The highest of the one cycle; what `drops` multiply."""
    weight_decay: float = 5e-4
    label_smoothing: float = 0.1
    augmentation: Augmentation = "crop"
    drops: tuple[tuple[float, float], ...] = ()
    """Pairs (share of the steps, factor): from that share on, the rate is `learning_rate` times the factor, with plain
    momentum. Without them the rate makes one cycle, with Nesterov's momentum."""

    def __post_init__(self) -> None:
        checks = {
            "steps": (self.steps >= 1, "at least 1"),
            "batch_size": (self.batch_size >= 2, "at least 2 (batch normalisation needs two)"),
            "learning_rate": (0 < self.learning_rate < float("inf"), "above 0"),
            "weight_decay": (0 <= self.weight_decay < float("inf"), "0 or above"),
            "label_smoothing": (0 <= self.label_smoothing < 1, "0 or above and below 1"),
            "augmentation": (self.augmentation in get_args(Augmentation), "'none', 'crop' or 'crop+flip'"),
            "drops": (
                _ordered(self.drops),
                "pairs (share, factor), shares rising strictly between 0 and 1, factors above 0 and finite",
            ),
        }
        for name, (holds, allowed) in checks.items():
            if not holds:
                raise BadInput(f"`{name}` is {getattr(self, name)!r}: it must be {allowed}")

    def factor(self, step: int) -> float:
        """Of the learning rate at this step, counted from 0: that of the last drop whose ⌈share · steps⌉ is reached."""
        # Of a hair less, since 0.55 · 100 is 55.00000000000001 in floating point.
        reached = [factor for share, factor in self.drops if step >= math.ceil(share * self.steps * (1 - 1e-12))]
        return reached[-1] if reached else 1.0


def _ordered(drops: tuple[tuple[float, float], ...]) -> bool:
    shares = [0.0, *(share for share, _ in drops), 1.0]
    return all(a < b for a, b in pairwise(shares)) and all(0 < factor < math.inf for _, factor in drops)
