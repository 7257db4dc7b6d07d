"""The paper's comparisons as assets (SAVA §5, App. G): every corruption × every method, on a pool with true labels.

    raw_images, embeddings ─ corrupted_pool[corruption] ─ method_scores[corruption × method] ─ detection
                                        │                          └─ pruning_curves[corruption × method] ─ pruning
                                        └─ detection_by_size, incremental_learning, sensitivity, transport_example

The home is an ordinary one whose shards are clean. Methods see features and labels of the corrupted pool and the
reference set; accuracy is measured on the test set, which chooses nothing. What is due is what the store does not hold.
"""

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import dagster as dg
import numpy as np
import psutil
import pyarrow as pa
import pyarrow.compute as pc
import torch

from sava_assets import plots
from sava_assets.computation import Run, metadata_of, result_of
from sava_assets.features import embed_set, stored_encoder
from sava_assets.freshness import RULES, SHARDS_NAME, key
from sava_assets.resources import Workspace
from sava_assets.store import Output, Result, table_file, tensor_file
from sava_ops.baselines import METHODS
from sava_ops.baselines.linear_head import BATCH, train_head
from sava_ops.baselines.transport import uncached_score
from sava_ops.classifier import Comparison, LabelledImages, TrainingSet, compare_training_sets
from sava_ops.config import ValuationConfig
from sava_ops.corruptions import confused_labels, noisy_features, noisy_labels, poison_frogs, trojan_square
from sava_ops.cost import Points
from sava_ops.detection import auroc, average_precision, detection_curve, found_in_top
from sava_ops.encoder import Encoder, embed
from sava_ops.errors import BadInput, OutOfMemory
from sava_ops.images import decode_all
from sava_ops.inputs import as_points
from sava_ops.pruning import keep_lowest
from sava_ops.valuation import value_points

TARGET = 0
"""Class that trojans are labelled as, and that poisons collide with."""
STEPS = 5
"""In which the growing pool arrives."""
HEADLINE = ("SAVA", "SAVA (paper)", "batch-wise LAVA", "KNN-Shapley", "logistic regression", "random")
"""Methods of the figures that cannot show all."""
BY_SIZE = (*HEADLINE, "LAVA")
WHOLE = ("SAVA", "SAVA (paper)", "logistic regression", "random")
MAIN = "noisy labels"
"""Corruption of the figures that show one."""


Score = Callable[..., np.ndarray]


@dataclass(frozen=True)
class Clean:
    """What is corrupted."""

    pixels: np.ndarray
    features: np.ndarray
    labels: np.ndarray
    names: list[str]
    mistakes: Mapping[int, int]
    """Asymmetric noise: which class is taken for which."""
    targets: np.ndarray
    """Test images of class `TARGET`, for poisons to collide with."""
    encoder: Encoder


@dataclass(frozen=True)
class Corrupted:
    """The pool after its corruption, and which points it touched."""

    pixels: np.ndarray
    labels: np.ndarray
    bad: np.ndarray


def _noisy_labels(clean: Clean, seed: int) -> Corrupted:
    return Corrupted(clean.pixels, *noisy_labels(clean.labels, share=0.3, classes=len(clean.names), seed=seed))


def _asymmetric_labels(clean: Clean, seed: int) -> Corrupted:
    return Corrupted(clean.pixels, *confused_labels(clean.labels, share=0.3, mistakes=clean.mistakes, seed=seed))


def _noisy_features(clean: Clean, seed: int) -> Corrupted:
    pixels, bad = noisy_features(clean.pixels, share=0.3, seed=seed)
    return Corrupted(pixels, clean.labels, bad)


def _trojan(clean: Clean, seed: int, *, fixed: bool) -> Corrupted:
    return Corrupted(*trojan_square(clean.pixels, clean.labels, share=0.1, target=TARGET, seed=seed, fixed=fixed))


