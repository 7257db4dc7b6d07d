"""A store as one look sees it: each folder is listed once, and only what changed since the last look is read."""

from collections.abc import Mapping
from typing import Any

from upath import UPath

from sava_assets.home.store import RememberingStore, Result
from sava_assets.home.tree import Entry, tree

_read: dict[str, tuple[str, dict[str, Any] | None]] = {}
"""Identity and content of each small file that this process has read."""


class LookStore(RememberingStore):
    """Answers from listings. What others write meanwhile is for the next look."""

    def __init__(self, root: UPath) -> None:
        super().__init__(root)
        self._trees: dict[str, dict[str, Entry]] = {}
        self._written: dict[str, dict[str, Any]] = {}

    def read_json(self, name: str) -> dict[str, Any] | None:
        if name in self._written:
            return self._written[name]
        folder, _, inside = name.partition("/")
        entry = self._tree(folder).get(inside)
        if entry is None:
            return None
        path = str(self.root / name)
        if path not in _read or _read[path][0] != entry.identity:
            _read[path] = entry.identity, super().read_json(name)
        return _read[path][1]

    def put_json(self, name: str, value: Mapping[str, Any], *, new: bool = False) -> None:
        super().put_json(name, value, new=new)
        self._written[name] = dict(value)

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
