"""From batch pairs to point values (SAVA Algorithm 1, lines 6-10; Eq. 6-13). The front door is `value_points`.

    g_ij[k] = f_ij[k] − (1/(n_i − 1)) Σ_{k'≠k} f_ij[k']                    calibrated gradient (Eq. 6, 14)
    π̄       = entropic plan between batches, cost C̄, masses a_i = n_i/N and b_j = m_j/M    (Eq. 7, 9-11)
    s_k     = Σ_j (π̄[i,j] / a_i) g_ij[k]     for point k of batch i        (Eq. 12-13)

High value = far from the reference distribution = prune first.

Differs from the authors' code in: 1. the batch plan has the batches' masses as marginals (theirs: all ones).
2. dividing by a_i makes batches of different sizes comparable. 3. no tanh.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from sava_ops.batches import split_batches
from sava_ops.config import ValuationConfig
from sava_ops.cost import Points
from sava_ops.inputs import Array, as_points, class_count
from sava_ops.sinkhorn import Problem, solve
from sava_ops.transport import calibrate, starting_potentials, transport_row

PLAN_TOLERANCE = 1e-6


@dataclass(frozen=True)
class Valuation:
    """Values of N training points, and the batch-level transport (K × L batches) they come from."""

    values: Float[np.ndarray, " N"]
    """Point values, units of cost; high = far from the reference = prune first."""
    batch_costs: Float[np.ndarray, "K L"]
    """C̄, units of cost."""
    batch_plan: Float[np.ndarray, "K L"]
    """π̄, total mass 1."""
    label_distances: Float[np.ndarray, "classes classes"]
    """W (training class, reference class), squared feature units; NaN where a side lacks the class."""
    converged: Bool[np.ndarray, "K L"]
    """Whether each batch pair met its tolerance."""
    train_batches: list[Int64[np.ndarray, " _"]]
    """Rows of the training points in each of the K batches."""
    reference_batches: list[Int64[np.ndarray, " _"]]
    """Rows of the reference points in each of the L batches."""


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


def value_points(
    train_features: Array,
    train_labels: Array,
    reference_features: Array,
    reference_labels: Array,
    *,
    config: ValuationConfig = ValuationConfig(),  # noqa: B008 (frozen)
    device: str = "cpu",
) -> Valuation:
    """Value every training point by how far it pulls the training distribution from the reference (Alg. 1).

    Features are (N, d) and (M, d), labels (N,) and (M,) integers ≥ 0 that mean the same class on both sides; numpy or
    torch. float64 features are computed in float64, all others in float32. Raises BadInput for anything else.
    """
    train = as_points(train_features, train_labels, side="training", unit_norm=config.unit_norm, device=device)
    reference = as_points(
        reference_features, reference_labels, side="reference", unit_norm=config.unit_norm, device=device
    )
    classes = class_count(train, reference)
    train_rows, reference_rows = (_split(side, config) for side in (train, reference))
    reference_batches = [reference.take(torch.from_numpy(rows).to(device)) for rows in reference_rows]
    calibration = calibrate(train, reference, classes=classes, config=config)
    starts = starting_potentials(reference_batches, calibration, config)
    rows = [
        transport_row(train.take(torch.from_numpy(rows).to(device)), reference_batches, starts, calibration, config)
        for rows in train_rows
    ]
    costs = torch.stack([row.costs for row in rows]).double().cpu().numpy()
    plan = plan_batches(costs, [len(rows) for rows in train_rows], [len(rows) for rows in reference_rows], config)
    values = np.empty(len(train))
    for i, (batch_rows, row) in enumerate(zip(train_rows, rows, strict=True)):
        values[batch_rows] = batch_values(row.potentials, plan, i, config)
    return Valuation(
        values=values,
        batch_costs=costs,
        batch_plan=plan.plan,
        label_distances=calibration.label_distances.double().cpu().numpy(),
        converged=torch.stack([row.converged for row in rows]).numpy(),
        train_batches=train_rows,
        reference_batches=reference_rows,
    )


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
    gradient = calibrated_gradient(solved.f[:, None])[:, 0] if config.hierarchical else torch.zeros_like(solved.f)
    return BatchPlan(
        plan=plan.numpy(),
        weights=(plan / a[:, None] if config.batch_weights == "plan" else uniform_weights).numpy(),
        batch_gradient=gradient.numpy(),
        marginal_error=solved.marginal_error,
        converged=solved.converged,
    )


def calibrated_gradient(potentials: Float[Tensor, "n L"]) -> Float[Tensor, "n L"]:
    """g_ij (Eq. 6, 14), units of cost: change of the cost per unit of mass moved onto a point from the others.

    The free constant of a balanced potential drops out. A batch of one point has gradient 0.
    """
    n = len(potentials)
    if n == 1:
        return torch.zeros_like(potentials)
    return (potentials - potentials.mean(0)) * (n / (n - 1))


def batch_values(
    potentials: Float[Tensor, "n L"], plan: BatchPlan, batch: int, config: ValuationConfig
) -> Float[np.ndarray, " n"]:
    """s_k of the points of one training batch (Alg. 1, l. 7-10; Eq. 12-13), units of cost."""
    gradient = calibrated_gradient(potentials) if config.gradient == "calibrated" else potentials
    values = gradient.double().cpu().numpy() @ plan.weights[batch]
    return values + plan.batch_gradient[batch]


def _split(points: Points, config: ValuationConfig) -> list[Int64[np.ndarray, " _"]]:
    size = config.batch_size or len(points)
    return split_batches(points.labels.cpu().numpy(), batch_size=size, seed=config.seed, batching=config.batching)
