"""What the speed benchmarks share: the points, and the clock."""

import time
from collections.abc import Callable

import numpy as np

from sava_ops.inputs import as_points
from sava_ops.ot.cost import Points

CLASSES, WIDTH = 10, 512


def clouds(count: int, seed: int, noise: float, *, classes: int = CLASSES, width: int = WIDTH) -> Points:
    """Unit-norm features in a cloud for each class, and labels of which a share is wrong."""
    generator = np.random.default_rng(seed)
    true = generator.integers(0, classes, count)
    centres = np.random.default_rng(99).normal(size=(classes, width))
    features = centres[true] + 2 * generator.normal(size=(count, width))
    labels = np.where(generator.random(count) < noise, (true + 1) % classes, true)
    return as_points(features.astype(np.float32), labels, side="training", unit_norm=True)


def seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def best(call: Callable[[], object], repeats: int = 7) -> float:
    return min(seconds(call) for _ in range(repeats))
