"""What must hold of stored results; shown beside the assets."""

from collections.abc import Iterator

import dagster as dg
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from sava_assets.assets.judges import FEW, Judges
from sava_assets.formats.landing import contents, count
from sava_assets.formats.names import alike, some
from sava_assets.freshness.computation import SHARDS, Home
from sava_assets.freshness.condition import asset_key
from sava_assets.freshness.limits import HELD, MOST_SUSPICIOUS, WAITS
from sava_assets.freshness.overlap import CLEAN_SETS, NEARLY, overlap, shared_images
from sava_assets.freshness.rules import set_aside, wanted
from sava_assets.freshness.source_shift import far_from_reference, said_of_reference
from sava_assets.freshness.sources import shards_of
from sava_assets.home.resources import Workspace
from sava_assets.home.result import Result

FEW_TOLD = 1 / 3
"""Share of the reference images whose class a classifier of the features tells, below which values mean little."""


@dg.asset_check(asset="raw_images", partitions_def=SHARDS, additional_deps=[asset_key(name) for name in CLEAN_SETS])
def images_disjoint(context: dg.AssetCheckExecutionContext, workspace: Home) -> dg.AssetCheckResult:
    """No training image is also a reference or test image, exactly or nearly, or those that are will be set aside."""
    there = [name for name in CLEAN_SETS if name in wanted(workspace)]
    sets = [workspace.store.current(name) for name in there]
    shared = [
        pair
        for _, result in _shards(context, workspace, "raw_images")
        for other in sets
        if other
        for pair in shared_images(result, other)
    ]
    found = [overlap(workspace.store, shard, there).values() for shard in context.partition_keys]
    near = sum(reason.startswith(NEARLY) for reasons in found for reason in reasons)
    first = {"first": f"{shared[0][0]} is {shared[0][1]}"} if shared else {}
    aside = workspace.knobs.overlap == "set_aside"
    return dg.AssetCheckResult(
        passed=aside or not (shared or near), metadata={"shared": len(shared), "nearly_shared": near, **first}
    )


@dg.asset_check(asset="raw_images", partitions_def=SHARDS)
def all_accounted(context: dg.AssetCheckExecutionContext, workspace: Home) -> dg.AssetCheckResult:
    """Every file and row of the shard is used, quarantined or passed over, once, under an id of its own."""
    links, paths = workspace.knobs.follow_links, shards_of(workspace)
    numbers, repeated = dict.fromkeys(("found", "used", "quarantined", "passed_over"), 0), 0
    for shard, result in _shards(context, workspace, "raw_images"):
        used, aside = (result.table(name, ["id"])["id"] for name in ("points.parquet", "quarantine.parquet"))
        passed = len(contents(paths[shard], follow_links=links).passed_over)
        found = count(paths[shard], follow_links=links) + passed
        for name, number in zip(numbers, (found, len(used), len(aside), passed), strict=True):
            numbers[name] += number
        repeated += len(used) + len(aside) - len(set(used.to_pylist() + aside.to_pylist()))
    accounted = numbers["used"] + numbers["quarantined"] + numbers["passed_over"]
    return dg.AssetCheckResult(
        passed=not repeated and numbers["found"] == accounted, metadata={**numbers, "ids_repeated": repeated}
    )


@dg.asset_check(asset="embeddings", partitions_def=SHARDS)
def embeddings_finite(context: dg.AssetCheckExecutionContext, workspace: Home) -> dg.AssetCheckResult:
    """Every feature is a finite number."""
    broken = {
        shard: int((~torch.isfinite(result.tensors("features.safetensors")["features"])).any(1).sum())
        for shard, result in _shards(context, workspace, "embeddings")
    }
    return dg.AssetCheckResult(passed=not any(broken.values()), metadata={"points_not_finite": sum(broken.values())})


@dg.asset_check(asset="batches", partitions_def=SHARDS)
def class_shares_kept(context: dg.AssetCheckExecutionContext, workspace: Home) -> dg.AssetCheckResult:
    """Stratified batches hold each class to within one point of each other; batch sizes differ by at most one."""
    spread = 0
    stratified = workspace.knobs.valuation.batching == "stratified"
    for _, result in _shards(context, workspace, "batches"):
        points = result.table("points.parquet", ["label", "batch"]).filter(pc.field("batch").is_valid())
        if not len(points):
            continue
        labels = np.unique(points["label"].to_pylist(), return_inverse=True)[1]
        counts = np.zeros((result.numbers["batches"], labels.max() + 1), dtype=int)
        np.add.at(counts, (points["batch"].to_numpy(), labels), 1)
        spread = max(spread, int(np.ptp(counts.sum(1))), int(np.ptp(counts, axis=0).max()) if stratified else 0)
    return dg.AssetCheckResult(passed=spread <= 1, metadata={"largest_difference": spread})


