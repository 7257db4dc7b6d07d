"""Logistic regressions of several folds in one optimisation.

    min_{W,b}  Σ_i s_i (log Σ_c e^{z_ic} − Σ_c t_ic z_ic) + ½ ‖W‖² / (C n),    z = W x + b,   Σ_i s_i = 1

with targets t_i that are one label, or a probability of each. Where populations differ in their class shares, log π_c
of its own is added to the logits of each (`Offset`): what is fitted is then what they have in common.

The linear part is one product, made once: a step costs a pass over the points for the logits and one for the slope, in
blocks whose probabilities stay near the processor, and a fold passes over no point that it leaves out. The steps are
taken in `Coordinates` in which the loss bends about alike in all directions, or the narrow ones would take most.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from sava_ops.ot.cost import Points
from sava_ops.reference.spread import inside_classes, scales
from sava_ops.threads import Item, Made, in_threads

MOST_DIRECTIONS = 256
"""Principal directions in which the regressions look; beyond them a reference set of thousands has noise."""
LOSS_TOLERANCE = 1e-5
"""Relative fall of a regression's mean loss in one step at which it counts as converged."""
MOST_STEPS = 200
CURVATURE = 0.25
"""Of the loss of a logit, mean p (1 − p), in units of what it is where nothing but the class shares is known."""
LEAST_CURVATURE = 1e-6
"""Of a class that hardly occurs."""
IN_DOUBT = 0.5
"""How far from the middle of all points towards the mean of a class those lie that might or might not be of it. It, and
`CURVATURE`, set how many steps are taken, not where to."""
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


class Coordinates:
    """z_c = ⟨w_c, x − o_c⟩ + v_c, with an origin o_c among the points that might or might not be of class c, where the
    loss bends: without it, w_c and the bias would lean on each other. All in units of one over the root of their
    curvature."""

    def __init__(
        self,
        pull: Float[Tensor, "folds classes d"],
        mass: Float[Tensor, "folds classes"],
        spread: Float[Tensor, " d"],
        penalty: Float[Tensor, " folds"],
    ) -> None:
        """`pull` and `mass` = Σ_i s_i t_ic x_i and Σ_i s_i t_ic, `spread` = mean square of the points along x."""
        means = pull / mass.clamp(min=LEAST_CURVATURE)[..., None]
        between = torch.einsum("fc,fcd->fd", mass, means.square())
        inside = (spread - IN_DOUBT * between).clamp(min=0)[:, None]
        of_logits = CURVATURE * (mass * (1 - mass)).clamp(min=LEAST_CURVATURE)[..., None]
        self.origins = IN_DOUBT * means
        self.units = torch.cat([of_logits * inside + penalty[:, None, None], of_logits], 2).rsqrt()

    def of(self, weights: Float[Tensor, "folds classes d"], biases: Float[Tensor, "folds classes"]) -> np.ndarray:
        at_origins = biases + (weights * self.origins).sum(2)
        return _flat(torch.cat([weights, at_origins[..., None]], 2) / self.units)

    def back(self, flat: np.ndarray) -> tuple[Float[Tensor, "folds classes d"], Float[Tensor, "folds classes"]]:
        """Weights and biases."""
        table = self.units * torch.from_numpy(flat).to(self.units).view_as(self.units)
        weights, at_origins = table[..., :-1], table[..., -1]
        return weights, at_origins - (weights * self.origins).sum(2)

    def slope(
        self, by_weights: Float[Tensor, "folds classes d"], by_biases: Float[Tensor, "folds classes"]
    ) -> np.ndarray:
        """Along these coordinates."""
        by_biases = by_biases[..., None]
        return _flat(torch.cat([by_weights - self.origins * by_biases, by_biases], 2) * self.units)


def _flat(table: Tensor) -> np.ndarray:
    return table.double().flatten().cpu().numpy()


