"""From batch pairs to point values, the upper level of the hierarchical transport (SAVA Algorithm 1, lines 6-10).

    g_ij[k] = f_ij[k] − (1/(n_i − 1)) Σ_{k'≠k} f_ij[k']                    calibrated gradient (Eq. 6, 14)
    π̄       = entropic plan between batches, cost C̄, masses a_i = n_i/N and b_j = m_j/M    (Eq. 7, 9-11)
    s_k     = Σ_j (π̄[i,j] / a_i) g_ij[k]     for point k of batch i        (Eq. 12-13)

High value = far from the reference distribution = prune first. The same sum over the potentials of other labels says
whether the image or its label is to blame (`sava_ops.decomposition`).

Differs from the authors' code in: 1. the batch plan has the batches' masses as marginals (theirs: all ones).
2. dividing by a_i makes batches of different sizes comparable. 3. no tanh.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from sava_ops.config import ValuationConfig
from sava_ops.decomposition import Scores, decompose
from sava_ops.ot.sinkhorn import Problem, solve
from sava_ops.transport import BatchRow

PLAN_TOLERANCE = 1e-6


@dataclass(frozen=True)
class BatchPlan:
    """The transport between batches (Alg. 1, l. 6)."""

    plan: Float[np.ndarray, "K L"]
    """π̄, total mass 1, rows summing to a."""
    weights: Float[np.ndarray, "K L"]
    """How much each reference batch counts for a training batch; rows sum to 1. π̄[i,j]/a_i, or 1/L."""
    batch_gradient: Float[np.ndarray, " K"]
    """G_i, calibrated gradient of the batch mass (Eq. 10), units of cost; 0 unless `hierarchical`."""
    marginal_error: float
    """L1 error of the second marginal."""
    converged: bool


def plan_batches(
    costs: Float[np.ndarray, "K L"], train_sizes: Sequence[int], reference_sizes: Sequence[int], config: ValuationConfig
) -> BatchPlan:
    """π̄ between batches of the given sizes (Eq. 7), in float64; ε and ρ relative to the batch costs."""
    cost = torch.from_numpy(costs).double()
    a, b = (torch.tensor(sizes, dtype=torch.float64) / sum(sizes) for sizes in (train_sizes, reference_sizes))
    unit = float(cost.max()) or 1.0
    problem = Problem(config.plan_epsilon * unit, config.rho * unit, PLAN_TOLERANCE, config.max_sweeps)
    solved = solve(cost, a, b, problem)
    plan = solved.plan(cost, a, b, problem.epsilon)
    uniform_weights = torch.full_like(plan, 1 / plan.shape[1])
    gradient = calibrated_gradient(solved.f[:, None, None], solved.f[:, None])[:, 0, 0]
    if not config.hierarchical:
        gradient = torch.zeros_like(gradient)
    return BatchPlan(
        plan=plan.numpy(),
        weights=(plan / a[:, None] if config.batch_weights == "plan" else uniform_weights).numpy(),
        batch_gradient=gradient.numpy(),
        marginal_error=solved.marginal_error,
        converged=solved.converged,
    )


def batch_scores(row: BatchRow, plan: BatchPlan, batch: int, config: ValuationConfig) -> tuple[Scores, Scores]:
    """s_k of the points of one training batch (Alg. 1, l. 7-10; Eq. 12-13), and of the reference points with it."""
    pool = row.labels, row.potentials, row.rest
    clean = row.held_out_labels, row.held_out_potentials, row.held_out_rest
    scores = [
        decompose(labels, *values_by_label(f, rest, row, plan, batch, config), nat=float(row.nat))
        for labels, f, rest in (pool, clean)
    ]
    return scores[0], scores[1]


def values_by_label(
    potentials: Float[Tensor, "k L T"],
    rest: Float[Tensor, "k L"],
    row: BatchRow,
    plan: BatchPlan,
    batch: int,
    config: ValuationConfig,
) -> tuple[Float64[Tensor, "k T"], Float64[Tensor, " k"]]:
    """s_k under every label kept, and r of all further ones, in the company of the points of this row."""
    together = torch.cat([potentials, rest[:, :, None]], 2).double()
    found = potential_values(together, row.potentials[:, :, 0].double(), plan, batch, config)
    return found[:, :-1], found[:, -1]


def potential_values(
    potentials: Float64[Tensor, "k L T"],
    own: Float64[Tensor, "n L"],
    plan: BatchPlan,
    batch: int,
    config: ValuationConfig,
) -> Float64[Tensor, "k T"]:
    """s_k under every label, in the company of the points of one training batch, whose potentials are `own`."""
    weights = torch.from_numpy(plan.weights[batch]).to(own.device)
    gradient = calibrated_gradient(potentials, own) if config.gradient == "calibrated" else potentials
    return _combined(gradient, weights) + plan.batch_gradient[batch]


def calibrated_gradient(potentials: Float[Tensor, "k L T"], own: Float[Tensor, "n L"]) -> Float[Tensor, "k L T"]:
    """g_ij (Eq. 6, 14), units of cost: change of the cost per unit of mass moved onto a point from those of its batch.

    `own` are the batch's potentials. The free constant of a balanced potential drops out. A batch of one point has
    gradient 0, but where a label is no choice.
    """
    n = len(own)
    if n == 1:
        return potentials.masked_fill(potentials.isfinite(), 0.0)
    return (potentials - own.mean(0)[:, None]) * (n / (n - 1))


def _combined(gradients: Float[Tensor, "n L T"], weights: Float[Tensor, " L"]) -> Float[Tensor, "n T"]:
    """Σ_j (π̄[i,j] / a_i) g_ij[k]; infinite where a gradient is."""
    finite = torch.einsum("nlt,l->nt", gradients.nan_to_num(0.0, posinf=0.0), weights)
    return finite.masked_fill(gradients.isinf().any(1), torch.inf)
