"""From batch matrix to a curated data set, and the proof that it trains a better classifier."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from sava_assets.assets import plots
from sava_assets.assets.copies import with_copies
from sava_assets.assets.decisions import decided_by_people
from sava_assets.assets.findings import findings, with_findings
from sava_assets.assets.pixels import chosen_images, pixel_file
from sava_assets.assets.set_aside import with_set_aside
from sava_assets.assets.transport import read_row
from sava_assets.formats.columns import codes_of, places_of
from sava_assets.freshness.computation import Run, computed
from sava_assets.freshness.history import join_accuracy
from sava_assets.freshness.limits import group_numbers
from sava_assets.freshness.overlap import SET_ASIDE, refuse_shared_images
from sava_assets.home.result import DamagedResult, Output, Result, table_file
from sava_ops.decisions.assessment import Assessment
from sava_ops.decisions.conformal import bad_share
from sava_ops.decisions.pruning import Decision, decide, keep_random
from sava_ops.errors import BadInput
from sava_ops.images.classifier import Comparison, LabelledImages, TrainingSet, compare_training_sets
from sava_ops.transport import BatchRow
from sava_ops.valuation import BatchPlan, assess

MOST_GROUPS = 40
"""Shown of classes and of shards."""


@computed(group="valuation", kinds={"parquet"})
def point_values(run: Run) -> Output:
    """What each training image is worth, and why: how far it pulls the training data away from the reference, how much
    of that is the image and how much its label, which label fits best. High = prune first."""
    index, members = run.read("batch_ot").table("rows.parquet"), run.read_shards("batches")
    found = assess(_rows(run, index["row"].to_pylist()), _plan(run.read("batch_plan")), run.knobs.valuation)
    shards = list(dict.fromkeys(index["shard"].to_pylist()))
    # What is in no batch is set aside.
    tables = [members[shard].table("points.parquet").filter(pc.field("batch").is_valid()) for shard in shards]
    names = [pa.repeat(shard, len(table)) for shard, table in zip(shards, tables, strict=True)]
    points = pa.concat_tables(table.append_column("shard", name) for table, name in zip(tables, names, strict=True))
    # Rows are batch by batch, the table is shard by shard.
    first = np.cumsum([0, *(members[shard].numbers["batches"] for shard in shards[:-1])])
    place = np.concatenate([start + table["batch"].to_numpy() for start, table in zip(first, tables, strict=True)])
    order = np.argsort(np.argsort(place, kind="stable"), kind="stable")
    found = Assessment(**{name: array[order] for name, array in vars(found).items()})
    classes, known = (run.read(name).numbers["classes"] for name in ("label_distances", "reference_embeddings"))
    points = with_findings(points, found, classes, known=set(known))
    return Output(
        files={"points.parquet": table_file(points)},
        numbers={"points": len(points), "bad_share": bad_share(found.p_values)}
        | {
            f"value_{n}": float(np.quantile(found.values, q)) for n, q in (("median", 0.5), ("p90", 0.9), ("p99", 0.99))
        },
        pictures={
            "values": plots.histogram(found.values, "value (units of cost)"),
            "highest values": _highest(points, run.read_shards("raw_images")),
        },
    )


def _rows(run: Run, keys: list[str]) -> Iterator[BatchRow]:
    for done, key in enumerate(keys, start=1):
        row = read_row(run, key)
        if row is None:
            told = f"a row of batch_ot is gone from the store ({key}): materialize batch_ot again"
            raise DamagedResult(told, run.read("batch_ot"))
        yield row
        run.progress(done, len(keys))


@computed(group="curation", kinds={"parquet"})
def pruned_dataset(run: Run) -> Output:
    """What becomes of each training image: keep, drop, relabel or review; set aside, if it also stands in the reference
    or test set. `curated_dataset` publishes what is kept."""
    points, knobs = run.read("point_values").table("points.parquet"), run.knobs.prune
    labels, shards = (codes_of(points[name]) for name in ("label", "shard"))
    made = decide(findings(points), labels, knobs.rule)
    relabelled = made.action == "relabel"
    own, suggested = (np.array(points[name].to_pylist(), dtype=object) for name in ("label", "suggested_label"))
    mended = relabelled & knobs.relabel
    curated = np.where(mended, suggested, own)
    curated[~made.keep & ~mended] = None
    copies = with_copies(run, points, made.action.tolist(), curated.tolist())
    points = copies.points
    ruling = decided_by_people(run, points, copies.actions, copies.curated)
    for name, column in ruling.columns.items():
        points = points.append_column(name, column)
    keep, action = ruling.columns["keep"].to_numpy(zero_copy_only=False), ruling.columns["action"].to_pylist()
    evidence, p_value = points["evidence"].to_numpy(), points["p_value"].to_numpy()
    numbers = {"points": len(points), "kept": int(keep.sum()), "pruned": int((~keep).sum())}
    numbers |= {f"to_{name}": action.count(name) for name in ("drop", "relabel", "review")}
    table, aside = with_set_aside(run, points)
    return Output(
        files={"points.parquet": table_file(table)},
        numbers=numbers
        | {"threshold": made.threshold, "bad_share": bad_share(p_value)}
        | copies.numbers
        | ruling.numbers
        | aside
        | group_numbers(table, cut=int((~made.keep).sum())),
        pictures={
            "evidence": plots.histogram(evidence, "evidence (nats)", made.threshold),
            "share of bad points": _shares(points, {"label": labels, "shard": shards}, made),
            **copies.pictures,
            **ruling.pictures,
        },
    )


@plots.picture
def _shares(points: pa.Table, groups: dict[str, np.ndarray], made: Decision) -> str:
    """Estimated share of bad points and share flagged, by label and by shard."""
    p_value, lines = points["p_value"].to_numpy(), []
    for name, codes in groups.items():
        lines += [f"| {name} | points | estimated bad | flagged |", "|---|---:|---:|---:|"]
        words = sorted(points[name].unique().to_pylist())
        for code in range(min(len(words), MOST_GROUPS)):
            own = codes == code
            shares = f"{bad_share(p_value[own]):.1%} | {made.flagged[own].mean():.1%}"
            lines.append(f"| {words[code]} | {own.sum():,} | {shares} |")
        lines += [f"\n… and {len(words) - MOST_GROUPS:,} more" if len(words) > MOST_GROUPS else "", ""]
    return "\n".join(lines)


def _remember(run: Run, result: Result) -> None:
    join_accuracy(run.workspace, result)


@computed(group="curation", kinds={"pytorch"}, publish=_remember)
def classifier_accuracy(run: Run) -> Output:
    """Test accuracy of ResNet18, with equal steps, trained on all data, on a random subset, on what is kept, on that
    with the relabelled images, and on all data weighted by how probably clean they are."""
    training, test = run.read_shards("raw_images"), run.read("test_images")
    shared = training if run.knobs.overlap == "refuse" else {}
    refuse_shared_images(shared | {"the reference set": run.read("reference_images")}, "test", test)
    points = run.read("pruned_dataset").table("points.parquet")
    classes = sorted(set(points["label"].to_pylist()) | set(test.numbers["classes"]))
    pool, knobs = _labelled(training, classes, run), run.knobs.classifier
    if len(pool.labels) != len(points):
        raise BadInput("pruned_dataset is older than the shards: materialize pruned_dataset first")
    accuracies = compare_training_sets(
        pool,
        _training_sets(points, classes),
        _labelled({"test": test}, classes, run),
        comparison=Comparison(len(classes), knobs.training, tuple(range(knobs.seeds))),
        device=run.workspace.device,
        progress=run.progress,
    )
    rows = [{"set": n, "seed": s, "accuracy": a} for n, per_seed in accuracies.items() for s, a in enumerate(per_seed)]
    return Output(
        files={"accuracies.parquet": table_file(pa.Table.from_pylist(rows))},
        numbers={f"{n}_{what}": float(f(a)) for n, a in accuracies.items() for what, f in _SUMMARY.items()}
        | {"seeds": knobs.seeds, "test_images": test.numbers["images"]},
        pictures={"accuracy": plots.bars(accuracies, "test accuracy")},
        data_version=run.content_version,
    )


def _training_sets(points: pa.Table, classes: list[str]) -> dict[str, TrainingSet]:
    keep = points["keep"].to_numpy(zero_copy_only=False)
    inside = np.not_equal(points["action"].to_pylist(), SET_ASIDE).nonzero()[0]
    # Another seed than any batch's or model's: the control must not share their chance.
    control = inside[keep_random(len(inside), pruned=int((~keep[inside]).sum()), seed=2**31)]
    number = {name: i for i, name in enumerate(classes)}
    label = np.array([number[name] for name in points["label"].to_pylist()])
    # A suggested label is one of the reference set, which the test set may lack; that of a person goes before.
    pairs = zip(points["curated_label"].to_pylist(), points["suggested_label"].to_pylist(), strict=True)
    suggested = np.array([number.get(curated or offered, -1) for curated, offered in pairs])
    relabel = np.equal(points["action"].to_pylist(), "relabel") & (suggested >= 0)
    mended = torch.from_numpy(np.where(relabel, suggested, label))
    rows = {
        name: torch.from_numpy(mask.nonzero()[0]) for name, mask in {"pruned": keep, "either": keep | relabel}.items()
    }
    everything, weights = torch.from_numpy(inside), points["clean_probability"].to_numpy()[inside].astype(np.float32)
    return {
        "all": TrainingSet(everything),
        "random": TrainingSet(torch.from_numpy(control)),
        "pruned": TrainingSet(rows["pruned"]),
        "relabelled": TrainingSet(rows["either"], labels=mended[rows["either"]]),
        "reweighted": TrainingSet(everything, weights=torch.from_numpy(weights)),
    }


_SUMMARY = {"mean": np.mean, "std": np.std}


def _plan(result: Result) -> BatchPlan:
    arrays = {name: tensor.numpy() for name, tensor in result.tensors("plan.safetensors").items()}
    return BatchPlan(**arrays, marginal_error=result.numbers["marginal_error"], converged=result.numbers["converged"])


@plots.picture
def _highest(points: pa.Table, shards: dict[str, Result]) -> str:
    """Grid of the images with the highest values."""
    order = np.argsort(-points["value"].to_numpy(), kind="stable")[: plots.GRID_COLUMNS * plots.GRID_ROWS]
    top = points.take(pa.array(order)).to_pylist()
    found: dict[str, bytes] = {}
    for shard in {row["shard"] for row in top}:
        names = [row["id"] for row in top if row["shard"] == shard]
        ids = shards[shard].table("points.parquet", ["id"])["id"].combine_chunks()
        rows = places_of(pa.chunked_array([names]), ids)
        found |= dict(zip(names, chosen_images(shards[shard], rows), strict=True))
    captions = [
        row["label"] if row["suggested_label"] == row["label"] else f"{row['label']} → {row['suggested_label']}"
        for row in top
    ]
    return plots.image_grid([found[row["id"]] for row in top], captions)


def _labelled(shards: dict[str, Result], classes: list[str], run: Run) -> LabelledImages:
    """Pixels and class ids of whole sets, in order."""
    columns = [result.table("points.parquet", ["label"])["label"] for result in shards.values()]
    labels = np.concatenate([places_of(column, classes) for column in columns])
    sets = [(result, None) for result in shards.values()]
    pixels = pixel_file(run, sets, size=run.knobs.encoder.image_size)
    return LabelledImages(pixels, torch.from_numpy(labels))
