"""The history of a home: one snapshot per curation, and the removal of what no snapshot uses."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from upath import UPath

from sava_assets.freshness.overlap import valued
from sava_assets.freshness.rules import PROOF, RULES
from sava_assets.home.ownership import owned
from sava_assets.home.publication import GRACE_SECONDS, Publication
from sava_assets.home.resources import CURATED, Workspace
from sava_assets.home.store import BATCH_ROWS, STARTING_POTENTIALS, Result, Store

SNAPSHOTS = "snapshots"
QUANTILES = (0.1, 0.5, 0.9, 0.99)
SEEN = ("curation_report",)
"""Assets that show a curation and are no part of it."""


@dataclass(frozen=True)
class Snapshot:
    """One curation: what went in, what came out, and what changed since the one before."""

    number: int
    time: float
    """Seconds since the epoch."""
    results: Mapping[str, str]
    """`asset` or `asset/shard` → key of its result."""
    numbers: Mapping[str, Any]
    """With accuracies if they were measured on this curation."""
    changes: Mapping[str, int]
    """Points `new`, `dropped` (kept before, pruned now), `rescued` (the reverse), `gone`."""


def snapshots(store: Store) -> list[Snapshot]:
    """All snapshots, oldest first."""
    folder = store.root / SNAPSHOTS
    if not folder.exists():
        return []
    read = [store.read_json(f"{SNAPSHOTS}/{path.name}") for path in sorted(folder.iterdir(), key=lambda p: p.name)]
    return [Snapshot(**stored) for stored in read if stored]


def record(workspace: Workspace, shards: Sequence[str]) -> Snapshot:
    """Keep the current curation as a snapshot, unless the last one is of the same results."""
    store, known = workspace.store, snapshots(workspace.store)
    results = _current(store, shards)
    if known and _cut(known[-1].results) == _cut(results):
        return known[-1]
    pruned = store.require("pruned_dataset")
    before = store.find("pruned_dataset", known[-1].results["pruned_dataset"]) if known else None
    points = valued(pruned.table("points.parquet", ["shard", "value", "keep", "action"]))
    value = points["value"].to_numpy()
    made = Snapshot(
        number=known[-1].number + 1 if known else 1,
        time=time.time(),
        results=results,
        numbers={
            "shards": sorted(points["shard"].unique().to_pylist()),
            "points": len(points),
            "pruned": pruned.numbers["pruned"],
            **{f"value_q{q:g}": float(np.quantile(value, q)) for q in QUANTILES},
        },
        changes=_changes(before, pruned),
    )
    _put(store, made)
    # It may have been measured before it was published, or for an equal cut.
    if accuracy := store.current("classifier_accuracy"):
        join_accuracy(workspace, accuracy)
    return snapshots(store)[-1]


def join_accuracy(workspace: Workspace, accuracy: Result) -> None:
    """Enter an accuracy in the last curation that it was measured on, if the history has it."""
    store = workspace.store
    for past in reversed(snapshots(store)):
        pruned = store.find("pruned_dataset", past.results["pruned_dataset"])
        if pruned is None or {"": pruned.data_version} != accuracy.inputs["pruned_dataset"]:
            continue
        numbers = {f"accuracy_{name}": accuracy.numbers[f"{name}_mean"] for name in ("all", "random", "pruned")}
        test = {name: result.key for name in PROOF if (result := store.current(name))}
        results = {**past.results, **test, accuracy.asset: accuracy.key}
        joined = replace(past, results=results, numbers={**past.numbers, **numbers})
        if joined != past:
            _put(store, joined)
        return


def _put(store: Store, snapshot: Snapshot) -> None:
    store.put_json(f"{SNAPSHOTS}/{snapshot.number:06}.json", vars(snapshot))


def _cut(results: Mapping[str, str]) -> dict[str, str]:
    """Those of a curation's results that say what is kept: not where it was published, nor how it was judged."""
    return {name: key for name, key in results.items() if name.split("/")[0] not in (*PROOF, "curated_dataset")}


