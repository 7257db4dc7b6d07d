from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from upath import UPath

from sava_assets.formats import stored_images
from sava_assets.formats.stored_images import IMAGES, blobs, encoded_images, image_writer

ROWS = [{"id": f"a/{k}", "image": bytes([k]) * (100 + k)} for k in range(23)]
SPLITS = {"groups": [0, 8, 9, 20, 23], "one group": [0, 23]}


@pytest.fixture(params=SPLITS)
def table(request, tmp_path) -> UPath:
    target, ends = tmp_path / "images.parquet", SPLITS[request.param]
    with image_writer(target) as out:
        for first, after in pairwise(ends):
            out.write_table(pa.Table.from_pylist(ROWS[first:after], IMAGES))
    assert pq.read_metadata(target).num_row_groups == len(ends) - 1
    return UPath(target)


def read(images: UPath, rows: np.ndarray | None = None) -> list[dict]:
    return [row for batch in encoded_images(images, rows) for row in batch.to_pylist()]


@pytest.mark.parametrize("at_once", [10**6, 500, 1])
def test_what_was_written_is_read_whole_or_by_rows(table, monkeypatch, at_once):
    monkeypatch.setattr(stored_images, "BYTES_AT_ONCE", at_once)
    assert read(table) == ROWS
    for rows in ([], [0], [22], [7, 8, 9], [0, 8, 19, 20, 22], range(23)):
        assert read(table, np.array(rows, dtype=np.int64)) == [ROWS[k] for k in rows]
        assert [*blobs(encoded_images(table, np.array(rows, dtype=np.int64)))] == [ROWS[k]["image"] for k in rows]


def test_no_batch_is_larger_than_said(table, monkeypatch):
    monkeypatch.setattr(stored_images, "ROWS_AT_ONCE", 4)
    assert max(map(len, encoded_images(table))) == 4
    monkeypatch.setattr(stored_images, "BYTES_AT_ONCE", 250)
    assert {len(batch) for batch in encoded_images(table)} == {2, 1} or {len(b) for b in encoded_images(table)} == {1}


def test_a_table_of_one_compressed_row_group_is_read_as_well(tmp_path):
    target = tmp_path / "images.parquet"
    pq.write_table(pa.Table.from_pylist(ROWS, IMAGES), target, compression="zstd")
    assert read(UPath(target)) == ROWS
    assert read(UPath(target), np.array([3, 21])) == [ROWS[3], ROWS[21]]


def test_images_are_stored_as_they_are_and_other_row_groups_are_not_read(tmp_path):
    target = tmp_path / "images.parquet"
    with image_writer(target) as out:
        for row in ROWS:
            out.write_table(pa.Table.from_pylist([row], IMAGES))
    about = pq.read_metadata(target)
    assert {about.row_group(0).column(k).compression for k in range(2)} == {"UNCOMPRESSED"}
    data = target.read_bytes()
    assert all(row["image"] in data for row in ROWS)
    broken = about.row_group(5).column(1)
    start, size = broken.data_page_offset, broken.total_compressed_size
    target.write_bytes(data[:start] + b"\xff" * size + data[start + size :])
    assert read(UPath(target), np.array([4, 6, 22])) == [ROWS[4], ROWS[6], ROWS[22]]
    with pytest.raises((OSError, pa.ArrowException)):
        read(UPath(target), np.array([5]))
