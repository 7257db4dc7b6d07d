"""In which direction part of a training batch lies off the reference set: one more coordinate of the ground cost.

    δ = mean of the batch − Σ_c π_c m_c            what is left once the class shares agree (π: `label_shift`)
    T² = ⟨δ, Σ⁻¹δ⟩                                 Hotelling's statistic; with A = Σ⁻¹ Σ_batch and ν = 1/n + 1/M, by
    E₀ = tr(A) ν,  V₀ = 2 tr(A²) ν²                chance of this mean and variance
    d(x) = ⟨Σ⁻¹δ, x⟩ / T                           clean images of a class have deviation 1
    r(x) = d(x) − d(m_ŷ)                           of each half of the batch along the δ of the other half
    own  = (mean r − median r)₊ / mean r           the part of the shift that is not common to all
    σ    = max(1, spread of r below its median)    in which the batch itself varies along it
    t = own · min(1, (T² − E₀)² / T²)  if T² > E₀ + 3 √V₀, else 0: chance explains it
    cost(x, x') += κ s t · ½ ((d(x) − median r − d(x')) / σ)²

Reference points are those that Σ and m_c are fitted to: their d − d(m_c) is what it would be had they been left out.

Ours. Damaged images often differ little from clean ones in Euclidean distance, which the directions between classes
dominate, yet all in the same way; a metric that looks along the difference sees them (as max-sliced transport does,
Deshpande et al. 2019). But a pool always differs from its reference: by camera, shop or season, which is no damage.
What all images of a batch share moves their median as far as their mean and has t = 0; what sets some of them apart
moves the mean alone. A clean batch has the cost of Eq. 8. All of it follows from the batch, the reference and the
calibration alone, so rows of the batch matrix stay independent.
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from sava_ops.ot.cost import Points
from sava_ops.reference.discriminant import Discriminant

CHANCE_DEVIATIONS = 3.0
"""How far above its mean chance may take T²."""
QUARTILE = 0.6745
"""Of the normal distribution, in deviations."""


@dataclass(frozen=True)
class Shift:
    """The direction of a batch's shift, and how much it counts."""

    direction: Float[Tensor, " d"]
    """Σ⁻¹δ / (T σ)."""
    size: Float[Tensor, ""]
    """t in 0..1."""
    origin: Float[Tensor, ""]
    """Along `direction`: the middle of a reference with the shares of the batch, seen from that of the reference."""
    middles: Float[Tensor, " classes"]
    """Of the reference classes along `direction`, seen from that of the reference."""
    common: Float[Tensor, ""]
    """How far along `direction` half of the batch lies off the reference: nobody's damage."""

    def augment(self, points: Points, *, weight: float, of_batch: bool) -> Points:
        """The points with √(weight · t) d(x) / σ as one more feature, those of the batch without what they have in
        common, those of the reference as far off their class as if the direction had not seen them; as they are if
        that is 0."""
        if weight * self.size == 0:
            return points
        scale = (weight * self.size).sqrt()
        start = self.origin + self.common if of_batch else self.origin
        along = points.features @ (scale * self.direction).to(points.features.dtype)
        if points.left_out is not None:
            middles = (scale * self.middles).to(along)[points.labels]
            along = middles + (along - middles) * points.left_out.to(along)
        along = along - float(scale * start)
        return replace(points, features=torch.cat([points.features, along.clamp(min=0)[:, None]], 1))


def covariate_shift(
    batch: Points, predicted: Int64[Tensor, " n"], shares: Float[Tensor, " classes"], reference: Discriminant
) -> Shift:
    """The shift of a training batch with these true class shares, in units of the spread inside clean classes.

    `predicted` = class of each point as the discriminant sees it.
    """
    delta = _off_reference(batch.features, shares, reference)
    direction = reference.precision @ delta
    squared = direction @ delta
    nothing = torch.zeros_like(squared)
    expected, deviation = _chance(batch, reference)
    if len(batch) < 4 or squared <= expected + CHANCE_DEVIATIONS * deviation:
        return Shift(torch.zeros_like(direction), nothing, nothing, torch.zeros_like(shares), nothing)
    residuals = torch.cat(
        [
            _residuals(batch.features[judged], predicted[judged], other, reference)
            for judged, other in (
                (slice(0, None, 2), _off_reference(batch.features[1::2], shares, reference)),
                (slice(1, None, 2), _off_reference(batch.features[0::2], shares, reference)),
            )
        ]
    )
    mean, median = residuals.mean(), residuals.median()
    own = ((mean - median) / mean).clamp(0, 1) if mean > 0 else nothing
    spread = ((median - residuals.quantile(0.25)) / QUARTILE).clamp(min=1)
    direction = direction / squared.sqrt() / spread
    common = (_residuals(batch.features, predicted, delta, reference) / spread).median()
    excess = squared - expected
    middles = reference.means @ direction
    middles -= reference.shares @ middles
    return Shift(direction, own * (excess.square() / squared).clamp(max=1), shares @ middles, middles, common)


def _off_reference(x: Float[Tensor, "n d"], shares: Tensor, reference: Discriminant) -> Float[Tensor, " d"]:
    """δ."""
    return x.mean(0, dtype=reference.means.dtype) - shares @ reference.means


def _residuals(
    x: Float[Tensor, "n d"], predicted: Int64[Tensor, " n"], delta: Float[Tensor, " d"], reference: Discriminant
) -> Float[Tensor, " n"]:
    """r of these points along this δ."""
    direction = reference.precision @ delta
    direction = direction / (direction @ delta).sqrt().clamp(min=1e-300)
    return (x @ direction.to(x.dtype)).double() - (reference.means @ direction)[predicted]


def _chance(batch: Points, reference: Discriminant) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """E₀ and √V₀."""
    x, precision = batch.features, reference.precision
    inside = x - x.mean(0, dtype=precision.dtype).to(x.dtype)
    spread = (precision.to(x.dtype) @ (inside.T @ inside / len(batch))).double()
    noise = 1 / len(batch) + 1 / len(reference.reference_losses)
    return noise * spread.trace(), noise * (2 * (spread * spread.T).sum()).sqrt()
