"""Images in: decoded once, named, and quarantined with a reason where they do not decode."""

import hashlib
import json
from dataclasses import dataclass
from itertools import islice

import numpy as np
import pyarrow as pa
from upath import UPath

from sava_assets.formats.further_columns import further_columns
from sava_assets.formats.landing import EncodedImage, contents, read_images
from sava_assets.formats.names import shown
from sava_assets.freshness.computation import Run, computed
from sava_assets.freshness.sources import shards_of
from sava_assets.home.result import Output, table_file
from sava_ops.batches import split_batches
from sava_ops.errors import BadInput
from sava_ops.images.decode import inspect_all
from sava_ops.images.kinds import NEEDS_HEIC

IMAGES_AT_ONCE = 4_096
POINTS = pa.schema(
    {"id": pa.string(), "label": pa.string(), "width": pa.int32(), "height": pa.int32(), "pixel_hash": pa.string()}
)
IMAGES = pa.schema({"id": pa.string(), "image": pa.binary()})
QUARANTINE = pa.schema({"id": pa.string(), "reason": pa.string()})
FURTHER = "columns.parquet"
"""Row k is what else was said of the image of row k of `points`; only of shards that say more."""


@dataclass(frozen=True)
class ImageSet:
    """Row k of `points` and of `images` is the same image."""

    points: pa.Table
    images: pa.Table
    quarantine: pa.Table

    def __add__(self, other: "ImageSet") -> "ImageSet":
        return ImageSet(
            pa.concat_tables([self.points, other.points]),
            pa.concat_tables([self.images, other.images]),
            pa.concat_tables([self.quarantine, other.quarantine]),
        )


@computed(group="training", kinds={"parquet"})
def raw_images(run: Run) -> Output:
    """The images of one landed shard with their labels; what does not decode is set aside with its reason."""
    return ingest_shard(run)


@computed(group="reference", kinds={"parquet"})
def reference_images(run: Run) -> Output:
    """The clean images. `role` says which ones train the encoder and which ones judge: never the same."""
    knobs = run.knobs
    found = _ingest(run, run.workspace.folder(knobs.reference), prefix="reference/")
    roles = ["valuation"] * len(found.points)
    if knobs.clean_train:
        found += _ingest(run, run.workspace.folder(knobs.clean_train), prefix="clean_train/")
        roles += ["encoder"] * (len(found.points) - len(roles))
    elif knobs.encoder.source == "train":
        for row in _half(found.points["label"], seed=knobs.encoder.seed):
            roles[row] = "encoder"
    points = found.points.append_column("role", pa.array(roles, pa.string()))
    return _output(ImageSet(points, found.images, found.quarantine))


@computed(group="test", kinds={"parquet"})
def test_images(run: Run) -> Output:
    """The images on which accuracy is reported, and nothing else."""
    return _output(_ingest(run, run.workspace.folder(run.knobs.test or ""), prefix="test/"))


def ingest_shard(run: Run) -> Output:
    """Images and further columns of the run's shard."""
    path, prefix = shards_of(run.workspace)[run.shard or ""], f"{run.shard}/"
    found = _ingest(run, path, prefix=prefix)
    names = [name.removeprefix(prefix) for name in found.points["id"].to_pylist()]
    return _output(found, further_columns(path, names, follow_links=run.knobs.follow_links))


def _ingest(run: Run, path: UPath, *, prefix: str) -> ImageSet:
    """Raises BadInput for a set without one usable image."""
    images = read_images(path, run.knobs.classes, follow_links=run.knobs.follow_links)
    total = ImageSet(POINTS.empty_table(), IMAGES.empty_table(), QUARANTINE.empty_table())
    while chunk := list(islice(images, IMAGES_AT_ONCE)):
        total += _decoded(chunk, prefix)
    for row in total.quarantine.to_pylist():
        run.log.warning(f"quarantined {shown(row['id'])}: {row['reason']}")
    for passed in contents(path, follow_links=run.knobs.follow_links).passed_over:
        run.log.warning(f"passed over {shown(prefix)}{passed.name}: {passed.reason or 'no data'}")
    if not len(total.points):
        first = f" (first: {total.quarantine['reason'][0]})" if len(total.quarantine) else ""
        raise BadInput(f"{path} holds no usable image, {len(total.quarantine)} quarantined{first}: put images there")
    return total


def _decoded(chunk: list[EncodedImage], prefix: str) -> ImageSet:
    points, images, quarantine = [], [], []
    for image, facts in zip(chunk, inspect_all([image.data for image in chunk]), strict=True):
        name = prefix + image.name
        if image.fault or isinstance(facts, str):
            quarantine.append({"id": name, "reason": image.fault or facts})
            continue
        points.append({"id": name, "label": image.label, **vars(facts)})
        images.append({"id": name, "image": image.data})
    return ImageSet(
        pa.Table.from_pylist(points, POINTS),
        pa.Table.from_pylist(images, IMAGES),
        pa.Table.from_pylist(quarantine, QUARANTINE),
    )


def _half(labels: pa.ChunkedArray, *, seed: int) -> np.ndarray:
    """Rows of one stratified half."""
    if len(labels) < 2:
        raise BadInput(
            "the reference set has one image, and the encoder is to be trained on half of it: add images, or set "
            "`clean_train` or another encoder source"
        )
    codes = np.unique(labels.to_pylist(), return_inverse=True)[1]
    return split_batches(codes, batch_size=-(-len(codes) // 2), seed=seed)[0]


def _output(found: ImageSet, further: pa.Table | None = None) -> Output:
    """`further` columns do not belong to the identity of images: no image is embedded anew because of them."""
    content = hashlib.sha256()
    for table in (found.points, found.quarantine):
        content.update(json.dumps(table.to_pydict()).encode())
    files = {
        "points.parquet": table_file(found.points),
        "images.parquet": table_file(found.images),
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
        # Of pixels and labels, not of bytes: the same pixels in other files change nothing downstream.
        data_version=content.hexdigest()[:32],
    )


def _content(table: pa.Table) -> str:
    """Digest of names, types and values."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as out:
        out.write_table(table.combine_chunks())
    return hashlib.sha256(sink.getvalue()).hexdigest()[:32]
