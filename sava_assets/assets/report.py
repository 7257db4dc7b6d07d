"""The page of a curation: every flagged image beside the reference images that it was judged by."""

import json
from typing import Any

import dagster as dg
import numpy as np
import pyarrow as pa
import torch
from upath import UPath

from sava_assets.assets.pixels import encoded
from sava_assets.formats.columns import places_of
from sava_assets.freshness.computation import Run, computed
from sava_assets.freshness.copies import NOT_TOLD, can_be_told
from sava_assets.freshness.limits import HELD, judged
from sava_assets.freshness.overlap import valued
from sava_assets.freshness.proof import ACCURACIES, SETS, is_of
from sava_assets.freshness.snapshots import snapshots
from sava_assets.home.places import content
from sava_assets.home.resources import Workspace
from sava_assets.home.result import Output, Result, bytes_file, table_file
from sava_assets.home.store import put_file
from sava_assets.review.page import PAGE, page
from sava_assets.review.shown import as_json, changes, realised, tables, to_show, with_people
from sava_ops.decisions.audit import drawn, is_audited
from sava_ops.decisions.nearest import nearest_of_class
from sava_ops.errors import BadInput
from sava_ops.images.thumbnails import thumbnails

THUMBNAILS_AT_ONCE = 1_024


def _publish_page(run: Run, result: Result) -> dict[str, Any]:
    return {"page": dg.MetadataValue.path(str(write_page(run.workspace, result)))}


@computed(group="curation", kinds={"html"}, publish=_publish_page)
def curation_report(run: Run) -> Output:
    """The page people look at: every flagged image with its reason, evidence and nearest reference images under both
    labels, and a random sample of them from which people's decisions tell how many of the flagged images are clean."""
    pruned, knobs = run.read("pruned_dataset"), run.knobs.review
    if pruned.inputs["raw_images"] != {shard: raw.data_version for shard, raw in run.read_shards("raw_images").items()}:
        raise BadInput("pruned_dataset is older than the shards: materialize pruned_dataset first")
    points = with_people(valued(pruned.table("points.parquet")))
    reference, judges = run.read("reference_embeddings"), run.read("reference_images")
    names, labels = (reference.table("points.parquet")[name] for name in ("id", "label"))
    against, known = reference.tensors("features.safetensors")["features"], np.array(labels.to_pylist(), dtype=object)
    shown, features = _with_pictures(run, to_show(points))
    features = torch.cat([against[:0], *features])
    used: np.ndarray = np.empty(0, dtype=np.int64)
    nearest: dict[str, np.ndarray] = {}
    for column in ("label", "suggested_label"):
        wanted = np.array(shown[column].to_pylist(), dtype=object)
        nearest[column] = nearest_of_class(
            features, wanted, against, known, count=knobs.neighbours, unit_norm=run.knobs.valuation.unit_norm
        )
        used = np.union1d(used, nearest[column][nearest[column] >= 0])
    for column, rows in nearest.items():
        places = [np.searchsorted(used, row[row >= 0]).tolist() for row in rows]
        shown = shown.append_column(f"nearest_of_{column}", pa.array(places, pa.list_(pa.int32())))
    flagged = np.array([action != "keep" for action in shown["algorithm_action"].to_pylist()], dtype=bool)
    # Of those that evidence speaks against: the rate is not one of copies, and a person may have decided on any image.
    threshold = pruned.numbers["threshold"]
    suspects = flagged & (shown["evidence"].to_numpy() >= (np.inf if threshold is None else threshold))
    hashes = np.array(shown["pixel_hash"].to_pylist(), dtype=object)
    asked = hashes[suspects].tolist()
    if pruned.numbers.get("promoted"):  # of the others, those that people found clean are gone
        asked = [each for each in asked if is_audited(each, seed=knobs.seed)]
    chosen = drawn(asked, size=knobs.sample, seed=knobs.seed)
    lot = [bool(suspect) and each in chosen for suspect, each in zip(suspects, hashes, strict=True)]
    shown = shown.append_column("sample", pa.array(lot, pa.bool_()))
    prune = run.knobs.prune
    rate = realised(shown, prune.false_discovery_rate if prune.fraction is None else None)
    summary: dict[str, Any] = {
        "numbers": dict(pruned.numbers),
        "tables": tables(points, pruned.numbers["judges"]),
        "rate": rate,
    }
    summary["classes"] = sorted({*judges.numbers["classes"], *points["label"].unique().to_pylist()})
    return Output(
        files={
            "shown.parquet": table_file(shown),
            "references.parquet": table_file(_references(judges, names.take(pa.array(used)), labels, used, run)),
            "summary.json": bytes_file(as_json(summary)),
        },
        numbers={"shown": len(shown), "flagged": int(flagged.sum()), **rate},
    )


