"""What the clean reference set says of its classes.

    m_c, Σ    = class means, covariance inside the classes, shrunk (Ledoit & Wolf 2004)
    p(c | x)  = logistic regression on the features' main directions, cross-fitted: whatever judges a reference point
                has not seen it; its penalty is the one with the least log loss on the points held out
    ℓ_c(x)    = −log (δ + (1 − C δ) p(c | x))              what label c costs an image x, at most −log δ
    Q[ĉ, c]   = P(argmax p = ĉ | y = c) on reference points

Fitted once and pinned: `label_shift` and `covariate_shift`, beside it, ask it what a training batch differs in,
`sava_ops.decomposition` adds ℓ to the cost of a label (joint-distribution transport, Courty et al. 2017).
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from threadpoolctl import threadpool_limits
from torch import Tensor

from sava_ops.batches import split_batches
from sava_ops.ot.cost import Points

FOLDS = 5
INVERSE_PENALTIES = (0.125, 0.5, 2.0, 8.0, 32.0, 128.0, 512.0)
"""C of the logistic regressions, on features in units of their standard deviation (over all columns together): from the
middle on, for as long as the held-out log loss falls."""
MOST_DIRECTIONS = 256
"""Principal directions in which the regressions look; beyond them a reference set of thousands has noise."""
LOSS_TOLERANCE = 1e-5
"""Relative fall of a regression's mean loss in one step at which it counts as converged."""
MOST_STEPS = 200
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
    """Whether the regressions met `LOSS_TOLERANCE`."""
    inverse_penalty: Float[Tensor, ""]
    """C, one of `INVERSE_PENALTIES`."""

    def losses(self, features: Float[Tensor, "n d"]) -> Float[Tensor, "n classes"]:
        """ℓ of points that are not in the reference set: of the mean probabilities of all folds."""
        logits = torch.einsum("nd,fcd->fnc", features, self.weights) + self.biases[:, None]
        return _losses(logits.softmax(2).mean(0))


