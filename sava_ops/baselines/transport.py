"""Transport as a baseline: our own front door under every preset, and two ways the authors' program goes.

SAVA, LAVA and batch-wise LAVA are `value_points` with a preset (`sava_ops.config`; on the features as they come, so
those of the caller's frame). By the same sum over batch pairs (`sava_ops.hierarchy`):

- `annealed_score` replays the authors' annealing (geomloss, `scaling` 0.5) on the paper's problem: for ε from max C
  down to 0.02 · mean feature cost, a quarter each time,

      f, g ← ½ (f − ε log Σ_l b_l e^{(g_l − C_kl)/ε}),  ½ (g − ε log Σ_k a_k e^{(f_k − C_kl)/ε})     both from the old

  once, and a last time without the ½. It stops there, whatever the marginals are.
- `uncached_score` computes the label distances W anew for every pair of batches, from the points of that pair.

O(N M d) and a sweep over the pairs for every step; memory for one pair of batches, for LAVA of all points.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sava_ops.calibration import Calibration, calibrate
from sava_ops.config import ValuationConfig
from sava_ops.decomposition import MOST_LABELS
from sava_ops.hierarchy import plan_batches, potential_values
from sava_ops.inputs import as_points, class_count
from sava_ops.ot.cost import Points, ground_cost
from sava_ops.ot.label_distance import class_samples, label_distances
from sava_ops.ot.sinkhorn import uniform
from sava_ops.reference.discriminant import FOLDS
from sava_ops.transport import starting_potentials, transport_row
from sava_ops.valuation import Valuation, split_points, value_points

OURS = ValuationConfig()
PAPER, LAVA, BATCHWISE_LAVA = (
    replace(preset, held_out_sample=0)
    for preset in (ValuationConfig.paper(), ValuationConfig.lava(), ValuationConfig.batchwise_lava())
)
BLUR_SCALING = 0.5
"""Of √ε."""
MATRICES = 4
"""Numbers held for each pair of points."""
Pair = tuple[Float[Tensor, " n"], float]
"""f of a training batch against a reference batch, and the transport cost, units of cost."""


def score(train: Points, reference: Points) -> Float[np.ndarray, " N"]:
    """Evidence of the default configuration."""
    return _valuation(train, reference, OURS).evidence


def label_score(train: Points, reference: Points) -> Float[np.ndarray, " N"]:
    """Label values of the default configuration."""
    return _valuation(train, reference, OURS).label_values


def paper_score(train: Points, reference: Points) -> Float[np.ndarray, " N"]:
    """SAVA as published, converged."""
    return _valuation(train, reference, PAPER).values


def lava_score(train: Points, reference: Points) -> Float[np.ndarray, " N"]:
    """One batch a side."""
    return _valuation(train, reference, LAVA).values


def batchwise_lava_score(train: Points, reference: Points) -> Float[np.ndarray, " N"]:
    """Reference batches weigh the same."""
    return _valuation(train, reference, BATCHWISE_LAVA).values


def annealed_score(train: Points, reference: Points, *, config: ValuationConfig = PAPER) -> Float[np.ndarray, " N"]:
    """The paper's problem, solved as far as the authors' annealing gets."""
    train, reference, calibration = _calibrated(train, reference, config)
    epsilon = config.epsilon * calibration.scale

    def pair(batch: Points, others: Points, _: int) -> Pair:
        distances = calibration.label_distances
        cost = ground_cost(batch, others, label_distances=distances, label_weight=config.label_weight)
        f, g = annealed_potentials(cost, epsilon=epsilon)
        plan = torch.exp((f[:, None] + g - cost) / epsilon) / cost.numel()
        return f, float((plan * cost).sum())

    return _values(train, reference, config, pair)


def uncached_score(train: Points, reference: Points, *, config: ValuationConfig = OURS) -> Float[np.ndarray, " N"]:
    """Values with the label distances of each pair of batches."""
    train, reference, calibration = _calibrated(train, reference, config)
    judges = calibration.batches(reference, split_points(reference, config))
    starts = starting_potentials(judges, calibration, config)
    quiet = replace(config, held_out_sample=0)

    def pair(batch: Points, others: Points, j: int) -> Pair:
        sides = (calibration.seen(side) for side in (batch, others))
        samples = [class_samples(side, cap=config.class_sample, seed=config.seed) for side in sides]
        classes = len(calibration.label_distances)
        distances = label_distances(*samples, classes=classes, divergence=config.label_metric == "divergence")
        row = transport_row(batch, [judges[j]], [starts[j]], replace(calibration, label_distances=distances), quiet)
        return row.potentials[:, 0, 0], float(row.costs[0])

    return _values(train, reference, config, pair)


def annealed_potentials(
    cost: Float[Tensor, "n m"], *, epsilon: float
) -> tuple[Float[Tensor, " n"], Float[Tensor, " m"]]:
    """f and g (units of cost) of geomloss' loop between uniform measures; neither marginal is met."""
    log_a, log_b = (uniform(size, cost).log() for size in cost.shape)
    f, g = torch.zeros_like(log_a), torch.zeros_like(log_b)

    def step(at: float) -> tuple[Tensor, Tensor]:
        # Both from the old f and g: one after the other would be another algorithm.
        rows, columns = log_b + g / at, (log_a + f / at)[:, None]
        return -at * (rows - cost / at).logsumexp(1), -at * (columns - cost / at).logsumexp(0)

    schedule = _schedule(float(cost.max()), epsilon)
    f, g = step(schedule[0])
    for at in schedule:
        towards_f, towards_g = step(at)
        f, g = (f + towards_f) / 2, (g + towards_g) / 2
    return step(epsilon)


