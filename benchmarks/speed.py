"""How fast, beside the peers, in one run on the same data: `make bench`.

Every pair of batches is one problem (512 features, 10 classes, balanced, ε = 0.1 times the mean cost), solved by each
tool to a marginal error of 1e-3 (L1, both marginals of the plan it returns), measured alike for all. Each peer gets the
loosest setting of its own that reaches it. Ours starts from features; a peer's time is given from features too (costs
by POT's `dist`, plus the label term), and for its solver alone, with the costs for free. Times are medians over a
sequence of training batches against one reference batch. Writes benchmarks/speed.json and the tables of
benchmarks/README.md.
"""

import io
import json
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from unittest.mock import patch

import geomloss
import numpy as np
import ot
import torch
import torchvision
from PIL import Image
from torchvision.models import resnet18 as torchvision_resnet18

from sava_ops import ValuationConfig, classifier, value_points
from sava_ops.classifier import resnet18
from sava_ops.cost import Points, ground_cost, label_costs, mean_feature_cost
from sava_ops.encoder import Encoder, InputFormat, embed
from sava_ops.images import decode_all
from sava_ops.inputs import as_points
from sava_ops.labelled_kernel import ColumnSide, LabelledKernel, Room, RowSide
from sava_ops.sinkhorn import Problem, sweep, uniform
from sava_ops.transport import calibrate, starting_potentials, transport_row

HERE = Path(__file__).parent
CLASSES, WIDTH, EPSILON, TOLERANCE = 10, 512, 0.1, 1e-3
BATCHES = 5
LIMITS = (1e-4, 3e-5, 1e-5, 3e-6, 1e-6)
"""POT's stopping thresholds to try, loosest first."""
SCALINGS = (0.9, 0.95, 0.98)
"""geomloss's ratios of successive blurs: nearer to 1, more sweeps."""
Solver = Callable[[np.ndarray, float, float], np.ndarray]
"""(cost, ε, setting) → plan."""


def clouds(count: int, seed: int, noise: float) -> Points:
    """Unit-norm features in ten clouds, and labels of which a share is wrong."""
    generator = np.random.default_rng(seed)
    true = generator.integers(0, CLASSES, count)
    centres = np.random.default_rng(99).normal(size=(CLASSES, WIDTH))
    features = centres[true] + 2 * generator.normal(size=(count, WIDTH))
    labels = np.where(generator.random(count) < noise, (true + 1) % CLASSES, true)
    return as_points(features.astype(np.float32), labels, side="training", unit_norm=True)


def seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


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


def valuation(
    train: int,
    reference: int,
    *,
    config: ValuationConfig = ValuationConfig(),  # noqa: B008 (frozen)
    repeats: int = 1,
) -> float:
    """Seconds of a whole valuation, label distances and held-out points included."""
    sides = [clouds(train, 1, 0.2), clouds(reference, 0, 0.0)]
    arrays = [a for side in sides for a in (side.features, side.labels)]
    return min(seconds(lambda: value_points(*arrays, config=config)) for _ in range(repeats))


def stages(size: int = 2048, references: int = 5) -> list[dict]:
    """Where the time of one training batch goes, and how far each stage is from its bound."""
    config = ValuationConfig()
    batch, reference = clouds(size, 1, 0.2), clouds(size * references, 0, 0.0)
    calibration = calibrate(batch, reference, classes=CLASSES, config=config)
    parts = calibration.batches(reference, [np.arange(k * size, (k + 1) * size) for k in range(references)])
    starts, room = starting_potentials(parts, calibration, config), Room()
    whole = best(lambda: transport_row(batch, parts, starts, calibration, config, room=room), 3)
    bare = ValuationConfig(held_out_sample=0)
    alone = best(lambda: transport_row(batch, parts, starts, calibration, bare, room=room), 3)
    costs, epsilon = label_costs(calibration.label_distances, config.label_weight), config.epsilon * calibration.scale
    b, table = uniform(size, batch.features), torch.empty(size, size)
    rows = RowSide.of(batch, label_costs=costs, epsilon=epsilon)
    kernel = LabelledKernel(
        rows, ColumnSide.of(parts[0], b, classes=CLASSES, epsilon=epsilon), epsilon=epsilon, table=table
    )
    ones = torch.ones_like(b)
    entries, flops = size * size, 2 * size * size * WIDTH
    product = best(lambda: torch.mm(batch.features, parts[0].features.T, out=table))
    read = best(lambda: table.sum())
    build, both = best(lambda: kernel.absorb(starts[0])), best(lambda: (kernel.rows(ones), kernel.columns(ones)))
    cost = best(lambda: kernel.transport_cost(ones, ones, ones))
    return [
        {"stage": f"one row: {size} points against {references} × {size}", "ms": 1e3 * whole, "bound": ""},
        {"stage": "the same without held-out reference points", "ms": 1e3 * alone, "bound": ""},
        {
            "stage": "kernel of one pair: product, exponential, first sums",
            "ms": 1e3 * build,
            "bound": f"product alone {1e3 * product:.1f} ms ({flops / product / 1e9:.0f} GFLOP/s): "
            f"{product / build:.0%}",
        },
        {
            "stage": "one sweep of a pair",
            "ms": 1e3 * both,
            "bound": f"reading the kernel twice {2e3 * read:.1f} ms ({4 * entries / read / 1e9:.0f} GB/s): "
            f"{2 * read / both:.0%}",
        },
        {"stage": "⟨π, C⟩ of a pair", "ms": 1e3 * cost, "bound": f"one read: {read / cost:.0%}"},
    ]