def fit_discriminant(reference: Points, *, classes: int, seed: int) -> Discriminant:
    """Class means, precision, logistic regressions and their confusion on the reference set."""
    counts = torch.bincount(reference.labels, minlength=classes).double()
    # The threads of NumPy's and SciPy's BLAS spin between calls, and torch's would wait for the processors they hold.
    with threadpool_limits(1, user_api="blas"):
        means, precision = _gaussian(reference, counts)
        fitted = cross_fitted(reference, classes, seed)
    confusion = torch.zeros_like(means @ means.T)
    confusion.index_put_((fitted.losses.argmin(1), reference.labels), torch.ones_like(counts)[reference.labels], True)
    return Discriminant(
        means=means,
        precision=precision,
        shares=counts / counts.sum(),
        weights=fitted.weights,
        biases=fitted.biases,
        reference_losses=fitted.losses,
        confusion=confusion / counts.clamp(min=1),
        converged=torch.tensor(fitted.converged, device=means.device),
        inverse_penalty=means.new_tensor(fitted.inverse_penalty),
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


class CrossFitted(NamedTuple):
    """One logistic regression for each fold of n points, fitted to the others."""

    weights: Float[Tensor, "folds classes d"]
    biases: Float[Tensor, "folds classes"]
    """−∞ for a class that a fold's other points lack."""
    losses: Float[Tensor, "n classes"]
    """ℓ of each point, by the regression that has not seen it."""
    converged: bool
    inverse_penalty: float


def cross_fitted(points: Points, classes: int, seed: int) -> CrossFitted:
    """The regressions of stratified folds, with the penalty under which the points held out have the least log loss."""
    y = points.labels
    size = -(-len(y) // min(FOLDS, len(y)))
    folds = split_batches(y.cpu().numpy(), batch_size=size, seed=seed)
    fold_of = np.empty(len(y), dtype=np.int64)
    for number, fold in enumerate(folds):
        fold_of[fold] = number
    held_out = torch.nn.functional.one_hot(torch.from_numpy(fold_of).to(y.device), len(folds)).T.bool()
    problem = _Regressions(points, ~held_out if len(folds) > 1 else held_out, classes)

    def log_loss(found: CrossFitted) -> float:
        return float(found.losses.gather(1, y[:, None]).double().mean())

    middle = len(INVERSE_PENALTIES) // 2
    best = problem.solve(INVERSE_PENALTIES[middle], held_out)
    for way in (INVERSE_PENALTIES[middle + 1 :], INVERSE_PENALTIES[:middle][::-1]):
        for penalty in way:
            tried = problem.solve(penalty, held_out)
            if log_loss(tried) >= log_loss(best):
                break
            best = tried
        if best.inverse_penalty != INVERSE_PENALTIES[middle]:
            break
    return best


class _Regressions:
    """Logistic regressions on n points, each on those that are `fitted`; all in one optimisation, so that a pass over
    the points serves every fold."""

    def __init__(self, points: Points, fitted: Bool[Tensor, "folds n"], classes: int) -> None:
        self.points, self.classes, self.folds = points, classes, len(fitted)
        self.centre = points.features.mean(0)
        x = points.features - self.centre
        self.unit = float(x.square().mean(0).sum()) ** 0.5 or 1.0
        self.directions = _principal_directions(x)
        self.x = x @ self.directions / self.unit
        one_hot = torch.nn.functional.one_hot(points.labels, classes).to(x.dtype).T.contiguous()
        self.counts = fitted.sum(1).to(x.dtype)
        self.share = fitted.to(x.dtype) / self.counts[:, None]
        self.absent = (fitted.to(x.dtype) @ one_hot.T) == 0
        self.owned = one_hot * self.share[:, None]
        self.start = np.zeros(self.folds * classes * (self.x.shape[1] + 1))

    def solve(self, inverse_penalty: float, held_out: Bool[Tensor, "folds n"]) -> CrossFitted:
        """With this C; begins where the last one ended."""
        from scipy.optimize import minimize

        options = {"ftol": LOSS_TOLERANCE, "gtol": 0.0, "maxiter": MOST_STEPS}
        found = minimize(self._objective, self.start, (inverse_penalty,), "L-BFGS-B", jac=True, options=options)
        self.start = found.x
        weights, biases = self._unpacked(found.x)
        weights = weights @ self.directions.T / self.unit
        biases = (biases - weights @ self.centre).masked_fill(self.absent, -torch.inf)
        features, losses = self.points.features, self.points.features.new_empty(len(self.x), self.classes)
        for number, fold in enumerate(held_out):
            losses[fold] = _losses((features[fold] @ weights[number].T + biases[number]).softmax(1))
        return CrossFitted(weights, biases, losses, bool(found.success), inverse_penalty)

    def _unpacked(self, flat: np.ndarray) -> tuple[Tensor, Tensor]:
        table = torch.from_numpy(flat).to(self.x).view(self.folds, self.classes, -1)
        return table[..., :-1], table[..., -1]

    def _objective(self, flat: np.ndarray, inverse_penalty: float) -> tuple[float, np.ndarray]:
        """Σ over folds of the mean cross-entropy + ½ ‖weights‖² / (C · points), and its gradient."""
        weights, biases = self._unpacked(flat)
        penalty = (1 / (inverse_penalty * self.counts))[:, None, None]
        # Points last: the passes over them are then over neighbours in memory.
        logits = (weights.flatten(0, 1) @ self.x.T).view(self.folds, self.classes, -1).add_(biases[..., None])
        log_p = logits.masked_fill_(self.absent[..., None], -torch.inf).log_softmax(1)
        own = log_p.gather(1, self.points.labels.expand(self.folds, 1, -1))[:, 0]
        value = (penalty * weights.square()).sum() / 2 - torch.where(self.share > 0, own * self.share, 0.0).sum()
        residual = log_p.exp_().mul_(self.share[:, None]).sub_(self.owned)
        slope = (residual.flatten(0, 1) @ self.x).view_as(weights) + penalty * weights
        return float(value), torch.cat([slope, residual.sum(2)[..., None]], 2).double().flatten().cpu().numpy()


def _principal_directions(centred: Float[Tensor, "n d"]) -> Float[Tensor, "d _"]:
    """Of the largest spread, at most `MOST_DIRECTIONS`; all where there are no more."""
    d = centred.shape[1]
    if d <= MOST_DIRECTIONS:
        return torch.eye(d, dtype=centred.dtype, device=centred.device)
    return torch.linalg.eigh(centred.T @ centred).eigenvectors[:, -MOST_DIRECTIONS:]


def _losses(probability: Float[Tensor, "n classes"]) -> Float[Tensor, "n classes"]:
    return -torch.log(LEAST_PROBABILITY + (1 - probability.shape[1] * LEAST_PROBABILITY) * probability)
