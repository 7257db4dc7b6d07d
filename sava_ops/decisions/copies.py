"""Which images are copies of each other, and which one stands for them.

Points are in groups of copies; -1 is the group of a point that has none.
"""

import numpy as np
from jaxtyping import Bool, Int, Int64, Shaped

ALONE = -1


def groups_of(codes: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
    """Groups of equal codes, numbered by their first point."""
    _, first, inverse, counts = np.unique(codes, return_index=True, return_inverse=True, return_counts=True)
    several = (counts > 1).nonzero()[0]
    number = np.full(len(counts), ALONE, dtype=np.int64)
    number[several[np.argsort(first[several])]] = np.arange(len(several))
    return number[inverse]


def under_two_labels(groups: Int64[np.ndarray, " n"], labels: Shaped[np.ndarray, " n"]) -> Bool[np.ndarray, " n"]:
    """Points of groups whose labels differ: at most one of these labels is right, if an image shows one class."""
    inside, mixed = (groups != ALONE).nonzero()[0], np.zeros(len(groups), dtype=bool)
    codes = np.unique(labels[inside], return_inverse=True)[1]
    pairs = np.unique(np.stack([groups[inside], codes], axis=1), axis=0)
    mixed[inside] = np.bincount(pairs[:, 0])[groups[inside]] > 1
    return mixed


def of_several(groups: Int64[np.ndarray, " n"], codes: Int[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
    """The groups that hold points of two codes or more, numbered anew."""
    inside = (groups != ALONE).nonzero()[0]
    different = np.unique(np.stack([groups[inside], codes[inside]], axis=1), axis=0)[:, 0]
    several = np.bincount(different, minlength=groups.max(initial=ALONE) + 1) > 1
    kept = inside[several[groups[inside]]]
    made = np.full(len(groups), ALONE, dtype=np.int64)
    made[kept] = groups_of(groups[kept])
    return made


def representatives(groups: Int64[np.ndarray, " n"], order: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
    """Of each point the one that stands for its group: the first in this order of rows. A point without copies stands
    for itself."""
    standing = np.arange(len(groups))
    order = order[groups[order] != ALONE]
    chosen, first = np.unique(groups[order], return_index=True)
    best = np.full(chosen.max(initial=ALONE) + 1, ALONE)
    best[chosen] = order[first]
    inside = groups != ALONE
    standing[inside] = best[groups[inside]]
    return standing
