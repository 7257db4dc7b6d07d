"""The other yardstick of label noise: how many of the nearest reference images carry another label.

O(N M d) to score in blocks of N, holds the reference set.
"""

import numpy as np
import torch
from jaxtyping import Float

from sava_ops.ot.cost import Points, feature_cost

NEIGHBOURS = 50
BLOCK = 4_096


def score(train: Points, reference: Points) -> Float[np.ndarray, " N"]:
    """Share of the `NEIGHBOURS` nearest reference points (or all, if there are fewer) that disagree."""
    count = min(NEIGHBOURS, len(reference))
    shares = []
    for features, labels in zip(train.features.split(BLOCK), train.labels.split(BLOCK), strict=True):
        nearest = feature_cost(features, reference.features).topk(count, 1, largest=False).indices
        shares.append((reference.labels[nearest] != labels[:, None]).double().mean(1))
    return torch.cat(shares).cpu().numpy()


def memory(n: int, m: int, d: int, classes: int) -> int:  # noqa: ARG001 (one signature for all)
    """Of a block: distances, and the labels of the nearest; centred features."""
    rows = min(BLOCK, n)
    return rows * (4 * m + 4 * d + 36 * NEIGHBOURS) + 4 * m * d + 16 * n