def best(call: Callable[[], object], repeats: int = 7) -> float:
    return min(seconds(call) for _ in range(repeats))


def embedding(count: int = 2_000) -> list[dict]:
    """Images a second from encoded bytes, 32 px, beside a plain torchvision loop with the same network."""
    generator = np.random.default_rng(0)
    images = [png(generator.integers(0, 256, (32, 32, 3), dtype=np.uint8)) for _ in range(count)]
    network = resnet18(10, stem="small", seed=0)
    network.network.fc = torch.nn.Identity()  # pyright: ignore[reportAttributeAccessIssue]
    encoder = Encoder(network.eval(), InputFormat(32, "small"))
    embed(encoder, decode_all(images[:256], size=32))
    other = torchvision_resnet18(weights=None)
    other.conv1, other.maxpool = torch.nn.Conv2d(3, 64, 3, 2, 1, bias=False), torch.nn.Identity()  # pyright: ignore[reportAttributeAccessIssue]
    other.fc = torch.nn.Identity()  # pyright: ignore[reportAttributeAccessIssue]
    to_tensor = torchvision.transforms.ToTensor()

    def plain() -> None:
        with torch.no_grad():
            for first in range(0, count, 256):
                batch = [to_tensor(Image.open(io.BytesIO(data)).convert("RGB")) for data in images[first : first + 256]]
                other.eval()(torch.stack(batch))

    def ours() -> None:
        embed(encoder, decode_all(images, size=32))

    with patch.object(classifier, "_fast_bf16", lambda _: False):
        exact = best(ours, 2)
    times = {
        "ours, decoding included; bfloat16 where the processor has it": best(ours, 2),
        "ours in float32": exact,
        "torchvision loop in float32, decoding included": best(plain, 2),
        "decoding alone": best(lambda: decode_all(images, size=32), 2),
    }
    return [{"name": name, "images_per_second": count / taken} for name, taken in times.items()]


def gpu(images: int = 20_000) -> dict | None:
    """The valuation and the embedding on a GPU, where there is one."""
    if not torch.cuda.is_available():
        return None
    sides = [clouds(20_000, 1, 0.2), clouds(10_000, 0, 0.0)]
    arrays = [a for side in sides for a in (side.features, side.labels)]
    encoder = Encoder(resnet18(10, stem="small", seed=0).eval(), InputFormat(32, "small"))
    pixels = torch.randint(0, 256, (images, 3, 32, 32), dtype=torch.uint8)
    return {
        "name": torch.cuda.get_device_name(),
        "grid_seconds": best(lambda: value_points(*arrays, device="cuda"), 3),
        "images_per_second": images / best(lambda: embed(encoder, pixels, batch_size=2048, device="cuda"), 3),
    }


def png(pixels: np.ndarray) -> bytes:
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, format="png")
    return data.getvalue()


