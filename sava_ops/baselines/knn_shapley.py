"""KNN-Shapley: the exact Shapley value of a training point for a K-nearest-neighbour vote (Jia et al. 2019, Theorem 1).

    v(S)   = mean over reference points of (1/K) Σ_{k ≤ min(K, |S|)} 1[y of the k-th nearest in S = y of the point]
    s_(N)  = 1[y_(N) = y] min(K, N) / (K N)
    s_(i)  = s_(i+1) + (1[y_(i) = y] − 1[y_(i+1) = y]) min(K, i) / (K i)

with the training points in order of their distance to the reference point. O(N M (d + log N)) and O(N) memory for each
reference point of a block. Unless given, K is the one on a grid whose vote is right about most reference points.
"""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sava_ops.errors import BadInput
from sava_ops.inputs import class_count
from sava_ops.ot.cost import Points, feature_cost

GRID = (1, 5, 10, 20, 50)
"""Of equally good ones the first."""
BLOCK = 64
"""Reference points at once."""


def score(train: Points, reference: Points, *, neighbours: int | None = None) -> Float[np.ndarray, " N"]:
    """Minus the Shapley value. Raises BadInput for fewer than one neighbour."""
    if neighbours is None:
        neighbours = GRID[int(vote_accuracies(train, reference).argmax())]
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


def memory(n: int, m: int, d: int, classes: int) -> int:
    """Of a block: distances, order, agreement, steps and values of every pair; votes."""
    return min(BLOCK, m) * (52 * n + 16 * max(GRID) * classes) + 4 * (n + m) * d + 24 * n


def vote_accuracies(train: Points, reference: Points) -> Float[Tensor, " grid"]:
    """Share of the reference points about which the vote of the K nearest training points is right, for each K."""
    classes = class_count(train, reference)
    nearest = min(max(GRID), len(train))
    places = torch.tensor([min(k, nearest) - 1 for k in GRID], device=train.labels.device)
    right = torch.zeros(len(GRID), dtype=torch.float64, device=train.labels.device)
    for features, labels in zip(reference.features.split(BLOCK), reference.labels.split(BLOCK), strict=True):
        rows = feature_cost(features, train.features).topk(nearest, 1, largest=False).indices
        votes = torch.nn.functional.one_hot(train.labels[rows], classes).cumsum(1)[:, places]
        right += (votes.argmax(2) == labels[:, None]).double().sum(0)
    return right / len(reference)
