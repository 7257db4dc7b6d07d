"""The history of a home: one snapshot per curation, and the removal of what no snapshot uses."""

import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pyarrow as pa

from sava_assets.freshness.overlap import valued
from sava_assets.freshness.proof import ACCURACIES, TRAINED, is_of
from sava_assets.freshness.rules import PROOF, RULES
from sava_assets.freshness.snapshots import SNAPSHOTS, Snapshot, names, published, snapshots
from sava_assets.home.ownership import owned
from sava_assets.home.places import remove
from sava_assets.home.publication import GRACE_SECONDS, Publication
from sava_assets.home.resources import Workspace
from sava_assets.home.result import DamagedResult, Result
from sava_assets.home.store import BATCH_ROWS, STARTING_POTENTIALS, Store, place
from sava_assets.home.tree import Entry, tree

QUANTILES = (0.1, 0.5, 0.9, 0.99)
SEEN = ("curation_report",)
"""Assets that show a curation and are no part of it."""


def record(workspace: Workspace, shards: Sequence[str], *, held_back: str = "") -> Snapshot:
    """Keep the current curation as a snapshot, unless the last one is of the same results; that one may be published
    now. `held_back`: why it is not."""
    store, known = workspace.store, snapshots(workspace.store)
    results = _current(store, shards)
    if known and _cut(known[-1].results) == _cut(results):
        if (made := replace(known[-1], held_back=held_back)) != known[-1]:
            _put(store, made)
        return made
    pruned = store.require("pruned_dataset")
    last = next(published(store), None)
    before = store.find("pruned_dataset", last.results["pruned_dataset"]) if last else None
    points = valued(pruned.table("points.parquet", ["shard", "value", "keep", "action"]))
    value = points["value"].to_numpy()
    made = Snapshot(
        number=_next_number(store),
        time=time.time(),
        results=results,
        numbers={
            "shards": sorted(points["shard"].unique().to_pylist()),
            "points": len(points),
            "pruned": pruned.numbers["pruned"],
            "bad_share": pruned.numbers["bad_share"],
            **{f"value_q{q:g}": float(np.quantile(value, q)) for q in QUANTILES},
        },
        changes=_changes(before, pruned),
        held_back=held_back,
    )
    try:
        _put(store, made, new=True)
    except FileExistsError:  # somebody else kept one meanwhile: this one comes after it
        return record(workspace, shards, held_back=held_back)
    # It may have been measured before it was published, or for an equal cut.
    for name in ACCURACIES:
        if accuracy := store.current(name):
            join_accuracy(workspace, accuracy)
    return snapshots(store)[-1]


def join_accuracy(workspace: Workspace, accuracy: Result) -> None:
    """Enter an accuracy in the last curation that it was measured on, if the history has it."""
    store = workspace.store
    for past in reversed(snapshots(store)):
        pruned = store.find("pruned_dataset", past.results["pruned_dataset"])
        if pruned is None or not is_of(accuracy, pruned):
            continue
        called = ACCURACIES[accuracy.asset]
        numbers = {f"{called}_{name}": accuracy.numbers[f"{name}_mean"] for name in ("all", "random", "pruned")}
        judges = ("test_images", *(name for name in RULES[accuracy.asset].upstream if name in PROOF))
        read = {name: result.key for name in judges if (result := store.current(name))}
        results = {**past.results, **read, accuracy.asset: accuracy.key}
        joined = replace(past, results=results, numbers={**past.numbers, **numbers})
        if joined != past:
            _put(store, joined)
        return


def _next_number(store: Store) -> int:
    """After all that are there, also those that cannot be read any more."""
    there = [name.removesuffix(".json") for name in names(store)]
    return max((int(name) for name in there if name.isdecimal()), default=0) + 1


def _put(store: Store, snapshot: Snapshot, *, new: bool = False) -> None:
    store.put_json(f"{SNAPSHOTS}/{snapshot.number:06}.json", vars(snapshot), new=new)


def _cut(results: Mapping[str, str]) -> dict[str, str]:
    """Those of a curation's results that say what is kept: not where it was published, nor how it was judged."""
    return {name: key for name, key in results.items() if name.split("/")[0] not in (*PROOF, "curated_dataset")}


