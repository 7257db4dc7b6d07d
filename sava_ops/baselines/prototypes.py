"""Supervised prototypes: how far an image is from the centre of its class (after Sorscher et al. 2022).

    score_k = 1 − cos(x_k, mean of the training points with the label of k)

O(N d), looks at no reference point: what most labels say of a class decides.
"""

import numpy as np
import torch
from jaxtyping import Float

from sava_ops.cost import Points


def score(train: Points, reference: Points) -> Float[np.ndarray, " N"]:  # noqa: ARG001 (one signature for all)
    """Cosine distance to the own prototype, 0..2."""
    classes = int(train.labels.max()) + 1
    sums = train.features.new_zeros(classes, train.features.shape[1]).index_add_(0, train.labels, train.features)
    return (1 - torch.cosine_similarity(train.features, sums[train.labels], dim=1)).double().cpu().numpy()
