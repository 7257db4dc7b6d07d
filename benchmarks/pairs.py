"""One pair of batches, by us and by the peers, to the same marginal error on the same data."""

import statistics
import time
from collections.abc import Callable, Sequence

import geomloss
import numpy as np
import ot
import torch
from timing import CLASSES, best, clouds, seconds

from sava_ops import ValuationConfig
from sava_ops.calibration import calibrate
from sava_ops.ot.cost import Points, ground_cost, label_costs, mean_feature_cost
from sava_ops.ot.labelled_kernel import ColumnSide, LabelledKernel, RowSide
from sava_ops.ot.sinkhorn import Problem, sweep, uniform

EPSILON, TOLERANCE = 0.1, 1e-3
BATCHES = 5
LIMITS = (1e-4, 3e-5, 1e-5, 3e-6, 1e-6)
"""POT's stopping thresholds to try, loosest first."""
SCALINGS = (0.9, 0.95, 0.98)
"""geomloss's ratios of successive blurs: nearer to 1, more sweeps."""
Solver = Callable[[np.ndarray, float, float], np.ndarray]
"""(cost, ε, setting) → plan."""


def marginal_error(plan: np.ndarray) -> float:
    n, m = plan.shape
    return float(np.abs(plan.sum(1) - 1 / n).sum() + np.abs(plan.sum(0) - 1 / m).sum())


def pot(method: str) -> Solver:
    def solve(cost: np.ndarray, epsilon: float, limit: float) -> np.ndarray:
        n, m = cost.shape
        a, b = np.full(n, 1 / n), np.full(m, 1 / m)
        return ot.sinkhorn(a, b, cost, epsilon, method=method, stopThr=limit, numItermax=5_000, warn=False)

    return solve


def pot_batch(cost: np.ndarray, epsilon: float, limit: float) -> np.ndarray:
    made = ot.batch.solve_batch(torch.from_numpy(cost)[None], epsilon, tol=limit, max_iter=5_000, grad="detach")
    return made.plan[0].numpy()


def geomloss_plan(cost: np.ndarray, epsilon: float, scaling: float) -> np.ndarray:
    matrix = torch.from_numpy(cost)
    n, m = cost.shape
    # The points only say which way round the matrix is asked for.
    x, y = torch.zeros(1, n, 1).to(matrix), torch.ones(1, m, 1).to(matrix)
    loss = geomloss.SamplesLoss(
        "sinkhorn", p=2, blur=epsilon**0.5, scaling=scaling, debias=False, potentials=True,
        diameter=float(matrix.max()) ** 0.5, backend="tensorized",
        cost=lambda p, _: (matrix.T if p[0, 0, 0] else matrix)[None],
    )  # fmt: skip
    f, g = loss(torch.full((1, n), 1 / n).to(matrix), x, torch.full((1, m), 1 / m).to(matrix), y)
    return torch.exp((f.view(-1, 1) + g.view(1, -1) - matrix) / epsilon).div(n * m).numpy()


PEERS: dict[str, tuple[Solver, Sequence[float]]] = {
    "POT sinkhorn, float64": (pot("sinkhorn"), LIMITS),
    "POT sinkhorn_log, float64": (pot("sinkhorn_log"), LIMITS),
    "POT batch, float64": (pot_batch, LIMITS),
    "geomloss tensorized, float64": (geomloss_plan, SCALINGS),
}


def pairs(size: int) -> list[dict]:
    """One row for us and each peer: seconds and marginal error of a pair of batches."""
    reference = clouds(size, 0, 0.0)
    batches = [clouds(size, 1 + k, 0.2) for k in range(BATCHES + 1)]
    distances = calibrate(batches[0], reference, classes=CLASSES, config=ValuationConfig()).label_distances
    scale = mean_feature_cost(batches[0].features, reference.features)
    problem, costs = Problem(EPSILON * scale, tolerance=0.9 * TOLERANCE), label_costs(distances, 1.0)
    b, table, epsilon = uniform(size, reference.features), torch.empty(size, size), problem.epsilon
    ordered = reference.take(reference.labels.argsort(stable=True))

    def ours(batch: Points, start: torch.Tensor):
        rows = RowSide.of(batch, label_costs=costs, epsilon=epsilon)
        columns = ColumnSide.of(ordered, b, classes=CLASSES, epsilon=epsilon)
        return sweep([LabelledKernel(rows, columns, epsilon=epsilon, table=table)], problem, [start])[0]

    def plain(batch: Points) -> torch.Tensor:
        return ground_cost(batch, ordered, label_distances=distances, label_weight=1.0)

    # Warm start as in a valuation: one potential, of another training batch.
    start = ours(batches[0], torch.zeros_like(b)).g
    times, errors, sweeps = [], [], []
    for batch in batches[1:]:
        times.append(seconds(lambda batch=batch: ours(batch, start)))
        made = ours(batch, start)
        # Judged by the peers' measure, in float64 and on the plain cost.
        f, g, cost = (t.double() for t in (made.f, made.g, plain(batch)))
        plan = torch.exp((f[:, None] + g[None, :] - cost) / problem.epsilon).numpy() / size**2
        errors.append(marginal_error(plan))
        sweeps.append(made.sweeps)
    rows = [row("ours, float32", times, errors, f"{statistics.median(sweeps):.0f} sweeps")]
    build = best(lambda: peer_costs(batches[1], ordered, costs.double().numpy()), 3)
    for name, (solver, settings) in PEERS.items():
        matrices = [plain(batch).double().numpy() for batch in batches[1:]]
        # The setting is found on the first batch and serves for all.
        reached = (k for k in settings if marginal_error(solver(matrices[0], problem.epsilon, k)) <= TOLERANCE)
        limit = next(reached, None)
        peer_times, peer_errors = [], []
        for cost in matrices[:2]:
            started = time.perf_counter()
            plan = solver(cost, problem.epsilon, limit or settings[-1])
            peer_times.append(time.perf_counter() - started)
            peer_errors.append(marginal_error(plan))
        note = f"setting {limit:g}" if limit else f"not reached with {settings[-1]:g}"
        rows.append(row(name, peer_times, peer_errors, note, build=build))
    for made in rows:
        made["ratio"] = made["seconds"] / rows[0]["seconds"]
        made["solver_ratio"] = made["solver_seconds"] / rows[0]["seconds"]
    return rows


def peer_costs(batch: Points, reference: Points, label_costs: np.ndarray) -> np.ndarray:
    """The cost matrix as a user of POT makes it."""
    x, y = (points.features.double().numpy() for points in (batch, reference))
    labels = batch.labels.numpy(), reference.labels.numpy()
    return 0.5 * ot.dist(x, y) + label_costs[labels[0][:, None], labels[1][None, :]]


def row(name: str, times: Sequence[float], errors: Sequence[float], note: str, *, build: float = 0.0) -> dict:
    solver = statistics.median(times)
    made = {"name": name, "seconds": solver + build, "solver_seconds": solver}
    return made | {"marginal_error": max(errors), "note": note}
