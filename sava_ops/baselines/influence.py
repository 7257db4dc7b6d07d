"""Influence functions: how the reference loss changes with the weight of a training point (Koh & Liang 2017, Eq. 2).

    θ       = argmin mean_k ℓ(z_k; θ) + ½ λ ‖θ‖²         softmax regression, θ (classes, d + 1)
    score_k = −⟨mean_l ∇ℓ(z'_l), H⁻¹ ∇ℓ(z_k)⟩            H = Hessian of that objective

H⁻¹ meets the mean reference gradient alone, once, by conjugate gradients with products H v, so H is never formed.
O(N d C) a step, for some hundred steps; holds a float64 copy of both sides.
"""

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from scipy.optimize import minimize
from scipy.sparse.linalg import LinearOperator, cg
from torch import Tensor

from sava_ops.errors import BadInput
from sava_ops.inputs import class_count
from sava_ops.ot.cost import Points

PENALTY = 1e-2
"""λ, on centred features in units of their standard deviation (over all columns together)."""
GRADIENT_TOLERANCE = 1e-6
"""Largest entry allowed in the gradient of the objective."""
RESIDUAL_TOLERANCE = 1e-6
"""‖H v − g‖ / ‖g‖ allowed in the conjugate gradients."""
MOST_STEPS = 5_000


def score(train: Points, reference: Points) -> Float[np.ndarray, " N"]:
    """The derivative: positive = makes the reference loss worse. Raises BadInput where no optimum is found."""
    classes = class_count(train, reference)
    x, others = _standardised(train, reference)
    theta = fit(x, train.labels, classes)
    gradient = _residuals(theta, others, reference.labels).T @ others / len(others)
    direction = _solved(theta, x, gradient)
    return -(_residuals(theta, x, train.labels) * (x @ direction.T)).sum(1).cpu().numpy()


def memory(n: int, m: int, d: int, classes: int) -> int:
    """Both sides in float64, some numbers for each point and class, the vectors of the two solvers."""
    return 8 * ((2 * n + m) * (d + 1) + 6 * (n + m) * classes + 40 * (d + 1) * classes)


def fit(x: Float64[Tensor, "N e"], labels: Int64[Tensor, " N"], classes: int) -> Float64[Tensor, "{classes} e"]:
    """θ of the training points."""

    def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
        theta = torch.from_numpy(flat).to(x).view(classes, -1)
        loss = torch.nn.functional.cross_entropy(x @ theta.T, labels) + PENALTY / 2 * theta.square().sum()
        slope = _residuals(theta, x, labels).T @ x / len(x) + PENALTY * theta
        return float(loss), slope.flatten().cpu().numpy()

    options = {"gtol": GRADIENT_TOLERANCE, "ftol": 0.0, "maxiter": MOST_STEPS, "maxfun": 2 * MOST_STEPS}
    found = minimize(objective, np.zeros(classes * x.shape[1]), jac=True, method="L-BFGS-B", options=options)
    _require(float(np.abs(found.jac).max()) <= GRADIENT_TOLERANCE, "the logistic regression")
    return torch.from_numpy(found.x).to(x).view(classes, -1)


def _standardised(train: Points, reference: Points) -> list[Float64[Tensor, "_ e"]]:
    """Centred features of both sides in units of the training points' spread, and a constant feature for the bias."""
    spread, centre = torch.var_mean(train.features.double(), 0, correction=0)
    unit = float(spread.sum()) ** 0.5 or 1.0
    return [torch.nn.functional.pad((side.features - centre) / unit, (0, 1), value=1.0) for side in (train, reference)]


def _residuals(theta: Tensor, x: Tensor, labels: Tensor) -> Float64[Tensor, "n classes"]:
    residuals = (x @ theta.T).softmax(1)
    residuals[torch.arange(len(x), device=x.device), labels] -= 1
    return residuals


def _solved(
    theta: Float64[Tensor, "classes e"], x: Float64[Tensor, "N e"], gradient: Float64[Tensor, "classes e"]
) -> Float64[Tensor, "classes e"]:
    """H⁻¹ g."""
    probability = (x @ theta.T).softmax(1)

    def product(flat: np.ndarray) -> np.ndarray:
        direction = torch.from_numpy(flat).to(x).view_as(theta)
        moved = probability * (x @ direction.T)
        curved = moved - probability * moved.sum(1, keepdim=True)
        return (curved.T @ x / len(x) + PENALTY * direction).flatten().cpu().numpy()

    shape = theta.numel(), theta.numel()
    hessian = LinearOperator(shape, matvec=product, dtype=np.float64)  # pyright: ignore[reportCallIssue]
    found, missed = cg(hessian, gradient.flatten().cpu().numpy(), rtol=RESIDUAL_TOLERANCE, maxiter=MOST_STEPS)
    _require(missed == 0, "the conjugate gradients")
    return torch.from_numpy(found).to(x).view_as(theta)


def _require(converged: bool, what: str) -> None:
    if not converged:
        raise BadInput(
            f"influence functions: {what} did not converge in {MOST_STEPS} steps: bring the columns of the features "
            "to one scale"
        )
