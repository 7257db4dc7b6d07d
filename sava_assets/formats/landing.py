"""Image sets as they lie on disk: which shards have landed, what is in one, and has it changed?

A set is a Parquet file in the Hugging Face image layout (`image: struct<bytes, path>`, `label`, class names in the
schema metadata), a folder of such files, of class folders, or of both. The landing folder holds one set per shard.
"""

import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from upath import UPath

from sava_assets.formats.by_name import is_table, why_not
from sava_assets.formats.contents import Contents, File, PassedOver, contents, is_local, link_fault, refuse_unclear
from sava_assets.formats.image_table import EncodedImage, count_rows, image_schema, named, prefix_of, read_table
from sava_assets.formats.names import is_utf8, partition_label, readable, shown
from sava_ops.errors import BadInput

MARKER = "_SUCCESS"
PARQUET_END = b"PAR1"
MOST_BYTES = 10**9
"""Of an encoded image: the memory of a stranger's choice is not spent."""
__all__ = ["MARKER", "EncodedImage", "contents", "image_schema"]
"""Of other modules, for those who read sets; the rest is made here."""


@dataclass(frozen=True)
class Landed:
    """What lies in a landing folder."""

    shards: dict[str, UPath]
    """Shard name → its file or folder."""
    passed_over: list[PassedOver]
    unclear: dict[str, str]
    """Shard name → why nobody knows what it is."""


def landed(landing: UPath, *, follow_links: bool = True) -> Landed:
    """Look at a landing folder: every folder and every Parquet file is a shard, everything else is passed over."""
    found = Landed({}, [], {})
    for path in _entries(landing):
        if (reason := _no_shard(path, follow_links)) is not None:
            found.passed_over.append(PassedOver(shown(path.name), reason))
            continue
        name = path.stem if is_table(path.name) else path.name
        if name in found.shards:
            both = f"{found.shards[name].name} and {path.name}"
            found.unclear[name] = f"{both} in {landing} both name the shard {name!r}: rename one"
            found.passed_over.append(PassedOver(shown(path.name), f"{both} name the same shard: rename one"))
            continue
        found.shards[name] = path
    return found


def find_shards(landing: UPath, *, follow_links: bool = True) -> dict[str, UPath]:
    """Shard name → its file or folder."""
    return landed(landing, follow_links=follow_links).shards


def _entries(landing: UPath) -> list[UPath]:
    if not landing.exists():
        raise BadInput(f"the landing folder {landing} does not exist: create it, or name another one")
    try:
        return sorted(landing.iterdir(), key=lambda path: path.name)
    except NotADirectoryError as error:
        raise BadInput(f"the landing folder {landing} is a file: name the folder that holds the shards") from error
    except OSError as error:
        raise BadInput(f"the landing folder {landing} cannot be read ({error.strerror}): allow it") from error


def _no_shard(path: UPath, follow_links: bool) -> str | None:
    """Why something in a landing folder is no shard; empty for what is plainly no data."""
    linked = is_local(path) and Path(path.path).is_symlink()
    fault = link_fault(Path(path.path), follow_links=follow_links) if linked else None
    folder = fault is None and path.is_dir()
    reason = why_not(path.name, folder=folder)
    if reason is None:
        reason = fault
    if reason is None and path.name.startswith("_"):
        reason = "unfinished by its name (it begins with _): rename it when it is whole"
    if reason is None and not folder and not (is_table(path.name) and path.is_file()):
        reason = "neither a folder nor a Parquet file: put images into <shard>/<class>/"
    if reason is None and not is_utf8(path.name):
        reason = "its name is not UTF-8: rename it"
    return reason


@dataclass(frozen=True)
class Listing:
    """What a look at a set's files tells without reading them."""

    digest: str
    """Of names, sizes, times and what else tells contents apart: equal digests, equal content."""
    newest: float
    """Last time stamp, seconds since the epoch; of what is dated in the future, the time of its last change."""
    touched: float
    """Last change as the file system noted it, which no copying program sets: of content, name or time stamp."""
    finished: bool
    """Whether its writer says that it is complete: a `_SUCCESS` marker, or the end of a Parquet file."""


