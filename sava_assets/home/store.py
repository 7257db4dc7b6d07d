"""Content-addressed results on fsspec.

    results/<asset>/<key>/<digest>.<file>      the files, named by their own content
    results/<asset>/<key>/manifest.json        written last: a result without it does not exist
    current/<asset>[/<shard>].json             which key the asset last produced
    failures/<asset>[/<shard>].json            its last attempt, if that failed
    looks/                                     what looks have read or computed, for the next one; may be deleted

A key names the inputs of a result (see `sava_assets.freshness.rules`), so equal keys mean equal results. Every file
appears under its final name in one step (rename, or one PUT on object stores), so nothing half-written is ever read.
"""

import hashlib
import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors.numpy import load as load_arrays
from upath import UPath

from sava_ops.errors import BadInput

if TYPE_CHECKING:
    from torch import Tensor

Writer = Callable[[Path], None]
LONGEST_NAME = 200
"""Bytes of a shard's name that stands in a file's name as it is."""
PARTIAL_SECONDS = 86_400
"""Scratch of a writer that died; a living one needs it for minutes."""
_log = logging.getLogger(__name__)

BATCH_ROWS = "batch_rows"
"""Beside the results of assets: rows of the batch matrix, each named by what it was computed from."""
STARTING_POTENTIALS = "starting_potentials"
"""One per reference batch, named by the calibration that all rows share."""
EMBEDDING_BLOCKS = "embedding_blocks"
"""The finished part of a set that is being embedded; `sava gc` removes it."""


class DamagedResult(RuntimeError):
    """A stored file is missing or does not have the content it was written with."""

    def __init__(self, message: str, result: "Result | None" = None) -> None:
        super().__init__(message)
        self.result = result
        """Whose file it is, if it belongs to a stored result."""


@dataclass(frozen=True)
class Output:
    """What a computation hands to the store."""

    files: Mapping[str, Writer]
    """File name → function that writes it."""
    numbers: Mapping[str, Any] = field(default_factory=dict)
    """JSON values shown as the asset's metadata, and what other assets need without opening a file."""
    pictures: Mapping[str, str] = field(default_factory=dict)
    """Title → Markdown with an inline image."""
    notes: Mapping[str, Any] = field(default_factory=dict)
    """Numbers about this computation alone, reported but not stored: equal results are stored as equal bytes."""
    data_version: str | None = None
    """Identity of the content, where it is not that of the files' bytes."""
    parts: Sequence[tuple[str, str]] = ()
    """Kind and key of what is stored beside it, and of which it consists."""


@dataclass(frozen=True)
class Failure:
    """The last attempt at a result, when it failed."""

    key: str | None
    """Which result; None if it failed before that was known."""
    message: str
    attempts: int
    """How often in a row, for this key."""
    time: float
    """Seconds since the epoch."""


@dataclass(frozen=True)
class StoredFile:
    path: UPath
    sha256: str


@dataclass(frozen=True)
class Result:
    """A stored result."""

    asset: str
    key: str
    data_version: str
    files: Mapping[str, StoredFile]
    numbers: Mapping[str, Any]
    pictures: Mapping[str, str]
    inputs: Mapping[str, Any]
    """What the key is the digest of."""
    parts: tuple[tuple[str, str], ...] = ()
    """Kind and key of what else is stored of it."""

    def read(self, name: str) -> bytes:
        """The content of a file, checked against its checksum; raises DamagedResult."""
        stored = self.files[name]
        try:
            data: bytes = stored.path.fs.cat_file(stored.path.path)  # pyright: ignore[reportAssignmentType]
        except FileNotFoundError:
            raise self._missing(stored) from None
        if hashlib.sha256(data).hexdigest() != stored.sha256:
            raise self._damaged(stored)
        return data

    def table(self, name: str, columns: list[str] | None = None) -> pa.Table:
        return pq.read_table(pa.BufferReader(self.read(name)), columns=columns)

    def tensors(self, name: str) -> "dict[str, Tensor]":
        from safetensors.torch import load

        return load(self.read(name))

    def arrays(self, name: str) -> dict[str, np.ndarray]:
        """The same without torch, for those who only look."""
        return load_arrays(self.read(name))

    def verified(self, name: str) -> UPath:
        """Where a file lies that is too large to be read at once, after it was read once piece by piece; raises
        DamagedResult."""
        stored = self.files[name]
        try:
            found = sha256_of(stored.path)
        except FileNotFoundError:
            raise self._missing(stored) from None
        if found != stored.sha256:
            raise self._damaged(stored)
        return stored.path

    def check(self) -> None:
        """Read every file; raises DamagedResult for the first that is not as it was written."""
        for name in self.files:
            self.verified(name)

    def _missing(self, stored: StoredFile) -> DamagedResult:
        return DamagedResult(f"{stored.path} is missing: materialize {self.asset} again", self)

    def _damaged(self, stored: StoredFile) -> DamagedResult:
        return DamagedResult(f"{stored.path} is damaged (checksum differs): materialize {self.asset} again", self)


