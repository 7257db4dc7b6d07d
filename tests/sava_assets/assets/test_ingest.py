import json

import dagster as dg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sava_assets.assets import ingest, inspection
from sava_ops.images.decode import decode
from sava_ops.images.perceptual_hash import HASH_BYTES, perceptual_hash
from sava_ops.images.quality import Quality, quality
from tests.sava_assets.homes import copy_of, materialize

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=3)


@given(st.lists(st.lists(st.tuples(text, st.none() | text, st.integers(-5, 5)), max_size=4), max_size=4))
def test_the_content_of_a_table_is_digested_piece_by_piece_as_its_json(chunks):
    schema = pa.schema({"id": pa.string(), 'la"bel': pa.string(), "width": pa.int32()})
    tables = [
        pa.Table.from_pylist([dict(zip(schema.names, row, strict=True)) for row in rows], schema) for rows in chunks
    ]
    table = pa.concat_tables([schema.empty_table(), *tables])
    assert "".join(ingest._as_json(table)) == json.dumps(table.to_pydict())


def test_a_set_read_in_many_pieces_is_the_same_set_in_several_row_groups(curated, tmp_path, monkeypatch):
    workspace = copy_of(curated[0], tmp_path / "home")
    names = [("raw_images", "first"), ("raw_images", "second"), ("reference_images", None), ("test_images", None)]
    whole = {name: workspace.store.require(*name) for name in names}
    monkeypatch.setattr(inspection, "ROWS_AT_ONCE", 7)
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("shards", ["first", "second"])
        for asset, shard in names:
            workspace.store.forget(whole[asset, shard])
            materialize(workspace, instance, asset, shard=shard)
    for name in names:
        again = workspace.store.require(*name)
        assert (again.key, again.data_version) == (whole[name].key, whole[name].data_version)
        for file in ("points.parquet", "images.parquet", "quarantine.parquet"):
            assert again.table(file).equals(whole[name].table(file))
        groups = pq.read_metadata(str(again.files["images.parquet"].path)).num_row_groups
        assert groups == -(-again.numbers["images"] // 7)
    assert not [*(tmp_path / "home" / "store" / "partial").iterdir()]


def test_what_an_image_looks_like_is_kept_and_names_no_content(curated, tmp_path, monkeypatch):
    workspace = copy_of(curated[0], tmp_path / "home")
    before = {name: workspace.store.require(*name) for name in (("raw_images", "first"), ("reference_images", None))}
    for (asset, shard), result in before.items():
        images = result.table("images.parquet")["image"].to_pylist()
        looks = result.table("points.parquet")["perceptual_hash"].to_pylist()
        assert looks == [perceptual_hash(decode(image)) for image in images] == [None] * len(images)
        workspace.store.forget(result)
        monkeypatch.setattr("sava_ops.images.decode.perceptual_hash", lambda pixels: pixels.tobytes()[:HASH_BYTES])
        with dg.DagsterInstance.ephemeral() as instance:
            instance.add_dynamic_partitions("shards", ["first", "second"])
            materialize(workspace, instance, asset, shard=shard)
        again = workspace.store.require(asset, shard)
        looks = again.table("points.parquet")["perceptual_hash"].to_pylist()
        assert looks == [decode(image).tobytes()[:HASH_BYTES] for image in images]
        assert again.data_version == result.data_version
        monkeypatch.undo()


def test_the_quality_of_every_image_is_measured_and_is_no_part_of_its_identity(curated, tmp_path, monkeypatch):
    workspace = copy_of(curated[0], tmp_path / "home")
    found = workspace.store.require("reference_images")
    points, images = found.table("points.parquet"), found.table("images.parquet")
    for row, image in zip(points.to_pylist(), images["image"].to_pylist(), strict=True):
        measured = quality(decode(image))
        assert [row[name] for name in Quality._fields] == pytest.approx(measured, rel=1e-6)
    monkeypatch.setattr("sava_ops.images.decode.quality", lambda pixels: Quality(0.0, 0.0, float(len(pixels))))
    workspace.store.forget(found)
    with dg.DagsterInstance.ephemeral() as instance:
        materialize(workspace, instance, "reference_images")
    again = workspace.store.require("reference_images")
    assert set(again.table("points.parquet")["brightness"].to_pylist()) == {0.0}
    assert again.data_version == found.data_version