def collect_garbage(
    workspace: Workspace, shards: Sequence[str], *, keep: int | None = None, grace: float = GRACE_SECONDS
) -> tuple[int, int]:
    """Delete results that neither a snapshot nor the present uses; returns how many, and their bytes.

    `keep` first forgets all but the last so many snapshots, and the last published one. What was written less than
    `grace` seconds ago stays: somebody may be about to use it. Raises BadInput while somebody of
    this machine computes results here.
    """
    with owned(workspace.root, "results", wait=False):
        return _collect(workspace.store, shards, keep, grace)


def collect_versions(workspace: Workspace, *, grace: float = GRACE_SECONDS) -> tuple[int, int]:
    """Delete versions of the data set that another one replaced so many seconds ago; returns how many, and their bytes.

    Raises BadInput while somebody publishes here.
    """
    with owned(workspace.root, "publication", wait=False):
        return Publication(workspace.curated).remove_superseded(grace=grace)


def _collect(store: Store, shards: Sequence[str], keep: int | None, grace: float) -> tuple[int, int]:
    if keep is not None:
        known, last = snapshots(store), next(published(store), None)
        for old in known[: max(0, len(known) - keep)]:
            if keep and last and old.number == last.number:  # what people train on, if later ones were held back
                continue
            remove(store.root / f"{SNAPSHOTS}/{old.number:06}.json")
    oldest = time.time() - grace
    _forget_shards(store, shards, oldest)
    # The present first: what is current becomes part of a snapshot, and never the other way round.
    used = set(store.pointers())
    used |= {(name.split("/")[0], key) for past in snapshots(store) for name, key in past.results.items()}
    trained = store.current(TRAINED)
    if trained and "curation" in trained.numbers:  # whether enough changed since is asked of these decisions
        used.add(("pruned_dataset", trained.numbers["curation"]))
    used |= {part for asset, key in used for part in _parts(store.find(asset, key))}
    found: dict[tuple[str, str], list[Entry]] = defaultdict(list)
    for name, entry in tree(store.root / "results").items():
        if name.count("/") > 1:  # whatever else lies there is nobody's result
            asset, key, _ = name.split("/", 2)
            found[asset, key].append(entry)
    unused = {result: files for result, files in found.items() if result not in used}
    removed = {result: files for result, files in unused.items() if max(file.written for file in files) <= oldest}
    for asset, key in removed:
        folder = store.root / "results" / asset / key
        # The manifest first: without it the rest does not count as a result.
        remove(folder / "manifest.json")
        with suppress(FileNotFoundError):  # it was all there was, or another one collects at the same time
            folder.fs.rm(folder.path, recursive=True)
    store.remove_dead_scratch()
    return len(removed), sum(file.size for files in removed.values() for file in files)


def _current(store: Store, shards: Sequence[str]) -> dict[str, str]:
    """`asset` or `asset/shard` → key of its present result; the proof is joined when it is there."""
    return {
        name if shard is None else f"{name}/{shard}": result.key
        for name, rule in RULES.items()
        if name not in PROOF + SEEN
        for shard in (shards if rule.sharded else [None])
        if (result := store.current(name, shard))
    }


def _forget_shards(store: Store, shards: Sequence[str], oldest: float) -> None:
    """Remove the pointers of shards that are gone; until now they made putting one back free."""
    kept = {place(name, shard) for name, rule in RULES.items() for shard in (shards if rule.sharded else [None])}
    for pointer, entry in tree(store.root / "current").items():
        asset = pointer.split("/")[0]
        sharded = asset in RULES and RULES[asset].sharded
        if sharded and pointer.removesuffix(".json") not in kept and entry.written <= oldest:
            remove(store.root / "current" / pointer)


def _parts(result: Result | None) -> set[tuple[str, str]]:
    """What a result keeps beside itself: a batch matrix its rows, and what they started from; near copies their pairs;
    a comparison its trainings."""
    if result is None:
        return set()
    if result.asset != "batch_ot":
        return set(result.parts)
    started = {(STARTING_POTENTIALS, result.numbers["calibration"])}
    if result.parts:
        return {*result.parts} | started
    try:  # written before manifests named the parts
        rows = result.table("rows.parquet", ["row"])["row"].to_pylist()
    except DamagedResult:  # due, so that its rows are looked up or computed again
        return started
    return {(BATCH_ROWS, row) for row in rows} | started


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
