"""Links in `curated/` that lead people to the published version, on file systems that have links.

    curated/current          →  versions/<version>        replaced in one step
    curated/images           →  current/images            made once
    curated/points.parquet   →  current/points.parquet    made once

What else has one of these names is the user's and stays; but what was written here is replaced: the layout before there
were versions, and the copies that a copied home has in place of its links.
"""

import errno
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from sava_assets.home.result import DamagedResult, sha256_of
from sava_assets.home.store import Store, file_name
from sava_assets.parquet import read_table

VERSIONS, ABOUT, SUPERSEDED = "versions", "version.json", "superseded.json"
CURRENT, IMAGES, POINTS = "current", "images", "points.parquet"
NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}
"""What file systems without symbolic links say."""


@dataclass(frozen=True)
class Links:
    """Of a local `curated/`, which `store` writes in."""

    root: Path
    store: Store
    versions: Mapping[str, Mapping[str, Any]]
    """Version → its files, with `bytes` and `sha256` of each."""

    def set(self, version: str) -> tuple[list[str], list[str]]:
        """Names that now lead to the version, and what is to be said of the others."""
        links, told, old = [], [], self._old_layout()
        for name, target in targets(version).items():
            place = self.root / name
            if not leads(place, target) and not self._ours(place, old):
                whole = self.root / VERSIONS / version / ("" if name == CURRENT else name)
                told.append(f"{place} was not written by SAVA and stays as it is: what is published lies in {whole}")
                _delete(path for path in old.values() if path.parent == place)
                continue
            try:
                self._link(place, target)
            except OSError as error:
                if error.errno not in NO_LINKS:
                    raise
                links, told = [], [f"{self.root} can hold no links: its current.json says where the data set lies"]
                break
            links.append(name)
        # The stamp last: without it nobody knows what the rest is.
        _delete(path for name, path in reversed(old.items()) if not path.is_symlink() and not path.parent.is_symlink())
        return links, told

    def _link(self, place: Path, target: str) -> None:
        """In one step, whatever of ours was there before."""
        if leads(place, target):
            return
        with self.store.scratch() as scratch:
            made = Path(scratch) / "link"
            made.symlink_to(target)
            if place.is_dir() and not place.is_symlink():
                place.rename(Path(scratch) / "before")
            made.replace(place)

    def _ours(self, place: Path, old: Mapping[str, Path]) -> bool:
        """Whether a name is free, or holds what was written here."""
        if place.is_symlink():
            return str(place.readlink()).startswith(f"{VERSIONS}/" if place.name == CURRENT else f"{CURRENT}/")
        if not place.exists():
            return True
        inside = [path for path in place.rglob("*") if not path.is_dir()] if place.is_dir() else [place]
        base = place if place.name == CURRENT else self.root
        found = {path.relative_to(base).as_posix(): path for path in inside}
        if set(found) <= set(old):
            return True
        return any(self._copied(found, version) for version in self.versions)

    def _copied(self, found: Mapping[str, Path], version: str) -> bool:
        """Whether these files are those that a version has under their names, to the byte."""
        files, about = self.versions[version], self.root / VERSIONS / version / ABOUT
        if ABOUT in found and found[ABOUT].read_bytes() != about.read_bytes():
            return False
        rest = {name: path for name, path in found.items() if name not in (ABOUT, SUPERSEDED)}
        if any(name not in files or path.stat().st_size != files[name]["bytes"] for name, path in rest.items()):
            return False
        return all(sha256_of(path) == files[name]["sha256"] for name, path in rest.items())

    def _old_layout(self) -> dict[str, Path]:
        """Files of a `curated/` that was written before there were versions, by their names in it; its stamp first."""
        stamp, table = self.store.read_json(ABOUT), self.root / POINTS
        if stamp is None or stamp.keys() != {"points", "images"}:
            return {}
        names = [ABOUT]
        if table.is_file() and not table.is_symlink():
            try:
                shards = read_table(table, columns=["shard"])["shard"].unique().to_pylist()
            except (pa.ArrowException, KeyError, OSError) as error:
                raise DamagedResult(f"{table} cannot be read ({error}): move it out of {self.root}") from error
            names += [POINTS, *(f"{IMAGES}/{file_name(shard)}.parquet" for shard in shards)]
        return {name: self.root / name for name in names}


def targets(version: str) -> dict[str, str]:
    """Name of each link, and where it leads; `points.parquet` last, which tells what the old layout was."""
    return {CURRENT: f"{VERSIONS}/{version}", IMAGES: f"{CURRENT}/{IMAGES}", POINTS: f"{CURRENT}/{POINTS}"}


def leads(place: Path, target: str) -> bool:
    """Whether this is a link to just that."""
    return place.is_symlink() and str(place.readlink()) == target


def _delete(paths: Iterator[Path]) -> None:
    for path in paths:
        path.unlink(missing_ok=True)