def _poison_frogs(clean: Clean, seed: int) -> Corrupted:
    target = clean.targets[np.random.default_rng(seed).integers(len(clean.targets))]
    pixels, bad = poison_frogs(
        clean.pixels, clean.labels, target, encoder=clean.encoder, share=0.05, base=len(clean.names) - 1, seed=seed
    )
    return Corrupted(pixels, clean.labels, bad)


CORRUPTIONS: dict[str, Callable[[Clean, int], Corrupted]] = {
    MAIN: _noisy_labels,
    "asymmetric labels": _asymmetric_labels,
    "noisy features": _noisy_features,
    "trojan square": partial(_trojan, fixed=False),
    "patch trigger": partial(_trojan, fixed=True),
    "poison frogs": _poison_frogs,
}
BY_CORRUPTION = dg.StaticPartitionsDefinition(list(CORRUPTIONS))
BY_CELL = dg.MultiPartitionsDefinition(
    {"corruption": BY_CORRUPTION, "method": dg.StaticPartitionsDefinition(list(METHODS))}
)


@dataclass(frozen=True)
class Study:
    """What a study asset reads."""

    code_version: str
    reads: tuple[str, ...]
    knobs: tuple[str, ...] = ()
    partitions: dg.PartitionsDefinition | None = None

    @property
    def cells(self) -> list[str | None]:
        """Its partitions, as the store names them."""
        if self.partitions is None:
            return [None]
        if self.partitions is BY_CORRUPTION:
            return list(CORRUPTIONS)
        return [f"{corruption}/{method}" for corruption in CORRUPTIONS for method in METHODS]


_SIZES = ("study.seeds",)
STUDIES = {
    "test_embeddings": Study("1", ("test_images", "encoder")),
    "corrupted_pool": Study(
        "1", ("raw_images", "embeddings", "encoder", "test_images"), ("study.mistakes", *_SIZES), BY_CORRUPTION
    ),
    "method_scores": Study("1", ("corrupted_pool", "reference_embeddings"), (), BY_CELL),
    "detection": Study("1", ("method_scores",)),
    "pruning_curves": Study(
        "1",
        ("corrupted_pool", "method_scores", "test_embeddings"),
        ("study.pruned_shares", "study.last_layer_steps"),
        BY_CELL,
    ),
    "pruning": Study("1", ("pruning_curves",)),
    "whole_network": Study(
        "1", ("corrupted_pool", "method_scores", "raw_images", "test_images"), ("study.training", "study.seeds")
    ),
    "detection_by_size": Study("1", ("corrupted_pool", "reference_embeddings"), ("study.sizes",)),
    "incremental_learning": Study(
        "1", ("corrupted_pool", "reference_embeddings", "test_embeddings"), ("study.last_layer_steps",)
    ),
    "sensitivity": Study("1", ("corrupted_pool", "reference_embeddings"), ("study.batch_sizes",)),
    "transport_example": Study("1", ("corrupted_pool", "reference_embeddings", "raw_images")),
}
"""In the order in which they can be computed."""


@dataclass(frozen=True)
class StudyRun(Run):
    """What a study's computation may see; `shard` is its cell: "corruption" or "corruption/method"."""

    @property
    def corruption(self) -> str:
        return (self.shard or MAIN).split("/")[0]

    @property
    def method(self) -> str:
        return (self.shard or "").partition("/")[2]

    @property
    def seeds(self) -> range:
        return range(self.knobs.study.seeds)

    def _results(self, upstream: str) -> dict[str | None, Result]:
        return study_upstream(self.asset, upstream, self.workspace, self.shards, self.shard)

    @cached_property
    def pool(self) -> Result:
        return self._results("corrupted_pool")[self.corruption]

    def points(self, seed: int) -> tuple[Points, np.ndarray]:
        """The corrupted pool as the methods see it, and which points are bad."""
        table = self.pool.table(f"points-{seed}.parquet")
        features = self.pool.tensors(f"features-{seed}.safetensors")["features"]
        labels = table["label"].to_numpy().copy()
        return self._as_points(features, labels), table["corrupted"].to_numpy(zero_copy_only=False)

    def judges(self, asset: str = "reference_embeddings") -> Points:
        """Reference or test images as points."""
        embedded = self.read(asset)
        number = {name: k for k, name in enumerate(self.pool.numbers["names"])}
        labels = [number[name] for name in embedded.table("points.parquet", ["label"])["label"].to_pylist()]
        return self._as_points(embedded.tensors("features.safetensors")["features"], np.array(labels))

    def _as_points(self, features: torch.Tensor, labels: np.ndarray) -> Points:
        return as_points(features.float(), labels, side="training", unit_norm=True, device=self.workspace.device)


