"""What the clean reference set says of its classes.

    m_c, Σ    = class means, covariance inside the classes, shrunk (Ledoit & Wolf 2004)
    p(c | x)  = logistic regression on the features, cross-fitted: whatever judges a reference point has not seen it
    ℓ_c(x)    = −log (δ + (1 − C δ) p(c | x))              what label c costs an image x, at most −log δ
    Q[ĉ, c]   = P(argmax p = ĉ | y = c) on reference points

Fitted once and pinned: `label_shift` and `covariate_shift`, beside it, ask it what a training batch differs in,
`sava_ops.decomposition` adds ℓ to the cost of a label (joint-distribution transport, Courty et al. 2017).
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from threadpoolctl import threadpool_limits
from torch import Tensor

from sava_ops.batches import split_batches
from sava_ops.ot.cost import Points

FOLDS = 5
INVERSE_PENALTY = 0.5
"""C of the logistic regressions, on features in units of their standard deviation (over all columns together)."""
GRADIENT_TOLERANCE = 1e-3
"""Largest entry allowed in the gradient of a regression's mean loss, features in those units."""
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
    converged: Bool[Tensor, ""]
    """Whether the regressions met `GRADIENT_TOLERANCE`."""

    def losses(self, features: Float[Tensor, "n d"]) -> Float[Tensor, "n classes"]:
        """ℓ of points that are not in the reference set: of the mean logits of all folds."""
        logits = features @ self.weights.mean(0).T + self.biases.mean(0)
        return _losses(logits)


def fit_discriminant(reference: Points, *, classes: int, seed: int) -> Discriminant:
    """Class means, precision, logistic regressions and their confusion on the reference set."""
    counts = torch.bincount(reference.labels, minlength=classes).double()
    # The threads of NumPy's and SciPy's BLAS spin between calls, and torch's would wait for the processors they hold.
    with threadpool_limits(1, user_api="blas"):
        means, precision = _gaussian(reference, counts)
        weights, biases, losses, converged = cross_fitted(reference, classes, seed)
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
        converged=converged,
    )


def _gaussian(points: Points, counts: Tensor) -> tuple[Tensor, Tensor]:
    x = points.features.double()
    means = x.new_zeros(len(counts), x.shape[1]).index_add_(0, points.labels, x) / counts.clamp(min=1)[:, None]
    inside = (x - means[points.labels]).to(points.features.dtype).cpu().numpy()
    from sklearn.covariance import ledoit_wolf

    # One point has no spread, and scikit-learn warns of it.
    spread = ledoit_wolf(inside, assume_centered=True)[0] if len(inside) > 1 else np.zeros((x.shape[1],) * 2)
    covariance = torch.from_numpy(spread).to(x)
    return means, torch.linalg.pinv(covariance, hermitian=True)


def cross_fitted(points: Points, classes: int, seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Weights and biases of each fold's regression, ℓ (n, classes) of each point by the one that has not seen it, and
    whether they converged."""
    y = points.labels
    size = -(-len(y) // min(FOLDS, len(y)))
    folds = split_batches(y.cpu().numpy(), batch_size=size, seed=seed)
    held_out = torch.zeros(len(folds), len(y), dtype=torch.bool)
    for number, fold in enumerate(folds):
        held_out[number, torch.from_numpy(fold)] = True
    held_out = held_out.to(y.device)
    weights, biases, converged = _regressions(points, ~held_out if len(folds) > 1 else held_out, classes)
    losses = points.features.new_empty(len(y), classes)
    for number, fold in enumerate(held_out):
        losses[fold] = _losses(points.features[fold] @ weights[number].T + biases[number])
    return weights, biases, losses, converged


def _regressions(points: Points, fitted: Bool[Tensor, "folds M"], classes: int) -> tuple[Tensor, Tensor, Tensor]:
    """Weights (folds, classes, d) and biases (folds, classes) whose softmax is p(c | x), each from its `fitted` points;
    and whether they converged.

    All in one optimisation, so that a pass over the points serves every fold.
    """
    x, y, folds = points.features, points.labels, len(fitted)
    unit = float(x.var(0, correction=0).sum()) ** 0.5 or 1.0
    x = x / unit
    one_hot = torch.nn.functional.one_hot(y, classes).to(x.dtype).T.contiguous()
    share = (fitted / fitted.sum(1, keepdim=True)).to(x.dtype)
    penalty = 1 / (INVERSE_PENALTY * fitted.sum(1).to(x.dtype))[:, None, None]
    absent = (fitted.to(x.dtype) @ one_hot.T) == 0
    owned = one_hot * share[:, None]

    def unpacked(flat: np.ndarray) -> tuple[Tensor, Tensor]:
        table = torch.from_numpy(flat).to(x).view(folds, classes, -1)
        return table[..., :-1], table[..., -1]

    def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
        """Σ over folds of the mean cross-entropy + ½ ‖weights‖² / (C · points), and its gradient."""
        weights, biases = unpacked(flat)
        # Points last: the passes over them are then over neighbours in memory.
        logits = (weights.flatten(0, 1) @ x.T).view(folds, classes, -1).add_(biases[..., None])
        log_p = logits.masked_fill_(absent[..., None], -torch.inf).log_softmax(1)
        own = log_p.gather(1, y.expand(folds, 1, -1))[:, 0]
        value = (penalty * weights.square()).sum() / 2 - torch.where(share > 0, own * share, 0.0).sum()
        residual = log_p.exp_().mul_(share[:, None]).sub_(owned)
        slope = (residual.flatten(0, 1) @ x).view_as(weights) + penalty * weights
        return float(value), torch.cat([slope, residual.sum(2)[..., None]], 2).double().flatten().cpu().numpy()

    from scipy.optimize import minimize

    start = np.zeros(folds * classes * (x.shape[1] + 1))
    found = minimize(
        objective, start, jac=True, method="L-BFGS-B", options={"gtol": GRADIENT_TOLERANCE, "maxiter": 500}
    )
    weights, biases = unpacked(found.x)
    converged = bool(np.abs(found.jac).max() <= GRADIENT_TOLERANCE)
    return weights / unit, biases.masked_fill(absent, -torch.inf), torch.tensor(converged, device=x.device)


def _losses(logits: Float[Tensor, "n classes"]) -> Float[Tensor, "n classes"]:
    probability = logits.softmax(1)
    return -torch.log(LEAST_PROBABILITY + (1 - logits.shape[1] * LEAST_PROBABILITY) * probability)
