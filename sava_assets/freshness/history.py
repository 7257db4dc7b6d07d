"""The history of a home: one snapshot per curation, and the removal of what no snapshot uses."""

import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from upath import UPath

from sava_assets.freshness.rules import RULES
from sava_assets.home.ownership import owned
from sava_assets.home.resources import Workspace
from sava_assets.home.store import BATCH_ROWS, STARTING_POTENTIALS, Result, Store

SNAPSHOTS = "snapshots"
QUANTILES = (0.1, 0.5, 0.9, 0.99)
SEEN = ("curation_report",)
"""Assets that show a curation and are no part of it."""
PARTIAL_SECONDS = 86_400
"""Scratch of a writer that died; a living one needs it for minutes."""


@dataclass(frozen=True)
class Snapshot:
    """One curation: what went in, what came out, and what changed since the one before."""

    number: int
    time: float
    """Seconds since the epoch."""
    results: Mapping[str, str]
    """`asset` or `asset/shard` → key of its result."""
    numbers: Mapping[str, Any]
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
    if known and known[-1].results == results:
        return known[-1]
    pruned, accuracy = store.current("pruned_dataset"), store.current("classifier_accuracy")
    assert pruned is not None
    assert accuracy is not None
    before = store.find("pruned_dataset", known[-1].results["pruned_dataset"]) if known else None
    points = pruned.table("points.parquet", ["shard", "value", "keep"])
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
            **{f"accuracy_{name}": accuracy.numbers[f"{name}_mean"] for name in ("all", "random", "pruned")},
        },
        changes=_changes(before, pruned),
    )
    store.put_json(f"{SNAPSHOTS}/{made.number:06}.json", vars(made))
    return made


def collect_garbage(workspace: Workspace, shards: Sequence[str], *, keep: int | None = None) -> tuple[int, int]:
    """Delete results that neither a snapshot nor the present uses; returns how many, and their bytes.

    `keep` first forgets all but the last so many snapshots. Raises BadInput while somebody computes results here.
    """
    with owned(workspace.root, "results", wait=False):
        return _collect(workspace.store, shards, keep)


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
    _remove_dead_scratch(store)
    return len(removed), size


def _inside(folder: UPath) -> Iterator[UPath]:
    return folder.iterdir() if folder.exists() else iter(())


def _current(store: Store, shards: Sequence[str]) -> dict[str, str]:
    """`asset` or `asset/shard` → key of its present result."""
    return {
        name if shard is None else f"{name}/{shard}": result.key
        for name, rule in RULES.items()
        if name not in SEEN
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


def _remove_dead_scratch(store: Store) -> None:
    for scratch in _inside(store.root / "partial"):
        if time.time() - scratch.stat().st_mtime > PARTIAL_SECONDS:
            shutil.rmtree(str(scratch))


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
    points: pa.Table = result.table("points.parquet", ["id", "keep"])
    return dict(zip(points["id"].to_pylist(), points["keep"].to_pylist(), strict=True))
