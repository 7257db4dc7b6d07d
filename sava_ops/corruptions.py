"""Seeded corruptions of labels and pixels, each returning which points it touched (SAVA §5; LAVA §4).

All are pure: the input is not written to, and points that are not touched come back as they were.
"""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, Int64, UInt8

from sava_ops.errors import BadInput

NOISE = 0.1**0.7
"""σ of the paper's pixel noise, on the scale where white is 1."""
SQUARE = (18 / 32, 28 / 32)
"""Rows and columns of the trojan square, as shares of the image: 18..27 of 32 px."""


def noisy_labels(
    labels: Int64[np.ndarray, " n"], *, share: float, classes: int, seed: int
) -> tuple[Int64[np.ndarray, " n"], Bool[np.ndarray, " n"]]:
    """Give round(share · n) random points a different label, drawn uniformly from the others.

    Returns the labels and the mask of touched points.
    """
    if classes < 2:
        raise BadInput(f"`classes` is {classes}: a wrong label needs at least 2")
    generator = np.random.default_rng(seed)
    touched = _chosen(np.ones(len(labels), dtype=bool), share, generator)
    shift = generator.integers(1, classes, size=len(labels))
    return np.where(touched, (labels + shift) % classes, labels), touched


def confused_labels(
    labels: Int64[np.ndarray, " n"], *, share: float, mistakes: Mapping[int, int], seed: int
) -> tuple[Int64[np.ndarray, " n"], Bool[np.ndarray, " n"]]:
    """Asymmetric noise: this share of each class in `mistakes` gets the label it is mistaken for (Patrini et al. 2017).

    Returns the labels and the mask of touched points.
    """
    if loops := [label for label, mistaken in mistakes.items() if label == mistaken]:
        raise BadInput(f"`mistakes` takes class {loops[0]} for itself: name another class")
    generator = np.random.default_rng(seed)
    touched, noisy = np.zeros(len(labels), dtype=bool), labels.copy()
    for label, mistaken in mistakes.items():
        chosen = _chosen(labels == label, share, generator)
        noisy[chosen], touched = mistaken, touched | chosen
    return noisy, touched


def noisy_features(
    pixels: UInt8[np.ndarray, "n 3 s s"], *, share: float, seed: int, sigma: float = NOISE
) -> tuple[UInt8[np.ndarray, "n 3 s s"], Bool[np.ndarray, " n"]]:
    """Add N(0, σ²) to every pixel of round(share · n) random images; white is 1. Returns pixels and mask."""
    generator = np.random.default_rng(seed)
    touched = _chosen(np.ones(len(pixels), dtype=bool), share, generator)
    noisy = pixels.copy()
    noisy[touched] = _with_noise(pixels[touched], sigma, generator)
    return noisy, touched


def trojan_square(
    pixels: UInt8[np.ndarray, "n 3 s s"],
    labels: Int64[np.ndarray, " n"],
    *,
    share: float,
    target: int,
    seed: int,
    fixed: bool = False,
    sigma: float = NOISE,
) -> tuple[UInt8[np.ndarray, "n 3 s s"], Int64[np.ndarray, " n"], Bool[np.ndarray, " n"]]:
    """Mark round(share · n) images of other classes with a square and label them `target`.

    The square gets noise of its own in every image, or, if `fixed`, is replaced by one pattern of black and white in
    all of them. Returns pixels, labels and mask. Raises BadInput if other classes have too few images.
    """
    if round(share * len(labels)) > (labels != target).sum():
        raise BadInput(
            f"`share` {share} of {len(labels)} images is more than the {(labels != target).sum()} of other classes "
            f"than {target}: lower it"
        )
    generator = np.random.default_rng(seed)
    touched = _chosen(labels != target, share, generator, of=len(labels))
    first, last = (round(edge * pixels.shape[-1]) for edge in SQUARE)
    square = (slice(None), slice(None), slice(first, last), slice(first, last))
    marked = pixels[touched]
    if fixed:
        marked[square] = 255 * generator.integers(0, 2, (1, 1, last - first, last - first), dtype=np.uint8)
    else:
        marked[square] = _with_noise(marked[square], sigma, generator)
    noisy = pixels.copy()
    noisy[touched] = marked
    return noisy, np.where(touched, target, labels), touched


def _chosen(
    candidates: Bool[np.ndarray, " n"], share: float, generator: np.random.Generator, of: int | None = None
) -> Bool[np.ndarray, " n"]:
    """round(share · of) random candidates; `of` = their number unless given."""
    if not 0 <= share <= 1:
        raise BadInput(f"`share` is {share}: it must be between 0 and 1")
    rows = generator.permutation(candidates.nonzero()[0])
    touched = np.zeros(len(candidates), dtype=bool)
    touched[rows[: round(share * (len(rows) if of is None else of))]] = True
    return touched


def _with_noise(pixels: np.ndarray, sigma: float, generator: np.random.Generator) -> np.ndarray:
    noise = generator.normal(scale=255 * sigma, size=pixels.shape)
    return (pixels + noise).round().clip(0, 255).astype(np.uint8)
