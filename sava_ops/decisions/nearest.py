"""The reference points of one class that are nearest to a point: what a person compares it with."""

import numpy as np
import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor

BLOCK = 4_096
"""Points whose distances are held at once."""


def nearest_of_class(
    features: Float[Tensor, "n d"],
    labels: Shaped[np.ndarray, " n"],
    reference: Float[Tensor, "m d"],
    reference_labels: Shaped[np.ndarray, " m"],
    *,
    count: int,
    unit_norm: bool,
) -> Int64[np.ndarray, "n {count}"]:
    """Rows of the `count` reference points of class `labels[k]` nearest to point k, nearest first; -1 where the class
    has no further one. Euclidean distance, of features of length 1 with `unit_norm`.
    """
    points, judges = features.float(), reference.float()
    if unit_norm:
        points, judges = (torch.nn.functional.normalize(side, dim=1) for side in (points, judges))
    found = np.full((len(points), count), -1, dtype=np.int64)
    for label in np.unique(labels):
        own, known = (labels == label).nonzero()[0], (reference_labels == label).nonzero()[0]
        shown = min(count, len(known))
        for rows in np.array_split(own, -(-len(own) // BLOCK)) if shown else []:
            distance = torch.cdist(points[torch.from_numpy(rows)], judges[torch.from_numpy(known)])
            nearest = distance.topk(shown, largest=False).indices.numpy()
            found[rows, :shown] = known[nearest]
    return found
