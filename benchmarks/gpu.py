"""What a GPU takes, beside the processors of the same machine and the peers on the same GPU: the second part of
`make bench`. Writes benchmarks/gpu.md where there is a GPU.

Times are the best of three runs (of a million points: two; on the processors: one or two) on points as `speed.py` makes
them; memory is what torch held at most.
"""

import os
import platform
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from timing import best, clouds, seconds

from sava_ops import ValuationConfig, value_points
from sava_ops.calibration import calibrate
from sava_ops.images.classifier import resnet18
from sava_ops.images.encoder import Encoder, InputFormat, embed
from sava_ops.ot.cost import Points, ground_cost, label_costs, mean_feature_cost
from sava_ops.ot.label_distance import class_samples, label_distances
from sava_ops.ot.labelled_kernel import ColumnSide, LabelledKernel, RowSide
from sava_ops.ot.sinkhorn import Problem, sweep, uniform

DEVICE = "cuda"
IMAGES = 20_000
SIZES = (("20,000 × 10,000 points", 20_000, 10_000), ("a million × 10,000 points", 1_000_000, 10_000))


def gpu() -> dict | None:
    """Rows of the table, where there is a GPU."""
    if not torch.cuda.is_available():
        return None
    rows = [valuation(*size) for size in SIZES]
    rows += [many_classes(), thousand_classes()]
    encoder = Encoder(resnet18(10, stem="small", seed=0).eval(), InputFormat(32, "small"))
    pixels = torch.randint(0, 256, (IMAGES, 3, 32, 32), dtype=torch.uint8)
    taken, memory = measured(lambda: embed(encoder, pixels, batch_size=2048, device=DEVICE))
    return {
        "name": torch.cuda.get_device_name(),
        "processors": os.cpu_count(),
        "rows": rows,
        "pairs": pair(),
        "images_per_second": IMAGES / taken,
        "embedding_gigabytes": memory,
    }


def measured(call: Callable[[], object], repeats: int = 3) -> tuple[float, float]:
    """Seconds, and gigabytes that torch held on the GPU at most."""

    def waited() -> None:
        call()
        torch.cuda.synchronize()

    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    return best(waited, repeats), torch.cuda.max_memory_allocated() / 1e9


def valuation(name: str, train: int, reference: int) -> dict:
    """A whole one, from features in the memory of the machine."""
    sides = [clouds(train, 1, 0.2), clouds(reference, 0, 0.0)]
    arrays = [a for side in sides for a in (side.features, side.labels)]
    large = train > 100_000
    taken, memory = measured(lambda: value_points(*arrays, device=DEVICE), 2 if large else 3)
    made = {"name": name, "seconds": taken, "gigabytes": memory}
    return made if large else made | {"processor_seconds": best(lambda: value_points(*arrays), 2)}


