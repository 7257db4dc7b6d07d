"""A stored result, what a computation hands to the store, and how its files are written and checked."""

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors.numpy import load as load_arrays
from upath import UPath

from sava_assets.home.processes import lives
from sava_assets.parquet import read_table

if TYPE_CHECKING:
    from torch import Tensor

Writer = Callable[[Path], None]


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
    deaths: int = 0
    """How many processes were killed in earlier attempts, for this key."""
    reader: str = ""
    """The process of an attempt that has begun and told no end; see `sava_assets.home.reading`."""

    @property
    def in_progress(self) -> bool:
        """Whether somebody is at it."""
        return bool(self.reader) and lives(self.reader)

    @property
    def killed(self) -> int:
        """How many processes were killed in the attempts, for this key."""
        return self.deaths + (bool(self.reader) and not self.in_progress)


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
        return read_table(pa.BufferReader(self.read(name)), columns=columns)

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


def moved_file(made: Path) -> Writer:
    """A file that is written already."""

    def write(path: Path) -> None:
        shutil.move(made, path)

    return write


def table_file(table: pa.Table) -> Writer:
    return lambda path: pq.write_table(table, path, compression="zstd")


def tensor_file(tensors: "Mapping[str, Tensor]") -> Writer:
    from safetensors.torch import save_file

    return lambda path: save_file({name: t.detach().cpu().contiguous() for name, t in tensors.items()}, path)


def json_file(value: Any) -> Writer:
    return bytes_file(json.dumps(value, indent=1, sort_keys=True).encode())


def sha256_of(file: Path | UPath) -> str:
    """Of a file, read piece by piece."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()  # pyright: ignore[reportArgumentType]


def digest(value: Any) -> str:
    """A name for a JSON value: equal values, equal names."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:32]