def bytes_file(data: bytes) -> Writer:
    def write(path: Path) -> None:
        path.write_bytes(data)

    return write


def table_file(table: pa.Table) -> Writer:
    return lambda path: pq.write_table(table, path, compression="zstd")


def tensor_file(tensors: "Mapping[str, Tensor]") -> Writer:
    from safetensors.torch import save_file

    return lambda path: save_file({name: t.detach().cpu().contiguous() for name, t in tensors.items()}, path)


class Store:
    """Results below one folder, local or remote."""

    def __init__(self, root: UPath) -> None:
        self.root = root

    def find(self, asset: str, key: str) -> Result | None:
        """The result of this key, if it was finished."""
        folder = self.root / "results" / asset / key
        manifest = self.read_json(f"results/{asset}/{key}/manifest.json")
        if manifest is None:
            return None
        files = {name: StoredFile(folder / f["file"], f["sha256"]) for name, f in manifest["files"].items()}
        numbers, pictures, inputs = (manifest[name] for name in ("numbers", "pictures", "inputs"))
        parts = tuple((kind, part) for kind, part in manifest.get("parts", ()))
        return Result(asset, key, manifest["data_version"], files, numbers, pictures, inputs, parts)

    def save(self, asset: str, key: str, output: Output, inputs: Mapping[str, Any] | None = None) -> Result:
        """Write the files, then the manifest."""
        folder = self.root / "results" / asset / key
        files = {name: self._save_file(folder, name, writer) for name, writer in output.files.items()}
        manifest = {
            "data_version": output.data_version or digest({name: f["sha256"] for name, f in files.items()}),
            "files": files,
            "numbers": dict(output.numbers),
            "pictures": dict(output.pictures),
            "inputs": dict(inputs or {}),
        }
        if output.parts:
            manifest["parts"] = [list(part) for part in output.parts]
        self.put(f"results/{asset}/{key}/manifest.json", _json_file(manifest))
        result = self.find(asset, key)
        assert result is not None
        return result

    def check(self, result: Result) -> None:
        """Read every file of a result and of its parts; raises DamagedResult for the first that is not as it was
        written."""
        result.check()
        for kind, key in result.parts:
            if (part := self.find(kind, key)) is None:
                raise DamagedResult(f"{kind}/{key} is missing: materialize {result.asset} again", result)
            try:
                part.check()
            except DamagedResult as damage:
                raise DamagedResult(
                    f"{damage}, of which it is a part: materialize {result.asset} again", result
                ) from damage

    def forget(self, result: Result) -> None:
        """Without its manifest a result does not exist: what is damaged is due, and is written anew."""
        (self.root / "results" / result.asset / result.key / "manifest.json").unlink(missing_ok=True)

    def current(self, asset: str, shard: str | None = None) -> Result | None:
        """What the asset produced last."""
        pointer = self.read_json(_pointer("current", asset, shard))
        return self.find(asset, pointer["key"]) if pointer else None

    def require(self, asset: str, shard: str | None = None) -> Result:
        """What the asset produced last; raises BadInput if it produced nothing."""
        result = self.current(asset, shard)
        if result is None:
            title = asset if shard is None else f"{asset}[{shard}]"
            raise BadInput(f"{title} has no result yet: materialize {asset} first")
        return result

    def pointers(self) -> Iterator[tuple[str, str]]:
        """Asset and key of every current result, whoever made it."""
        folder = self.root / "current"
        for pointer in folder.rglob("*.json"):
            stored = _read_json(pointer)
            if stored:
                yield pointer.relative_to(folder).parts[0].removesuffix(".json"), stored["key"]

    def set_current(self, result: Result, shard: str | None = None) -> None:
        self.put(_pointer("current", result.asset, shard), _json_file({"key": result.key}))
        failure = self.root / _pointer("failures", result.asset, shard)
        for file in (failure, failure.with_name(f"{failure.stem}.txt")):
            file.unlink(missing_ok=True)

    def failure(self, asset: str, shard: str | None = None) -> Failure | None:
        """The last attempt, if it failed."""
        stored = self.read_json(_pointer("failures", asset, shard))
        return Failure(**stored) if stored else None

    def set_failure(self, asset: str, shard: str | None, key: str | None, message: str) -> None:
        before = self.failure(asset, shard)
        attempts = before.attempts + 1 if before and before.key == key else 1
        failure = Failure(key, message, attempts, time.time())
        self.put(_pointer("failures", asset, shard), _json_file(vars(failure)))

    def read_json(self, name: str) -> dict[str, Any] | None:
        """A small file below the root, if it is there."""
        return _read_json(self.root / name)

    def put_json(self, name: str, value: Mapping[str, Any], *, new: bool = False) -> None:
        self.put(name, _json_file(dict(value)), new=new)

    def _save_file(self, folder: UPath, name: str, writer: Writer) -> dict[str, str]:
        with self.scratch() as scratch:
            local = Path(scratch) / name
            writer(local)
            sha256 = sha256_of(local)
            stored = f"{sha256[:16]}.{name}"
            self._move(local, folder / stored)
        return {"file": stored, "sha256": sha256}

    def put(self, name: str, writer: Writer, *, new: bool = False) -> tuple[int, str]:
        """Write one file below the root; it appears under its name in one step. Returns its size and SHA-256.

        A `new` one replaces nothing: raises FileExistsError.
        """
        with self.scratch() as scratch:
            local = Path(scratch) / "file"
            writer(local)
            size, sha256 = local.stat().st_size, sha256_of(local)
            self._move(local, self.root / name, new=new)
        return size, sha256

    def remove_dead_scratch(self) -> None:
        """Of writers that died."""
        partial = self.root / "partial"
        for scratch in partial.iterdir() if self.is_local and partial.exists() else ():
            if time.time() - scratch.stat().st_mtime > PARTIAL_SECONDS:
                shutil.rmtree(str(scratch))

    def scratch(self) -> tempfile.TemporaryDirectory[str]:
        """A local folder to write in; beside the results where these are local, so that a rename is atomic."""
        if not self.is_local:
            return tempfile.TemporaryDirectory()
        (self.root / "partial").mkdir(parents=True, exist_ok=True)
        return tempfile.TemporaryDirectory(dir=str(self.root / "partial"))

    def _move(self, local: Path, target: UPath, *, new: bool = False) -> None:
        if not self.is_local:
            target.fs.put_file(str(local), target.path, mode="create" if new else "overwrite")
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        if not new:
            local.replace(str(target))
            return
        try:
            os.link(local, str(target))
        except FileExistsError:
            raise
        except OSError:  # a file system without links
            with Path(str(target)).open("xb") as out:
                out.write(local.read_bytes())

    @property
    def is_local(self) -> bool:
        return self.root.protocol in ("", "file", "local")


