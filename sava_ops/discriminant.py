"""What the clean reference set says of its classes: linear discriminant analysis (Fisher 1936), and how it errs.

    Σ = covariance inside the classes, shrunk (Ledoit & Wolf 2004)
    ŷ(x) = argmax_c  ⟨m_c, Σ⁻¹x⟩ − ½⟨m_c, Σ⁻¹m_c⟩
    Q[ĉ, c] = P(ŷ = ĉ | y = c), cross-fitted: each half of the reference set is classified by the other

Fitted once and pinned: `sava_ops.label_shift` and `sava_ops.covariate_shift` ask it what a training batch differs in.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from sklearn.covariance import ledoit_wolf
from torch import Tensor

from sava_ops.batches import split_batches
from sava_ops.cost import Points


@dataclass(frozen=True)
class Discriminant:
    """Fitted to M reference points of `classes` classes; float64."""

    means: Float[Tensor, "classes d"]
    """m_c; 0 for a class that the reference set lacks."""
    precision: Float[Tensor, "d d"]
    """Σ⁻¹, inverse squared feature units; 0 along directions without any spread."""
    shares: Float[Tensor, " classes"]
    """Share of the reference points in each class."""
    confusion: Float[Tensor, "classes classes"]
    """Q (predicted, true); the column of a class that the reference set lacks is 0."""
    points: Float[Tensor, ""]
    """M."""

    def predict(self, features: Float[Tensor, "n d"]) -> Int64[Tensor, " n"]:
        """ŷ: the nearest class of the reference set."""
        return _predict(features, self.means, self.precision, self.shares > 0)


def fit_discriminant(reference: Points, *, classes: int, seed: int) -> Discriminant:
    """Class means, shared precision and cross-fitted confusion of the reference set."""
    counts = torch.bincount(reference.labels, minlength=classes).double()
    means, precision = _fit(reference, classes)
    return Discriminant(
        means=means,
        precision=precision,
        shares=counts / counts.sum(),
        confusion=_cross_fitted_confusion(reference, classes, seed),
        points=counts.sum(),
    )


def _fit(points: Points, classes: int) -> tuple[Tensor, Tensor]:
    x, counts = points.features.double(), torch.bincount(points.labels, minlength=classes)
    means = x.new_zeros(classes, x.shape[1]).index_add_(0, points.labels, x) / counts.clamp(min=1)[:, None]
    inside = (x - means[points.labels]).cpu().numpy()
    covariance = torch.from_numpy(ledoit_wolf(inside, assume_centered=True)[0]).to(x)
    return means, torch.linalg.pinv(covariance, hermitian=True)


def _predict(features: Tensor, means: Tensor, precision: Tensor, known: Tensor) -> Tensor:
    weights = means @ precision
    scores = features.double() @ weights.T - 0.5 * (weights * means).sum(1)
    return scores.masked_fill(~known, -torch.inf).argmax(1)


def _cross_fitted_confusion(reference: Points, classes: int, seed: int) -> Tensor:
    size = -(-len(reference) // 2)
    halves = split_batches(reference.labels.cpu().numpy(), batch_size=size, seed=seed)
    sides = [reference.take(torch.from_numpy(rows).to(reference.labels.device)) for rows in halves]
    counts = torch.zeros(classes, classes, dtype=torch.float64, device=reference.labels.device)
    for fitted, judged in zip(sides, reversed(sides), strict=True):
        known = torch.bincount(fitted.labels, minlength=classes) > 0
        predicted = _predict(judged.features, *_fit(fitted, classes), known)
        counts.index_put_((predicted, judged.labels), torch.ones_like(judged.labels, dtype=counts.dtype), True)
    return counts / counts.sum(0).clamp(min=1)
