"""Supervised prototypes: how far an image is from the centre of its class (Sorscher et al. 2022, Section 5).

    centre_c = of as many k-means clusters as there are classes, the one started at the mean of class c
    score_k  = 1 − cos(x_k, centre of the class of k)

by scikit-learn's MiniBatchKMeans. O(N d C) a pass and O(N d) memory; looks at no reference point.
"""

import numpy as np
import torch
from jaxtyping import Float
from sklearn.cluster import MiniBatchKMeans
from torch import Tensor

from sava_ops.ot.cost import Points

SEED = 0


def score(train: Points, reference: Points) -> Float[np.ndarray, " N"]:  # noqa: ARG001 (one signature for all)
    """Cosine distance to the own prototype, 0..2."""
    present, place = train.labels.unique(return_inverse=True)
    x = train.features
    means = x.new_zeros(len(present), x.shape[1]).index_add_(0, place, x) / torch.bincount(place)[:, None]
    similarity = torch.cosine_similarity(x, centres(x, means.to(x.dtype))[place], dim=1)
    return (1 - similarity).double().cpu().numpy()


def memory(n: int, m: int, d: int, classes: int) -> int:  # noqa: ARG001
    """The features three times, beside the own prototype of each point; distances to all of them."""
    return 4 * (4 * n * d + n * classes + 4 * classes * d) + 32 * n


def centres(x: Float[Tensor, "N d"], means: Float[Tensor, "classes d"]) -> Float[Tensor, "classes d"]:
    """Where the clusters started at the class means end."""
    # A cluster that is moved elsewhere for being small would stand for its class no more.
    clusters = MiniBatchKMeans(
        len(means),
        init=means.cpu().numpy(),  # pyright: ignore[reportArgumentType]
        n_init=1,  # pyright: ignore[reportArgumentType]
        reassignment_ratio=0.0,
        random_state=SEED,
    )
    return torch.from_numpy(clusters.fit(x.cpu().numpy()).cluster_centers_).to(x)