def sha256_of(file: Path | UPath) -> str:
    """Of a file, read piece by piece."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()  # pyright: ignore[reportArgumentType]


class RememberingStore(Store):
    """Reads each pointer once: one look, or one run, sees one state of the store, whatever others write meanwhile."""

    def __init__(self, root: UPath) -> None:
        super().__init__(root)
        self._seen: dict[tuple[str, str | None], Result | None] = {}

    def current(self, asset: str, shard: str | None = None) -> Result | None:
        if (asset, shard) not in self._seen:
            self._seen[asset, shard] = super().current(asset, shard)
        return self._seen[asset, shard]


def digest(value: Any) -> str:
    """A name for a JSON value: equal values, equal names."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:32]


def put_file(target: UPath, data: bytes) -> None:
    """Write a file outside the store in one step: whoever reads meanwhile sees the old one or the new one."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.protocol not in ("", "file", "local"):
        target.write_bytes(data)
        return
    partial = Path(target.path).with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        partial.write_bytes(data)
        partial.replace(target.path)
    finally:
        partial.unlink(missing_ok=True)


def file_name(shard: str) -> str:
    """What a file of this shard is called, before its suffix: file systems allow 255 bytes in all."""
    if len(written := shard.encode()) <= LONGEST_NAME:
        return shard
    return f"{written[: LONGEST_NAME // 2].decode(errors='ignore')}-{digest(shard)}"


def place(asset: str, shard: str | None) -> str:
    """Where what is noted of a result lies in a folder of notes, without its suffix."""
    return asset if shard is None else f"{asset}/{file_name(shard)}"


def _pointer(kind: str, asset: str, shard: str | None) -> str:
    return f"{kind}/{place(asset, shard)}.json"


def _json_file(value: Any) -> Writer:
    return bytes_file(json.dumps(value, indent=1, sort_keys=True).encode())


def _read_json(path: UPath) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError:  # what a power cut leaves of a file that was renamed and never reached the disk
        content = None
    if not isinstance(content, dict):
        _log.warning("%s is damaged and counts as not there: what it stood for is computed anew", path)
        return None
    return content
