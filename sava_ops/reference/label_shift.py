"""How many training points of a batch truly are of each class, whatever their labels say.

    q = shares of the predicted classes ŷ,  Q = confusion of ŷ on reference points
    π̂ = argmin_{π ≥ 0} ‖Q π − q‖                          (black-box shift estimation, Lipton et al. 2018, Eq. 4)
    π = π₀ + t (π̂ − π₀),   t = (1 − 2 (C−1) / χ²)₊,   χ² = Σ_c (q − Qπ₀)_c² / (Qπ₀)_c / (1/n + 1/M)

π₀ are the shares in the reference set: what chance explains of the difference (χ²) does not count (after James & Stein
1961). Ours: the reference measure of a batch pair is reweighted to π (target-shift transport, Redko et al. 2019), so
that a class that is honestly frequent is not punished for it, while wrong labels, which move no image, still are.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from sava_ops.ot.cost import Points
from sava_ops.reference.discriminant import Discriminant

SMALLEST_SHARE = 0.01
"""Of a class's share in the reference set; transport needs every reference point to have some mass."""


def estimated_shares(
    losses: Float[Tensor, "n classes"], reference: Discriminant, weights: Float[Tensor, " n"] | None = None
) -> Float[Tensor, " classes"]:
    """π of a training batch: true class shares, sum 1, from what each label would cost; 0 for unknown classes.

    `weights` in 0..1 say how much an image counts: a damaged one looks like anything.
    """
    if not len(losses):
        return reference.shares.clone()
    weights = losses.new_ones(len(losses)) if weights is None else weights
    predicted = torch.bincount(losses.argmin(1), weights.double(), minlength=len(reference.shares))
    q, expected = predicted / predicted.sum(), reference.confusion @ reference.shares
    known = reference.shares > 0
    # A class that is never predicted says nothing about its share.
    seen = expected > 0
    noise = float(weights.double().square().sum()) / float(weights.double().sum()) ** 2
    noise += 1 / len(reference.reference_losses)
    chi_squared = float(((q - expected)[seen].square() / expected[seen]).sum()) / noise
    freedom = int(known.sum()) - 1
    if chi_squared <= 2 * freedom:
        return reference.shares.clone()
    from scipy.optimize import nnls

    found = torch.from_numpy(nnls(reference.confusion.cpu().numpy(), q.cpu().numpy())[0]).to(q)
    trusted = 1 - 2 * freedom / chi_squared
    shares = reference.shares + trusted * (found / found.sum() - reference.shares)
    shares = torch.maximum(shares, SMALLEST_SHARE * reference.shares)
    return shares / shares.sum()


def reference_measure(batch: Points, shares: Float[Tensor, " classes"]) -> Float[Tensor, " m"]:
    """ν of a reference batch whose classes weigh `shares`; uniform inside a class, sum 1."""
    counts = torch.bincount(batch.labels, minlength=len(shares))
    weights = (shares / counts.clamp(min=1))[batch.labels]
    return (weights / weights.sum()).to(batch.features.dtype)
