"""Parquet files that were joined (`cat a.parquet b.parquet`): read by the last footer, from the bytes of the first.

Rows of the first would be lost without a word, and those of the last be what lies in their places. Layout of the
format: https://parquet.apache.org/docs/file-format/
"""

import io
from typing import IO

import pyarrow.parquet as pq

from sava_assets.parquet import ParquetFile
from sava_ops.errors import BadInput

MAGIC = b"PAR1"
LENGTH_BYTES = 4
"""Of the footer; it stands before the magic at the end."""
AT_ONCE = 2**20


def refuse_joined(table: ParquetFile, stream: IO[bytes], place: str) -> None:
    """Raise BadInput where another Parquet file ends and begins between the data of a table and its footer."""
    about = table.metadata
    columns = (
        about.row_group(group).column(column)
        for group in range(about.num_row_groups)
        for column in range(about.num_columns)
    )
    ends = [_begin(column) + column.total_compressed_size for column in columns]
    data_end = max([len(MAGIC), *ends])
    footer = stream.seek(0, io.SEEK_END) - len(MAGIC) - LENGTH_BYTES - about.serialized_size
    if footer - data_end < 2 * len(MAGIC):
        return  # as nearly everywhere; indexes of pages and filters would lie here
    stream.seek(data_end)
    before = b""
    while data_end < footer and (block := stream.read(min(AT_ONCE, footer - data_end))):
        if 2 * MAGIC in before + block:
            raise BadInput(f"{place} is several Parquet files one after the other: put each into a file of its own")
        before, data_end = block[-2 * len(MAGIC) :], data_end + len(block)


def _begin(column: pq.ColumnChunkMetaData) -> int:
    offsets = (column.dictionary_page_offset, column.data_page_offset)
    return min((offset for offset in offsets if offset), default=0)
