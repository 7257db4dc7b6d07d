"""Small problems whose answer is known."""

import numpy as np


def clouds(
    count: int, *, classes: int = 3, width: int = 5, seed: int = 0, dtype: type = np.float64
) -> tuple[np.ndarray, np.ndarray]:
    """Features (count, width) in one Gaussian cloud per class, labels (count,); every class occurs if count allows."""
    generator = np.random.default_rng(seed)
    centres = 3 * np.random.default_rng(1234).normal(size=(classes, width))
    labels = generator.permutation(np.arange(count) % classes)
    return (centres[labels] + generator.normal(size=(count, width))).astype(dtype), labels


def mislabelled(labels: np.ndarray, *, share: float, classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Labels of which this share is wrong, and the mask of the wrong ones."""
    generator = np.random.default_rng(seed)
    wrong = generator.random(len(labels)) < share
    return np.where(wrong, (labels + generator.integers(1, classes, len(labels))) % classes, labels), wrong