def collect_garbage(workspace: Workspace, shards: Sequence[str], *, keep: int | None = None) -> tuple[int, int]:
    """Delete results that neither a snapshot nor the present uses; returns how many, and their bytes.

    `keep` first forgets all but the last so many snapshots. Raises BadInput while somebody computes results here.
    """
    with owned(workspace.root, "results", wait=False):
        return _collect(workspace.store, shards, keep)


def collect_versions(workspace: Workspace, *, grace: float = GRACE_SECONDS) -> tuple[int, int]:
    """Delete versions of the data set that another one replaced so many seconds ago; returns how many, and their bytes.

    Raises BadInput while somebody publishes here.
    """
    with owned(workspace.root, "publication", wait=False):
        return Publication(workspace.folder(CURATED)).remove_superseded(grace=grace)


def _collect(store: Store, shards: Sequence[str], keep: int | None) -> tuple[int, int]:
    known = snapshots(store)
    if keep is not None:
        for old in known[: max(0, len(known) - keep)]:
            (store.root / f"{SNAPSHOTS}/{old.number:06}.json").unlink()
        known = snapshots(store)
    _forget_shards(store, shards)
    used = {(name.split("/")[0], key) for snapshot in known for name, key in snapshot.results.items()}
    used |= set(store.pointers())
    used |= {part for asset, key in used if asset == "batch_ot" for part in _parts(store.find(asset, key))}
    removed = [
        folder
        for asset in _inside(store.root / "results")
        for folder in asset.iterdir()
        if (asset.name, folder.name) not in used
    ]
    size = sum(path.stat().st_size for folder in removed for path in folder.rglob("*") if path.is_file())
    for folder in removed:
        # The manifest first: without it the rest does not count as a result.
        (folder / "manifest.json").unlink(missing_ok=True)
        folder.fs.rm(folder.path, recursive=True)
    store.remove_dead_scratch()
    return len(removed), size


def _inside(folder: UPath) -> Iterator[UPath]:
    return folder.iterdir() if folder.exists() else iter(())


def _current(store: Store, shards: Sequence[str]) -> dict[str, str]:
    """`asset` or `asset/shard` → key of its present result; the proof is joined when it is there."""
    return {
        name if shard is None else f"{name}/{shard}": result.key
        for name, rule in RULES.items()
        if name not in PROOF + SEEN
        for shard in (shards if rule.sharded else [None])
        if (result := store.current(name, shard))
    }


def _forget_shards(store: Store, shards: Sequence[str]) -> None:
    """Remove the pointers of shards that are gone; until now they made putting one back free."""
    for name in (name for name, rule in RULES.items() if rule.sharded):
        for pointer in (store.root / "current" / name).glob("*.json"):
            if pointer.stem not in shards:
                pointer.unlink()


def _parts(result: Result | None) -> set[tuple[str, str]]:
    """What a batch matrix keeps beside itself: its rows, and what they started from."""
    if result is None:
        return set()
    rows = result.table("rows.parquet", ["row"])["row"].to_pylist()
    return {(BATCH_ROWS, row) for row in rows} | {(STARTING_POTENTIALS, result.numbers["calibration"])}


def _changes(before: Result | None, now: Result) -> dict[str, int]:
    """Point by point, against the snapshot before."""
    new = _decisions(now)
    old = _decisions(before) if before else {}
    common = old.keys() & new.keys()
    return {
        "new": len(new.keys() - old.keys()),
        "gone": len(old.keys() - new.keys()),
        "dropped": sum(old[name] and not new[name] for name in common),
        "rescued": sum(new[name] and not old[name] for name in common),
    }


def _decisions(result: Result) -> dict[str, bool]:
    points: pa.Table = valued(result.table("points.parquet", ["id", "keep", "action"]))
    return dict(zip(points["id"].to_pylist(), points["keep"].to_pylist(), strict=True))
