"""Entropic optimal transport: balanced and semi-unbalanced (Cuturi 2013; Peyré & Cuturi 2019, ch. 4 and 10).

    min_π  ⟨π, C⟩ + ε KL(π ‖ a ⊗ b) + ρ KL(πᵀ1 ‖ b)     with  π1 = a

`ρ = ∞` is balanced transport (πᵀ1 = b exactly), `ρ → 0` a soft nearest neighbour. The optimum has the form
`π = a_k b_l e^{(f_k + g_l − C_kl)/ε}`, and Sinkhorn's sweep alternates

    f ← −ε log Σ_l b_l e^{(g_l − C_kl)/ε}                                       (rows of π sum to a)
    g ← −τ ε log Σ_k a_k e^{(f_k − C_kl)/ε},    τ = ρ / (ρ + ε)                 (columns sum to b e^{−g/ρ})

the second of them with Anderson acceleration (`ot.acceleration`). Each sweep is two matrix-vector products with
a kernel `K` that has potentials absorbed into it; when the scalings leave the safe range, one sweep is made in the log
domain and `K` is built anew (Schmitzer 2019, "stabilized").
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from sava_ops.errors import BadInput
from sava_ops.ot.acceleration import Anderson

ANNEALING_FACTOR = 0.5
MOST_SETBACK = 5.0
"""Acceleration pauses when the error has grown to this many times its least."""
SAFE_LOG_SCALING = 25.0
"""Scalings in e^±25 times kernel entries down to e^−87 keep every sum of a float32 sweep normal."""


@dataclass(frozen=True)
class Problem:
    """What is solved, and how exactly. All in units of the cost, except the tolerance."""

    epsilon: float
    """ε > 0, entropic regularisation."""
    rho: float = math.inf
    """ρ > 0, price of leaving the second marginal; ∞ = balanced."""
    tolerance: float = 1e-3
    """L1 error allowed on the second marginal (total mass 1)."""
    max_sweeps: int = 10_000

    def __post_init__(self) -> None:
        for name in ("epsilon", "rho", "tolerance"):
            if not getattr(self, name) > 0:
                raise BadInput(f"`{name}` is {getattr(self, name)}: pass a number above 0")
        if self.max_sweeps < 1:
            raise BadInput(f"`max_sweeps` is {self.max_sweeps}: pass a whole number of at least 1")

    @property
    def damping(self) -> float:
        """τ = ρ / (ρ + ε)."""
        return 1.0 if math.isinf(self.rho) else self.rho / (self.rho + self.epsilon)

    def column_marginal(self, b: Float[Tensor, " *sizes"], g: Float[Tensor, " *sizes"]) -> Float[Tensor, " *sizes"]:
        """What the columns of π sum to at the optimum: b, or b e^{−g/ρ}."""
        return b if math.isinf(self.rho) else b * torch.exp(-g / self.rho)


@dataclass(frozen=True)
class Transport:
    """A solved problem. The first marginal is exact, the second within `marginal_error`."""

    f: Float[Tensor, " n"]
    """First potential, units of cost. Balanced: defined up to a constant. Semi-unbalanced: absolute."""
    g: Float[Tensor, " m"]
    """Second potential, units of cost."""
    cost: float
    """⟨π, C⟩, without the entropic and marginal terms."""
    marginal_error: float
    """L1 distance of the second marginal of π from what optimality asks."""
    sweeps: int
    converged: bool
    """Whether `marginal_error` is within the problem's tolerance."""

    def plan(
        self, cost: Float[Tensor, "n m"], a: Float[Tensor, " n"], b: Float[Tensor, " m"], epsilon: float
    ) -> Float[Tensor, "n m"]:
        """π (n, m), from the potentials; the first marginal is `a`."""
        return a[:, None] * b[None, :] * torch.exp((self.f[:, None] + self.g[None, :] - cost) / epsilon)


def uniform(size: int, like: Tensor) -> Float[Tensor, " size"]:
    """The uniform measure on `size` points."""
    return torch.full((size,), 1.0 / size, dtype=like.dtype, device=like.device)


