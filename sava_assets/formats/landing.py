"""Image sets as they lie on disk: which shards have landed, what is in one, and has it changed?

A set is a Parquet file in the Hugging Face image layout (`image: struct<bytes, path>`, `label`, class names in the
schema metadata), a folder of such files, or a folder of class folders. The landing folder holds one set per shard.
"""

import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from upath import UPath

from sava_ops.errors import BadInput

ROWS_AT_ONCE = 1_000
MARKER = "_SUCCESS"
PARQUET_END = b"PAR1"


@dataclass(frozen=True)
class EncodedImage:
    """One image as it arrived."""

    name: str
    """Unique within its set: the path inside it, or the row."""
    label: str | None
    """Class name; the number in words where the set names no classes; None where the row has none."""
    data: bytes


def find_shards(landing: UPath) -> dict[str, UPath]:
    """Shard name → its file or folder. Hidden and unfinished names (`.x`, `_x`, `x.tmp`) are passed over."""
    if not landing.exists():
        raise BadInput(f"the landing folder {landing} does not exist: create it, or name another one")
    shards: dict[str, UPath] = {}
    for path in sorted(landing.iterdir(), key=lambda p: p.name):
        if path.name.startswith((".", "_")) or not (path.is_dir() or path.suffix == ".parquet"):
            continue
        name = path.stem if path.suffix == ".parquet" else path.name
        if name in shards:
            raise BadInput(f"{shards[name].name} and {path.name} in {landing} both name the shard {name!r}: rename one")
        shards[name] = path
    return shards


@dataclass(frozen=True)
class Listing:
    """What a look at a set's files tells without reading them."""

    digest: str
    """Of names, sizes, time stamps and times of change: equal digests, equal content."""
    newest: float
    """Last time stamp, seconds since the epoch; of what is dated in the future, the time of its last change."""
    touched: float
    """Last change as the file system noted it, which no copying program sets: of content, name or time stamp."""
    finished: bool
    """Whether its writer says that it is complete: a `_SUCCESS` marker, or the end of a Parquet file."""


def listing(path: UPath) -> Listing:
    """Look at the files of a set."""
    now, files = time.time(), _files(path)
    stats = [(file, file.stat()) for file in files]
    named = [
        (file.name if file == path else _inside(file, path), s.st_size, s.st_mtime, _changed(s)) for file, s in stats
    ]
    # Folders too: one that is replaced and put back leaves its files as they were.
    folders = {file.parent for file in files} | {path} if path.is_dir() else set()
    for folder in sorted(folders, key=str):
        named.append((_inside(folder, path), 0, (s := folder.stat()).st_mtime, _changed(s)))
    stamps = [s for _, s in stats] or [path.stat()]
    newest = max(s.st_mtime if s.st_mtime <= now else _changed(s) for s in stamps)
    touched = max(max(s.st_mtime, _changed(s)) for s in stamps)
    whole_file = path.is_file() and path.suffix == ".parquet" and _tail(path) == PARQUET_END
    return Listing(
        hashlib.sha256(json.dumps(named).encode()).hexdigest()[:32],
        newest,
        touched,
        whole_file or (path.is_dir() and (path / MARKER).exists()),
    )


def fingerprint(path: UPath) -> str:
    """Hash of the names and contents of a set's files; time stamps do not matter."""
    content = hashlib.sha256()
    for file in _files(path):
        with file.open("rb") as stream:
            file_hash = hashlib.file_digest(stream, "sha256").hexdigest()  # pyright: ignore[reportArgumentType]
        name = file.name if file == path else _inside(file, path)
        content.update(f"{name}\0{file_hash}\n".encode())
    return content.hexdigest()[:32]


def read_images(path: UPath, classes: Sequence[str] | None = None) -> Iterator[EncodedImage]:
    """All images of a set, in a fixed order. `classes` names the labels of files that give only numbers.

    Raises BadInput for a layout that cannot be read, a missing label column or labels out of range.
    """
    if not path.exists():
        raise BadInput(f"the image set {path} does not exist: create it, or name another one")
    files = _files(path)
    tables = [file for file in files if file.suffix == ".parquet"]
    if tables:
        for file in tables:
            yield from _read_table(file, classes, prefix=f"{file.stem}/" if len(tables) > 1 else "")
        return
    for file in files:
        parts = _inside(file, path).split("/")
        if len(parts) != 2:
            raise BadInput(
                f"{file} is not inside a class folder: lay the set {path} out as <class>/<image>, or as Parquet files"
            )
        yield EncodedImage("/".join(parts), parts[0], file.read_bytes())


