"""One corruption, looked at closely: sizes, growth, batches, whole networks, and the transport itself."""

import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from sava_assets.assets import plots
from sava_assets.home.result import Output, table_file
from sava_assets.study.cells import StudyRun, cells_of, pixels_of, studied
from sava_assets.study.corruptions import MAIN
from sava_assets.study.measures import STATISTICS, figure, found_by, last_layer_accuracy
from sava_ops.baselines import METHODS
from sava_ops.baselines.transport import uncached_score
from sava_ops.config import ValuationConfig
from sava_ops.decisions.pruning import keep_lowest
from sava_ops.errors import OutOfMemory
from sava_ops.images.classifier import Comparison, LabelledImages, TrainingSet, compare_training_sets
from sava_ops.ot.cost import Points
from sava_ops.valuation import value_points

STEPS = 5
"""In which the growing pool arrives."""
HEADLINE = ("SAVA", "SAVA (paper)", "batch-wise LAVA", "KNN-Shapley", "logistic regression", "random")
"""Methods of the figures that cannot show all."""
BY_SIZE = (*HEADLINE, "LAVA")
"""Of the curve over the number of training points."""
WHOLE = ("SAVA", "SAVA (paper)", "logistic regression", "random")
"""By which a pool is pruned for the training of a whole network."""
Score = Callable[..., np.ndarray]


@studied(kinds={"pytorch"})
def whole_network(run: StudyRun) -> Output:
    """Test accuracy of a whole ResNet18 trained from scratch, with equal steps, on what some methods keep of the
    pool with noisy labels: as many points are pruned as are bad."""
    knobs, size = run.knobs.study, run.knobs.encoder.image_size
    pool = run.read_shards("raw_images").values()
    clean = np.concatenate([pixels_of(result, size, without=run.aside) for result in pool])
    names, test = run.pool.numbers["names"], run.read("test_images")
    number = {name: k for k, name in enumerate(names)}
    words = test.table("points.parquet", ["label"])["label"].to_pylist()
    judges = LabelledImages(torch.from_numpy(pixels_of(test, size)), torch.tensor([number[word] for word in words]))
    scores = {
        method: result.table("scores.parquet")
        for corruption, method, result in cells_of(run, "method_scores")
        if corruption == MAIN and method in WHOLE and "refused" not in result.numbers
    }
    rows, accuracies = [], {}
    for seed in run.seeds:
        table = run.pool.table(f"points-{seed}.parquet")
        bad = table["corrupted"].to_numpy(zero_copy_only=False)
        sets = {"all": np.ones(len(bad), dtype=bool), "without the bad": ~bad}
        for method, values in scores.items():
            sets[method] = keep_lowest(values[str(seed)].to_numpy(), fraction=float(bad.mean()))
        found = compare_training_sets(
            LabelledImages(torch.from_numpy(clean), torch.tensor(table["label"].to_pylist())),
            {name: TrainingSet(torch.from_numpy(mask.nonzero()[0])) for name, mask in sets.items()},
            judges,
            comparison=Comparison(len(names), knobs.training, (seed,)),
            device=run.workspace.device,
            progress=lambda done, total, seed=seed: run.progress(seed * total + done, len(run.seeds) * total),
        )
        for name, (accuracy,) in found.items():
            rows.append({"seed": seed, "set": name, "accuracy": accuracy})
            accuracies.setdefault(name, []).append(accuracy)
    return Output(
        files={"accuracies.parquet": table_file(pa.Table.from_pylist(rows))},
        numbers={f"{n}_{what}": float(f(v)) for n, v in accuracies.items() for what, f in STATISTICS.items()},
        pictures={"accuracy": plots.bars(accuracies, "test accuracy")},
        data_version=run.content_version,
    )


@studied(kinds={"numpy"})
def detection_by_size(run: StudyRun) -> Output:
    """Share of the noisy labels found at the budget, and seconds, against the number of training points."""
    reference, rows = run.judges(), []
    for seed in run.seeds:
        train, bad = run.points(seed)
        order = np.random.default_rng([seed, 1]).permutation(len(bad))
        for size in [size for size in run.knobs.study.sizes if size <= len(bad)]:
            chosen = order[:size]
            part = train.take(torch.from_numpy(chosen))
            for method in BY_SIZE:
                started = time.perf_counter()
                try:
                    found = METHODS[method](part, reference)
                except OutOfMemory as refused:
                    run.log.warning(str(refused))
                    continue
                row = {"method": method, "points": size, "seed": seed, "seconds": time.perf_counter() - started}
                rows.append(row | found_by(found, bad[chosen]))
        run.progress(seed + 1, len(run.seeds))
    return figure(run, rows, line="method", x="points", y="found_at_budget")