class Kernel(ABC):
    """The entries e^{(f_k + g_l − C_kl)/ε} a_k b_l of one problem, around absorbed potentials."""

    a: Float[Tensor, " n"]
    b: Float[Tensor, " m"]
    g: Float[Tensor, " m"]
    """The absorbed second potential."""

    @abstractmethod
    def absorb(self, g: Float[Tensor, " m"]) -> Float[Tensor, " n"]:
        """Build the kernel around g and the f that belongs to it; returns f."""

    @abstractmethod
    def rows(self, v: Float[Tensor, " m"]) -> Float[Tensor, " n"]:
        """K v."""

    @abstractmethod
    def columns(self, u: Float[Tensor, " n"]) -> Float[Tensor, " m"]:
        """Kᵀ u."""

    @abstractmethod
    def log_columns(self, f: Float[Tensor, " n"]) -> Float[Tensor, " m"]:
        """log Σ_k a_k e^{(f_k − C_kl)/ε}, in the log domain. The kernel must be built anew afterwards."""

    @abstractmethod
    def transport_cost(
        self, u: Float[Tensor, " n"], v: Float[Tensor, " m"], columns: Float[Tensor, " m"]
    ) -> Float[Tensor, ""]:
        """⟨π, C⟩ of π = diag(u) K diag(v), whose rows sum to a; `columns` = Kᵀ u."""


def solve(
    cost: Float[Tensor, "n m"],
    a: Float[Tensor, " n"],
    b: Float[Tensor, " m"],
    problem: Problem,
    *,
    start: Float[Tensor, " m"] | None = None,
) -> Transport:
    """Solve one problem; `start` is a second potential to begin with (without it, ε is annealed from max C).

    `a` and `b` must be positive and sum to 1. Not reaching the tolerance in `max_sweeps` is a stated outcome
    (`converged`), not an error.
    """
    kernel = DenseKernel(cost, a, b, problem.epsilon)
    return sweep([kernel], problem, [_annealed(kernel, problem) if start is None else start])[0]


def sweep(kernels: Sequence[Kernel], problem: Problem, starts: Sequence[Float[Tensor, " _"]]) -> list[Transport]:
    """Sinkhorn's sweeps from second potentials, over several kernels in step.

    Each is solved as it would be alone; in step, so that a GPU is asked for an answer once a sweep and not once for
    every kernel.
    """
    solvers = [_Solver(kernel, problem, start) for kernel, start in zip(kernels, starts, strict=True)]
    moving = solvers
    for number in range(1, problem.max_sweeps + 1):
        told = _looks(moving)
        # Finite, and far from the limits of the number format.
        far = [solver for solver, (_, reach) in told.items() if not reach < SAFE_LOG_SCALING]
        for solver in far:
            solver.rebuild()
        if far:
            told |= _looks(far)
        for solver, (error, _) in told.items():
            solver.note(error, number)
        moving = [solver for solver in moving if not (solver.error <= problem.tolerance)]
        if not moving or number == problem.max_sweeps:
            break
        for solver in moving:
            solver.step()
    costs = torch.stack([solver.cost() for solver in solvers]).tolist()
    return [solver.transport(cost) for solver, cost in zip(solvers, costs, strict=True)]


def _looks(solvers: Sequence["_Solver"]) -> dict["_Solver", list[float]]:
    """What each sees; one question to the device."""
    return dict(zip(solvers, torch.stack([solver.look() for solver in solvers]).tolist(), strict=True))


