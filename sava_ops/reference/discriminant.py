"""What the clean reference set says of its classes.

    m_c, Σ    = class means, covariance inside the classes, shrunk (Ledoit & Wolf 2004)
    p(c | x)  = logistic regression on the features' main directions, cross-fitted: whatever judges a reference point
                has not seen it, but for its part in the directions and their lengths (`logistic.Projected`); its
                penalty is the one with the least log loss on the points held out
    ℓ_c(x)    = −log (δ + (1 − C δ) p(c | x))              what label c costs an image x, at most −log δ
    Q[ĉ, c]   = P(argmax p = ĉ | y = c) on reference points

Fitted once and pinned: `label_shift` and `covariate_shift`, beside it, ask it what a training batch differs in,
`sava_ops.decomposition` adds ℓ to the cost of a label (joint-distribution transport, Courty et al. 2017).
"""

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn.functional import one_hot

from sava_ops.batches import split_batches
from sava_ops.ot.cost import Points
from sava_ops.reference.logistic import Projected, Regressions, best_penalty, losses
from sava_ops.threads import beside

FOLDS = 5
INVERSE_PENALTIES = (0.125, 0.5, 2.0, 8.0, 32.0, 128.0, 512.0)
"""C of the logistic regressions, on features in units of their standard deviation (over all columns together): from the
middle on, for as long as the held-out log loss falls."""

MOST_LEVERAGE = 0.9
"""h at 1 is a point that alone spans its direction: left out, it would lie infinitely far off."""


@dataclass(frozen=True)
class Discriminant:
    """Fitted to M reference points of `classes` classes."""

    means: Float[Tensor, "classes d"]
    """m_c, float64; 0 for a class that the reference set lacks."""
    precision: Float[Tensor, "d d"]
    """Σ⁻¹, float64, inverse squared feature units; 0 along directions without any spread."""
    left_out: Float[Tensor, " M"]
    """1 / (1 − h) · n_c / (n_c − 1): how much farther a point lies off its class mean along any Σ⁻¹δ once means and Σ
    have not seen it; h = its leverage, by Sherman and Morrison's formula."""
    shares: Float[Tensor, " classes"]
    """Share of the reference points in each class, float64."""
    weights: Float[Tensor, "folds classes d"]
    """Of the logistic regressions."""
    biases: Float[Tensor, "folds classes"]
    """−∞ for a class that a fold lacks."""
    reference_losses: Float[Tensor, "M classes"]
    """ℓ of the reference points, each by the regression that has not seen it."""
    confusion: Float[Tensor, "classes classes"]
    """Q (predicted, true), float64; the column of a class that the reference set lacks is 0."""
    converged: Bool[Tensor, ""]
    """Whether the regressions met `LOSS_TOLERANCE`."""
    inverse_penalty: Float[Tensor, ""]
    """C, one of `INVERSE_PENALTIES`."""

    @property
    def counts(self) -> Float[Tensor, " classes"]:
        """Reference points of each class."""
        return (self.shares * len(self.reference_losses)).round()

    def losses(self, features: Float[Tensor, "n d"]) -> Float[Tensor, "n classes"]:
        """ℓ of points that are not in the reference set."""
        return mean_losses(self.logits(features))

    def logits(self, features: Float[Tensor, "n d"]) -> Float[Tensor, "folds n classes"]:
        """Of points that are not in the reference set, by every regression."""
        return torch.baddbmm(self.biases[:, None], features.expand(len(self.weights), -1, -1), self.weights.mT)


def mean_losses(logits: Float[Tensor, "folds n classes"]) -> Float[Tensor, "n classes"]:
    """ℓ of the mean probabilities of all folds."""
    return losses(logits.softmax(2).mean(0))


def fit_discriminant(reference: Points, *, classes: int, seed: int) -> Discriminant:
    """Class means, precision, logistic regressions and their confusion on the reference set."""
    counts = torch.bincount(reference.labels, minlength=classes).double()
    (means, precision, left_out), fitted = beside(
        partial(_gaussian, reference, counts), partial(cross_fitted, reference, classes, seed)
    )
    confusion = torch.zeros_like(means @ means.T)
    confusion.index_put_((fitted.losses.argmin(1), reference.labels), torch.ones_like(counts)[reference.labels], True)
    return Discriminant(
        means=means,
        precision=precision,
        left_out=left_out,
        shares=counts / counts.sum(),
        weights=fitted.weights,
        biases=fitted.biases,
        reference_losses=fitted.losses,
        confusion=confusion / counts.clamp(min=1),
        converged=torch.tensor(fitted.converged, device=means.device),
        inverse_penalty=means.new_tensor(fitted.inverse_penalty),
    )