def features(count: int, classes: int, width: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Unit-norm clouds of many classes, on the CPU."""
    generator = np.random.default_rng(seed)
    labels = torch.from_numpy(generator.permutation(np.arange(count) % classes))
    centres = torch.from_numpy(np.random.default_rng(9).normal(size=(classes, width)).astype(np.float32))
    noise = torch.from_numpy(generator.normal(size=(count, width)).astype(np.float32))
    return torch.nn.functional.normalize(centres[labels] + 2 * noise, dim=1), labels


def many_classes() -> dict:
    arrays = [*features(20_000, 200, 1_280, 1), *features(5_000, 200, 1_280, 0)]
    taken, memory = measured(lambda: value_points(*arrays, device=DEVICE))
    return {
        "name": "20,000 × 5,000 points, 200 classes, 1,280 features",
        "seconds": taken, "gigabytes": memory, "processor_seconds": seconds(lambda: value_points(*arrays)),
    }  # fmt: skip


def thousand_classes() -> dict:
    sides = [Points(*features(10_000, 1_000, 1_280, seed)) for seed in (1, 0)]

    def distances(device: str) -> None:
        samples = [class_samples(Points(s.features.to(device), s.labels.to(device)), cap=100, seed=0) for s in sides]
        label_distances(*samples, classes=1_000, divergence=True)

    taken, memory = measured(lambda: distances(DEVICE))
    return {
        "name": "label distances of 1,000 classes, 10 images each",
        "seconds": taken, "gigabytes": memory, "processor_seconds": seconds(lambda: distances("cpu")),
    }  # fmt: skip


def pair(size: int = 2048) -> list[dict]:
    """One pair of batches to a marginal error of 1e-3, by us and by POT's tensors on the same GPU."""
    import ot

    reference, batch, other = (clouds(size, k, noise) for k, noise in ((0, 0.0), (2, 0.2), (1, 0.2)))
    distances = calibrate(other, reference, classes=10, config=ValuationConfig()).label_distances.to(DEVICE)
    reference, batch, other = (Points(p.features.to(DEVICE), p.labels.to(DEVICE)) for p in (reference, batch, other))
    scale = mean_feature_cost(other.features, reference.features)
    problem, costs = Problem(0.1 * scale, tolerance=0.9e-3), label_costs(distances, 1.0)
    b, table = uniform(size, reference.features), torch.empty(size, size, device=DEVICE)
    ordered, epsilon = reference.take(reference.labels.argsort(stable=True)), problem.epsilon

    def ours(points: Points, start: torch.Tensor):
        rows = RowSide.of(points, label_costs=costs, epsilon=epsilon)
        columns = ColumnSide.of(ordered, b, classes=10, epsilon=epsilon)
        return sweep([LabelledKernel(rows, columns, epsilon=epsilon, table=table)], problem, [start])[0]

    start = ours(other, torch.zeros_like(b)).g
    cost = ground_cost(batch, ordered, label_distances=distances, label_weight=1.0)
    made = ours(batch, start)
    plan = torch.exp((made.f[:, None] + made.g[None, :] - cost) / epsilon).double() / size**2
    found = [{"name": "ours, float32", "seconds": measured(lambda: ours(batch, start))[0], "error": error(plan)}]
    a, cost = torch.full((size,), 1 / size, dtype=torch.float64, device=DEVICE), cost.double()
    for method in ("sinkhorn", "sinkhorn_log"):

        def peer(limit: float, method: str = method) -> torch.Tensor:
            return ot.sinkhorn(a, a, cost, epsilon, method=method, stopThr=limit, numItermax=5_000, warn=False)

        limit = next((k for k in (1e-4, 3e-5, 1e-5, 3e-6, 1e-6) if error(peer(k)) <= 1e-3), 1e-6)
        taken = measured(lambda limit=limit: peer(limit))[0]
        found.append({"name": f"POT {method}, float64, solver alone", "seconds": taken, "error": error(peer(limit))})
    return found


def error(plan: torch.Tensor) -> float:
    """L1, both marginals."""
    n, m = plan.shape
    return float((plan.sum(1) - 1 / n).abs().sum() + (plan.sum(0) - 1 / m).abs().sum())


def page(found: dict) -> str:
    """In Markdown."""
    lines = ["# On a GPU", "", "Written by `benchmarks/gpu.py`, which says what is measured and how.", ""]
    lines += [
        f"{found['name']}, beside it the {found['processors']} processors of that machine; Python "
        f"{platform.python_version()}, torch {torch.__version__}.", "",
        "| | seconds | GPU memory, GB | seconds on the processors | times |", "|---|---:|---:|---:|---:|",
    ]  # fmt: skip
    for row in found["rows"]:
        there = row.get("processor_seconds")
        beside = f"{there:.1f} | {there / row['seconds']:.0f}" if there else "– | –"
        lines.append(f"| {row['name']} | {row['seconds']:.2f} | {row['gigabytes']:.1f} | {beside} |")
    ours = found["pairs"][0]["seconds"]
    lines += [
        f"| {IMAGES:,} images of 32 px embedded, decoded already | {IMAGES / found['images_per_second']:.2f} "
        f"| {found['embedding_gigabytes']:.1f} | – | – |",
        "", "| one pair of batches of 2048 on the GPU | ms | times ours | marginal error |", "|---|---:|---:|---:|",
    ]  # fmt: skip
    lines += [
        f"| {p['name']} | {1e3 * p['seconds']:.1f} | {p['seconds'] / ours:.1f} | {p['error']:.1e} |"
        for p in found["pairs"]
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    if (measures := gpu()) is None:
        print("no CUDA device: benchmarks/gpu.md stays as it is")
    else:
        Path(__file__).with_name("gpu.md").write_text(page(measures))
        print(page(measures))