class _Solver:
    """One problem on its way."""

    def __init__(self, kernel: Kernel, problem: Problem, start: Float[Tensor, " m"]) -> None:
        self.kernel, self.problem, self.g = kernel, problem, start.clone()
        self.log_a, self.log_b = kernel.a.log(), kernel.b.log()
        self.accelerated, self.least, self.error, self.sweeps = Anderson(), math.inf, math.inf, 0
        self._absorb()
        self.safe = self.f

    def _absorb(self) -> None:
        self.first = self.f = self.kernel.absorb(self.g)
        self.log_u, self.log_v = torch.zeros_like(self.log_a), torch.zeros_like(self.log_b)
        self.v = torch.ones_like(self.log_b)

    def look(self) -> Float[Tensor, "2"]:
        """L1 error of the second marginal of the plan as it stands, whose rows are exact; the largest log scaling."""
        self.u = self.log_u.exp()
        self.columns = self.kernel.columns(self.u)
        off = self.v * self.columns - self.problem.column_marginal(self.kernel.b, self.g)
        farthest = torch.cat([self.log_u, self.log_v]).abs_().max()
        return torch.stack([torch.linalg.vector_norm(off, 1), farthest])

    def rebuild(self) -> None:
        """The last step went beyond the number format: one in the log domain instead, and a kernel around it."""
        self.accelerated.pause()
        self.g = -self.problem.damping * self.problem.epsilon * self.kernel.log_columns(self.safe)
        self._absorb()

    def note(self, error: float, number: int) -> None:
        self.error, self.sweeps, self.safe = error, number, self.f
        if error > MOST_SETBACK * self.least:
            self.accelerated.pause()
        self.least = min(self.least, error)

    def step(self) -> None:
        epsilon, kernel = self.problem.epsilon, self.kernel
        image = self.problem.damping * (kernel.g + epsilon * (self.log_b - self.columns.log()))
        self.g = self.accelerated.step(self.g, image)
        self.log_v = (self.g - kernel.g) / epsilon
        self.v = self.log_v.exp()
        self.log_u = self.log_a - kernel.rows(self.v).log()
        self.f = self.first + epsilon * self.log_u

    def cost(self) -> Float[Tensor, ""]:
        return self.kernel.transport_cost(self.u, self.v, self.columns)

    def transport(self, cost: float) -> Transport:
        converged = self.error <= self.problem.tolerance
        return Transport(self.f, self.g, cost, self.error, self.sweeps, converged)


class DenseKernel(Kernel):
    """The kernel of any cost matrix, in one buffer that every sweep reuses."""

    def __init__(
        self, cost: Float[Tensor, "n m"], a: Float[Tensor, " n"], b: Float[Tensor, " m"], epsilon: float
    ) -> None:
        self.cost, self.a, self.b, self.epsilon = cost, a, b, epsilon
        self.entries = torch.empty_like(cost)

    def absorb(self, g: Float[Tensor, " m"]) -> Float[Tensor, " n"]:
        self.g = g
        torch.sub((g + self.epsilon * self.b.log())[None, :], self.cost, out=self.entries).div_(self.epsilon)
        top = self.entries.amax(1)
        self.entries.sub_(top[:, None]).exp_()
        total = self.entries.sum(1)
        self.entries.mul_((self.a / total)[:, None])
        return -self.epsilon * (top + total.log())

    def rows(self, v: Float[Tensor, " m"]) -> Float[Tensor, " n"]:
        return self.entries @ v

    def columns(self, u: Float[Tensor, " n"]) -> Float[Tensor, " m"]:
        return self.entries.T @ u

    def log_columns(self, f: Float[Tensor, " n"]) -> Float[Tensor, " m"]:
        torch.sub((f + self.epsilon * self.a.log())[:, None], self.cost, out=self.entries).div_(self.epsilon)
        return torch.logsumexp(self.entries, 0)

    def transport_cost(
        self,
        u: Float[Tensor, " n"],
        v: Float[Tensor, " m"],
        columns: Float[Tensor, " m"],  # noqa: ARG002
    ) -> Float[Tensor, ""]:
        return u @ (self.entries.mul_(self.cost) @ v)


def _annealed(kernel: DenseKernel, problem: Problem) -> Tensor:
    """A g near the optimum: one log-domain sweep per ε, from the largest cost down to the problem's ε."""
    epsilon, g = float(kernel.cost.max()), torch.zeros_like(kernel.b)
    while epsilon > problem.epsilon:
        kernel.epsilon = epsilon
        g = -problem.damping * epsilon * kernel.log_columns(kernel.absorb(g))
        epsilon *= ANNEALING_FACTOR
    kernel.epsilon = problem.epsilon
    return g
