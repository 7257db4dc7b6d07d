"""KNN-Shapley: the exact Shapley value of a training point for a K-nearest-neighbour vote (Jia et al. 2019, Theorem 1).

    v(S)   = mean over reference points of (1/K) Σ_{k ≤ min(K, |S|)} 1[y of the k-th nearest in S = y of the point]
    s_(N)  = 1[y_(N) = y] min(K, N) / (K N)
    s_(i)  = s_(i+1) + (1[y_(i) = y] − 1[y_(i+1) = y]) min(K, i) / (K i)

with the training points in order of their distance to the reference point. O(N M (d + log N)) and O(N) memory for each
reference point of a block.
"""

import numpy as np
import torch
from jaxtyping import Float

from sava_ops.cost import Points, feature_cost
from sava_ops.errors import BadInput

NEIGHBOURS = 10
BLOCK = 64
"""Reference points at once."""


def score(train: Points, reference: Points, *, neighbours: int = NEIGHBOURS) -> Float[np.ndarray, " N"]:
    """Minus the Shapley value. Raises BadInput for fewer than one neighbour."""
    if neighbours < 1:
        raise BadInput(f"`neighbours` is {neighbours}: it must be at least 1")
    size = len(train)
    total = torch.zeros(size, dtype=torch.float64, device=train.features.device)
    place = torch.arange(1, size + 1, dtype=torch.float64, device=total.device)
    shares = place.clamp(max=neighbours) / (neighbours * place)
    for features, labels in zip(reference.features.split(BLOCK), reference.labels.split(BLOCK), strict=True):
        order = feature_cost(features, train.features).argsort(dim=1, stable=True)
        agrees = (train.labels[order] == labels[:, None]).double()
        # What a point adds to the next farther one; the last has nobody behind it.
        steps = (agrees - torch.nn.functional.pad(agrees[:, 1:], (0, 1))) * shares
        values = steps.flip(1).cumsum(1).flip(1)
        total.index_add_(0, order.flatten(), values.flatten())
    return (-total / len(reference)).cpu().numpy()