def study_upstream(
    asset: str, upstream: str, workspace: Workspace, shards: Sequence[str], cell: str | None
) -> dict[str | None, Result]:
    """What `asset` reads of `upstream`: of its own corruption and method where both have them, else all."""
    if upstream in RULES:
        wanted: list[str | None] = [*sorted(shards)] if RULES[upstream].sharded else [None]
    else:
        wanted = [own for own in STUDIES[upstream].cells if _same_cell(own, cell)]
    found = {own: workspace.store.current(upstream, own) for own in wanted}
    missing = [name for name, result in found.items() if result is None]
    if missing or not found:
        name = upstream if not missing or missing[0] is None else f"{upstream}[{missing[0]}]"
        raise BadInput(f"{asset} needs {name}, which has no result yet: materialize {upstream} first")
    return {name: result for name, result in found.items() if result is not None}


def _same_cell(own: str | None, cell: str | None) -> bool:
    if own is None or cell is None:
        return True
    return all(a == b for a, b in zip(own.split("/"), cell.split("/"), strict=False))


def study_inputs(asset: str, workspace: Workspace, shards: Sequence[str], cell: str | None) -> dict[str, Any]:
    """What names the result of this cell, as JSON. Raises BadInput if something it reads does not exist yet."""
    study, knobs = STUDIES[asset], workspace.knobs
    named: dict[str, Any] = {"code_version": study.code_version, "cell": cell}
    named["knobs"] = {name: knobs.value(name) for name in study.knobs}
    for name in study.reads:
        results = study_upstream(asset, name, workspace, shards, cell)
        named[name] = {own or "": result.data_version for own, result in results.items()}
    return named


def is_due(asset: str, workspace: Workspace, shards: Sequence[str], cell: str | None) -> bool:
    """Whether the store lacks the result that the present inputs name."""
    current = workspace.store.current(asset, cell)
    return current is None or current.key != key(study_inputs(asset, workspace, shards, cell))


def partition_of(cell: str | None) -> str | None:
    """The cell as Dagster names it."""
    if cell is None or "/" not in cell:
        return cell
    corruption, method = cell.split("/", 1)
    return dg.MultiPartitionKey({"corruption": corruption, "method": method})


def studied(*, kinds: set[str]) -> Callable[[Callable[[StudyRun], Output]], dg.AssetsDefinition]:
    """Make an asset of a function that computes one cell."""

    def decorate(compute: Callable[[StudyRun], Output]) -> dg.AssetsDefinition:
        name = compute.__name__
        study = STUDIES[name]

        @dg.asset(
            name=name,
            description=compute.__doc__,
            deps=[_dependency(upstream) for upstream in study.reads],
            group_name="study",
            kinds=kinds,
            code_version=study.code_version,
            partitions_def=study.partitions,
            pool="compute",
            owners=["team:curation"],
        )
        def asset(context: dg.AssetExecutionContext, workspace: Workspace) -> dg.MaterializeResult:
            shards, cell = list(context.instance.get_dynamic_partitions(SHARDS_NAME)), _cell(context)
            named = study_inputs(name, workspace, shards, cell)
            run = StudyRun(name, cell, shards, workspace, workspace.knobs, named, context.log)
            result, notes = result_of(run, compute)
            return dg.MaterializeResult(
                metadata=metadata_of(result, notes), data_version=dg.DataVersion(result.data_version)
            )

        return asset

    return decorate


