"""TracInCP: how much the SGD steps on a training point raised the reference loss (Pruthi et al. 2020, Eq. 4).

    score_k = −Σ_t η_t ⟨∇ℓ(z_k), mean_l ∇ℓ(z'_l)⟩       over the checkpoints of `linear_head`

The mean reference gradient is one matrix G = mean r' (x', 1)ᵀ, so a point costs ⟨r_k, G (x_k, 1)⟩: O((N + M) d C) and
O((N + M) C) memory. captum's TracInCPFast holds all N × M pairs, so it serves as the oracle of a test.
"""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sava_ops.baselines.linear_head import Head, train_head
from sava_ops.inputs import class_count
from sava_ops.ot.cost import Points

EPOCHS = 10
SEED = 0


def score(train: Points, reference: Points) -> Float[np.ndarray, " N"]:
    """Minus the influence of `EPOCHS` checkpoints: positive = made the reference loss worse."""
    heads = train_head(train, classes=class_count(train, reference), epochs=EPOCHS, seed=SEED)
    return -torch.stack([_influence(head, train, reference) for head in heads]).double().sum(0).cpu().numpy()


def memory(n: int, m: int, d: int, classes: int) -> int:
    """Residuals, logits and products of both sides; the checkpoints."""
    return 4 * (4 * (n + m) * classes + (EPOCHS + 2) * classes * d) + (12 * EPOCHS + 16) * n


def _influence(head: Head, train: Points, reference: Points) -> Float[Tensor, " N"]:
    residuals = head.residuals(reference) / len(reference)
    gradient = Head(residuals.T @ reference.features, residuals.sum(0), head.learning_rate)
    return head.learning_rate * (head.residuals(train) * gradient.logits(train.features)).sum(1)
