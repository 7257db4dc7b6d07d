"""What varies far more than all else is shortened, or it alone would decide which images are near each other.

    s_k = min(1, √(c / v_k))       v = variances inside the classes, of features or along directions
    c   = the largest at which     Σ_k u_k / c ≥ n / `FEWEST`,    u_k = min(v_k, c),    n = (Σ_k √u_k)² / Σ_k u_k

n says in how many of them points vary, noise that is far below the rest aside; Σ u / c says how many as wide as the
widest would make up the whole. Encoders of transformers have a few features that are hundreds of times as wide as the
others and tell nothing (Sun et al. 2024, "massive activations"); weak encoders, a few directions such as brightness.
What separates the classes is not in v and is never shortened for its own sake.

Ours. Features of encoders for images are seldom so uneven that a column is shortened: then they are as they were.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from sava_ops.ot.cost import Points

FEWEST = 8.0
"""The widest may not make up more than `FEWEST` / n of all."""
STEPS, TOLERANCE = 1000, 1e-6
"""At most so many, until c falls by less than this share."""


def scales(variances: Float[Tensor, " d"]) -> Float[Tensor, " d"]:
    """s, float64; 1 where nothing varies."""
    v = variances.double()
    ordered = v.sort(descending=True).values
    most = float(ordered[0])
    if not most > 0:
        return torch.ones_like(v)
    # c if the k widest are as wide as it.
    wider = torch.arange(len(v), device=v.device)
    narrower = ordered.flip(0).cumsum(0).flip(0)
    for _ in range(STEPS):
        seen = ordered.clamp(max=most)
        room = seen.sqrt().sum().square() / seen.sum() / FEWEST - wider
        found = narrower / room
        fits = (room > 0) & (found >= ordered)
        least = min(float(found[fits][0]) if fits.any() else most, most)
        if least > most * (1 - TOLERANCE):
            break
        most = least
    return (most / v.clamp(min=1e-300)).sqrt().clamp(max=1)


def inside_classes(points: Points) -> Float[Tensor, " d"]:
    """Variance of each feature around the means of the classes, float64."""
    x, counts = points.features.double(), torch.bincount(points.labels)
    means = x.new_zeros(len(counts), x.shape[1]).index_add_(0, points.labels, x) / counts.clamp(min=1)[:, None]
    return (x - means[points.labels]).square().mean(0)


def scaled(features: Float[Tensor, "n d"], own: Float[Tensor, " d"]) -> Float[Tensor, "n d"]:
    """Every feature times its scale, and every point as long as it was."""
    if bool((own == 1).all()):
        return features
    found = features * own.to(features)
    before, after = (torch.linalg.vector_norm(x, dim=1, keepdim=True) for x in (features, found))
    return found * (before / after.clamp(min=torch.finfo(after.dtype).tiny))
