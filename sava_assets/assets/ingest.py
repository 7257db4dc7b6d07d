"""Images in: decoded once, named, and quarantined with a reason where they do not decode."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from upath import UPath

from sava_assets.assets.inspection import Facts, inspected
from sava_assets.assets.promoting import promote
from sava_assets.formats.columns import codes_of
from sava_assets.formats.further_columns import further_columns
from sava_assets.formats.landing import EncodedImage, contents, read_images
from sava_assets.formats.names import shown
from sava_assets.formats.stored_images import IMAGES, IMAGES_FILE, image_writer
from sava_assets.freshness.computation import Run, computed
from sava_assets.freshness.near import LOOKS
from sava_assets.freshness.sources import shards_of
from sava_assets.home.result import Output, moved_file, table_file
from sava_ops.batches import split_batches
from sava_ops.errors import BadInput
from sava_ops.images.kinds import NEEDS_HEIC
from sava_ops.images.perceptual_hash import HASH_BYTES

MEASURED = {"brightness": pa.float32(), "information": pa.float32(), "sharpness": pa.float32()}
"""Of the quality of each image (`sava_ops.images.quality`)."""
FROM_PIXELS = MEASURED | {LOOKS: pa.binary(HASH_BYTES)}
"""What follows from the pixels, and is no part of their identity."""
POINTS = pa.schema(
    {"id": pa.string(), "label": pa.string(), "width": pa.int32(), "height": pa.int32(), "pixel_hash": pa.string()}
    | FROM_PIXELS
)
QUARANTINE = pa.schema({"id": pa.string(), "reason": pa.string()})
FURTHER = "columns.parquet"
"""Row k is what else was said of the image of row k of `points`; only of shards that say more."""


@dataclass(frozen=True)
class ImageSet:
    """What is known of images: row k of `points` is that of the images written."""

    points: pa.Table
    quarantine: pa.Table


@computed(group="training", kinds={"parquet"})
def raw_images(run: Run) -> Output:
    """The images of one landed shard with their labels; what does not decode is set aside with its reason."""
    return ingest_shard(run)


@computed(group="reference", kinds={"parquet"})
def reference_images(run: Run) -> Output:
    """The clean images. `role` says which ones train the encoder and which ones judge: never the same."""
    knobs = run.knobs
    with _images(run) as images:
        found = _ingest(run, images, run.pinned.folder(knobs.reference), prefix="reference/")
        trains = np.zeros(len(found.points), dtype=bool)
        if knobs.clean_train:
            other = _ingest(run, images, run.pinned.folder(knobs.clean_train), prefix="clean_train/")
            found = _joined([found, other])
            trains = np.append(trains, np.ones(len(found.points) - len(trains), dtype=bool))
        elif knobs.encoder.source == "train":
            trains[_half(found.points["label"], seed=knobs.encoder.seed)] = True
        roles = pa.array(np.where(trains, "encoder", "valuation"))
        given = ImageSet(found.points.append_column("role", roles), found.quarantine)
        joining = promote(run, given.points, images)
    if not len(joining):
        return _output(run, given)
    made = _output(run, ImageSet(pa.concat_tables([given.points, joining]), given.quarantine))
    further = {"promoted": len(joining), "version_without_promoted": _version(given)}
    return replace(made, numbers={**made.numbers, **further})


@computed(group="test", kinds={"parquet"})
def test_images(run: Run) -> Output:
    """The images on which accuracy is reported, and nothing else."""
    with _images(run) as images:
        found = _ingest(run, images, run.pinned.folder(run.knobs.test or ""), prefix="test/")
    return _output(run, found)


def ingest_shard(run: Run) -> Output:
    """Images and further columns of the run's shard."""
    path, prefix = shards_of(run.pinned)[run.shard or ""], f"{run.shard}/"
    with _images(run) as images:
        found = _ingest(run, images, path, prefix=prefix)
    names = [name.removeprefix(prefix) for name in found.points["id"].to_pylist()]
    return _output(run, found, further_columns(path, names, follow_links=run.knobs.follow_links))


def _images(run: Run) -> pq.ParquetWriter:
    """Writes the images of the run's set while they are read: there may be more than fit in memory."""
    return image_writer(run.scratch / IMAGES_FILE)


