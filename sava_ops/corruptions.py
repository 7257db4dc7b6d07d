"""Seeded corruptions, each returning which points it touched."""

import numpy as np
from jaxtyping import Bool, Int64

from sava_ops.errors import BadInput


def noisy_labels(
    labels: Int64[np.ndarray, " n"], *, share: float, classes: int, seed: int
) -> tuple[Int64[np.ndarray, " n"], Bool[np.ndarray, " n"]]:
    """Give round(share · n) random points a different label, drawn uniformly from the others.

    Returns the labels and the mask of touched points.
    """
    if not 0 <= share <= 1:
        raise BadInput(f"`share` is {share}: it must be between 0 and 1")
    if classes < 2:
        raise BadInput(f"`classes` is {classes}: a wrong label needs at least 2")
    generator = np.random.default_rng(seed)
    touched = np.zeros(len(labels), dtype=bool)
    touched[generator.permutation(len(labels))[: round(share * len(labels))]] = True
    shift = generator.integers(1, classes, size=len(labels))
    return np.where(touched, (labels + shift) % classes, labels), touched