def write_page(workspace: Workspace, result: Result) -> UPath:
    """Write the page of this result, with the history as it is now, into the home; returns where it is.

    Raises BadInput where it cannot be written.
    """
    target = workspace.root / PAGE
    made = page_of(workspace, result, served=False)
    try:
        known = content(target)
    except (FileNotFoundError, IsADirectoryError):
        known = None
    try:
        if known != made:
            put_file(target, made)
    except OSError as error:
        raise BadInput(
            f"the page {target} cannot be written ({error.strerror}): make room, allow it, or move away what is there"
        ) from error
    return target


def page_of(workspace: Workspace, result: Result, *, served: bool) -> bytes:
    """The page of this result, with the history as it is now."""
    store = workspace.store
    pruned = store.require("pruned_dataset")
    points, shown = _actions(pruned), result.table("shown.parquet")
    past = [each for each in snapshots(store) if each.results.get("pruned_dataset") != pruned.key]
    people_have = [each for each in past if not each.held_back]
    before = store.find("pruned_dataset", people_have[-1].results["pruned_dataset"]) if people_have else None
    news, counts = changes(shown, points, _actions(before) if before else None)
    summary = json.loads(result.read("summary.json"))
    seen = ("number", "time", "changes", "held_back")
    history = [{**{name: getattr(each, name) for name in seen}, **each.numbers} for each in past]
    told = {**summary, "history": history, "changes": counts, "curation": pruned.key[:12]}
    told[HELD] = judged(workspace, proven=True).get(HELD, "")
    near = store.current("near_copies")
    told["near_copies"] = NOT_TOLD if near and not can_be_told(near.numbers) else ""
    told["accuracies"] = {
        called: [[found.numbers[f"{each}_{what}"] for what in ("mean", "std")] for each in SETS]
        for name, called in ACCURACIES.items()
        if (found := store.current(name)) and is_of(found, pruned)
    }
    told["trained_on"] = SETS
    return page(shown, result.table("references.parquet"), told, news, served=served)


def _actions(pruned: Result) -> pa.Table:
    return valued(pruned.table("points.parquet", ["id", "action"]))


def _with_pictures(run: Run, shown: pa.Table) -> tuple[pa.Table, list[torch.Tensor]]:
    """With pixel hashes and thumbnails, and the features of the images; shard by shard, so that no more is held."""
    images, embedded = run.read_shards("raw_images"), run.read_shards("embeddings")
    rows_of, hashes, pictures, features = [], [], [], []
    shards, done = shown["shard"].to_pylist(), 0
    for shard in dict.fromkeys(shards):
        rows = np.equal(shards, shard).nonzero()[0]
        ids = shown["id"].take(pa.array(rows))
        points = images[shard].table("points.parquet", ["id", "pixel_hash"])
        place = _places(ids, points["id"])
        pictures += _thumbnails(images[shard], place, run)
        run.progress(done := done + len(rows), len(shown))
        hashes += points["pixel_hash"].take(pa.array(place)).to_pylist()
        at = torch.from_numpy(_places(ids, embedded[shard].table("points.parquet", ["id"])["id"]))
        features.append(embedded[shard].tensors("features.safetensors")["features"][at])
        rows_of.append(rows)
    order = np.argsort(np.concatenate(rows_of), kind="stable") if rows_of else np.empty(0, dtype=np.int64)
    both = {"pixel_hash": pa.array(hashes, pa.string()), "thumbnail": pa.array(pictures, pa.binary())}
    for name, column in both.items():
        shown = shown.append_column(name, column.take(pa.array(order)))
    return shown, [torch.cat(features)[torch.from_numpy(order)]] if features else []


def _places(wanted: pa.ChunkedArray, ids: pa.ChunkedArray) -> np.ndarray:
    """Rows of these ids, which are all there."""
    return places_of(wanted, ids.combine_chunks())


def _thumbnails(images: Result, rows: np.ndarray, run: Run) -> list[bytes]:
    """Of these rows of a set, in their order; the images are not held."""
    own, place = np.unique(rows, return_inverse=True)
    made: list[bytes] = []
    for piece in encoded(images, rows=own, at_once=THUMBNAILS_AT_ONCE):
        made += thumbnails(piece, size=run.knobs.review.thumbnail)
    return [made[k] for k in place]


def _references(judges: Result, ids: pa.ChunkedArray, labels: pa.ChunkedArray, used: np.ndarray, run: Run) -> pa.Table:
    """The reference images that are shown."""
    rows = _places(ids, judges.table("points.parquet", ["id"])["id"])
    small = _thumbnails(judges, rows, run)
    return pa.table({"id": ids, "label": labels.take(pa.array(used)), "thumbnail": pa.array(small, pa.binary())})
