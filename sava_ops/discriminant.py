"""What the clean reference set says of its classes.

    m_c, Σ    = class means, covariance inside the classes, shrunk (Ledoit & Wolf 2004)
    p(c | x)  = logistic regression on the features, cross-fitted: whatever judges a reference point has not seen it
    ℓ_c(x)    = −log (δ + (1 − C δ) p(c | x))              what label c costs an image x, at most −log δ
    Q[ĉ, c]   = P(argmax p = ĉ | y = c) on reference points

Fitted once and pinned: `sava_ops.label_shift` and `sava_ops.covariate_shift` ask it what a training batch differs in,
`sava_ops.decomposition` adds ℓ to the cost of a label (joint-distribution transport, Courty et al. 2017).
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from sklearn.covariance import ledoit_wolf
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from sava_ops.batches import split_batches
from sava_ops.cost import Points

FOLDS = 5
INVERSE_PENALTY = 0.5
"""C of the logistic regressions, on features in units of their standard deviation (over all columns together)."""
LEAST_PROBABILITY = 1e-6
"""δ."""


@dataclass(frozen=True)
class Discriminant:
    """Fitted to M reference points of `classes` classes."""

    means: Float[Tensor, "classes d"]
    """m_c, float64; 0 for a class that the reference set lacks."""
    precision: Float[Tensor, "d d"]
    """Σ⁻¹, float64, inverse squared feature units; 0 along directions without any spread."""
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

    def losses(self, features: Float[Tensor, "n d"]) -> Float[Tensor, "n classes"]:
        """ℓ of points that are not in the reference set: of the mean logits of all folds."""
        logits = features @ self.weights.mean(0).T + self.biases.mean(0)
        return _losses(logits)


def fit_discriminant(reference: Points, *, classes: int, seed: int) -> Discriminant:
    """Class means, precision, logistic regressions and their confusion on the reference set."""
    counts = torch.bincount(reference.labels, minlength=classes).double()
    means, precision = _gaussian(reference, counts)
    weights, biases, losses = _cross_fitted(reference, classes, seed)
    confusion = torch.zeros_like(means @ means.T)
    confusion.index_put_((losses.argmin(1), reference.labels), torch.ones_like(counts)[reference.labels], True)
    return Discriminant(
        means=means,
        precision=precision,
        shares=counts / counts.sum(),
        weights=weights,
        biases=biases,
        reference_losses=losses,
        confusion=confusion / counts.clamp(min=1),
    )


def _gaussian(points: Points, counts: Tensor) -> tuple[Tensor, Tensor]:
    x = points.features.double()
    means = x.new_zeros(len(counts), x.shape[1]).index_add_(0, points.labels, x) / counts.clamp(min=1)[:, None]
    inside = (x - means[points.labels]).cpu().numpy()
    # One point has no spread, and scikit-learn warns of it.
    spread = ledoit_wolf(inside, assume_centered=True)[0] if len(inside) > 1 else np.zeros((x.shape[1],) * 2)
    covariance = torch.from_numpy(spread).to(x)
    return means, torch.linalg.pinv(covariance, hermitian=True)


def _cross_fitted(points: Points, classes: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    x, y = points.features.cpu().numpy(), points.labels.cpu().numpy()
    size = -(-len(y) // min(FOLDS, len(y)))
    folds = split_batches(y, batch_size=size, seed=seed)
    losses = points.features.new_empty(len(y), classes)
    fitted = []
    for fold in folds:
        others = np.setdiff1d(np.arange(len(y)), fold) if len(folds) > 1 else fold
        weights, biases = (t.to(points.features) for t in _regression(x[others], y[others], classes))
        losses[torch.from_numpy(fold)] = _losses(points.features[torch.from_numpy(fold)] @ weights.T + biases)
        fitted.append((weights, biases))
    weights, biases = (torch.stack(parts) for parts in zip(*fitted, strict=True))
    return weights, biases, losses


def _regression(x: np.ndarray, y: np.ndarray, classes: int) -> tuple[Tensor, Tensor]:
    """Weights (classes, d) and biases (classes,) whose softmax is p(c | x)."""
    weights, biases = np.zeros((classes, x.shape[1])), np.full(classes, -np.inf)
    known = np.unique(y)
    if len(known) == 1:
        biases[known] = 0.0
        return torch.from_numpy(weights), torch.from_numpy(biases)
    unit = float(x.var(0).sum()) ** 0.5 or 1.0
    model = LogisticRegression(C=INVERSE_PENALTY, tol=1e-3, max_iter=500).fit(x / unit, y)
    if len(known) == 2:  # one row of weights for the second class
        weights[known[1]], biases[known] = model.coef_[0], [0.0, model.intercept_[0]]
    else:
        weights[known], biases[known] = model.coef_, model.intercept_
    return torch.from_numpy(weights / unit), torch.from_numpy(biases)


def _losses(logits: Float[Tensor, "n classes"]) -> Float[Tensor, "n classes"]:
    probability = logits.softmax(1)
    return -torch.log(LEAST_PROBABILITY + (1 - logits.shape[1] * LEAST_PROBABILITY) * probability)
