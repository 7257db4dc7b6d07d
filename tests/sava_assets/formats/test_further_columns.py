"""What a scraper knows of an image travels, with its type, beside the right image."""

import datetime
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from upath import UPath

from sava_assets.formats.further_columns import common_types, further_columns, further_types, renamed
from sava_assets.formats.landing import read_images
from sava_ops import BadInput

DAY = datetime.date(2024, 2, 29)


def write(path, count: int = 3, *, paths: bool = False, metadata: dict | None = None, **columns) -> UPath:
    images = [{"bytes": b"x", "path": f"p{k}" if paths else None} for k in range(count)]
    table = pa.table({"image": images, "label": ["east"] * count, **columns})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table.replace_schema_metadata(metadata), path)
    return UPath(path)


def names(path: UPath) -> list[str]:
    return [image.name for image in read_images(path)]


@pytest.mark.parametrize("paths", [False, True])
def test_columns_keep_type_and_place(tmp_path, paths):
    file = write(tmp_path / "s.parquet", paths=paths, url=["a", None, "c"], day=[DAY] * 3, tags=[["x"], [], None])
    assert further_types(file) == [["day", "date32[day]"], ["tags", "list<element: string>"], ["url", "string"]]
    used = names(file)[::-1][:2]  # the last, then the middle one
    table = further_columns(file, used)
    assert table.to_pydict() == {"url": ["c", None], "day": [DAY, DAY], "tags": [None, []]}


def test_a_set_without_further_columns_has_none(tmp_path):
    file = write(tmp_path / "s.parquet")
    assert further_types(file) == []
    assert further_columns(file, names(file)) is None


def test_files_of_a_set_are_put_together_and_folders_are_columns(tmp_path):
    write(tmp_path / "set" / "sender=anna" / "a.parquet", n=pa.array([1, 2, 3], pa.int8()))
    write(tmp_path / "set" / "sender=__HIVE_DEFAULT_PARTITION__" / "a.parquet", n=[1.5, 2.5, 3.5], url=["a", "b", "c"])
    path = UPath(tmp_path / "set")
    table = further_columns(path, names(path))
    assert table["n"].to_pylist() == [1.5, 2.5, 3.5, 1, 2, 3]
    assert table["url"].to_pylist() == ["a", "b", "c", None, None, None]
    assert table["sender"].to_pylist() == [None] * 3 + ["anna"] * 3


def test_categories_and_class_numbers_become_their_words(tmp_path):
    features = {"sender": {"_type": "ClassLabel", "names": ["anna", "ben"]}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    kind = pa.array(["x", "y", "x"]).dictionary_encode()
    file = write(tmp_path / "s.parquet", 3, metadata=metadata, sender=[1, -1, 7], kind=kind)
    table = further_columns(file, names(file))
    assert table.to_pydict() == {"sender": ["ben", None, "7"], "kind": ["x", "y", "x"]}


def test_types_that_differ_become_what_holds_all_or_text():
    def schemas(*kinds: pa.DataType) -> dict[str, pa.Schema]:
        return {f"s{k}": pa.schema({"c": kind}) for k, kind in enumerate(kinds)}

    assert common_types(schemas(pa.int32(), pa.int64()))["c"] == pa.int64()
    assert common_types(schemas(pa.null(), pa.date32()))["c"] == pa.date32()
    assert common_types(schemas(pa.int64(), pa.string()))["c"] == pa.string()
    message = r"the column 'c' is list<.*> in s0 and int64 in s1: give it one type in all shards|in s1 and list"
    with pytest.raises(BadInput, match=message):
        common_types(schemas(pa.list_(pa.string()), pa.int64()))


def test_a_column_that_is_there_twice_is_refused(tmp_path):
    table = pa.table([[b"x"], ["east"], ["a"], ["b"]], names=["image", "label", "url", "url"])
    pq.write_table(table, tmp_path / "s.parquet")
    with pytest.raises(BadInput, match="has 2 columns 'url': keep one"):
        further_columns(UPath(tmp_path / "s.parquet"), ["0"])


def test_names_of_ours_are_renamed_and_a_second_collision_is_refused():
    assert renamed(["url", "id"], ["id", "value"]) == {"url": "url", "id": "landing_id"}
    with pytest.raises(BadInput, match="have a column 'id', which is one of ours, and also 'landing_id', as which it"):
        renamed(["id", "landing_id"], ["id"])
