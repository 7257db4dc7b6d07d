"""Many small problems side by side: what `sinkhorn.solve` does with every one of them.

Alone, a problem of a few points costs what a hundred calls cost. Here the last dimension of every table counts the
problems, so that each call runs along them, whatever their size. A problem takes the steps that it takes alone and
stands still once it has converged: its answer does not depend on its neighbours.

A problem of fewer points than the tables have room for weighs the rest 0, and repeats one of its own costs there.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from sava_ops.ot.acceleration import DEPTH, AndersonSideBySide
from sava_ops.ot.sinkhorn import ANNEALING_FACTOR, MOST_SETBACK, SAFE_LOG_SCALING, Problem

TABLES, VECTORS = 5, 16
"""Numbers held at most for each pair of points, and for each point, beside the acceleration's."""


@dataclass(frozen=True)
class Transports:
    """Solved problems; see `sinkhorn.Transport`."""

    cost: Float[Tensor, " problems"]
    marginal_error: Float[Tensor, " problems"]
    sweeps: Int64[Tensor, " problems"]


def bytes_of_problem(n: int, m: int, itemsize: int) -> int:
    """What `solve_side_by_side` holds for each problem of n × m points, its costs included."""
    acceleration = 8 * DEPTH * 4 * (m + DEPTH)
    return itemsize * (TABLES * n * m + VECTORS * (n + m)) + acceleration


def solve_side_by_side(
    cost: Float[Tensor, "n m problems"],
    a: Float[Tensor, "n problems"],
    b: Float[Tensor, "m problems"],
    problem: Problem,
) -> Transports:
    """Solve all of them; each of `a` and `b` sums to 1, and is 0 where a problem has no point."""
    lanes = _Lanes(cost, a, b, problem)
    found = Transports(a.new_empty(a.shape[1]), a.new_empty(a.shape[1]), lanes.sweeps.clone())
    for number in range(1, problem.max_sweeps + 1):
        lanes.look(number)
        left = 0 if number == problem.max_sweeps else int(lanes.moving.sum())
        if 2 * left <= len(lanes.moving):
            # Those that stand still cost as much as the others.
            lanes.tell(found)
            if not left:
                break
            lanes.keep(lanes.moving.nonzero()[:, 0])
        lanes.step()
    return found