def _dependency(upstream: str) -> dg.AssetDep:
    # Shards are partitions of another kind: a cell reads them all.
    sharded = upstream in RULES and RULES[upstream].sharded
    return dg.AssetDep(upstream, partition_mapping=dg.AllPartitionMapping() if sharded else None)


def _cell(context: dg.AssetExecutionContext) -> str | None:
    if not context.has_partition_key:
        return None
    partition = context.partition_key
    if isinstance(partition, dg.MultiPartitionKey):
        return "/".join(partition.keys_by_dimension[name] for name in ("corruption", "method"))
    return partition


@studied(kinds={"pytorch"})
def test_embeddings(run: StudyRun) -> Output:
    """Features of the test images: what is trained on the pool is judged on them."""
    return embed_set(run, run.read("test_images"))


@studied(kinds={"parquet"})
def corrupted_pool(run: StudyRun) -> Output:
    """The clean pool after one corruption, once per seed, with the features of what it changed."""
    raw, size = run.read_shards("raw_images"), run.knobs.encoder.image_size
    embedded = run.read_shards("embeddings")
    ids, words = (
        [value for result in raw.values() for value in result.table("points.parquet")[name].to_pylist()]
        for name in ("id", "label")
    )
    names = sorted(set(words) | set(run.read("test_images").numbers["classes"]))
    number = {name: k for k, name in enumerate(names)}
    clean = Clean(
        pixels=np.concatenate([_pixels(result, size) for result in raw.values()]),
        features=np.concatenate([r.tensors("features.safetensors")["features"].float() for r in embedded.values()]),
        labels=np.array([number[word] for word in words]),
        names=names,
        mistakes=_mistakes(run, number),
        targets=_of_class(run.read("test_images"), names[TARGET], size),
        encoder=stored_encoder(run.read("encoder")),
    )
    files: dict[str, Any] = {}
    bad = 0
    for seed in run.seeds:
        made = CORRUPTIONS[run.corruption](clean, seed)
        changed = (made.pixels != clean.pixels).any((1, 2, 3))
        features = clean.features.copy()
        if changed.any():
            pixels = torch.from_numpy(made.pixels[changed])
            features[changed] = embed(clean.encoder, pixels, device=run.workspace.device).numpy()
        table = pa.table({"id": ids, "label": made.labels, "true_label": clean.labels, "corrupted": made.bad})
        files[f"points-{seed}.parquet"] = table_file(table)
        files[f"features-{seed}.safetensors"] = tensor_file({"features": torch.from_numpy(features)})
        rows = torch.from_numpy(changed.nonzero()[0])
        files[f"pixels-{seed}.safetensors"] = tensor_file({"rows": rows, "pixels": torch.from_numpy(made.pixels)[rows]})
        bad = int(made.bad.sum())
        run.progress(seed + 1, len(run.seeds))
    return Output(files, {"points": len(ids), "corrupted": bad, "names": names}, data_version=run.content_version)


