"""All files below a folder from one listing: on an object store one request for a thousand of them."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from upath import UPath

from sava_assets.home.places import S3, in_reach, is_local

WRITTEN = ("mtime", "LastModified", "last_modified", "updated", "created")
"""What file systems call the time of the last change."""
CONTENT = ("ETag", "etag", "md5Hash")
"""What file systems tell apart contents by, beyond size and time."""


@dataclass(frozen=True)
class Entry:
    """What a listing tells of a file."""

    size: int
    written: float
    """Seconds since the epoch."""
    identity: str
    """Equal for a file of equal name: equal content."""


def tree(root: UPath) -> dict[str, Entry]:
    """Name below the root → entry of each file; empty where there is nothing."""
    if is_local(root):
        return dict(_local(Path(root.path), ""))
    with in_reach(root):
        found = _found(root)
    below = len(str(root.fs._strip_protocol(root.path)).rstrip("/")) + 1
    return {name[below:]: _entry(root, info) for name, info in found.items()}


def _found(root: UPath) -> dict[str, Any]:
    above, _, name = root.path.rstrip("/").rpartition("/")
    if root.protocol in S3 and above:  # asked for a folder, its driver looks twice more where there is nothing
        return root.fs.find(above, prefix=f"{name}/", detail=True)  # pyright: ignore[reportReturnType]
    return root.fs.find(root.path, detail=True)  # pyright: ignore[reportReturnType]


def _local(folder: Path, prefix: str) -> Iterator[tuple[str, Entry]]:
    """What others delete meanwhile is not there; fsspec would leave out the rest of its folder with it."""
    try:
        inside = list(os.scandir(folder))
    except FileNotFoundError:
        return
    for item in inside:
        if item.is_dir(follow_symlinks=False):
            yield from _local(Path(item.path), f"{prefix}{item.name}/")
            continue
        try:
            stat = item.stat(follow_symlinks=False)
        except FileNotFoundError:
            continue
        identity = f"{stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns} {stat.st_ino}"
        yield prefix + item.name, Entry(stat.st_size, stat.st_mtime, identity)


def _entry(root: UPath, info: dict[str, Any]) -> Entry:
    told = next((info[name] for name in WRITTEN if info.get(name) is not None), None)
    if isinstance(told, str):
        told = datetime.fromisoformat(told)
    when = told if told is not None else root.fs.modified(info["name"])
    written = when if isinstance(when, int | float) else when.timestamp()
    identity = [info["size"], written, *(info[name] for name in CONTENT if name in info)]
    return Entry(int(info["size"] or 0), float(written), " ".join(map(str, identity)))
