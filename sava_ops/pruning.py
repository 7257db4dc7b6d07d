"""Which points to keep."""

import numpy as np
from jaxtyping import Bool, Float

from sava_ops.errors import BadInput


def keep_lowest(values: Float[np.ndarray, " n"], *, fraction: float) -> Bool[np.ndarray, " n"]:
    """Mask that prunes the floor(fraction · n) highest values (ties: the later point goes first)."""
    pruned = _pruned_count(len(values), fraction)
    keep = np.zeros(len(values), dtype=bool)
    keep[np.argsort(values, kind="stable")[: len(values) - pruned]] = True
    return keep


def keep_random(count: int, *, fraction: float, seed: int) -> Bool[np.ndarray, " count"]:
    """Mask of the same size as `keep_lowest`'s, chosen blindly: the control of every comparison."""
    keep = np.zeros(count, dtype=bool)
    keep[np.random.default_rng(seed).permutation(count)[: count - _pruned_count(count, fraction)]] = True
    return keep


def _pruned_count(count: int, fraction: float) -> int:
    if not 0 <= fraction < 1:
        raise BadInput(f"`fraction` is {fraction}: it must be 0 or above and below 1")
    return int(fraction * count)
