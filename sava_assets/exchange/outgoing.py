"""What goes out: the images of the last curation that people are to look at, and what is decided on them so far."""

import io
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from sava_assets.formats.decision_files import PersonDecision, read_decisions
from sava_assets.formats.stored_images import IMAGES_FILE, encoded_images
from sava_assets.freshness.overlap import valued
from sava_assets.home.resources import Workspace
from sava_assets.home.result import Result
from sava_assets.review.shown import with_people
from sava_assets.review.verdicts import resolved
from sava_ops.errors import BadInput
from sava_ops.images.decode import decode

IMAGES = "images"
SHOWN_BY_BROWSERS = {b"\xff\xd8\xff": ".jpg", b"\x89PNG": ".png", b"GIF8": ".gif"}
"""First bytes → suffix; other images go out as PNG of the same pixels."""


@dataclass(frozen=True)
class Outgoing:
    """Images with the columns of `pruned_dataset`, those of `sava_assets.review.verdicts.ruled`, and `pixel_hash`."""

    points: pa.Table
    decided: Mapping[str, PersonDecision]
    """Pixel hash → the decision that holds now."""
    images: Mapping[str, Result]
    """`raw_images` of each shard."""
    classes: list[str]
    curation: str
    """Which one, in a few letters."""

    def rows(self) -> Iterator[tuple[dict, PersonDecision | None]]:
        """Each image, and what is decided on it."""
        for batch in self.points.to_batches(max_chunksize=1_000):
            for row in batch.to_pylist():
                yield row, self.decided.get(row["pixel_hash"])

    def write_images(self, folder: Path) -> dict[str, str]:
        """Write each image once; returns pixel hash → file name."""
        folder.mkdir(parents=True)
        written: dict[str, str] = {}
        for shard in self.points["shard"].unique().to_pylist():
            own = self.points.filter(pc.field("shard") == shard)
            wanted = dict(zip(own["id"].to_pylist(), own["pixel_hash"].to_pylist(), strict=True))
            for batch in encoded_images(self.images[shard].verified(IMAGES_FILE)):
                for name, data in zip(batch.column("id").to_pylist(), batch.column("image"), strict=True):
                    if (pixel_hash := wanted.get(name)) and pixel_hash not in written:
                        written[pixel_hash] = _write_image(folder, pixel_hash, data.as_py())
        return written


def outgoing(workspace: Workspace, *, everything: bool) -> Outgoing:
    """The images that the algorithm flagged or somebody decided on, most evidence first; or all that have a value.

    Raises BadInput where nothing is curated, or the shards have changed since.
    """
    store = workspace.store
    pruned, reference = store.current("pruned_dataset"), store.current("reference_images")
    if pruned is None or reference is None:
        raise BadInput(f"nothing is curated in {workspace.home} yet: run `sava curate` first")
    images = {shard: found for shard in pruned.inputs["raw_images"] if (found := store.current("raw_images", shard))}
    if {shard: found.data_version for shard, found in images.items()} != pruned.inputs["raw_images"]:
        raise BadInput(f"the shards of {workspace.home} changed since they were curated: run `sava curate` first")
    decided = resolved(read_decisions(workspace.folder(workspace.knobs.decisions))).standing
    points = with_people(valued(pruned.table("points.parquet")))
    points = points.append_column("pixel_hash", _pixel_hashes(points["id"], images))
    if not everything:
        asked = pc.field("pixel_hash").isin(pa.array(decided, pa.string()))
        points = points.filter((pc.field("algorithm_action") != "keep") | asked)
    points = points.sort_by([("evidence", "descending"), ("id", "ascending")])
    classes = sorted({*reference.numbers["classes"], *points["label"].unique().to_pylist()})
    return Outgoing(points, decided, images, classes, pruned.key[:12])


@contextmanager
def whole(target: Path) -> Iterator[Path]:
    """A place to write a file or folder in, which becomes the target when it is whole.

    Raises BadInput where the target is there already, or cannot be written.
    """
    if target.exists():
        raise BadInput(f"{target} is there already: name another place, or remove it")
    if not target.absolute().parent.is_dir():
        raise BadInput(f"the folder {target.parent} does not exist: create it")
    partial = target.absolute().with_name(f".sava-{os.getpid()}.partial")
    try:
        yield partial
        partial.rename(target)
    except OSError as error:
        raise BadInput(f"{target} cannot be written ({error.strerror}): name another place") from error
    finally:
        if partial.is_dir():
            shutil.rmtree(partial)
        partial.unlink(missing_ok=True)


def _pixel_hashes(ids: pa.ChunkedArray, images: Mapping[str, Result]) -> pa.ChunkedArray:
    known = pa.concat_tables(found.table("points.parquet", ["id", "pixel_hash"]) for found in images.values())
    hashes = dict(zip(known["id"].to_pylist(), known["pixel_hash"].to_pylist(), strict=True))
    return pa.chunked_array([[hashes[name] for name in ids.to_pylist()]], pa.string())


def _write_image(folder: Path, pixel_hash: str, data: bytes) -> str:
    suffix = next((suffix for start, suffix in SHOWN_BY_BROWSERS.items() if data.startswith(start)), None)
    if suffix is None:
        suffix, png = ".png", io.BytesIO()
        Image.fromarray(decode(data)).save(png, "png")
        data = png.getvalue()
    (folder / f"{pixel_hash}{suffix}").write_bytes(data)
    return f"{pixel_hash}{suffix}"