@dg.asset_check(asset="reference_images")
def classes_apart(workspace: Home) -> dg.AssetCheckResult:
    """No two classes of the reference set differ only in case, blanks or leading zeros."""
    groups = alike(workspace.store.require("reference_images").numbers["classes"])
    told = "; ".join(some(group) for group in groups)
    return dg.AssetCheckResult(
        passed=not groups,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"these classes of the reference set are written nearly alike, and may be one: {told}; rename the "
        "folders or labels of those that are"
        if groups
        else None,
        metadata={"nearly_alike": told},
    )


@dg.asset_check(asset="reference_embeddings")
def enough_reference_points(workspace: Home) -> dg.AssetCheckResult:
    """There are enough reference images to judge each class, and to flag images at the false-discovery rate."""
    embedded = workspace.store.require("reference_embeddings")
    labels = embedded.table("points.parquet", ["label"])["label"]
    counts = {row["values"]: row["counts"] for row in labels.value_counts().to_pylist()}
    judges = Judges(counts, workspace.knobs, promoted=embedded.numbers.get("promoted", 0))
    return dg.AssetCheckResult(
        passed=judges.enough,
        severity=dg.AssetCheckSeverity.WARN,
        description=judges.in_words(),
        metadata={f"points of {name}": count for name, count in judges.few.items()}
        | {"points": judges.total, "wanted_per_class": FEW, "least_bad_share": judges.least_bad_share},
    )


@dg.asset_check(asset="reference_values")
def reference_trusted(workspace: Home) -> dg.AssetCheckResult:
    """Few reference points look as if they should not judge."""
    numbers = workspace.store.require("reference_values").numbers
    share = numbers["suspicious"] / numbers["points"]
    return dg.AssetCheckResult(
        passed=share <= MOST_SUSPICIOUS,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"{numbers['suspicious']:,} of {numbers['points']:,} reference images look as if they should not "
        "judge"
        + ("" if share <= MOST_SUSPICIOUS else ": look at them in `reference_values`, and remove or relabel the wrong"),
        metadata={"suspicious": numbers["suspicious"], "share": share},
    )


@dg.asset_check(asset="label_distances")
def features_tell_classes(workspace: Home) -> dg.AssetCheckResult:
    """The encoder is judged before it judges: its features tell the classes of reference images that are held out."""
    told = workspace.store.require("label_distances").numbers["reference_labels_told"]
    return dg.AssetCheckResult(
        passed=told >= FEW_TOLD,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"these features tell the class of {told:.0%} of the reference images"
        + ("" if told >= FEW_TOLD else ": values will mean little; take another encoder, or more reference images"),
        metadata={"reference_labels_told": told},
    )


@dg.asset_check(asset="batch_ot")
def all_pairs_converged(workspace: Home) -> dg.AssetCheckResult:
    """Every batch pair met its tolerance."""
    pairs = workspace.store.require("batch_ot").tensors("pairs.safetensors")
    missed, total = int((~pairs["converged"]).sum()), pairs["converged"].numel()
    return dg.AssetCheckResult(
        passed=missed == 0,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"{missed:,} of {total:,} batch pairs missed their tolerance, so their values are less exact: "
        "raise `valuation.max_sweeps`, or `valuation.epsilon`"
        if missed
        else None,
        metadata={"not_converged": missed, "largest_marginal_error": float(pairs["marginal_errors"].max())},
    )


@dg.asset_check(asset="batch_ot")
def like_the_reference(workspace: Home) -> dg.AssetCheckResult:
    """The images of a shard and those of the reference set, its classes weighing alike, are hard to tell apart."""
    told = workspace.store.require("batch_ot").numbers["told_apart"]
    far = far_from_reference(told)
    return dg.AssetCheckResult(
        passed=not far,
        severity=dg.AssetCheckSeverity.WARN,
        description=said_of_reference(told),
        metadata={"told_apart": max(told.values()), "far_apart": some(far)},
    )


