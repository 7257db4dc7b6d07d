"""Potentials and costs of batch pairs (SAVA Algorithm 1, lines 1-5).

For every training batch B_i and reference batch B'_j, with the ground cost C of `sava_ops.cost`:

    OT_ε(μ_i, ν_j) = min_π ⟨π, C⟩ + ε KL(π ‖ μ_i ⊗ ν_j)  [+ ρ KL(π₂ ‖ ν_j)]

keeping the potential f_ij and the transport cost C̄[i,j] = ⟨π*, C⟩. A row (one training batch against all reference
batches) is a function of its batch, the reference batches and the calibration alone, whoever computes it and when.

Differs from the authors' code in: 1. potential, plan and cost come from one problem on features (theirs: the plan on
pixels). 2. ε and ρ follow the scale of the costs (theirs: ε = 0.1 in raw units). 3. a stated tolerance (theirs: one
step per ε, unchecked).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from sava_ops.config import ValuationConfig
from sava_ops.cost import Points, ground_cost, mean_feature_cost
from sava_ops.label_distance import class_samples, label_distances
from sava_ops.sinkhorn import Problem, Transport, solve, uniform


@dataclass(frozen=True)
class Calibration:
    """What all batch pairs share; computed once and pinned, so that new data changes no existing row."""

    label_distances: Float[Tensor, "classes classes"]
    """W (training class, reference class), squared feature units; NaN where a side lacks the class."""
    scale: float
    """Mean feature cost ½‖x − x'‖² between training sample and reference; ε, ρ are multiples of it."""
    sample: Points
    """Training points from which each reference batch gets its starting potential."""


@dataclass(frozen=True)
class BatchRow:
    """One training batch of n points against L reference batches."""

    potentials: Float[Tensor, "n L"]
    """f_ij, units of cost."""
    costs: Float[Tensor, " L"]
    """C̄[i, :], units of cost."""
    marginal_errors: Float[Tensor, " L"]
    """L1 error of the second marginal."""
    sweeps: Int64[Tensor, " L"]
    converged: Bool[Tensor, " L"]


def calibrate(train: Points, reference: Points, *, classes: int, config: ValuationConfig) -> Calibration:
    """W, scale and starting sample, from (a sample of) the training points and the whole reference set."""
    samples = [class_samples(side, cap=config.class_sample, seed=config.seed) for side in (train, reference)]
    generator = torch.Generator().manual_seed(config.seed)
    chosen = torch.randperm(len(train), generator=generator)[: config.calibration_sample].to(train.labels.device)
    return Calibration(
        label_distances=label_distances(*samples, classes=classes, metric=config.label_metric),
        # Without any spread all costs are 0 and any unit will do.
        scale=mean_feature_cost(train.features, reference.features) or 1.0,
        sample=train.take(chosen),
    )


def calibration_rows(
    labels: Int64[np.ndarray, " N"], *, size: int, per_class: int, seed: int
) -> Int64[np.ndarray, " n"]:
    """Rows of a seeded sample to calibrate from: `size` points of the pool, and `per_class` of every class.

    A pool of at most `size` points is its own sample.
    """
    order = np.random.default_rng(seed).permutation(len(labels))
    rank_in_class = np.empty(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        members = order[labels[order] == label]
        rank_in_class[members] = np.arange(len(members))
    chosen = rank_in_class < per_class
    chosen[order[:size]] = True
    return chosen.nonzero()[0]


def starting_potentials(
    reference_batches: Sequence[Points], calibration: Calibration, config: ValuationConfig
) -> list[Float[Tensor, " _"]]:
    """One warm start (m_j,) per reference batch: the second potential against the calibration's sample."""
    return [_solve_pair(calibration.sample, batch, None, calibration, config).g for batch in reference_batches]


def transport_row(
    batch: Points,
    reference_batches: Sequence[Points],
    starts: Sequence[Tensor],
    calibration: Calibration,
    config: ValuationConfig,
) -> BatchRow:
    """Solve one training batch against every reference batch (Alg. 1, l. 2-5)."""
    solved = [
        _solve_pair(batch, reference, start, calibration, config)
        for reference, start in zip(reference_batches, starts, strict=True)
    ]
    like = batch.features
    return BatchRow(
        potentials=torch.stack([pair.f for pair in solved], 1),
        costs=like.new_tensor([pair.cost for pair in solved]),
        marginal_errors=like.new_tensor([pair.marginal_error for pair in solved]),
        sweeps=torch.tensor([pair.sweeps for pair in solved]),
        converged=torch.tensor([pair.converged for pair in solved]),
    )


def _solve_pair(
    batch: Points, reference: Points, start: Tensor | None, calibration: Calibration, config: ValuationConfig
) -> Transport:
    cost = ground_cost(batch, reference, label_distances=calibration.label_distances, label_weight=config.label_weight)
    unit = calibration.scale
    problem = Problem(config.epsilon * unit, config.rho * unit, config.tolerance, config.max_sweeps)
    return solve(cost, uniform(len(batch), cost), uniform(len(reference), cost), problem, start=start)
