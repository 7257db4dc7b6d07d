"""Published versions of the data set: whole ones, side by side, and one pointer.

    curated/versions/<version>/points.parquet, images/<shard>.parquet
    curated/versions/<version>/version.json      written last: its files with sizes and checksums
    curated/versions/<version>/superseded.json   since another version is published; its time stamp says when
    curated/current.json                         names the published version; replaced in one step
    curated/current, images, points.parquet      where there are links: see `sava_assets.home.links`

Who reads through the pointer, or through `current` once resolved, has one whole version, whatever is published
meanwhile. Only files that were written here are ever replaced or deleted.
"""

import os
import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from upath import UPath

from sava_assets.home.links import ABOUT, IMAGES, POINTS, SUPERSEDED, VERSIONS, Links, leads, targets
from sava_assets.home.places import remove
from sava_assets.home.result import DamagedResult, Writer, sha256_of
from sava_assets.home.store import Store
from sava_assets.home.tree import tree

POINTER = "current.json"
GRACE_SECONDS = 86_400.0
"""How long a version stays after another one was published: somebody may be reading it."""
VERSION = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class Publication:
    """The `curated/` folder of a home, local or remote."""

    root: UPath

    @property
    def current(self) -> str | None:
        """The published version."""
        return self._pointer.get("version")

    def about(self, version: str) -> dict[str, Any] | None:
        """What its writer says of a version; None if it is not there or was never finished."""
        found = self._store.read_json(f"{VERSIONS}/{version}/{ABOUT}")
        return found if found and isinstance(found.get("files"), dict) else None

    def place(self, name: str) -> UPath:
        """Where `points.parquet` or `images` of the published version lies: in `curated/` itself if that leads to it,
        else in the folder of the version."""
        whole, short = self.root / VERSIONS / (self.current or "") / name, self.root / name
        same = self._store.is_local and os.path.realpath(short.path) == os.path.realpath(whole.path)
        return short if same else whole

    def fault(self, version: str) -> str:
        """What a look finds missing or damaged, in words; empty if this version is published and whole."""
        return self._incomplete(version) or self._not_pointed_at(version)

    def check(self, version: str) -> None:
        """Read every file of a version; raises DamagedResult for the first that is not as it was written."""
        if fault := self._incomplete(version):
            raise DamagedResult(fault)
        for name, file in self._files(version).items():
            if sha256_of(path := self.root / VERSIONS / version / name) != file["sha256"]:
                raise DamagedResult(f"{path} is damaged (checksum differs)")

    def write(self, version: str, files: Iterable[tuple[str, Writer]], facts: Mapping[str, Any]) -> dict[str, Any]:
        """Write a version beside the others; returns what is then said `about` it. It is nobody's until it is released.

        Whoever writes the same version at the same time writes the same.
        """
        written = {}
        for name, writer in files:
            size, sha256 = self._store.put(f"{VERSIONS}/{version}/{name}", writer)
            written[name] = {"bytes": size, "sha256": sha256}
        if self._store.is_local:  # also where no image is in it: a link must not lead nowhere
            (self.root / VERSIONS / version / IMAGES).mkdir(parents=True, exist_ok=True)
        about = {**facts, "files": written}
        self._store.put_json(f"{VERSIONS}/{version}/{ABOUT}", about)
        return about

    def release(self, version: str) -> list[str]:
        """Make a version the published one; returns what is to be said of names that are in the way.

        The caller owns the part "publication" of the home.
        """
        before = self.current
        if before is not None and before != version and self.about(before):
            self._store.put_json(f"{VERSIONS}/{before}/{SUPERSEDED}", {"by": version})
        links, told = self._links.set(version) if self._store.is_local else ([], [])
        pointer = {"version": version, "folder": f"{VERSIONS}/{version}", "links": links}
        if pointer != self._pointer:
            self._store.put_json(POINTER, pointer)
        remove(self.root / VERSIONS / version / SUPERSEDED)
        return told

    def remove_superseded(self, *, grace: float = GRACE_SECONDS) -> tuple[int, int]:
        """Delete versions that have not been the published one for so many seconds; returns how many, and their bytes.

        The caller owns the part "publication" of the home.
        """
        now, current = time.time(), self.current
        old = [version for version in self._versions() if version != current and now - self._left(version) > grace]
        sizes = [self._remove(version) for version in old]
        self._store.remove_dead_scratch()
        return sum(size > 0 for size in sizes), sum(sizes)

    @property
    def _store(self) -> Store:
        return Store(self.root)

    @property
    def _links(self) -> Links:
        files = {version: self._files(version) for version in self._versions()}
        return Links(Path(self.root.path), self._store, files)

    @property
    def _pointer(self) -> dict[str, Any]:
        return self._store.read_json(POINTER) or {}

    def _files(self, version: str) -> dict[str, dict[str, Any]]:
        return (self.about(version) or {}).get("files", {})

    def _incomplete(self, version: str) -> str:
        folder, about = self.root / VERSIONS / version, self.about(version)
        if about is None:
            return f"{folder / ABOUT} is not there"
        sizes = {name: entry.size for name, entry in tree(folder).items()}
        for name, file in about["files"].items():
            if name not in sizes:
                return f"{folder / name} is not there"
            if sizes[name] != file["bytes"]:
                return f"{folder / name} has {sizes[name]:,} bytes and was written with {file['bytes']:,}"
        return ""

    def _not_pointed_at(self, version: str) -> str:
        pointer = self._pointer
        if pointer.get("version") != version:
            return f"{self.root / POINTER} does not name the version {version}"
        for name, target in targets(version).items():
            place = Path(self.root.path) / name
            # A copied home may have copies in place of links; what people put there is theirs.
            taken = place.exists() and not place.is_symlink()
            if name in pointer.get("links", ()) and not leads(place, target) and not taken:
                return f"{place} does not lead to {target}"
        return ""

    def _versions(self) -> list[str]:
        folder = self.root / VERSIONS
        names = [path.name for path in folder.iterdir()] if folder.exists() else []
        return sorted(name for name in names if VERSION.fullmatch(name))

    def _left(self, version: str) -> float:
        """When a version ceased to be the published one; of one that never was, its last change."""
        found = tree(self.root / VERSIONS / version)
        written = [found[SUPERSEDED]] if SUPERSEDED in found else found.values()
        return max((entry.written for entry in written), default=0.0)

    def _remove(self, version: str) -> int:
        """Delete what was written of a version, its description first; returns the bytes."""
        folder = self.root / VERSIONS / version
        found, size = tree(folder), 0
        unfinished = [POINTS, *(name for name in found if re.fullmatch(rf"{IMAGES}/[^/]+\.parquet", name))]
        for name in (ABOUT, *(list(self._files(version)) or unfinished), SUPERSEDED):
            if name in found:
                size += found[name].size
                remove(folder / name)
        for path in (folder / IMAGES, folder) if self._store.is_local else ():
            if path.exists() and not any(path.iterdir()):
                path.rmdir()
        return size
