"""What goes out: the table of points, and the kept images of each shard in the Hugging Face layout.

Written piece by piece, so that a shard may be larger than memory.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from upath import UPath

from sava_assets.formats.columns import places_of
from sava_assets.formats.image_table import image_schema
from sava_assets.formats.stored_images import encoded_images


def write_tables(target: Path, tables: Iterable[pa.Table]) -> None:
    """One Parquet file of tables with one schema; the first must be there."""
    tables = iter(tables)
    first = next(tables)
    with pq.ParquetWriter(target, first.schema, compression="zstd") as out:
        out.write_table(first)
        for table in tables:
            out.write_table(table)


def write_images(
    target: Path, images: UPath, labels: pa.ChunkedArray, further: pa.Table | None, names: Sequence[str]
) -> None:
    """The images (`id`, `image`, row by row) that have a label, with their further columns; `names` are all classes."""
    schema = image_schema(names)
    for field in further.schema if further is not None else ():
        schema = schema.append(field)
    numbers = places_of(labels, names)
    with pq.ParquetWriter(target, schema, compression="zstd", use_dictionary=False) as out:
        first = 0
        for batch in encoded_images(images):
            kept = (numbers[first : first + len(batch)] >= 0).nonzero()[0]
            if len(kept):
                rows = pa.array(first + kept)
                columns = further.take(rows).combine_chunks().columns if further is not None else []
                label = pa.array(numbers[first + kept], pa.int64())
                out.write_table(
                    pa.Table.from_arrays([_image(batch.take(pa.array(kept))), label, *columns], schema=schema)
                )
            first += len(batch)


def _image(batch: pa.RecordBatch) -> pa.StructArray:
    return pa.StructArray.from_arrays([batch.column("image"), batch.column("id")], names=["bytes", "path"])