@studied(kinds={"pytorch"})
def incremental_learning(run: StudyRun) -> Output:
    """A pool with noisy labels that arrives in five steps: at each, the method values what is there, as many points are
    pruned as are bad, and ResNet18's last layer is trained on the rest."""
    reference, test, rows = run.judges(), run.judges("test_embeddings"), []
    for seed in run.seeds:
        train, bad = run.points(seed)
        order = np.random.default_rng([seed, 2]).permutation(len(bad))
        for step in range(1, STEPS + 1):
            chosen = order[: len(bad) * step // STEPS]
            part = train.take(torch.from_numpy(chosen))
            share = float(bad[chosen].mean())
            keeps = {name: keep_lowest(METHODS[name](part, reference), fraction=share) for name in HEADLINE}
            keeps |= {"all": np.ones(len(chosen), dtype=bool), "without the bad": ~bad[chosen]}
            for name, keep in keeps.items():
                kept = part.take(torch.from_numpy(keep.nonzero()[0]))
                row = {"method": name, "points": len(chosen), "seed": seed}
                rows.append(row | {"accuracy": last_layer_accuracy(run, kept, test, seed)})
        run.progress(seed + 1, len(run.seeds))
    return figure(run, rows, line="method", x="points", y="accuracy")


@studied(kinds={"numpy"})
def sensitivity(run: StudyRun) -> Output:
    """What batch size, the label-distance cache, stratified batches and the batch plan do to the published method."""
    paper = replace(ValuationConfig.paper(), held_out_sample=0)
    settings: dict[str, tuple[Score, ValuationConfig]] = {
        "SAVA": (_values, ValuationConfig()),
        "SAVA (paper)": (_values, paper),
        "SAVA (paper), random batches": (_values, replace(paper, batching="random")),
        "SAVA (paper), no label cache": (uncached_score, paper),
        "batch-wise LAVA": (_values, replace(paper, batch_weights="uniform")),
    }
    reference, rows = run.judges(), []
    for seed in run.seeds:
        train, bad = run.points(seed)
        for size in run.knobs.study.batch_sizes:
            for name, (score, config) in settings.items():
                started = time.perf_counter()
                found = score(train, reference, config=replace(config, batch_size=size))
                row = {"setting": name, "batch_size": size, "seed": seed, "seconds": time.perf_counter() - started}
                rows.append(row | found_by(found, bad))
        run.progress(seed + 1, len(run.seeds))
    return figure(run, rows, line="setting", x="batch_size", y="found_at_budget")


@studied(kinds={"numpy"})
def transport_example(run: StudyRun) -> Output:
    """What the transport looks like for one pool with noisy labels, and which images it ranks highest and lowest."""
    names = run.pool.numbers["names"]
    train, _ = run.points(0)
    reference = run.judges()
    sides = train.features, train.labels, reference.features, reference.labels
    found = value_points(*sides, config=replace(ValuationConfig.paper(), batch_size=len(train) // 10 or 1))
    ours = value_points(*sides)
    order = np.argsort(-ours.values, kind="stable")
    shown = plots.GRID_COLUMNS * plots.GRID_ROWS
    table = run.pool.table("points-0.parquet")
    ids, labels, suggested = table["id"].to_pylist(), table["label"].to_numpy(), ours.suggested_labels
    images = {
        row["id"]: row["image"]
        for result in run.read_shards("raw_images").values()
        for row in result.table("images.parquet")
        .filter(pc.field("id").isin([ids[k] for k in (*order[:shown], *order[-shown:])]))
        .to_pylist()
    }

    def grid_of(rows: np.ndarray) -> str:
        captions = [
            names[labels[k]] if suggested[k] == labels[k] else f"{names[labels[k]]} → {names[suggested[k]]}"
            for k in rows
        ]
        return plots.image_grid([images[ids[k]] for k in rows], captions)

    return Output(
        files={"values.parquet": table_file(pa.table({"id": ids, "value": ours.values}))},
        pictures={
            "distances between classes": plots.matrix(
                found.label_distances, "training class", "reference class", names
            ),
            "costs between batches": plots.matrix(found.batch_costs, "training batch", "reference batch"),
            "plan between batches": plots.matrix(found.batch_plan, "training batch", "reference batch"),
            "highest values": grid_of(order[:shown]),
            "lowest values": grid_of(order[::-1][:shown]),
        },
        data_version=run.content_version,
    )


def _values(train: Points, reference: Points, *, config: ValuationConfig) -> np.ndarray:
    sides = train.features, train.labels, reference.features, reference.labels
    return value_points(*sides, config=config, device=str(train.features.device)).values
