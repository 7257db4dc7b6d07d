"""The rows of a home's history: one per curation."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sava_assets.home.store import Store
from sava_assets.home.tree import tree

SNAPSHOTS = "snapshots"


@dataclass(frozen=True)
class Snapshot:
    """One curation: what went in, what came out, and what changed since the last published one."""

    number: int
    time: float
    """Seconds since the epoch."""
    results: Mapping[str, str]
    """`asset` or `asset/shard` → key of its result."""
    numbers: Mapping[str, Any]
    """With accuracies if they were measured on this curation: `probe_…` by linear probes, `accuracy_…` by trainings."""
    changes: Mapping[str, int]
    """Points `new`, `dropped` (kept before, pruned now), `rescued` (the reverse), `gone`."""
    held_back: str = ""
    """Why it was not published; empty if it was."""


def snapshots(store: Store) -> list[Snapshot]:
    """All snapshots, oldest first."""
    return list(latest_first(store))[::-1]


def latest_first(store: Store) -> Iterator[Snapshot]:
    """Each is read when it is asked for."""
    latest = sorted(names(store), reverse=True)
    return (Snapshot(**stored) for name in latest if (stored := store.read_json(f"{SNAPSHOTS}/{name}")))


def names(store: Store) -> list[str]:
    """Of the files that snapshots are in."""
    return [name for name in tree(store.root / SNAPSHOTS) if "/" not in name]


def published(store: Store) -> Iterator[Snapshot]:
    """Those that were published, the latest first."""
    return (past for past in latest_first(store) if not past.held_back)