@studied(kinds={"numpy"})
def method_scores(run: StudyRun) -> Output:
    """One method's ranking of one corrupted pool: what it finds, how long it takes, how much memory."""
    method, reference = METHODS[run.method], run.judges()
    rows, curves, scores = [], [], {}
    for seed in run.seeds:
        train, bad = run.points(seed)
        with PeakMemory() as memory:
            started = time.perf_counter()
            try:
                found = method(train, reference)
            except OutOfMemory as refused:
                return Output({}, {"refused": str(refused)}, data_version=run.key)
            seconds = time.perf_counter() - started
        measured = {"seed": seed, **_found(found, bad), "seconds": seconds, "memory_gb": memory.gigabytes}
        rows.append(measured)
        inspected, recall = detection_curve(found, bad)
        curves.append(pa.table({"seed": [seed] * len(recall), "inspected": inspected, "found": recall}))
        scores[str(seed)] = found
        run.progress(seed + 1, len(run.seeds))
    table = pa.Table.from_pylist(rows)
    return Output(
        files={
            "scores.parquet": table_file(pa.table(scores)),
            "measured.parquet": table_file(table),
            "curves.parquet": table_file(pa.concat_tables(curves)),
        },
        numbers={name: float(np.mean(table[name].to_numpy())) for name in table.column_names if name != "seed"},
        # Seconds differ from run to run; the scores do not.
        data_version=run.key,
    )


@studied(kinds={"parquet"})
def detection(run: StudyRun) -> Output:
    """Every corruption × every method: AUROC, average precision, share found at the budget, seconds, memory."""
    rows, curves = [], {corruption: {} for corruption in CORRUPTIONS}
    for corruption, method, result in _cells(run, "method_scores"):
        row = {"corruption": corruption, "method": method}
        if "refused" in result.numbers:
            rows.append(row | {"refused": result.numbers["refused"]})
            continue
        (summary,) = _grouped(result.table("measured.parquet"), [])
        curve = _grouped(result.table("curves.parquet"), ["inspected"])
        rows.append(row | summary)
        curves[corruption][method] = [r["inspected"] for r in curve], [r["found_mean"] for r in curve]
    table = pa.Table.from_pylist(rows, schema=_DETECTION)
    return Output(
        files={"detection.parquet": table_file(table)},
        pictures={"AUROC": grid(table, "auroc"), "found at the budget": grid(table, "found_at_budget")}
        | {name: plots.lines(lines, "share inspected", "share of the bad found") for name, lines in curves.items()},
        data_version=run.key,
    )


@studied(kinds={"pytorch"})
def pruning_curves(run: StudyRun) -> Output:
    """Test accuracy of ResNet18's last layer, trained with equal steps on what one method keeps of the pool."""
    scores, test = run.read("method_scores"), run.judges("test_embeddings")
    if "refused" in scores.numbers:
        return Output({}, {"refused": scores.numbers["refused"]}, data_version=run.key)
    values, rows = scores.table("scores.parquet"), []
    for seed in run.seeds:
        train, _ = run.points(seed)
        for share in (0.0, *run.knobs.study.pruned_shares):
            kept = train.take(torch.from_numpy(keep_lowest(values[str(seed)].to_numpy(), fraction=share).nonzero()[0]))
            rows.append({"seed": seed, "pruned_share": share, "accuracy": _last_layer_accuracy(run, kept, test, seed)})
        run.progress(seed + 1, len(run.seeds))
    return Output({"accuracies.parquet": table_file(pa.Table.from_pylist(rows))}, data_version=run.content_version)


@studied(kinds={"parquet"})
def pruning(run: StudyRun) -> Output:
    """Accuracy against the pruned share: every method, beside the random control."""
    tables, drawn = [], {corruption: {} for corruption in CORRUPTIONS}
    for corruption, method, result in _cells(run, "pruning_curves"):
        if "refused" in result.numbers:
            continue
        summary = [
            {"corruption": corruption, "method": method, **row}
            for row in _grouped(result.table("accuracies.parquet"), ["pruned_share"])
        ]
        tables += summary
        drawn[corruption][method] = [row["pruned_share"] for row in summary], [row["accuracy_mean"] for row in summary]
    return Output(
        files={"pruning.parquet": table_file(pa.Table.from_pylist(tables))},
        pictures={name: plots.lines(lines, "share pruned", "test accuracy") for name, lines in drawn.items()},
        data_version=run.content_version,
    )


