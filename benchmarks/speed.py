"""How fast, beside the peers, in one run on the same data: `make bench`.

Every pair of batches is one problem (512 features, 10 classes, balanced, ε = 0.1 times the mean cost), solved by each
tool to a marginal error of 1e-3 (L1, both marginals of the plan it returns), measured alike for all. Each peer gets the
loosest setting of its own that reaches it. Ours starts from features; a peer's time is given from features too (costs
by POT's `dist`, plus the label term), and for its solver alone, with the costs for free. Times are medians over a
sequence of training batches against one reference batch. Writes benchmarks/speed.json and the tables of
benchmarks/README.md.
"""

import json
import platform
from pathlib import Path

import geomloss
import numpy as np
import ot
import torch
from embedding import embedding
from pairs import pairs
from speed_page import page
from timing import CLASSES, WIDTH, best, clouds, seconds

from sava_ops import ValuationConfig, value_points
from sava_ops.calibration import calibrate
from sava_ops.ot.cost import label_costs
from sava_ops.ot.labelled_kernel import ColumnSide, LabelledKernel, Room, RowSide
from sava_ops.ot.sinkhorn import uniform
from sava_ops.transport import starting_potentials, transport_row

HERE = Path(__file__).parent


def valuation(
    train: int,
    reference: int,
    *,
    config: ValuationConfig = ValuationConfig(),  # noqa: B008 (frozen)
    repeats: int = 1,
    classes: int = CLASSES,
    width: int = WIDTH,
) -> float:
    """Seconds of a whole valuation, label distances and held-out points included."""
    sides = [clouds(n, k, wrong, classes=classes, width=width) for n, k, wrong in ((train, 1, 0.2), (reference, 0, 0))]
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


def main() -> None:
    torch.manual_seed(0)
    versions = {
        "python": platform.python_version(), "torch": torch.__version__, "pot": ot.__version__,
        "geomloss": geomloss.__version__, "threads": torch.get_num_threads(), "processor": processor(),
    }  # fmt: skip
    found: dict = {"versions": versions}
    found["pairs"] = {str(size): pairs(size) for size in (1024, 2048)}
    peer = found["pairs"]["2048"][1]
    grid = valuation(20_000, 10_000, repeats=3)
    found["grid"] = {
        "seconds": grid,
        "seconds_without_held_out": valuation(20_000, 10_000, config=ValuationConfig(held_out_sample=0), repeats=2),
        "seconds_of_many_classes": valuation(20_000, 5_000, classes=200, width=1_280, repeats=2),
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


if __name__ == "__main__":
    main()
