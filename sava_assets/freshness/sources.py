"""A home, and what lies outside its store and is read: folders and files, for whoever names a result or looks."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

from upath import UPath

from sava_assets.formats.by_name import is_table
from sava_assets.formats.decision_files import decisions_version, read_decisions
from sava_assets.formats.further_columns import further_types
from sava_assets.formats.landing import Landed, Listing, fingerprint, landed, listing
from sava_assets.formats.names import shown
from sava_assets.home.failures import in_words
from sava_assets.home.listed import listed
from sava_assets.home.look import LookStore
from sava_assets.home.resources import Knobs
from sava_assets.home.result import digest
from sava_assets.home.store import RememberingStore, Store
from sava_ops.errors import BadInput

CHANGING_SECONDS = 2.0
"""A file that changed this recently may change again within the resolution of its time stamp."""


class Home(Protocol):
    """What naming a result needs of a `Workspace`."""

    @property
    def knobs(self) -> Knobs: ...
    @property
    def store(self) -> Store: ...
    def folder(self, path: str) -> UPath: ...


@dataclass(frozen=True)
class Pinned:
    """A home as one run sees it: settings and upstream results read once, so what is read is what names the result; on
    object stores every place is listed once."""

    home: Home
    knobs: Knobs
    store: Store
    _places: dict[str, UPath] = field(default_factory=dict)

    @classmethod
    def of(cls, home: Home) -> "Pinned":
        knobs = home.knobs
        return cls(home, knobs, RememberingStore(home.folder(knobs.store)))

    def folder(self, path: str) -> UPath:
        if path not in self._places:
            self._places[path] = listed(self.home.folder(path))
        return self._places[path]

    @cached_property
    def landed(self) -> Landed:
        return landed(self.folder(self.knobs.landing), follow_links=self.knobs.follow_links)


@dataclass(frozen=True)
class Look(Pinned):
    """A home as one look sees it: every folder of the store is listed once, too."""

    store: LookStore

    @classmethod
    def of(cls, home: Home) -> "Look":
        knobs = home.knobs
        return cls(home, knobs, LookStore(home.folder(knobs.store)))


def landing_of(home: Home) -> Landed:
    """What lies in the home's landing folder; of a pinned home, what lay there when that was first asked."""
    if isinstance(home, Pinned):
        return home.landed
    return landed(home.folder(home.knobs.landing), follow_links=home.knobs.follow_links)


def shards_of(home: Home) -> dict[str, UPath]:
    """Shard name → its file or folder."""
    return landing_of(home).shards


def listing_of(home: Home, path: UPath, *, anew: bool = False) -> Listing:
    """What a look at a set's files tells; `anew`: whatever the home has seen of it. Raises BadInput where it cannot be
    looked at."""
    with _readable(path):
        return listing(listed(path, anew=anew), follow_links=home.knobs.follow_links)


def source_of(home: Home, name: str, shard: str | None) -> UPath:
    """The folder that the knob `name` names, or a shard in it. Raises BadInput for what is not there."""
    folder = home.folder(home.knobs.value(name))
    if shard is None:
        if not folder.exists():
            raise BadInput(f"the {name} set {folder} does not exist: create it, or set `{name}` in sava.yaml")
        return folder
    found = landing_of(home)
    if shard not in found.shards:
        raise BadInput(f"the shard {shard!r} is not in {folder}: put it there, or delete its partition")
    if shard in found.unclear:
        raise BadInput(found.unclear[shard])
    return found.shards[shard]


def looked_into(home: Home, path: UPath) -> dict[str, Any]:
    """`fingerprint` and further `columns` of a set; its files are read again only when a name, a size or a time stamp
    changed."""
    seen, name = listing_of(home, path), f"fingerprints/{digest(str(path))}.json"
    known = home.store.read_json(name) or {}
    same, links = known.get("listing") == seen.digest, home.knobs.follow_links
    if same and "columns" in known:
        return known
    with _readable(path):
        made = {"listing": seen.digest, "columns": _further_types(path, links)}
        made["fingerprint"] = known["fingerprint"] if same else fingerprint(path, follow_links=links)
    if time.time() - seen.touched > CHANGING_SECONDS and listing_of(home, path, anew=True).digest == seen.digest:
        home.store.put_json(name, made)
    return made


def _further_types(path: UPath, follow_links: bool) -> list[list[str]]:
    try:
        return [] if path.is_file() and not is_table(path.name) else further_types(path, follow_links=follow_links)
    except BadInput:  # whoever reads the set says so
        return []


def observed_version(home: Home, name: str) -> str | None:
    """Of a folder of decisions; None where there are none. Raises BadInput for files that are not as they must be."""
    folder = home.folder(home.knobs.value(name))
    with _readable(folder):
        read_decisions(folder)
        return decisions_version(folder)


@contextmanager
def _readable(path: UPath) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise BadInput(f"{shown(str(path))} changed while it was looked at ({in_words(error)}): look again") from error
    except OSError as error:
        raise BadInput(
            f"{shown(str(path))} cannot be looked at ({in_words(error)}): allow it, or move it away"
        ) from error


def checkpoint_version(home: Home, source: str) -> str:
    """Of a local file its content; a URL stands for itself, so that no look costs a download."""
    if "://" in source:
        return source
    if not (path := home.folder(source)).exists():
        raise BadInput(f"the checkpoint {path} does not exist: correct `encoder.source` in sava.yaml")
    return looked_into(home, path)["fingerprint"]