@studied(kinds={"pytorch"})
def whole_network(run: StudyRun) -> Output:
    """Test accuracy of a whole ResNet18 trained from scratch, with equal steps, on what some methods keep of the
    pool with noisy labels: as many points are pruned as are bad."""
    knobs, size = run.knobs.study, run.knobs.encoder.image_size
    clean = np.concatenate([_pixels(result, size) for result in run.read_shards("raw_images").values()])
    names, test = run.pool.numbers["names"], run.read("test_images")
    number = {name: k for k, name in enumerate(names)}
    words = test.table("points.parquet", ["label"])["label"].to_pylist()
    judges = LabelledImages(torch.from_numpy(_pixels(test, size)), torch.tensor([number[word] for word in words]))
    scores = {method: result for cell, method, result in _cells(run, "method_scores") if cell == MAIN}
    rows, accuracies = [], {}
    for seed in run.seeds:
        table = run.pool.table(f"points-{seed}.parquet")
        bad = table["corrupted"].to_numpy(zero_copy_only=False)
        sets = {"all": np.ones(len(bad), dtype=bool), "without the bad": ~bad}
        for method in WHOLE:
            values = scores[method].table("scores.parquet")[str(seed)].to_numpy()
            sets[method] = keep_lowest(values, fraction=float(bad.mean()))
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
        numbers={f"{n}_{what}": float(f(v)) for n, v in accuracies.items() for what, f in _STATISTICS.items()},
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
                rows.append(row | _found(found, bad[chosen]))
        run.progress(seed + 1, len(run.seeds))
    return _figure(run, rows, line="method", x="points", y="found_at_budget")


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
                rows.append(row | {"accuracy": _last_layer_accuracy(run, kept, test, seed)})
        run.progress(seed + 1, len(run.seeds))
    return _figure(run, rows, line="method", x="points", y="accuracy")


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
                rows.append(row | _found(found, bad))
        run.progress(seed + 1, len(run.seeds))
    return _figure(run, rows, line="setting", x="batch_size", y="found_at_budget")


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
    ids, table = run.pool.table("points-0.parquet")["id"].to_pylist(), run.pool.table("points-0.parquet")
    labels, suggested = table["label"].to_numpy(), ours.suggested_labels
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


class PeakMemory:
    """How far the memory of this process rises meanwhile, looked at a hundred times a second."""

    gigabytes = 0.0

    def __enter__(self) -> "PeakMemory":
        self._process, self._stop = psutil.Process(), threading.Event()
        self._before = self._peak = self._process.memory_info().rss
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._peak = max(self._peak, self._process.memory_info().rss)
        self.gigabytes = (self._peak - self._before) / 1e9

    def _watch(self) -> None:
        while not self._stop.wait(0.01):
            self._peak = max(self._peak, self._process.memory_info().rss)


def grid(table: pa.Table, column: str) -> str:
    """Corruptions × methods, mean ± standard deviation, as Markdown."""
    cells = {(row["corruption"], row["method"]): row for row in table.to_pylist()}
    lines = [f"| | {' | '.join(CORRUPTIONS)} |", f"|---|{'---:|' * len(CORRUPTIONS)}"]
    for method in METHODS:
        lines.append(f"| {method} | {' | '.join(_cell_text(cells.get((c, method)), column) for c in CORRUPTIONS)} |")
    return "\n".join(lines)


def _cell_text(row: Mapping[str, Any] | None, column: str) -> str:
    if row is None:
        return "–"
    return row["refused"] or f"{row[f'{column}_mean']:.3f} ± {row[f'{column}_std']:.3f}"


def _values(train: Points, reference: Points, *, config: ValuationConfig) -> np.ndarray:
    sides = train.features, train.labels, reference.features, reference.labels
    return value_points(*sides, config=config, device=str(train.features.device)).values


