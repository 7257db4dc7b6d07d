"""Logistic regressions of several folds in one optimisation.

    min_{W,b}  Σ_i s_i (log Σ_c e^{z_ic} − Σ_c t_ic z_ic) + ½ ‖W‖² / (C n),    z = W x + b,   Σ_i s_i = 1

with targets t_i that are one label, or a probability of each. Where populations differ in their class shares, log π_c
of its own is added to the logits of each (`Offset`): what is fitted is then what they have in common.

The linear part is one product, made once: a step costs a pass over the points for the logits and one for the slope, in
blocks whose probabilities stay near the processor, and a fold passes over no point that it leaves out. The steps are
taken in units in which the curvature is about 1, of the penalty and of logits that vary as much as a direction does, or
the narrow directions would take most.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from sava_ops.threads import Item, Made, in_threads

MOST_DIRECTIONS = 256
"""Principal directions in which the regressions look; beyond them a reference set of thousands has noise."""
LOSS_TOLERANCE = 1e-5
"""Relative fall of a regression's mean loss in one step at which it counts as converged."""
MOST_STEPS = 200
CURVATURE = 0.1
"""Of the loss of a logit: p (1 − p), at most a quarter."""
BLOCK = 2**19
"""Logits in one piece on CPUs: 2 MiB, about what is near one of them."""
LEAST_PROBABILITY = 1e-6
"""δ: no label is held for less likely."""


class Fitted(NamedTuple):
    """One regression a fold, on projected points."""

    weights: Float[Tensor, "folds classes directions"]
    biases: Float[Tensor, "folds classes"]
    """−∞ for a class without any weight in a fold's targets."""
    converged: bool


class Offset(NamedTuple):
    """Of so many points."""

    points: int
    logits: Float[Tensor, "folds classes"]


class _Block(NamedTuple):
    """Points that the same folds are fitted to, with the same offsets."""

    folds: Int64[Tensor, " own"]
    x: Float[Tensor, "points d"]
    share: Float[Tensor, "own points"]
    offset: Float[Tensor, "own classes"]


class Projected:
    """n points along their main directions, in units of their standard deviation (over all columns together)."""

    def __init__(self, features: Float[Tensor, "n d"]) -> None:
        self.centre = features.mean(0)
        x = features - self.centre
        self.unit = float(x.square().mean(0).sum()) ** 0.5 or 1.0
        self.directions = _principal_directions(x)
        self.x = x @ self.directions / self.unit

    def on_features(
        self, weights: Float[Tensor, "folds classes directions"], biases: Float[Tensor, "folds classes"]
    ) -> tuple[Float[Tensor, "folds classes d"], Float[Tensor, "folds classes"]]:
        """What gives the features themselves the same logits."""
        weights = weights @ self.directions.T / self.unit
        return weights, biases - weights @ self.centre


class Regressions:
    """Of n points."""

    def __init__(self, points: Projected, weights: Float[Tensor, "folds n"]) -> None:
        """`weights` say how much a point counts in each fold."""
        self.x = points.x
        self.counts = weights.sum(1).to(self.x.dtype)
        self.share = weights.to(self.x.dtype) / self.counts[:, None]
        self.spread = self.x.square().mean(0)
        folds = torch.arange(len(weights), device=self.x.device)
        self.pattern = ((self.share > 0).long() << folds[:, None]).sum(0)
        self.start: np.ndarray | None = None

    def solve(
        self, targets: Float[Tensor, "folds n classes"], inverse_penalty: float, offsets: Sequence[Offset] = ()
    ) -> Fitted:
        """With these targets and this C; begins where the last one ended. `offsets` of runs of points that follow each
        other, as many as there are: what is added to their logits, and is no part of what is returned."""
        from scipy.optimize import minimize

        self.offsets = offsets or [Offset(len(self.x), torch.zeros_like(targets[:, 0]))]

        def of_fold(fold: int) -> tuple[Tensor, Tensor]:
            owned = targets[fold] * self.share[fold][:, None]
            return owned.T @ self.x, torch.stack([owned[rows].sum(0) for rows, _ in self._runs()])

        pulls, masses = zip(*self._each(of_fold, range(len(targets))), strict=True)
        self.pull, by_run = torch.stack(pulls), torch.stack(masses, 1)
        self.mass = by_run.sum(0)
        self.absent = self.mass == 0
        self.constant = (by_run * torch.stack([offset for _, offset in self._runs()])).sum(dtype=torch.float64)
        self.blocks = list(self._blocks())
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
        return Fitted(weights, biases.masked_fill(self.absent, -torch.inf), bool(found.success))

    def _each(self, call: Callable[[Item], Made], items: Iterable[Item]) -> Iterator[Made]:
        return in_threads(call, items) if self.x.device.type == "cpu" else map(call, items)

    def _runs(self) -> Iterator[tuple[slice, Float[Tensor, "folds classes"]]]:
        start = 0
        for offset in self.offsets:
            yield slice(start, start + offset.points), offset.logits
            start += offset.points

    def _blocks(self) -> Iterator[_Block]:
        for run, offset in self._runs():
            for pattern in self.pattern[run].unique():
                rows = run.start + (self.pattern[run] == pattern).nonzero()[:, 0]
                folds = self.share[:, rows[0]].nonzero()[:, 0]
                if not len(folds):
                    continue
                size = max(1, BLOCK // (len(folds) * offset.shape[1])) if self.x.device.type == "cpu" else len(rows)
                for own in rows.split(size):
                    yield _Block(folds, self.x[own], self.share[folds][:, own], offset[folds])

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

        def of_block(block: _Block) -> tuple[Tensor, Tensor, Tensor]:
            own = weights[block.folds].flatten(0, 1)
            bias = (biases[block.folds] + block.offset).masked_fill(self.absent[block.folds], -torch.inf)
            # Points last: the passes over them are then over neighbours in memory.
            logits = torch.addmm(bias.flatten()[:, None], own, block.x.T).view(*bias.shape, -1)
            most = logits.amax(1, keepdim=True)
            p = logits.sub_(most).exp_()
            total = p.sum(1, keepdim=True)
            log_total = (block.share * (most + total.log())[:, 0]).sum(dtype=torch.float64)
            p = p.mul_(block.share[:, None] / total)
            return log_total, (p.flatten(0, 1) @ block.x).view(*bias.shape, -1), p.sum(2)

        linear = (weights * self.pull).sum(dtype=torch.float64) + (biases * self.mass).sum(dtype=torch.float64)
        value = (penalty * weights.square()).sum() / 2 - linear - self.constant
        slope, by_bias = penalty * weights - self.pull, -self.mass
        found = self._each(of_block, self.blocks)
        for block, (log_total, own_slope, own_by_bias) in zip(self.blocks, found, strict=True):
            value += log_total
            slope.index_add_(0, block.folds, own_slope)
            by_bias.index_add_(0, block.folds, own_by_bias)
        return float(value), torch.cat([slope, by_bias[..., None]], 2).double().flatten().cpu().numpy()


def losses(probability: Float[Tensor, "n classes"]) -> Float[Tensor, "n classes"]:
    """ℓ = −log (δ + (1 − C δ) p): finite, and equal to −log p where that matters."""
    return -torch.log(LEAST_PROBABILITY + (1 - probability.shape[1] * LEAST_PROBABILITY) * probability)


def _principal_directions(centred: Float[Tensor, "n d"]) -> Float[Tensor, "d _"]:
    """Of the largest spread, at most `MOST_DIRECTIONS`."""
    return torch.linalg.eigh(centred.T @ centred).eigenvectors[:, -MOST_DIRECTIONS:]
