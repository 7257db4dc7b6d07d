"""From batch matrix to a curated data set, and the proof that it trains a better classifier."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from sava_assets import plots
from sava_assets.computation import Run, computed
from sava_assets.history import record
from sava_assets.ingest import refuse_shared_images
from sava_assets.store import Output, Result, Store, bytes_file, table_file
from sava_assets.transport import read_row
from sava_ops.classifier import Comparison, LabelledImages, compare_training_sets
from sava_ops.errors import BadInput
from sava_ops.images import decode_all
from sava_ops.pruning import keep_lowest, keep_random
from sava_ops.valuation import BatchPlan, batch_values


@computed(group="valuation", kinds={"parquet"})
def point_values(run: Run) -> Output:
    """One value per training image: how far it pulls the training data away from the reference. High = prune first."""
    plan, index = _plan(run.read("batch_plan")), run.read("batch_ot").table("rows.parquet").to_pylist()
    members = run.read_shards("batches")
    values = {shard: np.empty(members[shard].numbers["points"]) for shard in dict.fromkeys(r["shard"] for r in index)}
    numbers = {shard: members[shard].table("points.parquet", ["batch"])["batch"].to_numpy() for shard in values}
    for i, entry in enumerate(index):
        row = read_row(run, entry["row"])
        if row is None:
            raise BadInput(f"a row of batch_ot is gone from the store ({entry['row']}): materialize batch_ot again")
        own = numbers[entry["shard"]] == entry["batch"]
        values[entry["shard"]][own] = batch_values(row.potentials, plan, i, run.knobs.valuation)
        run.progress(i + 1, len(index))
    points = pa.concat_tables(
        members[shard]
        .table("points.parquet")
        .append_column("value", pa.array(values[shard]))
        .append_column("shard", pa.array([shard] * len(values[shard])))
        for shard in values
    )
    value = points["value"].to_numpy()
    return Output(
        files={"points.parquet": table_file(points)},
        numbers={"points": len(points)}
        | {f"value_{name}": float(np.quantile(value, q)) for name, q in (("median", 0.5), ("p90", 0.9), ("p99", 0.99))},
        pictures={
            "values": plots.histogram(value, "value (units of cost)"),
            "highest values": _highest(points, run.read_shards("raw_images")),
        },
    )


def _publish(run: Run, result: Result) -> None:
    """Bring `curated/` to this result: kept images per shard in the Hugging Face layout, then the table of points."""
    curated = run.workspace.folder("curated")
    stamp, wanted = curated / "version.json", {"points": result.data_version, "images": run.knobs.prune.export_images}
    if stamp.exists() and json.loads(stamp.read_text()) == wanted:
        return
    points, out = result.table("points.parquet"), Store(curated)
    stamp.unlink(missing_ok=True)
    written = {"points.parquet"}
    if run.knobs.prune.export_images:
        for shard, images in run.read_shards("raw_images").items():
            if table := _kept_images(points, shard, images):
                out.put(f"images/{shard}.parquet", table_file(table))
                written.add(f"images/{shard}.parquet")
    out.put("points.parquet", table_file(points))
    for old in [*curated.glob("images/*.parquet")]:
        if f"images/{old.name}" not in written:
            old.unlink()
    out.put("version.json", bytes_file(json.dumps(wanted).encode()))


@computed(group="curation", kinds={"parquet"}, publish=_publish)
def pruned_dataset(run: Run) -> Output:
    """Which training images to keep. The kept ones are written to `curated/`."""
    points, fraction = run.read("point_values").table("points.parquet"), run.knobs.prune.fraction
    value = points["value"].to_numpy()
    keep = keep_lowest(value, fraction=fraction)
    threshold = float(value[~keep].min()) if not keep.all() else None
    return Output(
        files={"points.parquet": table_file(points.append_column("keep", pa.array(keep)))},
        numbers={"points": len(points), "kept": int(keep.sum()), "pruned": int((~keep).sum())},
        pictures={"values": plots.histogram(value, "value (units of cost)", threshold)},
    )


def _remember(run: Run, _: Result) -> None:
    """The chain is through: keep what it came to."""
    record(run.workspace, run.shards)


@computed(group="curation", kinds={"pytorch"}, publish=_remember)
def classifier_accuracy(run: Run) -> Output:
    """Test accuracy of ResNet18 trained on all data, on a random subset and on the pruned set, with equal steps."""
    training, test = run.read_shards("raw_images"), run.read("test_images")
    refuse_shared_images(training | {"the reference set": run.read("reference_images")}, "test", test)
    points = run.read("pruned_dataset").table("points.parquet")
    keep = points["keep"].to_numpy(zero_copy_only=False)
    classes = sorted(set(points["label"].to_pylist()) | set(test.numbers["classes"]))
    pool, knobs = _labelled(training, classes, run), run.knobs.classifier
    if len(pool.labels) != len(points):
        raise BadInput("pruned_dataset is older than the shards: materialize pruned_dataset first")
    # Another seed than any batch's or model's: the control must not share their chance.
    control = keep_random(len(keep), fraction=run.knobs.prune.fraction, seed=2**31)
    subsets = {"all": np.ones(len(keep), dtype=bool), "random": control, "pruned": keep}
    accuracies = compare_training_sets(
        pool,
        {name: torch.from_numpy(mask.nonzero()[0]) for name, mask in subsets.items()},
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


_SUMMARY = {"mean": np.mean, "std": np.std}


def _plan(result: Result) -> BatchPlan:
    arrays = {name: tensor.numpy() for name, tensor in result.tensors("plan.safetensors").items()}
    return BatchPlan(**arrays, marginal_error=result.numbers["marginal_error"], converged=result.numbers["converged"])


def _highest(points: pa.Table, shards: dict[str, Result]) -> str:
    """Grid of the images with the highest values."""
    order = np.argsort(-points["value"].to_numpy(), kind="stable")[: plots.GRID_COLUMNS * plots.GRID_ROWS]
    top = points.take(pa.array(order)).to_pylist()
    found: dict[str, bytes] = {}
    for shard in {row["shard"] for row in top}:
        images = shards[shard].table("images.parquet")
        chosen = images.filter(pc.field("id").isin([row["id"] for row in top]))
        found |= dict(zip(chosen["id"].to_pylist(), chosen["image"].to_pylist(), strict=True))
    return plots.image_grid([found[row["id"]] for row in top], [row["label"] for row in top])


def _kept_images(points: pa.Table, shard: str, images: Result) -> pa.Table | None:
    """The kept images of a shard as `image: struct<bytes, path>`, `label`; None if nothing of it is kept."""
    kept = points.filter(pc.field("keep") & (pc.field("shard") == shard))
    table = images.table("images.parquet").join(kept.select(["id", "label"]), "id", join_type="inner").sort_by("id")
    if not len(table):
        return None
    image = pa.StructArray.from_arrays(
        [table["image"].combine_chunks(), table["id"].combine_chunks()], names=["bytes", "path"]
    )
    return pa.table({"image": image, "label": table["label"]})


def _labelled(shards: dict[str, Result], classes: list[str], run: Run) -> LabelledImages:
    """Pixels and class ids of whole sets, in order."""
    number = {name: i for i, name in enumerate(classes)}
    labels = [number[label] for result in shards.values() for label in _column(result, "points.parquet", "label")]
    pixels = [
        decode_all(_column(result, "images.parquet", "image"), size=run.knobs.encoder.image_size)
        for result in shards.values()
    ]
    return LabelledImages(torch.cat(pixels), torch.tensor(labels))


def _column(result: Result, file: str, column: str) -> list:
    return result.table(file, [column])[column].to_pylist()
