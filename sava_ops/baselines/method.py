"""What a method is, and whether it fits into memory before it is tried."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import psutil
from jaxtyping import Float

from sava_ops.errors import OutOfMemory
from sava_ops.inputs import class_count
from sava_ops.ot.cost import Points


@dataclass(frozen=True)
class Method:
    """One way to rank suspicious training points."""

    name: str
    """As tables print it."""
    score: Callable[[Points, Points], np.ndarray]
    """(train, reference) → (N,) float64, high = prune first."""
    memory: Callable[[int, int, int, int], int]
    """(N, M, d, classes) → bytes that it holds beyond its input at most, float32 features."""
    cost: str
    """Operations, C = classes."""
    needs: str
    """What it must be told."""

    def __call__(self, train: Points, reference: Points) -> Float[np.ndarray, " N"]:
        """The scores. Raises OutOfMemory, and BadInput for points that cannot be compared."""
        classes = class_count(train, reference)
        self.require(len(train), len(reference), train.features.shape[1], classes, available_bytes())
        return self.score(train, reference)

    def require(self, n: int, m: int, d: int, classes: int, available_bytes: int) -> None:
        """Raises OutOfMemory for N = n and M = m points of d features that need more than this."""
        needed = self.memory(n, m, d, classes)
        if needed > available_bytes:
            raise OutOfMemory(
                f"{self.name}: out of memory at N = {n:,}: it needs {needed / 1e9:.1f} GB and "
                f"{available_bytes / 1e9:.1f} GB are free: choose a method that works in batches"
            )


def available_bytes() -> int:
    """Memory of this machine that is free."""
    return psutil.virtual_memory().available
