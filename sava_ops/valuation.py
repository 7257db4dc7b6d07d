"""The front door: `value_points`, from two sets of points to an assessment of each training point (SAVA Algorithm 1).

Calibrated once (`sava_ops.calibration`), each training batch transported onto all reference batches
(`sava_ops.transport`), the batches onto each other (`sava_ops.hierarchy`), and what comes out of it held against what
is usual (`sava_ops.judgement`).
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64

from sava_ops.batches import split_batches
from sava_ops.calibration import calibrate
from sava_ops.config import ValuationConfig
from sava_ops.decisions.assessment import Assessment
from sava_ops.hierarchy import plan_batches
from sava_ops.inputs import Array, as_points, class_count, in_their_span
from sava_ops.judgement import assess
from sava_ops.ot.cost import Points
from sava_ops.ot.labelled_kernel import Room
from sava_ops.threads import in_threads
from sava_ops.transport import BatchRow, starting_potentials, transport_row


@dataclass(frozen=True)
class Valuation(Assessment):
    """Values of N training points, and the batch-level transport (K × L batches) they come from."""

    judges: float
    """How many equal reference points tell as much of what is usual (`sava_ops.judgement`)."""
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
    train, reference = in_their_span(train, reference)
    train_rows, reference_rows = (split_points(side, config) for side in (train, reference))
    calibration = calibrate(train, reference, classes=classes, config=config)
    reference_batches = calibration.batches(reference, reference_rows)
    starts = starting_potentials(reference_batches, calibration, config)
    room = Room()

    def row(batch: tuple[int, np.ndarray]) -> BatchRow:
        turn, own = batch
        points = train.take(torch.from_numpy(own).to(device))
        return transport_row(points, reference_batches, starts, calibration, config, turn=turn, room=room)

    rows = list((in_threads if device == "cpu" else map)(row, enumerate(train_rows)))
    costs = torch.stack([row.costs for row in rows]).double().cpu().numpy()
    plan = plan_batches(costs, [len(rows) for rows in train_rows], [len(rows) for rows in reference_rows], config)
    judged = assess(rows, plan, config, noise=calibration.label_noise)
    order = np.concatenate(train_rows).argsort()
    return Valuation(
        **{name: array[order] for name, array in vars(judged.found).items()},
        judges=judged.judges,
        batch_costs=costs,
        batch_plan=plan.plan,
        label_distances=calibration.label_distances.double().cpu().numpy(),
        converged=torch.stack([row.converged for row in rows]).numpy(),
        train_batches=train_rows,
        reference_batches=reference_rows,
    )


def split_points(points: Points, config: ValuationConfig) -> list[Int64[np.ndarray, " _"]]:
    """Rows of each batch."""
    size = config.batch_size or len(points)
    return split_batches(points.labels.cpu().numpy(), batch_size=size, seed=config.seed, batching=config.batching)