def _last_layer_accuracy(run: StudyRun, kept: Points, test: Points, seed: int) -> float:
    """Test accuracy of a softmax regression trained on these features, with as many steps whatever their number."""
    classes = int(max(kept.labels.max(), test.labels.max())) + 1
    epochs = max(1, round(run.knobs.study.last_layer_steps * BATCH / len(kept)))
    return train_head(kept, classes=classes, epochs=epochs, seed=seed)[-1].accuracy(test)


def _found(scores: np.ndarray, bad: np.ndarray) -> dict[str, float]:
    """How well a ranking finds the bad points."""
    count = int(bad.sum())
    return {
        "auroc": auroc(scores, bad),
        "average_precision": average_precision(scores, bad),
        "found_at_budget": found_in_top(scores, bad, count=count) / count,
    }


_MEASURES = ("auroc", "average_precision", "found_at_budget", "seconds", "memory_gb")
_DETECTION = pa.schema(
    [("corruption", pa.string()), ("method", pa.string())]
    + [(f"{name}_{what}", pa.float64()) for name in _MEASURES for what in ("mean", "std")]
    + [("refused", pa.string())]
)


def _cells(run: StudyRun, upstream: str) -> Iterator[tuple[str, str, Result]]:
    for cell, result in run.read_shards(upstream).items():
        corruption, method = cell.split("/", 1)
        yield corruption, method, result


def _grouped(table: pa.Table, by: list[str]) -> list[dict[str, Any]]:
    """Mean and standard deviation over the seeds, group by group."""
    frame = table.to_pandas()
    measures = [name for name in frame.columns if name not in (*by, "seed")]
    rows = []
    for names, own in frame.groupby(by, sort=False) if by else [((), frame)]:
        row = dict(zip(by, names, strict=True))
        row |= {f"{m}_{what}": float(f(own[m].to_numpy())) for m in measures for what, f in _STATISTICS.items()}
        rows.append(row)
    return rows


_STATISTICS = {"mean": np.mean, "std": np.std}


def _figure(run: StudyRun, rows: list[dict[str, Any]], *, line: str, x: str, y: str) -> Output:
    """Rows of every seed, their summary, and one line per value of `line`."""
    table = pa.Table.from_pylist(rows)
    summary = _grouped(table, [line, x])
    drawn: dict[str, tuple[list, list]] = {}
    for row in summary:
        across, up = drawn.setdefault(row[line], ([], []))
        across.append(row[x])
        up.append(row[f"{y}_mean"])
    words = y.replace("_", " ")
    return Output(
        files={"rows.parquet": table_file(table), "summary.parquet": table_file(pa.Table.from_pylist(summary))},
        pictures={f"{words} against {x.replace('_', ' ')}": plots.lines(drawn, x.replace("_", " "), words)},
        data_version=run.key,
    )


def _mistakes(run: StudyRun, number: Mapping[str, int]) -> dict[int, int]:
    """Asymmetric noise as set, else each class of the first half is taken for the next one."""
    asked = run.knobs.study.mistakes
    if unknown := sorted({*asked, *asked.values()} - number.keys()):
        raise BadInput(f"`study.mistakes` names {unknown[0]}, which is no class: use {', '.join(number)}")
    if asked:
        return {number[label]: number[mistaken] for label, mistaken in asked.items()}
    return {k: k + 1 for k in range((len(number) + 1) // 2)}


def _pixels(result: Result, size: int) -> np.ndarray:
    return decode_all(result.table("images.parquet", ["image"])["image"].to_pylist(), size=size).numpy()


def _of_class(result: Result, name: str, size: int) -> np.ndarray:
    labels = result.table("points.parquet", ["label"])["label"].to_pylist()
    images = result.table("images.parquet", ["image"]).filter(pa.array([label == name for label in labels]))
    if not len(images):
        raise BadInput(f"the test set has no image of class {name}, with which poisons are to collide: add some")
    return decode_all(images["image"].to_pylist(), size=size).numpy()