def main() -> None:
    torch.manual_seed(0)
    versions = {
        "python": platform.python_version(), "torch": torch.__version__, "pot": ot.__version__,
        "geomloss": geomloss.__version__, "threads": torch.get_num_threads(), "processor": processor(),
        "gpu": "not measured" if (measured := gpu()) is None else measured["name"],
    }  # fmt: skip
    found: dict = {"versions": versions, "gpu": measured}
    found["pairs"] = {str(size): pairs(size) for size in (1024, 2048)}
    peer = found["pairs"]["2048"][1]
    grid = valuation(20_000, 10_000, repeats=3)
    found["grid"] = {
        "seconds": grid,
        "seconds_without_held_out": valuation(20_000, 10_000, config=ValuationConfig(held_out_sample=0), repeats=2),
        "peer": peer["name"],
        "peer_seconds": peer["solver_seconds"] * (20_000 / 2048) * (10_000 / 2048),
    }
    found["train_size"] = {str(n): valuation(n, 5_000) for n in (10_000, 20_000, 40_000)}
    found["reference_size"] = {str(m): valuation(10_000, m) for m in (1_000, 2_500, 5_000, 10_000)}
    found["batch_size"] = {
        str(size): valuation(10_000, 5_000, config=ValuationConfig(batch_size=size)) for size in (512, 1024, 2048, 4096)
    }
    train, reference = clouds(20_000, 1, 0.2), clouds(10_000, 0, 0.0)
    found["calibration_seconds"] = seconds(
        lambda: calibrate(train, reference, classes=CLASSES, config=ValuationConfig())
    )
    found["stages"], found["embedding"] = stages(), embedding()
    (HERE / "speed.json").write_text(json.dumps(found, indent=1) + "\n")
    (HERE / "README.md").write_text(page(found))
    print(page(found))


def processor() -> str:
    text = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    names = [line.split(":")[1].strip() for line in text.splitlines() if line.startswith("model name")]
    return names[0] if names else platform.processor()


def page(found: dict) -> str:
    """The tables, in Markdown."""
    v, grid = found["versions"], found["grid"]
    lines = [
        "# How fast", "",
        "Written by `make bench`; [speed.py](speed.py) says what is measured and how, [speed.json](speed.json) holds "
        "the numbers.", "",
        f"{v['processor']}, {v['threads']} threads; Python {v['python']}, torch {v['torch']}, POT {v['pot']}, "
        f"geomloss {v['geomloss']}; GPU: {v['gpu']}.",
    ]  # fmt: skip
    for size, rows in found["pairs"].items():
        lines += ["", f"**One pair of batches of {size}, to a marginal error of {TOLERANCE:g}**", ""]
        lines += ["| | ms, from features | times ours | ms, solver alone | times ours | marginal error | |"]
        lines += ["|---|---:|---:|---:|---:|---:|---|"]
        lines += [
            f"| {r['name']} | {1e3 * r['seconds']:.0f} | {r['ratio']:.1f} | {1e3 * r['solver_seconds']:.0f} "
            f"| {r['solver_ratio']:.1f} | {r['marginal_error']:.1e} | {r['note']} |"
            for r in rows
        ]
    lines += [
        "", "**A whole valuation, embeddings given**", "", "| | seconds |", "|---|---:|",
        f"| 20,000 × 10,000 points, with label distances, discriminant and held-out points | {grid['seconds']:.1f} |",
        f"| the same without held-out points | {grid['seconds_without_held_out']:.1f} |",
        f"| of it label distances and discriminant, which later runs reuse | {found['calibration_seconds']:.1f} |",
        f"| its pairs alone with {grid['peer']}, from the table above | {grid['peer_seconds']:.1f} |",
    ]  # fmt: skip
    for name, title in (
        ("train_size", "training points, 5,000 reference points"),
        ("reference_size", "reference points, 10,000 training points"),
        ("batch_size", "points a batch, 10,000 × 5,000 points"),
    ):
        lines += ["", f"| {title} | {' | '.join(f'{int(k):,}' for k in found[name])} |"]
        lines += [f"|---|{'---:|' * len(found[name])}"]
        lines += [f"| seconds | {' | '.join(f'{s:.1f}' for s in found[name].values())} |"]
    lines += ["", "**Where the time goes**", "", "| | ms | of its bound |", "|---|---:|---|"]
    lines += [f"| {s['stage']} | {s['ms']:.1f} | {s['bound']} |" for s in found["stages"]]
    lines += ["", "**Embedding, ResNet18, 32 px images**", "", "| | images a second |", "|---|---:|"]
    lines += [f"| {e['name']} | {e['images_per_second']:,.0f} |" for e in found["embedding"]]
    if found["gpu"]:
        lines += [
            "", f"**On the GPU** ({found['gpu']['name']})", "", "| | |", "|---|---:|",
            f"| 20,000 × 10,000 points, seconds | {found['gpu']['grid_seconds']:.2f} |",
            f"| images of 32 px embedded a second, decoded already | {found['gpu']['images_per_second']:,.0f} |",
        ]  # fmt: skip
    lines += [
        "", "The other tables: [detection.md](detection.md) (what is found), [sensitivity.md](sensitivity.md) (how the "
        "defaults were chosen), [million.md](million.md) (a million points).",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