def memory(n: int, m: int, d: int, classes: int) -> int:
    """Of our configuration."""
    return _memory(n, m, d, classes, batch_size=OURS.batch_size)


def lava_memory(n: int, m: int, d: int, classes: int) -> int:
    """Every pair of points."""
    return _memory(n, m, d, classes, batch_size=None)


def _memory(n: int, m: int, d: int, classes: int, *, batch_size: int | None) -> int:
    """A pair of batches; potentials by label; both sides in the frame; the regressions on the reference set."""
    rows, columns = (min(size, batch_size or size) for size in (n, m))
    batches = -(-m // columns)
    kept = min(MOST_LABELS, classes) * (4 * batches + 8) + 4 * batches
    pair = 4 * MATRICES * rows * columns
    return pair + n * (8 * d + kept + 150) + m * (32 * d + 16 * FOLDS * classes) + 64 * d * d


def _schedule(largest: float, epsilon: float) -> list[float]:
    """Each ε of the loop; the first comes twice."""
    at = max(largest, epsilon)
    steps = [at]
    while at > epsilon:
        steps.append(at)
        at *= BLUR_SCALING**2
    return [*steps, epsilon]


def _valuation(train: Points, reference: Points, config: ValuationConfig) -> Valuation:
    sides = train.features, train.labels, reference.features, reference.labels
    return value_points(*sides, config=config, device=str(train.features.device))


def _calibrated(train: Points, reference: Points, config: ValuationConfig) -> tuple[Points, Points, Calibration]:
    """Both sides as `value_points` sees them."""
    train, reference = (
        as_points(p.features, p.labels, side=side, unit_norm=config.unit_norm, device=str(p.features.device))
        for p, side in ((train, "training"), (reference, "reference"))
    )
    calibration = calibrate(train, reference, classes=class_count(train, reference), config=config)
    return train, reference, calibration


def _batches(points: Points, config: ValuationConfig) -> list[Points]:
    return [points.take(torch.from_numpy(rows).to(points.labels.device)) for rows in split_points(points, config)]


def _values(
    train: Points, reference: Points, config: ValuationConfig, pair: Callable[[Points, Points, int], Pair]
) -> Float[np.ndarray, " N"]:
    """Alg. 1 with this way to solve training batch and reference batch j."""
    judges = _batches(reference, config)
    solved = [[pair(batch, others, j) for j, others in enumerate(judges)] for batch in _batches(train, config)]
    costs = np.array([[cost for _, cost in row] for row in solved])
    rows = split_points(train, config)
    plan = plan_batches(costs, [len(r) for r in rows], [len(others) for others in judges], config)
    values = np.empty(len(train))
    for i, row in enumerate(solved):
        f = torch.stack([f for f, _ in row], 1).double()
        values[rows[i]] = potential_values(f[:, :, None], f, plan, i, config)[:, 0].cpu().numpy()
    return values