def image_schema(names: Sequence[str]) -> pa.Schema:
    """Of a Parquet file in the Hugging Face image layout, with these class names."""
    features = {"image": {"_type": "Image"}, "label": {"names": list(names), "_type": "ClassLabel"}}
    return pa.schema(
        {"image": pa.struct({"bytes": pa.binary(), "path": pa.string()}), "label": pa.int64()},
        {"huggingface": json.dumps({"info": {"features": features}})},
    )


def _files(path: UPath) -> list[UPath]:
    if path.is_file():
        return [path]
    files = [p for p in path.rglob("*") if p.is_file() and not p.name.startswith((".", "_"))]
    return sorted(files, key=lambda p: _inside(p, path))


def _changed(stats: Any) -> float:
    """When a file changed; its time stamp where the file system notes nothing else."""
    return getattr(stats, "st_ctime", None) or stats.st_mtime


def _tail(file: UPath) -> bytes:
    with file.open("rb") as stream:
        stream.seek(max(0, file.stat().st_size - len(PARQUET_END)))
        return stream.read()


def _inside(file: UPath, folder: UPath) -> str:
    return file.relative_to(folder).as_posix()


def _read_table(file: UPath, classes: Sequence[str] | None, *, prefix: str) -> Iterator[EncodedImage]:
    with file.open("rb") as stream:
        try:
            table = pq.ParquetFile(stream)
        except pa.ArrowInvalid as error:
            raise BadInput(f"{file} is not a readable Parquet file ({error}): write it again") from error
        columns = table.schema_arrow.names
        for column in ("image", "label"):
            if column not in columns:
                raise BadInput(f"{file} has no `{column}` column (it has {', '.join(columns)}): add one")
        names = _class_names(table.schema_arrow) or (list(classes) if classes else None)
        by_path = _paths_identify(table)
        row = 0
        for batch in table.iter_batches(batch_size=ROWS_AT_ONCE, columns=["image", "label"]):
            labels = _label_names(batch.column("label"), names, file=file, first_row=row)
            for image, label in zip(batch.column("image").to_pylist(), labels, strict=True):
                path, data = (image["path"], image["bytes"]) if isinstance(image, dict) else (None, image)
                yield EncodedImage(f"{prefix}{path if by_path else row}", label, data or b"")
                row += 1


def _paths_identify(table: pq.ParquetFile) -> bool:
    """Whether every image has a path of its own, so that rows may be named by it."""
    image = table.schema_arrow.field("image").type
    if not pa.types.is_struct(image):
        return False
    paths = table.read(columns=["image.path"])["image"].combine_chunks().field("path")
    return paths.null_count == 0 and len(paths.unique()) == len(paths)


def _class_names(schema: pa.Schema) -> list[str] | None:
    """Class names from the Hugging Face schema metadata."""
    info = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    return info.get("info", {}).get("features", {}).get("label", {}).get("names")


def _label_names(labels: pa.Array, names: list[str] | None, *, file: UPath, first_row: int) -> list[str | None]:
    values = labels.to_pylist()
    if pa.types.is_string(labels.type) or pa.types.is_large_string(labels.type):
        return values
    if not pa.types.is_integer(labels.type):
        raise BadInput(f"`label` of {file} is {labels.type}: store class numbers or class names")
    upper = len(names) if names else None
    outside = [
        row for row, value in enumerate(values) if value is not None and (value < 0 or (upper and value >= upper))
    ]
    if outside:
        allowed = f"0..{upper - 1}" if upper else "0 and above"
        first = outside[0]
        raise BadInput(
            f"`label` of {file} has {len(outside)} values outside {allowed} (first: {values[first]} at row "
            f"{first_row + first}): mend the column or name all classes"
        )
    return [None if value is None else names[value] if names else str(value) for value in values]
