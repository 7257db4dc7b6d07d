"""In which direction a training batch as a whole lies off the reference set: one more coordinate of the ground cost.

    δ = mean of the batch − Σ_c π_c m_c            what is left once the class shares agree (π: `label_shift`)
    T² = ⟨δ, Σ⁻¹δ⟩                                 Hotelling's statistic; with A = Σ⁻¹ Σ_batch and ν = 1/n + 1/M, by
    E₀ = tr(A) ν,  V₀ = 2 tr(A²) ν²                chance of this mean and variance
    t = min(1, (T² − E₀)² / T²)  if T² > E₀ + 3 √V₀, else 0: chance explains it
    cost(x, x') += κ s t · ½ (d(x) − d(x'))²,      d(x) = ⟨Σ⁻¹δ, x⟩ / T: clean images of a class have deviation 1

Ours. Damaged images often differ little from clean ones in Euclidean distance, which the directions between classes
dominate, yet all in the same way; a metric that looks along the difference sees them (as max-sliced transport does,
Deshpande et al. 2019). A clean batch has t = 0 and the cost of Eq. 8. It follows from the batch, the reference and the
calibration alone, so rows of the batch matrix stay independent.
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from sava_ops.ot.cost import Points
from sava_ops.reference.discriminant import Discriminant

CHANCE_DEVIATIONS = 3.0
"""How far above its mean chance may take T²."""


@dataclass(frozen=True)
class Shift:
    """The direction of a batch's shift, and how much it counts."""

    direction: Float[Tensor, " d"]
    """Σ⁻¹δ / T: along it, clean images of one class have standard deviation 1."""
    size: Float[Tensor, ""]
    """t in 0..1."""

    def augment(self, points: Points, *, weight: float) -> Points:
        """The points with √(weight · t) d(x) as one more feature; as they are if that is 0."""
        if weight * self.size == 0:
            return points
        coordinate = points.features @ ((weight * self.size).sqrt() * self.direction).to(points.features.dtype)
        features = torch.cat([points.features, coordinate[:, None]], 1)
        return replace(points, features=features)


def covariate_shift(batch: Points, shares: Float[Tensor, " classes"], reference: Discriminant) -> Shift:
    """The shift of a training batch with these true class shares, in units of the spread inside clean classes."""
    x, precision = batch.features, reference.precision
    mean = x.mean(0, dtype=precision.dtype)
    delta = mean - shares @ reference.means
    direction = precision @ delta
    squared = direction @ delta
    inside = x - mean.to(x.dtype)
    spread = (precision.to(x.dtype) @ (inside.T @ inside / len(batch))).double()
    noise = 1 / len(batch) + 1 / len(reference.reference_losses)
    expected, deviation = noise * spread.trace(), noise * (2 * (spread * spread.T).sum()).sqrt()
    excess = squared - expected
    if excess <= CHANCE_DEVIATIONS * deviation:
        return Shift(torch.zeros_like(direction), torch.zeros_like(excess))
    return Shift(direction / squared.sqrt(), (excess.square() / squared).clamp(max=1))