@dg.asset_check(asset="batch_plan", blocking=True)
def plan_marginals(workspace: Home) -> dg.AssetCheckResult:
    """The plan moves exactly the mass of each training batch; else nothing is made of it."""
    sizes = workspace.store.require("batch_ot").table("rows.parquet", ["size"])["size"].to_numpy()
    made = workspace.store.require("batch_plan")
    plan = made.tensors("plan.safetensors")["plan"].numpy()
    error = float(np.abs(plan.sum(1) - sizes / sizes.sum()).sum())
    told = f"the plan is {error:.2g} away from moving the mass of each batch"
    return _guarded(workspace, made, fault="" if error < 1e-9 else told, metadata={"l1_error": error})


@dg.asset_check(asset="point_values", blocking=True)
def values_aligned(workspace: Home) -> dg.AssetCheckResult:
    """Every point of every valued shard that is not set aside has one finite value, under its own id and label; else
    nothing is decided by them."""
    made = workspace.store.require("point_values")
    points, wrong = made.table("points.parquet"), []
    for shard, images in _read_by(workspace, made):
        if not len(own := points.filter(pc.field("shard") == shard)):
            continue
        raw = images.table("points.parquet")
        raw = raw.filter(~pc.field("id").isin(pa.array(list(set_aside(workspace, shard)), pa.string())))
        wrong += [shard] * (own.select(["id", "label"]) != raw.select(["id", "label"]))
    broken = int((~np.isfinite(points["value"].to_numpy())).sum())
    told = f"values are not those of the images that lie in the shards {some(wrong)}" if wrong else ""
    told = told or (f"{broken:,} values are not finite" if broken else "")
    return _guarded(
        workspace, made, fault=told, metadata={"shards_not_aligned": len(wrong), "values_not_finite": broken}
    )


@dg.asset_check(asset="pruned_dataset", blocking=True)
def all_decided(workspace: Home) -> dg.AssetCheckResult:
    """Every image of every shard has one decision, and whatever is kept a label; else nothing is published of them."""
    made = workspace.store.require("pruned_dataset")
    points = made.table("points.parquet", ["id", "shard", "keep", "curated_label"])
    wrong = [
        shard
        for shard, images in _read_by(workspace, made)
        if points.filter(pc.field("shard") == shard)["id"] != images.table("points.parquet", ["id"])["id"]
    ]
    unlabelled = len(points.filter(pc.field("keep") & pc.field("curated_label").is_null()))
    told = f"decisions are not those of the images that lie in the shards {some(wrong)}" if wrong else ""
    told = told or (f"{unlabelled:,} images are kept without a label" if unlabelled else "")
    return _guarded(
        workspace, made, fault=told, metadata={"shards_not_accounted": len(wrong), "kept_unlabelled": unlabelled}
    )


@dg.asset_check(asset="curated_dataset", blocking=True)
def within_limits(workspace: Home) -> dg.AssetCheckResult:
    """The curation is within the limits of sava.yaml, and published; else what was published before stays."""
    numbers = workspace.store.require("curated_dataset").numbers
    held, waits = numbers.get(HELD), numbers.get(WAITS)
    return dg.AssetCheckResult(
        passed=not held and not waits,
        severity=dg.AssetCheckSeverity.ERROR if held else dg.AssetCheckSeverity.WARN,
        description=held or (f"waits for {waits} of this curation" if waits else None),
    )


def _read_by(workspace: Workspace, made: Result) -> Iterator[tuple[str, Result]]:
    """The images of the shards that a result was made of; one that was replaced meanwhile makes another one due."""
    for shard, version in made.inputs["raw_images"].items():
        images = workspace.store.require("raw_images", shard)
        if images.data_version == version:
            yield shard, images


def _guarded(workspace: Workspace, made: Result, *, fault: str, metadata: dict[str, float]) -> dg.AssetCheckResult:
    """The outcome of a blocking check. Dagster lets nothing of the same run follow what failed; that nothing of a later
    run does, whoever asks for it, takes the result away: it counts as failed, and is tried again as such."""
    told = f"{fault}: run it again, and if it stays, report it"
    if fault:
        workspace.store.forget(made)
        workspace.store.set_failure(made.asset, None, made.key, told)
    return dg.AssetCheckResult(passed=not fault, description=told if fault else None, metadata=metadata)


def _shards(context: dg.AssetCheckExecutionContext, workspace: Workspace, asset: str) -> Iterator[tuple[str, Result]]:
    for shard in context.partition_keys:
        yield shard, workspace.store.require(asset, shard)
