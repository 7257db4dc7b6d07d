"""A store as one look sees it: each folder is listed once, and only what changed since the last look is read."""

from collections.abc import Mapping
from functools import cached_property
from typing import Any

from upath import UPath

from sava_assets.home.result import Result
from sava_assets.home.store import RememberingStore
from sava_assets.home.tree import Entry, tree

KEPT = "looks/read.json"
Read = tuple[str, dict[str, Any] | None]
"""Identity and content of a small file."""
_read: dict[str, Read] = {}
"""All that this process has read."""


class LookStore(RememberingStore):
    """Answers from listings. What others write meanwhile is for the next look.

    On an object store, what was read is kept in one file, for the first look of the next process.
    """

    def __init__(self, root: UPath) -> None:
        super().__init__(root)
        self._trees: dict[str, dict[str, Entry]] = {}
        self._written: dict[str, dict[str, Any]] = {}
        self._came_across: dict[str, Read] = {}
        self._news = False

    def read_json(self, name: str) -> dict[str, Any] | None:
        if name in self._written:
            return self._written[name]
        folder, _, inside = name.partition("/")
        entry = self._tree(folder).get(inside)
        if entry is None:
            return None
        path = str(self.root / name)
        known = [found for found in (_read.get(path), self._from_before.get(name)) if found]
        read = next((found for found in known if found[0] == entry.identity), None)
        if read is None:
            read, self._news = (entry.identity, super().read_json(name)), True
        _read[path] = self._came_across[name] = read
        return read[1]

    def put_json(self, name: str, value: Mapping[str, Any], *, new: bool = False) -> None:
        super().put_json(name, value, new=new)
        self._written[name] = dict(value)

    def keep(self) -> None:
        """For the next process: what this look came across, if some of it was new. Nobody looks at pictures."""
        if self._news and not self.is_local:
            plain = {name: (at, _plain(name, read)) for name, (at, read) in self._came_across.items()}
            super().put_json(KEPT, plain)

    def written(self, result: Result) -> float:
        return self._tree("results")[f"{result.asset}/{result.key}/manifest.json"].written

    def missing(self, result: Result) -> str:
        """What is gone of a result, in words: one of its files, or a part; empty if all is there."""
        there, own = self._tree("results"), f"{result.asset}/{result.key}"
        files = (f"{own}/{file.path.name}" for file in result.files.values())
        parts = (f"{kind}/{key}/manifest.json" for kind, key in result.parts)
        gone = next((name for name in (*files, *parts) if name not in there), None)
        return f"{self.root / 'results' / gone} is missing" if gone else ""

    def _tree(self, folder: str) -> dict[str, Entry]:
        if folder not in self._trees:
            self._trees[folder] = tree(self.root / folder)
        return self._trees[folder]

    @cached_property
    def _from_before(self) -> dict[str, Read]:
        kept = None if self.is_local else super().read_json(KEPT)
        return {name: (at, read) for name, (at, read) in (kept or {}).items()}


def _plain(name: str, read: dict[str, Any] | None) -> dict[str, Any] | None:
    return read | {"pictures": {}} if read and name.endswith("/manifest.json") else read
