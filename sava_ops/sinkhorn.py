"""Entropic optimal transport: balanced and semi-unbalanced (Cuturi 2013; Peyré & Cuturi 2019, ch. 4 and 10).

    min_π  ⟨π, C⟩ + ε KL(π ‖ a ⊗ b) + ρ KL(πᵀ1 ‖ b)     with  π1 = a

`ρ = ∞` is balanced transport (πᵀ1 = b exactly), `ρ → 0` a soft nearest neighbour. The optimum has the form
`π = a_k b_l e^{(f_k + g_l − C_kl)/ε}`, and Sinkhorn's sweep alternates

    f ← −ε log Σ_l b_l e^{(g_l − C_kl)/ε}                                       (rows of π sum to a)
    g ← −τ ε log Σ_k a_k e^{(f_k − C_kl)/ε},    τ = ρ / (ρ + ε)                 (columns sum to b e^{−g/ρ})

the second of them with Anderson acceleration (`sava_ops.acceleration`). Each sweep is two matrix-vector products with a
kernel `K` that has potentials absorbed into it; when the scalings leave the safe range, one sweep is made in the log
domain and `K` is built anew (Schmitzer 2019, "stabilized").
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from sava_ops.acceleration import Anderson
from sava_ops.errors import BadInput

ANNEALING_FACTOR = 0.5
MOST_SETBACK = 2.0
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

    def column_marginal(self, b: Float[Tensor, " m"], g: Float[Tensor, " m"]) -> Float[Tensor, " m"]:
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
    state, accelerated = _Sweeper(cost, a, b, problem), Anderson()
    g = state.annealed_start() if start is None else start.clone()
    f = state.absorb(g)
    u, v = a.new_ones(len(a)), b.new_ones(len(b))
    error = least = math.inf
    sweep = 0
    for sweep in range(1, problem.max_sweeps + 1):
        columns = state.kernel.T @ u
        # The rows are exact here, so this is the error of the plan (f, g) as it stands.
        error = float((v * columns - problem.column_marginal(b, g)).abs().sum())
        if error <= problem.tolerance or sweep == problem.max_sweeps:
            break
        if error > MOST_SETBACK * least:
            accelerated.pause()
        least = min(least, error)
        g = accelerated.step(g, state.column_update(columns))
        v = torch.exp((g - state.g) / problem.epsilon)
        u = a / (state.kernel @ v)
        if not state.safe(u, v):
            accelerated.pause()
            g = state.log_columns(f)
            f = state.absorb(g)
            u, v = a.new_ones(len(a)), b.new_ones(len(b))
            continue
        f = state.f + problem.epsilon * torch.log(u)
    plan_cost = float(u @ (state.kernel.mul_(cost) @ v))
    return Transport(f, g, plan_cost, error, sweep, error <= problem.tolerance)


class _Sweeper:
    """The kernel of one problem with potentials (f, g) absorbed, in one buffer that every sweep reuses."""

    def __init__(self, cost: Tensor, a: Tensor, b: Tensor, problem: Problem) -> None:
        self.cost, self.a, self.b, self.problem = cost, a, b, problem
        self.log_a, self.log_b = a.log(), b.log()
        self.kernel = torch.empty_like(cost)
        self.f, self.g = torch.zeros_like(a), torch.zeros_like(b)

    def absorb(self, g: Tensor, epsilon: float | None = None) -> Tensor:
        """f for this g, in the log domain; leaves π(f, g) in the buffer and returns f."""
        epsilon = epsilon or self.problem.epsilon
        torch.sub((g + epsilon * self.log_b)[None, :], self.cost, out=self.kernel).div_(epsilon)
        top = self.kernel.amax(1)
        self.kernel.sub_(top[:, None]).exp_()
        total = self.kernel.sum(1)
        self.kernel.mul_((self.a / total)[:, None])
        self.f, self.g = -epsilon * (top + total.log()), g
        return self.f

    def log_columns(self, f: Tensor, epsilon: float | None = None) -> Tensor:
        """g for this f, in the log domain; overwrites the buffer."""
        epsilon = epsilon or self.problem.epsilon
        torch.sub((f + epsilon * self.log_a)[:, None], self.cost, out=self.kernel).div_(epsilon)
        return -self.problem.damping * epsilon * torch.logsumexp(self.kernel, 0)

    def column_update(self, columns: Tensor) -> Tensor:
        """g from the column sums of the kernel scaled by u."""
        return self.problem.damping * (self.g + self.problem.epsilon * (self.log_b - columns.log()))

    def safe(self, u: Tensor, v: Tensor) -> bool:
        """Whether the scalings are finite and far from the limits of the number format."""
        extremes = torch.stack([u.max(), 1 / u.min(), v.max(), 1 / v.min()])
        return bool((extremes < math.exp(SAFE_LOG_SCALING)).all())

    def annealed_start(self) -> Tensor:
        """A g near the optimum: one log-domain sweep per ε, from the largest cost down to the problem's ε."""
        epsilon, g = float(self.cost.max()), torch.zeros_like(self.b)
        while epsilon > self.problem.epsilon:
            g = self.log_columns(self.absorb(g, epsilon), epsilon)
            epsilon *= ANNEALING_FACTOR
        return g
