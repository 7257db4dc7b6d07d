"""Images of the pool that people confirmed, copied into the reference set (`sava_assets.freshness.promotion`)."""

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sava_assets.formats.columns import places_of
from sava_assets.formats.stored_images import IMAGES, IMAGES_FILE, encoded_images
from sava_assets.freshness.computation import Run
from sava_assets.freshness.promotion import PREFIX, PROMOTED
from sava_assets.freshness.rules import promoted
from sava_assets.home.result import Result, digest
from sava_ops.errors import BadInput


def promote(run: Run, given: pa.Table, images: pq.ParquetWriter) -> pa.Table:
    """Write the images of the pool that are to judge beside the `given` reference images; returns their points, with
    the labels that people gave them. Those that the reference set has, or whose class it lacks, are left out."""
    chosen = promoted(run.pinned, run.shards)
    if digest(chosen) != run.inputs.get("promoted_images", digest({})):
        raise BadInput("decisions changed while they were read: run it again")
    joining = [given.schema.empty_table()]
    for shard, labels in chosen.items():
        if (pool := run.pinned.store.current("raw_images", shard)) is None:
            raise AssertionError(f"{shard} was there when its images were chosen")
        joining.append(_of_shard(pool, labels, given, images))
    return pa.concat_tables(joining)


def _of_shard(pool: Result, labels: dict[str, str], given: pa.Table, images: pq.ParquetWriter) -> pa.Table:
    points = pool.table("points.parquet")
    said = pa.chunked_array([pa.array([labels.get(name) for name in points["id"].to_pylist()], pa.string())])
    points = points.set_column(points.column_names.index("label"), "label", said)
    judging = given.filter(pc.field("role") == "valuation")["label"].unique().to_pylist()
    there = places_of(points["pixel_hash"], given["pixel_hash"].unique().to_pylist()) >= 0
    rows = ((places_of(said, judging) >= 0) & ~there).nonzero()[0]
    for batch in encoded_images(pool.verified(IMAGES_FILE), rows) if len(rows) else ():
        renamed = [_named(pa.chunked_array([batch.column("id")])), pa.chunked_array([batch.column("image")])]
        images.write_table(pa.table(renamed, schema=IMAGES))
    points = points.take(pa.array(rows))
    points = points.set_column(points.column_names.index("id"), "id", _named(points["id"]))
    return points.append_column("role", pa.repeat(PROMOTED, len(points))).select(given.column_names)


def _named(ids: pa.ChunkedArray) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array([PREFIX + name for name in ids.to_pylist()], pa.string())])
