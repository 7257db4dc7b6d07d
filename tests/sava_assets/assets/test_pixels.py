from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from upath import UPath

from sava_assets.assets import pixels
from sava_assets.assets.pixels import chosen_images, decoded, pixel_file
from sava_assets.formats.stored_images import IMAGES, image_writer
from sava_assets.home.result import DamagedResult, Output, Result, moved_file, table_file
from sava_assets.home.store import Store
from sava_ops import BadInput
from sava_ops.images.decode import decode_all
from tests.pictures import noise, png

BLOBS = [png(noise(seed=k)) for k in range(11)]


@pytest.fixture
def images(tmp_path) -> Result:
    """A stored set in three row groups."""
    with image_writer(tmp_path / "written") as out:
        for first in (0, 4, 8):
            rows = [{"id": str(k), "image": BLOBS[k]} for k in range(first, min(first + 4, len(BLOBS)))]
            out.write_table(pa.Table.from_pylist(rows, IMAGES))
    output = Output({"images.parquet": moved_file(tmp_path / "written")}, {"images": len(BLOBS)})
    return Store(UPath(tmp_path / "store")).save("raw_images", "key", output)


def run(folder: Path) -> Any:
    return SimpleNamespace(scratch=folder / "scratch", title="encoder")


@pytest.mark.parametrize("at_once", [1, 3, 11, 100])
def test_images_are_decoded_piece_by_piece_as_all_at_once(images, at_once):
    whole = decode_all(BLOBS, size=6)
    pieces = [*decoded(images, size=6, at_once=at_once)]
    assert {len(piece) for piece in pieces[:-1]} <= {at_once}
    assert torch.equal(torch.cat(pieces), whole)
    rows = np.array([0, 3, 4, 10])
    assert torch.equal(torch.cat([*decoded(images, size=6, rows=rows, at_once=at_once)]), whole[torch.from_numpy(rows)])


def test_a_set_in_one_compressed_row_group_is_decoded_alike(images, tmp_path):
    table = pa.table({"id": [str(k) for k in range(len(BLOBS))], "image": BLOBS}, IMAGES)
    old = Store(UPath(tmp_path / "old")).save("raw_images", "key", Output({"images.parquet": table_file(table)}))
    assert torch.equal(*(torch.cat([*decoded(each, size=6, at_once=4)]) for each in (old, images)))


def test_damaged_images_are_not_decoded(images):
    stored = Path(images.files["images.parquet"].path.path)
    data = bytearray(stored.read_bytes())
    data[len(data) // 2] ^= 1
    stored.write_bytes(data)
    with pytest.raises(DamagedResult, match="is damaged"):
        next(decoded(images, size=6))
    with pytest.raises(DamagedResult, match="is damaged"):
        chosen_images(images, np.array([0]))


def test_sets_follow_each_other_in_the_file_of_a_run(images, tmp_path):
    (tmp_path / "scratch").mkdir()
    file = pixel_file(run(tmp_path), [(images, None), (images, np.array([2, 9]))], size=6)
    assert len(file) == 13
    assert not [*(tmp_path / "scratch").iterdir()]  # whoever is killed leaves no pixels behind
    assert torch.equal(file[torch.arange(13)], decode_all([*BLOBS, BLOBS[2], BLOBS[9]], size=6))


def test_without_room_for_the_pixels_nothing_is_decoded(images, tmp_path, monkeypatch):
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr(pixels.shutil, "disk_usage", lambda _: SimpleNamespace(free=11 * 3 * 6 * 6 - 1))
    with pytest.raises(BadInput, match=r"encoder decodes 11 images to 0.0 GB in .*, where 0.0 GB are free: make room"):
        pixel_file(run(tmp_path), [(images, None)], size=6)
    assert not [*(tmp_path / "scratch").iterdir()]


def test_chosen_images_come_in_the_order_asked_for(images):
    assert chosen_images(images, np.array([10, 0, 5, 0])) == [BLOBS[10], BLOBS[0], BLOBS[5], BLOBS[0]]
    assert chosen_images(images, np.array([], dtype=np.int64)) == []
