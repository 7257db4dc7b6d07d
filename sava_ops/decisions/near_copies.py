"""Nearly equal images, by the cosine of their features.

    s(x, y) = <x, y> / (|x| |y|)
    near copies:  s ≥ t,  t = the (1 - r) quantile, over reference images, of the largest s to one of another class

Images of two classes of a trusted set show different things, so a share of r of the images has a neighbour this close
without being a copy of it. Ours. Blocks bound the memory, and no block's size changes a result.
"""

import numpy as np
import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor

from sava_ops.decisions.copies import groups_of
from sava_ops.errors import BadInput

BLOCK = 2_048
"""Points of either side whose similarities are held at once: 16 MB."""
ROUNDING = 1e-5
"""Similarities are sums of float32 products: equal images count as equal."""


def near_pairs(
    one: Float[Tensor, "n d"], other: Float[Tensor, "m d"], *, threshold: float, block: int = BLOCK
) -> tuple[Int64[np.ndarray, "pairs 2"], Float[np.ndarray, " pairs"]]:
    """Rows (of one, of the other) of all pairs with a cosine of at least `threshold`, in order, and the cosines.

    Features without length are near nothing. Raises BadInput for a threshold outside (0, 1].
    """
    if not 0 < threshold <= 1:
        raise BadInput(f"`threshold` is {threshold}: it must be above 0 and at most 1")
    left, right = _unit(one), _unit(other)
    found, cosines = [], []
    for start in range(0, len(left), block):
        for beside in range(0, len(right), block):
            near = left[start : start + block] @ right[beside : beside + block].T
            rows, columns = (near >= threshold - ROUNDING).nonzero(as_tuple=True)
            found.append(torch.stack([rows + start, columns + beside], dim=1).cpu())
            cosines.append(near[rows, columns].cpu())
    if not found:  # one side is empty
        return np.empty((0, 2), dtype=np.int64), np.empty(0, dtype=np.float32)
    pairs, values = torch.cat(found).numpy(), torch.cat(cosines).clamp(max=1.0).numpy()
    order = np.lexsort((pairs[:, 1], pairs[:, 0]))
    return pairs[order], values[order]


def near_pairs_within(
    points: Float[Tensor, "n d"], *, threshold: float, block: int = BLOCK
) -> tuple[Int64[np.ndarray, "pairs 2"], Float[np.ndarray, " pairs"]]:
    """The same inside one set: each pair once, the earlier row first, in order, and no point with itself."""
    found, cosines = [np.empty((0, 2), dtype=np.int64)], [np.empty(0, dtype=np.float32)]
    for start in range(0, len(points), block):
        rows = points[start : start + block]
        pairs, values = near_pairs(rows, points[start:], threshold=threshold, block=block)
        later = pairs[:, 0] < pairs[:, 1]
        found.append(pairs[later] + start)
        cosines.append(values[later])
    return np.concatenate(found), np.concatenate(cosines)


def clusters(count: int, pairs: Int64[np.ndarray, "pairs 2"]) -> Int64[np.ndarray, " {count}"]:
    """Groups of `count` points that pairs join, directly or through others, numbered by their first point; -1 for a
    point that no pair holds."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(len(pairs), dtype=bool), (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    return groups_of(connected_components(graph, directed=False)[1].astype(np.int64))


def difference_threshold(
    reference: Float[Tensor, "m d"], labels: Shaped[np.ndarray, " m"], *, rate: float = 0.01, block: int = BLOCK
) -> float:
    """t: the least cosine that a share `rate` of the reference images reaches with an image of another class.

    Raises BadInput for a rate outside (0, 1), and for images of one class, which are not known to be different.
    """
    if not 0 < rate < 1:
        raise BadInput(f"`rate` is {rate}: it must be above 0 and below 1")
    codes = torch.from_numpy(np.unique(labels, return_inverse=True)[1]).to(reference.device)
    if len(codes.unique()) < 2:
        raise BadInput("the reference images are of one class: what is different is known from two or more")
    points, nearest = _unit(reference), []
    for start in range(0, len(points), block):
        near = points[start : start + block] @ points.T
        near[codes[start : start + block, None] == codes] = -1.0
        nearest.append(near.amax(1))
    # Whatever is at a right angle is no copy.
    return float(np.clip(np.quantile(torch.cat(nearest).cpu().numpy(), 1 - rate), ROUNDING, 1.0))


def _unit(features: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
    return torch.nn.functional.normalize(features.float(), dim=1)
