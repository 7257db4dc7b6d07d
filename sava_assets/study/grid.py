"""Every corruption × every method: the pools, the rankings, what they find, what pruning by them brings."""

import time
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from sava_assets.assets import plots
from sava_assets.assets.embedding import stored_encoder
from sava_assets.home.result import Output, Result, table_file, tensor_file
from sava_assets.study.cells import StudyRun, cells_of, pixels_of, studied
from sava_assets.study.corruptions import CORRUPTIONS, TARGET, Clean, mistakes_of
from sava_assets.study.measures import PeakMemory, found_by, grouped, last_layer_accuracy, table_of
from sava_ops.baselines import METHODS
from sava_ops.decisions.detection import detection_curve
from sava_ops.decisions.pruning import keep_lowest
from sava_ops.errors import BadInput, OutOfMemory
from sava_ops.images.decode import decode_all
from sava_ops.images.encoder import embed

SET_ASIDE = {"id": pa.string(), "reason": pa.string()}


@studied(kinds={"parquet"})
def corrupted_pool(run: StudyRun) -> Output:
    """The clean pool after one corruption, once per seed, with the features of what it changed. What also stands in
    the reference or test set is no part of it."""
    raw, size = run.read_shards("raw_images"), run.knobs.encoder.image_size
    points = pa.concat_tables([result.table("points.parquet", ["id", "label"]) for result in raw.values()])
    own = ~np.isin(points["id"].to_numpy(), list(run.aside))
    ids, words = (points[name].filter(pa.array(own)).to_pylist() for name in ("id", "label"))
    features = torch.cat(
        [r.tensors("features.safetensors")["features"] for r in run.read_shards("embeddings").values()]
    )
    names = sorted(set(words) | set(run.read("test_images").numbers["classes"]))
    number = {name: k for k, name in enumerate(names)}
    clean = Clean(
        pixels=np.concatenate([pixels_of(result, size, without=run.aside) for result in raw.values()]),
        features=features[torch.from_numpy(own)].float().numpy(),
        labels=np.array([number[word] for word in words]),
        names=names,
        mistakes=mistakes_of(run.knobs.study.mistakes, number),
        targets=_of_class(run.read("test_images"), names[TARGET], size),
        encoder=stored_encoder(run.read("encoder")),
    )
    aside = pa.table({"id": [*run.aside], "reason": [*run.aside.values()]}, pa.schema(SET_ASIDE))
    files: dict[str, Any] = {"set_aside.parquet": table_file(aside)}
    bad = 0
    for seed in run.seeds:
        made = CORRUPTIONS[run.corruption](clean, seed)
        if not made.bad.any():  # poisons may all stay too far from their target
            raise BadInput(
                f"no image became bad by {run.corruption} ({len(ids)} images, seed {seed}), and a study measures how "
                "bad ones are found: use more images, or an encoder that tells them apart"
            )
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
    numbers = {"points": len(ids), "corrupted": bad, "names": names, "set_aside": len(run.aside)}
    return Output(files, numbers, data_version=run.content_version)


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
        measured = {"seed": seed, **found_by(found, bad), "seconds": seconds, "memory_gb": memory.gigabytes}
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
    for corruption, method, result in cells_of(run, "method_scores"):
        row = {"corruption": corruption, "method": method}
        if "refused" in result.numbers:
            rows.append(row | {"refused": result.numbers["refused"]})
            continue
        (summary,) = grouped(result.table("measured.parquet"), [])
        curve = grouped(result.table("curves.parquet"), ["inspected"])
        rows.append(row | summary)
        curves[corruption][method] = [r["inspected"] for r in curve], [r["found_mean"] for r in curve]
    table = pa.Table.from_pylist(rows, schema=_DETECTION)
    return Output(
        files={"detection.parquet": table_file(table)},
        pictures={"AUROC": table_of(table, "auroc"), "found at the budget": table_of(table, "found_at_budget")}
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
            rows.append({"seed": seed, "pruned_share": share, "accuracy": last_layer_accuracy(run, kept, test, seed)})
        run.progress(seed + 1, len(run.seeds))
    return Output({"accuracies.parquet": table_file(pa.Table.from_pylist(rows))}, data_version=run.content_version)


@studied(kinds={"parquet"})
def pruning(run: StudyRun) -> Output:
    """Accuracy against the pruned share: every method, beside the random control."""
    tables, drawn = [], {corruption: {} for corruption in CORRUPTIONS}
    for corruption, method, result in cells_of(run, "pruning_curves"):
        if "refused" in result.numbers:
            continue
        summary = [
            {"corruption": corruption, "method": method, **row}
            for row in grouped(result.table("accuracies.parquet"), ["pruned_share"])
        ]
        tables += summary
        drawn[corruption][method] = [row["pruned_share"] for row in summary], [row["accuracy_mean"] for row in summary]
    return Output(
        files={"pruning.parquet": table_file(pa.Table.from_pylist(tables))},
        pictures={name: plots.lines(lines, "share pruned", "test accuracy") for name, lines in drawn.items()},
        data_version=run.content_version,
    )


_MEASURES = ("auroc", "average_precision", "found_at_budget", "seconds", "memory_gb")
_DETECTION = pa.schema(
    [("corruption", pa.string()), ("method", pa.string())]
    + [(f"{name}_{what}", pa.float64()) for name in _MEASURES for what in ("mean", "std")]
    + [("refused", pa.string())]
)


def _of_class(result: Result, name: str, size: int) -> np.ndarray:
    labels = result.table("points.parquet", ["label"])["label"].to_pylist()
    images = result.table("images.parquet", ["image"]).filter(pa.array([label == name for label in labels]))
    if not len(images):
        raise BadInput(f"the test set has no image of class {name}, with which poisons are to collide: add some")
    return decode_all(images["image"].to_pylist(), size=size).numpy()
