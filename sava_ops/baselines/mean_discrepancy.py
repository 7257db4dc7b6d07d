"""Maximum mean discrepancy: how far a training point pulls the embedded mean from the reference (after KAIROS).

    MMD²(μ, ν) = ‖E_μ φ − E_ν φ‖²,    k((x, y), (x', y')) = e^{−‖x − x'‖² / 2h²} 1[y = y']
    score_k    = d MMD² / d μ_k ∕ 2 = mean_i k(z_k, z_i) − mean_l k(z_k, z'_l)

in closed form (Gretton et al. 2012; Lin et al. 2025), h² = mean feature cost. O(N (N + M) d), in blocks of N.
"""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sava_ops.ot.cost import Points, feature_cost, mean_feature_cost

BLOCK = 256


def score(train: Points, reference: Points) -> Float[np.ndarray, " N"]:
    """Half the derivative of MMD² with respect to the point's weight."""
    bandwidth = mean_feature_cost(train.features, reference.features) or 1.0
    rows = torch.arange(len(train), device=train.labels.device).split(BLOCK)
    blocks = [train.take(own) for own in rows]
    found = [_mean_kernel(block, train, bandwidth) - _mean_kernel(block, reference, bandwidth) for block in blocks]
    return torch.cat(found).double().cpu().numpy()


def memory(n: int, m: int, d: int, classes: int) -> int:  # noqa: ARG001 (one signature for all)
    """The blocks; of one block: costs, their exponentials and the kernel; centred features."""
    return 4 * (n + max(n, m) + BLOCK) * d + 24 * min(BLOCK, n) * max(n, m) + 24 * n


def _mean_kernel(points: Points, others: Points, bandwidth: float) -> Float[Tensor, " n"]:
    # The feature cost is half the squared distance.
    kernel = torch.exp(-feature_cost(points.features, others.features) / bandwidth)
    return (kernel * (points.labels[:, None] == others.labels)).mean(1)