class Projected:
    """n points along their main directions, the widest shortened (`reference.spread`), in units of their standard
    deviation (over all directions together)."""

    def __init__(self, features: Float[Tensor, "n d"], labels: Int64[Tensor, " M"]) -> None:
        """`labels` are true and of the last M points."""
        self.centre = features.mean(0)
        x = features - self.centre
        directions = torch.linalg.eigh(x.T @ x).eigenvectors[:, -MOST_DIRECTIONS:]
        x = x @ directions
        known = Points(x[len(x) - len(labels) :], labels)
        self.lengths = scales(inside_classes(known)).to(x)
        x *= self.lengths
        self.unit = float(x.square().sum(1).mean()) ** 0.5 or 1.0
        self.x = x.div_(self.unit)
        self.directions = directions * (self.lengths / self.unit)

    def on_features(
        self, weights: Float[Tensor, "folds classes directions"], biases: Float[Tensor, "folds classes"]
    ) -> tuple[Float[Tensor, "folds classes d"], Float[Tensor, "folds classes"]]:
        """What gives the features themselves the same logits."""
        weights = weights @ self.directions.T
        return weights, biases - weights @ self.centre

    def from_features(
        self, weights: Float[Tensor, "folds classes d"], biases: Float[Tensor, "folds classes"]
    ) -> tuple[Float[Tensor, "folds classes directions"], Float[Tensor, "folds classes"]]:
        """The other way round, as far as the directions go."""
        return weights @ (self.directions / (self.lengths / self.unit).square()), biases + weights @ self.centre


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
        self.start: tuple[Tensor, Tensor] | None = None
        """Weights and finite biases to begin with; zero, where nothing is known."""

    def solve(
        self,
        targets: Float[Tensor, "folds n classes"],
        inverse_penalty: float,
        offsets: Sequence[Offset] = (),
        *,
        tolerance: float | None = None,
    ) -> Fitted:
        """With these targets and this C; begins where the last one ended, and ends where the relative fall of the loss
        in a step is below `tolerance`, by default `LOSS_TOLERANCE`. `offsets` of runs of points that follow each other,
        as many as there are: what is added to their logits, and is no part of what is returned."""
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
        penalty = 1 / (inverse_penalty * self.counts)
        coordinates = Coordinates(self.pull, self.mass, self.spread, penalty)
        start = coordinates.of(*(self.start or (torch.zeros_like(self.pull), torch.zeros_like(self.mass))))
        options = {"ftol": tolerance or LOSS_TOLERANCE, "gtol": 0.0, "maxiter": MOST_STEPS}

        def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
            value, *slopes = self._objective(*coordinates.back(flat), penalty)
            return value, coordinates.slope(*slopes)

        found = minimize(objective, start, method="L-BFGS-B", jac=True, options=options)
        weights, biases = self.start = coordinates.back(found.x)
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

    def _objective(
        self,
        weights: Float[Tensor, "folds classes d"],
        biases: Float[Tensor, "folds classes"],
        penalty: Float[Tensor, " folds"],
    ) -> tuple[float, Tensor, Tensor]:
        """The value, summed over the folds, and its slopes by weights and biases."""
        penalty = penalty[:, None, None]

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
        return float(value), slope, by_bias


def best_penalty(
    fit: Callable[[float], Made], inverse_penalties: Sequence[float], better: Callable[[Made, Made], bool]
) -> tuple[Made, float]:
    """The best of what is fitted, and its C: of rising ones from the middle on, for as long as the next one is better
    than the last; where no larger one is, downwards."""
    start = len(inverse_penalties) // 2
    best, chosen = fit(inverse_penalties[start]), start
    for way in (range(start + 1, len(inverse_penalties)), range(start - 1, -1, -1)):
        for place in way if chosen == start else ():
            tried = fit(inverse_penalties[place])
            if not better(tried, best):
                break
            best, chosen = tried, place
    return best, inverse_penalties[chosen]


def losses(probability: Float[Tensor, "n classes"]) -> Float[Tensor, "n classes"]:
    """ℓ = −log (δ + (1 − C δ) p): finite, and equal to −log p where that matters."""
    return -torch.log(LEAST_PROBABILITY + (1 - probability.shape[1] * LEAST_PROBABILITY) * probability)