class _Lanes:
    """The problems on their way; compare `sinkhorn._Solver`."""

    def __init__(self, cost: Tensor, a: Tensor, b: Tensor, problem: Problem) -> None:
        self.problem, self.cost, self.a, self.b = problem, cost, a, b
        self.log_a, self.log_b = a.log(), b.log()
        self.entries, self.spare = torch.empty_like(cost), torch.empty_like(cost)
        self.numbers = torch.arange(cost.shape[-1], device=cost.device)
        self.moving, self.sweeps = torch.ones_like(self.numbers, dtype=torch.bool), torch.zeros_like(self.numbers)
        self.least = self.error = torch.full_like(a[0], math.inf)
        self.accelerated = AndersonSideBySide(b)
        self.g = self._annealed()
        self.absorbed = self.g
        self.first = _absorb(cost, self.g, self.log_b, problem.epsilon, out=self.entries, scale=a)
        self.f = self.safe = self.first
        self.log_u, self.log_v, self.v = torch.zeros_like(a), torch.zeros_like(b), torch.ones_like(b)

    def _annealed(self) -> Tensor:
        """Each from its own largest cost down to the ε of all."""
        epsilon, g = self.cost.amax((0, 1)), torch.zeros_like(self.b)
        while bool((hot := epsilon > self.problem.epsilon).any()):
            # Those that wait for the others have no use for what they compute.
            now = epsilon.clamp(min=self.problem.epsilon)
            f = _absorb(self.cost, g, self.log_b, now, out=self.entries)
            image = _column_potential(self.cost, f, self.log_a, now, out=self.entries)
            g = torch.where(hot, self.problem.damping * image, g)
            epsilon = torch.where(hot, ANNEALING_FACTOR * epsilon, epsilon)
        return g

    def look(self, number: int) -> None:
        """Where all stand, after a rebuild of those that went beyond the number format."""
        reach = self._errors()
        far = (self.moving & ~(reach < SAFE_LOG_SCALING)).nonzero()[:, 0]
        if len(far):
            self._rebuild(far)
            self._errors()
        self.sweeps[self.moving] = number
        self.safe = self.f
        setback = (self.moving & (self.error > MOST_SETBACK * self.least)).nonzero()[:, 0]
        if len(setback):
            self.accelerated.pause(setback)
        self.least = torch.fmin(self.least, self.error)
        self.moving &= ~(self.error <= self.problem.tolerance)

    def _errors(self) -> Float[Tensor, " problems"]:
        """Notes the error of each second marginal; the largest log scaling."""
        self.u = self.log_u.exp()
        self.columns = torch.mul(self.entries, self.u[:, None], out=self.spare).sum(0)
        self.error = (self.v * self.columns - self.problem.column_marginal(self.b, self.g)).abs().sum(0)
        return torch.cat([self.log_u, self.log_v]).abs_().amax(0)

    def _rebuild(self, far: Int64[Tensor, " k"]) -> None:
        """One step in the log domain instead of the last one, and kernels around it."""
        self.accelerated.pause(far)
        epsilon, cost = self.problem.epsilon, self.cost.index_select(-1, far)
        entries = torch.empty_like(cost)
        image = _column_potential(cost, self.safe[:, far], self.log_a[:, far], epsilon, out=entries)
        g = self.problem.damping * image
        f = _absorb(cost, g, self.log_b[:, far], epsilon, out=entries, scale=self.a[:, far])
        self.entries[..., far] = entries
        lanes = torch.zeros_like(self.moving).index_fill_(0, far, True)
        for name, value in {"g": g, "absorbed": g, "first": f, "f": f}.items():
            setattr(self, name, getattr(self, name).index_copy(1, far, value))
        for name, value in {"log_u": 0.0, "log_v": 0.0, "v": 1.0}.items():
            setattr(self, name, getattr(self, name).masked_fill(lanes, value))

    def step(self) -> None:
        """One sweep of those that move."""
        epsilon = self.problem.epsilon
        image = self.problem.damping * (self.absorbed + epsilon * (self.log_b - self.columns.log()))
        # Where there is no point, there is no potential to move.
        g = self.accelerated.step(self.g, torch.where(self.b > 0, image, self.g))
        self.g = torch.where(self.moving, g, self.g)
        self.log_v = (self.g - self.absorbed) / epsilon
        self.v = self.log_v.exp()
        rows = torch.mul(self.entries, self.v, out=self.spare).sum(1)
        self.log_u = torch.where(self.moving & (self.a > 0), self.log_a - rows.log(), self.log_u)
        self.f = self.first + epsilon * self.log_u

    def tell(self, found: Transports) -> None:
        """⟨π, C⟩ of π = diag(u) K diag(v), and how far each came."""
        by_row = torch.mul(self.entries, self.cost, out=self.spare).mul_(self.v).sum(1)
        found.cost[self.numbers] = (self.u * by_row).sum(0)
        found.marginal_error[self.numbers] = self.error
        found.sweeps[self.numbers] = self.sweeps

    def keep(self, lanes: Int64[Tensor, " k"]) -> None:
        """Go on with these alone."""
        del self.spare
        for name, value in vars(self).items():
            if isinstance(value, Tensor):
                setattr(self, name, value.index_select(-1, lanes))
        self.accelerated.keep(lanes)
        self.spare = torch.empty_like(self.cost)


def _absorb(
    cost: Tensor, g: Tensor, log_b: Tensor, epsilon: float | Tensor, *, out: Tensor, scale: Tensor | None = None
) -> Float[Tensor, "n problems"]:
    """The f that belongs to g; `out` becomes the kernel around both, if its rows are to sum to `scale`."""
    torch.sub((g + epsilon * log_b)[None], cost, out=out).div_(epsilon)
    top, total = _exponentials(out, 1)
    if scale is not None:
        out.mul_((scale / total)[:, None])
    return -epsilon * (top + total.log())


def _column_potential(
    cost: Tensor, f: Tensor, log_a: Tensor, epsilon: float | Tensor, *, out: Tensor
) -> Float[Tensor, "m problems"]:
    """−ε log Σ_k a_k e^{(f_k − C_kl)/ε}; overwrites `out`."""
    torch.sub((f + epsilon * log_a)[:, None], cost, out=out).div_(epsilon)
    top, total = _exponentials(out, 0)
    return -epsilon * (top + total.log())


def _exponentials(table: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """The largest number along a dimension, and the sum of the exponentials relative to it, which `table` becomes."""
    top = table.amax(dim)
    table.sub_(top.unsqueeze(dim)).exp_()
    return top, table.sum(dim)