def _gaussian(points: Points, counts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    x = points.features.double()
    means = x.new_zeros(len(counts), x.shape[1]).index_add_(0, points.labels, x) / counts.clamp(min=1)[:, None]
    residuals = x - means[points.labels]
    spread, shrinkage = shrunk_covariance(residuals.to(points.features.dtype))
    precision = torch.linalg.pinv(spread, hermitian=True)
    of_class = counts[points.labels]
    beyond_mean = of_class / (of_class - 1).clamp(min=1)
    leverage = (1 - shrinkage) / len(x) * beyond_mean * ((residuals @ precision) * residuals).sum(1)
    return means, precision, beyond_mean / (1 - leverage.clamp(max=MOST_LEVERAGE))


def shrunk_covariance(x: Float[Tensor, "M d"]) -> tuple[Float[Tensor, "d d"], float]:
    """Σ of points around 0, float64, and how far it is shrunk towards a multiple of 1 (Ledoit & Wolf 2004, lemma 3.2
    on). scikit-learn's takes five times as long, and as long again to be imported."""
    n, d = x.shape
    spread = (x.T @ x).double() / n
    middle, squares = spread.trace() / d, spread.square().sum()
    fourth = x.square().sum(1, dtype=torch.float64).square().sum()  # Σ ‖x xᵀ‖²
    distance = squares - d * middle.square()
    error = (fourth / n - squares) / n
    shrinkage = float((error / distance).clamp(0, 1)) if error > 0 and distance > 0 else 0.0
    spread *= 1 - shrinkage
    spread.diagonal().add_(shrinkage * middle)
    return spread, shrinkage


class CrossFitted(NamedTuple):
    """One logistic regression for each fold of n points, fitted to the others."""

    weights: Float[Tensor, "folds classes d"]
    biases: Float[Tensor, "folds classes"]
    """−∞ for a class that a fold's other points lack."""
    losses: Float[Tensor, "n classes"]
    """ℓ of each point, by the regression that has not seen it."""
    converged: bool
    inverse_penalty: float


def fold_numbers(labels: Int64[Tensor, " n"], *, seed: int) -> Int64[Tensor, " n"]:
    """Number of each point's fold: at most `FOLDS`, stratified."""
    size = -(-len(labels) // min(FOLDS, len(labels)))
    numbers = np.empty(len(labels), dtype=np.int64)
    for number, rows in enumerate(split_batches(labels.cpu().numpy(), batch_size=size, seed=seed)):
        numbers[rows] = number
    return torch.from_numpy(numbers).to(labels.device)


def cross_fitted(points: Points, classes: int, seed: int) -> CrossFitted:
    """The regressions of stratified folds, with the penalty under which the points held out have the least log loss."""
    y, x = points.labels, points.features
    held_out = one_hot(fold_numbers(y, seed=seed)).T.bool()
    fitted = ~held_out if len(held_out) > 1 else held_out
    targets = one_hot(y, classes).to(x.dtype).expand(len(held_out), -1, -1)
    projected = Projected(x, y)
    problem = Regressions(projected, fitted.to(x.dtype))

    def solve(inverse_penalty: float) -> CrossFitted:
        weights, biases, converged = problem.solve(targets, inverse_penalty)
        losses_of = x.new_empty(len(x), classes)
        for number, fold in enumerate(held_out):
            losses_of[fold] = losses((projected.x[fold] @ weights[number].T + biases[number]).softmax(1))
        return CrossFitted(*projected.on_features(weights, biases), losses_of, converged, inverse_penalty)

    def log_loss(found: CrossFitted) -> float:
        return float(found.losses.gather(1, y[:, None]).double().mean())

    def better(tried: CrossFitted, best: CrossFitted) -> bool:
        return log_loss(tried) < log_loss(best)

    return best_penalty(solve, INVERSE_PENALTIES, better)[0]
