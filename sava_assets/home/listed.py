"""A folder on an object store as one listing shows it: looked at without another request, however many files it holds.

Local folders stay as they are: a look there costs nothing, and sees links and times of change that fsspec does not.
"""

from typing import Any

from fsspec import AbstractFileSystem
from upath import UPath

from sava_assets.home.places import LOCAL, in_reach

UNLISTED = (*LOCAL, "http", "https")
"""Protocols of places that are looked at themselves: local ones, and those that cannot be listed."""


class Listed(AbstractFileSystem):
    """Names, sizes and times from one listing of `root`, made when it is first asked; files are read where they lie."""

    cachable = False

    def __init__(self, root: UPath) -> None:
        super().__init__()
        self.protocol, self.beneath, self._root = root.protocol, root.fs, root
        self._found: dict[str, dict[str, Any]] | None = None

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        path = self._key(path)
        if path in self._entries:
            return self._entries[path]
        raise FileNotFoundError(path)

    def ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:
        if (own := self.info(path))["type"] == "file":
            return [own] if detail else [own["name"]]
        below = self._key(path)
        inside = [info for name, info in self._entries.items() if name != below and name.rpartition("/")[0] == below]
        return inside if detail else [info["name"] for info in inside]

    def open(self, path: str, mode: str = "rb", **named: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        return self.beneath.open(path, mode, **named)

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **named: Any) -> bytes:
        return self.beneath.cat_file(path, start=start, end=end, **named)  # pyright: ignore[reportReturnType]

    def modified(self, path: str) -> Any:
        return self.beneath.modified(path)

    @property
    def _entries(self) -> dict[str, dict[str, Any]]:
        """Of every file and every folder above one."""
        if self._found is None:
            self._found = self._listing()
        return self._found

    def _listing(self) -> dict[str, dict[str, Any]]:
        root = self._key(self._root.path)
        with in_reach(self._root):
            found: Any = self.beneath.find(self._root.path, detail=True)
        files = {self._key(name): info or self.beneath.info(name) for name, info in found.items()}
        entries: dict[str, dict[str, Any]] = {}
        for name, info in files.items():
            above = name.rpartition("/")[0]
            while len(above) >= len(root) and above not in entries:
                entries[above] = {"name": above, "size": 0, "type": "directory"}
                above = above.rpartition("/")[0]
            entries[name] = {**info, "name": name}
        return entries

    def _key(self, path: str) -> str:
        return str(self.beneath._strip_protocol(path)).rstrip("/")


def listed(place: UPath, *, anew: bool = False) -> UPath:
    """The same place, looked at by one listing; `anew`: by one of its own, even if it is part of a listed one."""
    if place.protocol in UNLISTED:
        return place
    known = place.fs
    if isinstance(known, Listed):
        if not anew:
            return place
        bare = UPath(place)
        bare._fs_cached = known.beneath
        place = bare
    made = UPath(place)
    made._fs_cached = Listed(place)
    return made
