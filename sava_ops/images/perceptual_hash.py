"""What an image looks like, in 5 · 128 bits: equal or nearly so if it was resized, recompressed or cut a little.

    G = the image in grey, averaged to 32 × 32 pixels
    C = D R G Rᵀ Dᵀ,  D[u, x] = cos(π (2x + 1) u / 64)      (discrete cosine transform)
    bits: C[u, v] > 0 for the 64 lowest frequencies with even v, without C[0, 0], and the 64 lowest with odd v

of the whole image, R = 1, and of what is left of it where a twentieth of either side is cut off at a corner: R
interpolates linearly. An image that was cut so has as its first 128 bits what the whole one has among the others.

Mirrored left to right, C[u, v] becomes (-1)ᵛ C[u, v]: the even half stays, and the odd half is its complement. So no
second hash is needed to recognise a mirrored image (`sava_ops.decisions.near_copies.distances`).

After Zauner, "Implementation and Benchmarking of Perceptual Image Hash Functions" (2010). Differs in: 1 signs instead
of a comparison with the median, which makes mirroring exact; 2 twice the bits, which tell apart the images of sets a
hundred times as large; 3 the corners.
"""

import numpy as np
from jaxtyping import Float, Int64, UInt8
from PIL import Image

SIDE = 32
HALF = 64
"""Bits of either half."""
CUT = 0.05
"""Share of either side that is cut off at a corner."""
VIEWS = 5
"""The whole image, and without either edge of each direction: top left, top right, bottom left, bottom right."""
HASH_BYTES = VIEWS * 2 * HALF // 8
LEAST_CONTRAST = 1.0
"""Standard deviation of G, in grey levels of 255, below which its signs are those of rounded pixels."""
ZERO = 1e-6
"""What is zero but for the order of the sums."""


def perceptual_hash(pixels: UInt8[np.ndarray, "height width 3"]) -> bytes | None:
    """Of each view the even half of the bits, then the odd one; None for an image without structure, which looks like
    many, and for one with fewer pixels on a side than the highest of the frequencies needs."""
    if min(pixels.shape[:2]) < LEAST_SIDE:
        return None
    grey = Image.fromarray(pixels).convert("L").resize((SIDE, SIDE), Image.Resampling.BOX)
    values = np.asarray(grey, dtype=np.float64)
    if values.std() < LEAST_CONTRAST:
        return None
    views = np.stack([down @ values @ across.T for down, across in _TRANSFORMS])
    return np.packbits(views[:, _LOWEST[:, 0], _LOWEST[:, 1]] > ZERO).tobytes()


def _transforms() -> list[tuple[Float[np.ndarray, "32 32"], Float[np.ndarray, "32 32"]]]:
    """D R for rows and columns of each view."""
    each = np.arange(SIDE)
    cosines = np.cos(np.pi * (2 * each[None] + 1) * each[:, None] / (2 * SIDE))
    first, last = (cosines @ _interpolation(CUT, 1.0), cosines @ _interpolation(0.0, 1 - CUT))
    return [(cosines, cosines), *((down, across) for down in (first, last) for across in (first, last))]


def _interpolation(start: float, end: float) -> Float[np.ndarray, "32 32"]:
    """The row of values between these shares of a row of values, at as many places."""
    places = (start + (end - start) * (np.arange(SIDE) + 0.5) / SIDE) * SIDE - 0.5
    return np.maximum(0.0, 1 - np.abs(np.clip(places, 0, SIDE - 1)[:, None] - np.arange(SIDE)))


def _lowest() -> Int64[np.ndarray, "128 2"]:
    """Frequencies (u, v) of the bits, by u + v in either half."""
    every = [(u, v) for u in range(SIDE) for v in range(SIDE) if u or v]
    ordered = sorted(every, key=lambda place: (sum(place), place))
    return np.array([place for odd in (0, 1) for place in [p for p in ordered if p[1] % 2 == odd][:HALF]])


_TRANSFORMS, _LOWEST = _transforms(), _lowest()
LEAST_SIDE = int(_LOWEST.max()) + 1
"""Pixels."""
