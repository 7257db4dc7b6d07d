"""The table of encoded images of a set (`id`, `image`) as it is stored: written and read piece by piece, never held.

Row groups of about a thousand images, uncompressed, since encoded images are compressed already. Tables of one large
row group are read likewise.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Int64
from upath import UPath

from sava_assets.parquet import ParquetFile

IMAGES_FILE = "images.parquet"
"""Its name among the files of a set."""
IMAGES = pa.schema({"id": pa.string(), "image": pa.binary()})
ROWS_AT_ONCE = 1_000
BYTES_AT_ONCE = 2**24
"""Of encoded images in a batch that is read: about."""
BUFFER = 2**20
"""Read at once of a column that may be larger than memory."""


def image_writer(target: Path) -> pq.ParquetWriter:
    """Every table that it is given becomes a row group."""
    return pq.ParquetWriter(target, IMAGES, compression="none", use_dictionary=False, write_statistics=False)


def encoded_images(images: UPath, rows: Int64[np.ndarray, " chosen"] | None = None) -> Iterator[pa.RecordBatch]:
    """All rows of a table of encoded images, or these (ascending), in batches of about `BYTES_AT_ONCE`. No row group is
    held, and those without a row that is asked for are not read."""
    with images.open("rb") as stream, ParquetFile(stream, buffer_size=BUFFER) as table:
        about, first = table.metadata, 0
        for group in range(about.num_row_groups):
            after = first + about.row_group(group).num_rows
            if rows is None or len(_between(rows, first, after)):
                for batch in table.iter_batches(batch_size=rows_at_once(table), row_groups=[group]):
                    own = None if rows is None else _between(rows, first, first + len(batch)) - first
                    if own is None or len(own):
                        yield batch if own is None else batch.take(pa.array(own))
                    first += len(batch)
            first = after


def rows_at_once(table: ParquetFile) -> int:
    """Of a table of images: so many that they are about `BYTES_AT_ONCE`, and at most `ROWS_AT_ONCE`."""
    about = table.metadata
    size = sum(about.row_group(k).total_byte_size for k in range(about.num_row_groups))
    return min(max(1, BYTES_AT_ONCE * about.num_rows // max(size, 1)), ROWS_AT_ONCE)


def blobs(batches: Iterable[pa.RecordBatch]) -> Iterator[bytes]:
    """The encoded images of batches, one by one."""
    for batch in batches:
        yield from batch.column("image").to_pylist()


def _between(rows: np.ndarray, first: int, after: int) -> np.ndarray:
    return rows[np.searchsorted(rows, first) : np.searchsorted(rows, after)]
