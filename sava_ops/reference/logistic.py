"""Logistic regressions of several folds in one optimisation.

    min_{W,b}  Σ_i s_i (log Σ_c e^{z_ic} − Σ_c t_ic z_ic) + ½ ‖W‖² / (C n),    z = W x + b,   Σ_i s_i = 1

with targets t_i that are one label, or a probability of each. Where populations differ in their class shares, log π_c
of its own is added to the logits of each (`Offset`): what is fitted is then what they have in common.

The linear part is one product, made once: a step costs a pass over the points for the logits and one for the slope. The
steps are taken in units in which the curvature is about 1, of the penalty and of logits that vary as much as a
direction does, or the narrow directions would take most.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

MOST_DIRECTIONS = 256
"""Principal directions in which the regressions look; beyond them a reference set of thousands has noise."""
LOSS_TOLERANCE = 1e-5
"""Relative fall of a regression's mean loss in one step at which it counts as converged."""
MOST_STEPS = 200
CURVATURE = 0.1
"""Of the loss of a logit: p (1 − p), at most a quarter."""
LEAST_PROBABILITY = 1e-6
"""δ: no label is held for less likely."""


class Fitted(NamedTuple):
    """One regression a fold, on the features themselves."""

    weights: Float[Tensor, "folds classes d"]
    biases: Float[Tensor, "folds classes"]
    """−∞ for a class without any weight in a fold's targets."""
    converged: bool


class Offset(NamedTuple):
    """Of so many points."""

    points: int
    logits: Float[Tensor, "folds classes"]


class Projected:
    """n points along their main directions, in units of their standard deviation (over all columns together)."""

    def __init__(self, features: Float[Tensor, "n d"]) -> None:
        self.centre = features.mean(0)
        x = features - self.centre
        self.unit = float(x.square().mean(0).sum()) ** 0.5 or 1.0
        self.directions = _principal_directions(x)
        self.x = x @ self.directions / self.unit


class Regressions:
    """Of n points."""

    def __init__(self, points: Projected, weights: Float[Tensor, "folds n"]) -> None:
        """`weights` say how much a point counts in each fold."""
        self.points, self.x = points, points.x
        self.counts = weights.sum(1).to(self.x.dtype)
        self.share = weights.to(self.x.dtype) / self.counts[:, None]
        self.spread = self.x.square().mean(0)
        self.start: np.ndarray | None = None

    def solve(
        self, targets: Float[Tensor, "folds n classes"], inverse_penalty: float, offsets: Sequence[Offset] = ()
    ) -> Fitted:
        """With these targets and this C; begins where the last one ended. `offsets` of runs of points that follow each
        other, as many as there are: what is added to their logits, and is no part of what is returned."""
        from scipy.optimize import minimize

        owned = (targets * self.share[..., None]).transpose(1, 2)
        self.pull, self.mass = owned @ self.x, owned.sum(2)
        self.absent = self.mass == 0
        self.offsets = offsets or [Offset(len(self.x), torch.zeros_like(self.mass))]
        self.constant = torch.zeros((), dtype=torch.float64, device=self.x.device)
        for rows, offset in self._runs():
            self.constant += (owned[..., rows].sum(2) * offset).sum(dtype=torch.float64)
        if self.start is None:
            self.start = np.zeros(self.pull.numel() + self.mass.numel())
        options = {"ftol": LOSS_TOLERANCE, "gtol": 0.0, "maxiter": MOST_STEPS}
        units = self._units(inverse_penalty)

        def objective(steps: np.ndarray) -> tuple[float, np.ndarray]:
            value, slope = self._objective(units * steps, inverse_penalty)
            return value, units * slope

        found = minimize(objective, self.start / units, method="L-BFGS-B", jac=True, options=options)
        self.start = reached = units * found.x
        weights, biases = self._unpacked(reached)
        weights = weights @ self.points.directions.T / self.points.unit
        return Fitted(
            weights, (biases - weights @ self.points.centre).masked_fill(self.absent, -torch.inf), bool(found.success)
        )

    def _runs(self) -> Iterator[tuple[slice, Float[Tensor, "folds classes"]]]:
        start = 0
        for offset in self.offsets:
            yield slice(start, start + offset.points), offset.logits
            start += offset.points

    def _units(self, inverse_penalty: float) -> np.ndarray:
        """One over the root of each unknown's curvature."""
        penalty = 1 / (inverse_penalty * self.counts)
        of_weights = CURVATURE * self.spread + penalty[:, None]
        curvature = torch.cat([of_weights, torch.full_like(of_weights[:, :1], CURVATURE)], 1)
        return curvature.rsqrt()[:, None].expand(-1, self.mass.shape[1], -1).double().flatten().cpu().numpy()

    def _unpacked(self, flat: np.ndarray) -> tuple[Tensor, Tensor]:
        table = torch.from_numpy(flat).to(self.x).view(*self.mass.shape, -1)
        return table[..., :-1], table[..., -1]

    def _objective(self, flat: np.ndarray, inverse_penalty: float) -> tuple[float, np.ndarray]:
        """The value, summed over the folds, and its gradient."""
        weights, biases = self._unpacked(flat)
        penalty = (1 / (inverse_penalty * self.counts))[:, None, None]
        # Points last: the passes over them are then over neighbours in memory.
        logits = (weights.flatten(0, 1) @ self.x.T).view(*self.mass.shape, -1)
        for rows, offset in self._runs():
            logits[..., rows] += (biases + offset)[..., None]
        logits = logits.masked_fill_(self.absent[..., None], -torch.inf)
        most = logits.amax(1, keepdim=True)
        p = logits.sub_(most).exp_()
        total = p.sum(1, keepdim=True)
        log_total = (most + total.log())[:, 0]
        linear = (weights * self.pull).sum(dtype=torch.float64) + (biases * self.mass).sum(dtype=torch.float64)
        linear = linear + self.constant
        value = (penalty * weights.square()).sum() / 2 + (self.share * log_total).sum(dtype=torch.float64) - linear
        p = p.mul_(self.share[:, None] / total)
        slope = (p.flatten(0, 1) @ self.x).view_as(weights) - self.pull + penalty * weights
        by_bias = p.sum(2) - self.mass
        return float(value), torch.cat([slope, by_bias[..., None]], 2).double().flatten().cpu().numpy()


def losses(probability: Float[Tensor, "n classes"]) -> Float[Tensor, "n classes"]:
    """ℓ = −log (δ + (1 − C δ) p): finite, and equal to −log p where that matters."""
    return -torch.log(LEAST_PROBABILITY + (1 - probability.shape[1] * LEAST_PROBABILITY) * probability)


def _principal_directions(centred: Float[Tensor, "n d"]) -> Float[Tensor, "d _"]:
    """Of the largest spread, at most `MOST_DIRECTIONS`."""
    return torch.linalg.eigh(centred.T @ centred).eigenvectors[:, -MOST_DIRECTIONS:]