def _ingest(run: Run, images: pq.ParquetWriter, path: UPath, *, prefix: str) -> ImageSet:
    """Write the usable images of a set. Raises BadInput for a set without one."""
    parts = [ImageSet(POINTS.empty_table(), QUARANTINE.empty_table())]
    given = read_images(path, run.knobs.classes, follow_links=run.knobs.follow_links)
    for chunk, facts in inspected(run.processors, given):
        parts.append(_written(chunk, facts, images, prefix))
    found = _joined(parts)
    for row in found.quarantine.to_pylist():
        run.log.warning(f"quarantined {shown(row['id'])}: {row['reason']}")
    for passed in contents(path, follow_links=run.knobs.follow_links).passed_over:
        run.log.warning(f"passed over {shown(prefix)}{passed.name}: {passed.reason or 'no data'}")
    if not len(found.points):
        first = f" (first: {found.quarantine['reason'][0]})" if len(found.quarantine) else ""
        raise BadInput(f"{path} holds no usable image, {len(found.quarantine)} quarantined{first}: put images there")
    return found


def _joined(sets: Sequence[ImageSet]) -> ImageSet:
    tables = ([getattr(each, name) for each in sets] for name in ("points", "quarantine"))
    return ImageSet(*map(pa.concat_tables, tables))


def _written(chunk: list[EncodedImage], found: list[Facts], images: pq.ParquetWriter, prefix: str) -> ImageSet:
    points, encoded, quarantine = [], [], []
    for image, facts in zip(chunk, found, strict=True):
        name = prefix + image.name
        if image.fault or isinstance(facts, str):
            quarantine.append({"id": name, "reason": image.fault or facts})
            continue
        points.append({"id": name, "label": image.label, **vars(facts)})
        encoded.append({"id": name, "image": image.data})
    if encoded:
        images.write_table(pa.Table.from_pylist(encoded, IMAGES))
    return ImageSet(pa.Table.from_pylist(points, POINTS), pa.Table.from_pylist(quarantine, QUARANTINE))


def _half(labels: pa.ChunkedArray, *, seed: int) -> np.ndarray:
    """Rows of one stratified half."""
    if len(labels) < 2:
        raise BadInput(
            "the reference set has one image, and the encoder is to be trained on half of it: add images, or set "
            "`clean_train` or another encoder source"
        )
    codes = codes_of(labels)
    return split_batches(codes, batch_size=-(-len(codes) // 2), seed=seed)[0]


def _output(run: Run, found: ImageSet, further: pa.Table | None = None) -> Output:
    """`further` columns do not belong to the identity of images: no image is embedded anew because of them."""
    files = {
        "points.parquet": table_file(found.points),
        IMAGES_FILE: moved_file(run.scratch / IMAGES_FILE),
        "quarantine.parquet": table_file(found.quarantine),
    }
    numbers = {
        "images": len(found.points),
        "quarantined": len(found.quarantine),
        "classes": sorted(found.points["label"].unique().to_pylist()),
    }
    if heic := found.quarantine["reason"].to_pylist().count(NEEDS_HEIC):
        numbers["heic_set_aside"] = heic  # due again once it can be decoded
    if further is not None:
        files[FURTHER] = table_file(further)
        numbers |= {"columns": further.column_names, "columns_version": _content(further)}
    return Output(
        files=files,
        numbers=numbers,
        data_version=_version(found),
    )


def _version(found: ImageSet) -> str:
    """Of pixels and labels, not of bytes: the same pixels in other files change nothing downstream. What is measured of
    the pixels belongs to them."""
    content = hashlib.sha256()
    for table in (found.points.drop_columns([*FROM_PIXELS]), found.quarantine):
        for piece in _as_json(table):
            content.update(piece.encode())
    return content.hexdigest()[:32]


def _as_json(table: pa.Table) -> Iterator[str]:
    """`json.dumps(table.to_pydict())`, piece by piece."""
    for name in table.column_names:
        yield f"{'{' if name == table.column_names[0] else '], '}{json.dumps(name)}: ["
        pieces = (json.dumps(chunk.to_pylist())[1:-1] for chunk in table[name].chunks if len(chunk))
        for k, piece in enumerate(pieces):
            yield f", {piece}" if k else piece
    yield "]}"


def _content(table: pa.Table) -> str:
    """Digest of names, types and values."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as out:
        out.write_table(table.combine_chunks())
    return hashlib.sha256(sink.getvalue()).hexdigest()[:32]
