"""Seeded corruptions of labels and pixels, each returning which points it touched (SAVA §5; LAVA §4).

All are pure: the input is not written to, and points that are not touched come back as they were.
"""

from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Bool, Int64, UInt8
from torch import Tensor

from sava_ops.errors import BadInput
from sava_ops.images.encoder import Encoder

NOISE = 0.1**0.7
"""σ of the paper's pixel noise, on the scale where white is 1."""
SQUARE = (18 / 32, 28 / 32)
"""Rows and columns of the trojan square, as shares of the image: 18..27 of 32 px."""
CLOSE = 0.3
"""A poison is accepted at this share of the feature distance between target and untouched image."""
POISONS_AT_ONCE = 128
FIRST_STEP, LONGER, SHORTER = 0.01, 1.5, 0.4
"""λ at first, in units of 1 / accepted squared distance; and what becomes of it."""
SURE = 0.9
"""Of the accepted squared distance: whole pixels will not lose it."""


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


def poison_frogs(
    pixels: UInt8[np.ndarray, "n 3 s s"],
    labels: Int64[np.ndarray, " n"],
    target: UInt8[np.ndarray, "3 s s"],
    *,
    encoder: Encoder,
    share: float,
    base: int,
    seed: int,
    close: float = CLOSE,
    steps: int = 100,
) -> tuple[UInt8[np.ndarray, "n 3 s s"], Bool[np.ndarray, " n"]]:
    """Clean-label poisons by feature collision (Shafahi et al. 2018, Algorithm 1; SAVA §5).

        x̂ ← x − λ ∇ ‖φ(x) − φ(t)‖²,    x ← (x̂ + λ β b) / (1 + λ β),    β = 0.25 (2048 / numbers of an image)²

    Images b of class `base` keep their label and nearly their look, and move in feature space to the image t of another
    class (white is 1, λ follows the gain). round(share · n) are tried; one that stays farther than `close` ·
    ‖φ(b) − φ(t)‖ from φ(t), in whole pixels, is left as it was. Returns pixels and the mask of accepted ones.
    Raises BadInput if the class has too few images.
    """
    count = round(share * len(labels))
    if count > (labels == base).sum():
        raise BadInput(
            f"`share` {share} of {len(labels)} images is more than the {(labels == base).sum()} of class {base}: "
            "lower it"
        )
    tried = _chosen(labels == base, share, np.random.default_rng(seed), of=len(labels)).nonzero()[0]
    poisoned, touched = pixels.copy(), np.zeros(len(labels), dtype=bool)
    for rows in np.array_split(tried, -(-count // POISONS_AT_ONCE)) if count else ():
        made, accepted = _collide(torch.from_numpy(pixels[rows]), torch.from_numpy(target), encoder, close, steps)
        poisoned[rows[accepted]], touched[rows[accepted]] = made[accepted], True
    return poisoned, touched


def _collide(
    base: UInt8[Tensor, "k 3 s s"], target: UInt8[Tensor, "3 s s"], encoder: Encoder, close: float, steps: int
) -> tuple[UInt8[np.ndarray, "k 3 s s"], Bool[np.ndarray, " k"]]:
    """Poisons of a block of images, and which of them are close enough to the target."""
    network, beta = encoder.network, 0.25 * (2048 / base[0].numel()) ** 2
    # Whoever embedded with this encoder before may have moved it to a GPU.
    base = base.to(network.mean.device)
    with torch.no_grad():
        goal = network(target[None].to(base.device))
        allowed = close**2 * (network(base) - goal).square().sum(1)
    b = base.float() / 255
    x, moved, slope = b.clone(), b.clone(), torch.zeros_like(b)
    objective = torch.full_like(allowed, torch.inf)
    rate = FIRST_STEP / allowed.clamp(min=torch.finfo(allowed.dtype).tiny)
    far = torch.arange(len(base), device=base.device)
    for _ in range(steps):
        tried = moved[far].requires_grad_()
        near = (network(255 * tried) - goal).square().sum(1)
        (found,) = torch.autograd.grad(near.sum(), tried)
        worth = near.detach() + beta * (tried.detach() - b[far]).square().flatten(1).sum(1)
        # A step that gains is taken and lengthened, any other shortened.
        better = worth < objective[far]
        gained = far[better]
        x[gained], slope[gained], objective[gained] = moved[gained], found[better], worth[better]
        rate[far] *= torch.where(better, LONGER, SHORTER)
        far = far[~better | (near.detach() > SURE * allowed[far])]
        if not len(far):
            break
        step = rate[far, None, None, None]
        moved[far] = ((x[far] - step * slope[far] + step * beta * b[far]) / (1 + step * beta)).clamp(0, 1)
    made = (255 * x).round().to(torch.uint8)
    with torch.no_grad():
        accepted = (network(made) - goal).square().sum(1) <= allowed
    return made.cpu().numpy(), accepted.cpu().numpy()


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
