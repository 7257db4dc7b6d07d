"""Parquet files, read by the thread that asks and by no other.

A thread of Arrow's lets go of what it read from when it likes. Where that belongs to Python (an open file, bytes) and
the interpreter is just ending, the process aborts with all its work done: exit code -6.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

import pyarrow as pa
import pyarrow.parquet as pq


class ParquetFile(pq.ParquetFile):
    """pyarrow's, without its threads."""

    def __init__(self, source: Path | IO[bytes] | pa.NativeFile, *, buffer_size: int = 0):
        super().__init__(source, buffer_size=buffer_size, pre_buffer=False)

    def read(self, columns: list[str] | None = None) -> pa.Table:  # pyright: ignore[reportIncompatibleMethodOverride]
        return super().read(columns, use_threads=False)

    def iter_batches(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, batch_size: int = 65536, row_groups: list[int] | None = None, columns: list[str] | None = None
    ) -> Iterator[pa.RecordBatch]:
        return super().iter_batches(batch_size, row_groups, columns, use_threads=False)


def read_table(source: Path | IO[bytes] | pa.NativeFile, columns: Sequence[str] | None = None) -> pa.Table:
    """A whole file, or these of its columns in this order; raises KeyError for one that is not there."""
    with ParquetFile(source) as file:
        # A name with dots may also be a path into another column, whose parts are then read as well.
        return file.read() if columns is None else file.read(columns=list(columns)).select(columns)