def listing(path: UPath, *, follow_links: bool = True) -> Listing:
    """Look at the files of a set. Raises BadInput for what is no set, OSError for what cannot be looked at."""
    now, files = time.time(), _files(path, follow_links)
    stats = [(file, file.path.stat()) for file in files]
    named = [(file.name, s.st_size, s.st_mtime, _changed(s), *_content_tag(s)) for file, s in stats]
    # Folders too: one that is replaced and put back leaves its files as they were.
    folders = {file.path.parent for file in files} | {path} if path.is_dir() else set()
    for folder in sorted(folders, key=str):
        named.append((folder.relative_to(path).as_posix(), 0, (s := folder.stat()).st_mtime, _changed(s)))
    stamps = [s for _, s in stats] or [path.stat()]
    newest = max(s.st_mtime if s.st_mtime <= now else _changed(s) for s in stamps)
    touched = max(max(s.st_mtime, _changed(s)) for s in stamps)
    # An object appears as a whole; a file grows.
    whole_file = path.is_file() and is_table(path.name) and (not is_local(path) or _tail(path) == PARQUET_END)
    return Listing(
        hashlib.sha256(json.dumps(named).encode()).hexdigest()[:32],
        newest,
        touched,
        whole_file or (path.is_dir() and (path / MARKER).exists()),
    )


def fingerprint(path: UPath, *, follow_links: bool = True) -> str:
    """Hash of the names and contents of a set's files; time stamps do not matter."""
    content = hashlib.sha256()
    for file in _files(path, follow_links):
        content.update(f"{file.name}\0{_file_hash(file)}\n".encode("utf-8", "surrogateescape"))
    return content.hexdigest()[:32]


def read_images(
    path: UPath, classes: Sequence[str] | None = None, *, follow_links: bool = True
) -> Iterator[EncodedImage]:
    """All images of a set, in a fixed order. `classes` names the labels of files that give only numbers.

    Raises BadInput for a layout that cannot be read, a missing label column, labels out of range, or two images of one
    name.
    """
    found = contents(path, follow_links=follow_links)
    refuse_unclear(found, path)
    seen: set[str] = set()
    for image in _all_images(found, classes):
        if image.name in seen:
            raise BadInput(f"{path} has two images of the name {shown(image.name)}: rename one of their files")
        seen.add(image.name)
        yield image


def _all_images(found: Contents, classes: Sequence[str] | None) -> Iterator[EncodedImage]:
    for file in found.tables:
        yield from read_table(file, classes, prefix=prefix_of(file, found))
    for file in found.images:
        yield _read_image(file, classes)


def count(path: UPath, *, follow_links: bool = True) -> int:
    """Images of a set by its own account: files in class folders, and rows that the footers of its tables tell."""
    found = contents(path, follow_links=follow_links)
    return len(found.images) + sum(count_rows(file.path) for file in found.tables)


def _files(path: UPath, follow_links: bool) -> list[File]:
    """Of a set, or of another file (a checkpoint) that file alone."""
    return [File(path.name, path)] if path.is_file() else contents(path, follow_links=follow_links).files


def _read_image(file: File, classes: Sequence[str] | None) -> EncodedImage:
    """Of a class folder. One that cannot be read is set aside, as one that cannot be decoded is."""
    folder = file.name.split("/")[0]
    written = partition_label(folder)
    label, fault = named(folder) if written is None else named(written, classes)
    fault = fault if is_utf8(folder) else "the name of its class folder is not UTF-8"
    try:
        too_large = file.path.stat().st_size > MOST_BYTES
        data, fault = (b"", "a file of more than 1 GB") if too_large else (file.path.read_bytes(), fault)
    except PermissionError as error:
        data, fault = b"", f"cannot be read ({error.strerror})"
    except OSError as error:
        raise BadInput(f"{shown(str(file.path))} cannot be read ({error.strerror}): run the command again") from error
    return EncodedImage(readable(file.name), None if fault else label, data, fault)


def _file_hash(file: File) -> str:
    try:
        with file.path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()  # pyright: ignore[reportArgumentType]
    except PermissionError:
        return "cannot be read"
    except OSError as error:
        raise BadInput(f"{shown(str(file.path))} cannot be read ({error.strerror}): run the command again") from error


def _changed(stats: Any) -> float:
    """When a file changed; its time stamp where the file system notes nothing else."""
    return getattr(stats, "st_ctime", None) or stats.st_mtime


def _content_tag(stats: Any) -> list[str]:
    """What an object store tells contents apart by: its time stamps are whole seconds."""
    told = stats.as_info() if hasattr(stats, "as_info") else {}
    return [str(told[name]) for name in ("ETag", "etag", "md5Hash", "created") if name in told]


def _tail(file: UPath) -> bytes:
    with file.open("rb") as stream:
        stream.seek(max(0, file.stat().st_size - len(PARQUET_END)))
        return stream.read()
