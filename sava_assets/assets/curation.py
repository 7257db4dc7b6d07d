"""From batch matrix to what becomes of each image."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sava_assets.assets import plots
from sava_assets.assets.batches import class_ids
from sava_assets.assets.calibration import calibration_of
from sava_assets.assets.copies import with_copies
from sava_assets.assets.decisions import decided_by_people
from sava_assets.assets.findings import findings, with_findings
from sava_assets.assets.pixels import chosen_images
from sava_assets.assets.quality import in_company, quality_numbers, quality_of, with_quality
from sava_assets.assets.set_aside import with_set_aside
from sava_assets.assets.transport import read_row
from sava_assets.formats.columns import codes_of, places_of
from sava_assets.freshness.computation import Run, computed
from sava_assets.freshness.limits import group_numbers
from sava_assets.home.result import DamagedResult, Output, Result, table_file
from sava_ops.decisions.assessment import Assessment
from sava_ops.decisions.pruning import Decision, decide
from sava_ops.decisions.shares import share_of_bad
from sava_ops.errors import BadInput
from sava_ops.hierarchy import BatchPlan
from sava_ops.judgement import assess
from sava_ops.transport import BatchRow

MOST_GROUPS = 40
"""Shown of classes and of shards."""


@computed(group="valuation", kinds={"parquet"})
def point_values(run: Run) -> Output:
    """What each training image is worth, and why: how far it pulls the training data away from the reference, how much
    of that is the image and how much its label, which label fits best. High = prune first."""
    index, members = run.read("batch_ot").table("rows.parquet"), run.read_shards("batches")
    shards = list(dict.fromkeys(index["shard"].to_pylist()))
    # What is in no batch is set aside.
    tables = [members[shard].table("points.parquet").filter(pc.field("batch").is_valid()) for shard in shards]
    names = [pa.repeat(shard, len(table)) for shard, table in zip(shards, tables, strict=True)]
    points = pa.concat_tables(table.append_column("shard", name) for table, name in zip(tables, names, strict=True))
    # Rows are batch by batch, the table is shard by shard.
    first = np.cumsum([0, *(members[shard].numbers["batches"] for shard in shards[:-1])])
    place = np.concatenate([start + table["batch"].to_numpy() for start, table in zip(first, tables, strict=True)])
    by_batch = np.argsort(place, kind="stable")
    judges = class_ids(run.read("reference_embeddings"), run.read("label_distances").numbers["classes"])
    quality, company = quality_of(run, points), in_company(run, index["batch"].to_pylist(), judges)
    further = quality.pool[by_batch], quality.trusted[np.concatenate(company)]
    rows = _rows(run, index["row"].to_pylist(), [judges[own] for own in company])
    noise = calibration_of(run.read("label_distances").tensors("calibration.safetensors"), "cpu").label_noise
    judged = assess(rows, _plan(run.read("batch_plan")), run.knobs.valuation, noise=noise, further=further)
    order = np.argsort(by_batch, kind="stable")
    found = Assessment(**{name: array[order] for name, array in vars(judged.found).items()})
    classes, known = (run.read(name).numbers["classes"] for name in ("label_distances", "reference_embeddings"))
    points = with_quality(with_findings(points, found, classes, known=set(known)), quality)
    return Output(
        files={"points.parquet": table_file(points)},
        numbers={"points": len(points), "judges": judged.judges}
        | share_numbers(found.expected_bad, judged.judges)
        | {
            f"value_{n}": float(np.quantile(found.values, q)) for n, q in (("median", 0.5), ("p90", 0.9), ("p99", 0.99))
        },
        pictures={
            "values": plots.histogram(found.values, "value (units of cost)"),
            "highest values": _highest(points, run.read_shards("raw_images")),
        },
    )


def _rows(run: Run, keys: list[str], company: list[np.ndarray]) -> Iterator[BatchRow]:
    """Rows of the batch matrix, each with reference points of these classes in its company."""
    for done, (key, classes) in enumerate(zip(keys, company, strict=True), start=1):
        row = read_row(run, key)
        if row is None:
            told = f"a row of batch_ot is gone from the store ({key}): materialize batch_ot again"
            raise DamagedResult(told, run.read("batch_ot"))
        if not np.array_equal(row.held_out_labels[:, 0].numpy(), classes):
            raise BadInput("batch_ot is of other reference batches or settings: materialize batch_ot first")
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
    evidence, judges = points["evidence"].to_numpy(), run.read("point_values").numbers["judges"]
    numbers = {"points": len(points), "kept": int(keep.sum()), "pruned": int((~keep).sum())}
    numbers |= {f"to_{name}": action.count(name) for name in ("drop", "relabel", "review")}
    table, aside = with_set_aside(run, points)
    return Output(
        files={"points.parquet": table_file(table)},
        numbers=numbers
        | {"threshold": made.threshold, "judges": judges}
        | share_numbers(points["expected_bad"].to_numpy(), judges)
        | copies.numbers
        | ruling.numbers
        | aside
        | quality_numbers(points, made.flagged)
        | group_numbers(table, cut=int((~made.keep).sum())),
        pictures={
            "evidence": plots.histogram(evidence, "evidence (nats)", made.threshold),
            "share of bad points": _shares(points, {"label": labels, "shard": shards}, made, judges),
            **copies.pictures,
            **ruling.pictures,
        },
    )


@plots.picture
def _shares(points: pa.Table, groups: dict[str, np.ndarray], made: Decision, judges: float | int) -> str:
    """Estimated share of bad points and share flagged, by label and by shard."""
    expected, lines = points["expected_bad"].to_numpy(), []
    for name, codes in groups.items():
        lines += [f"| {name} | points | estimated bad | 95 % interval | flagged |", "|---|---:|---:|---:|---:|"]
        words = sorted(points[name].unique().to_pylist())
        for code in range(min(len(words), MOST_GROUPS)):
            own = codes == code
            bad = share_of_bad(expected[own], judges=judges)
            told = f"{bad.value:.1%} | {bad.low:.1%} to {bad.high:.1%} | {made.flagged[own].mean():.1%}"
            lines.append(f"| {words[code]} | {own.sum():,} | {told} |")
        lines += [f"\n… and {len(words) - MOST_GROUPS:,} more" if len(words) > MOST_GROUPS else "", ""]
    return "\n".join(lines)


def share_numbers(expected_bad: np.ndarray, judges: float | int) -> dict[str, float]:
    bad = share_of_bad(expected_bad, judges=judges)
    return {"bad_share": bad.value, "bad_share_low": bad.low, "bad_share_high": bad.high}


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
