"""What pixels say of an image's quality, whatever it shows: how bright, how full of information, how sharp.

    brightness   mean of the luma y, 0 (black) … 1 (white)                     Rec. 601
    information  −Σ_v p_v log2 p_v of the histogram of y, 0 … 8 bits           Shannon 1948
    sharpness    log (1 + mean (∇²y)²) − log (4 + mean |∇y|²), y in 0 … 255    ours, of the energy of the Laplacian
                                                                               (Pertuz et al. 2013)

With Fourier energies S and the Laplacian's symbol λ, |∇|² has the symbol λ, too: up to the constants, sharpness is the
log of Σ λ² S / Σ λ S, the mean λ of the image's edges. It is at most log 8, of a chequered board, and falls with every
blur that damps the higher frequencies more; contrast divides out, so that what is dark or pale is not blurred for that.
(The energy of the Laplacian alone finds blur less well, and takes the dark for blurred.) The constants are about what
rounding to whole values adds: without edges, an image is not sharp.

Large images are reduced first to about `PIXELS` pixels (means of boxes): sharpness is that of details of one share of
the picture, whatever its resolution. Smaller ones stay as they are: an enlarged picture is a blurred one.
"""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image

PIXELS = 256**2
LEAST_DETAILS, LEAST_EDGES = 1.0, 4.0
"""Of mean squared differences; their quotient is that of a flat image."""


class Quality(NamedTuple):
    """Of one image."""

    brightness: float
    """0..1."""
    information: float
    """Bits, 0..8; 0 of a flat image."""
    sharpness: float
    """Nats, at most log 8; −log 4 of a flat image."""


def quality(pixels: UInt8[np.ndarray, "height width 3"]) -> Quality:
    """Of decoded pixels. Safe to call from many threads."""
    grey = np.asarray(_reduced(Image.fromarray(pixels).convert("L")))
    counts = np.bincount(grey.ravel())
    shares = counts[counts > 0] / grey.size
    y = grey.astype(np.float64)
    down, right = y[1:] - y[:-1], y[:, 1:] - y[:, :-1]
    laplacian = (down[1:, 1:-1] - down[:-1, 1:-1]) + (right[1:-1, 1:] - right[1:-1, :-1])
    return Quality(
        brightness=float(y.mean() / 255),
        information=float(-(shares * np.log2(shares)).sum()) + 0.0,  # never −0
        sharpness=math.log((LEAST_DETAILS + _energy(laplacian)) / (LEAST_EDGES + _energy(down) + _energy(right))),
    )


def _energy(differences: np.ndarray) -> float:
    """Mean square of whole numbers; their sum is exact in any order."""
    # Not by BLAS, whose threads would stand in the way of those that decode.
    return float(np.einsum("ij,ij->", differences, differences)) / max(differences.size, 1)


def _reduced(grey: Image.Image) -> Image.Image:
    """To `PIXELS` pixels, if it has more; neither side below one."""
    scale = (PIXELS / (grey.width * grey.height)) ** 0.5
    if scale >= 1:
        return grey
    size = (max(1, round(scale * grey.width)), max(1, round(scale * grey.height)))
    return grey.resize(size, Image.Resampling.BOX)
