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


TEXT, BYTES = pa.string_view(), pa.binary_view()
VIEWS = {
    "text": (TEXT, ["x", None, "y"]),
    "bytes": (BYTES, [b"x", None, b"y"]),
    "list": (pa.list_(TEXT), [["x", None], None, []]),
    "large list": (pa.large_list(BYTES), [[b"x"], None, []]),
    "fixed list": (pa.list_(TEXT, 2), [["x", "y"]] * 3),
    "struct": (pa.struct({"a": TEXT, "b": pa.struct({"c": TEXT})}), [{"a": "x", "b": {"c": "y"}}] * 3),
    "map": (pa.map_(pa.string(), TEXT), [[("k", "v")], [], None]),
}


@pytest.mark.parametrize("kind", VIEWS)
def test_views_travel_wherever_they_are(tmp_path, kind):
    view, values = VIEWS[kind]
    file = write(tmp_path / "s.parquet", said=pa.array(values, view))
    table = further_columns(file, names(file)[::-1])
    assert table["said"].to_pylist() == values[::-1]
    assert "view" not in str(table.schema)


def test_thirty_odd_columns_travel(tmp_path):
    """Of types that scrapers and their tools write; nothing is lost, whatever it is called."""
    odd = {
        "decimal": pa.array([1, None, 3], pa.decimal128(20, 2)),
        "zone": pa.array([1, 2, None], pa.timestamp("us", "Asia/Tokyo")),
        "time": pa.array([1, 2, 3], pa.time64("us")),
        "duration": pa.array([1, 2, 3], pa.duration("ms")),
        "half": pa.array([1, 2, 3], pa.float16()),
        "nothing": pa.nulls(3),
        "fixed": pa.array([b"ab"] * 3, pa.binary(2)),
        "uuid": pa.ExtensionArray.from_storage(pa.uuid(), pa.array([b"0" * 16] * 3, pa.binary(16))),
        "map": pa.array([[("k", 1)]] * 3, pa.map_(pa.string(), pa.int8())),
        "nested": pa.array([{"a": [{"b": [1]}]}] * 3),
        "words": pa.array([["x"]] * 3).cast(pa.list_(pa.dictionary(pa.int32(), pa.string()))),
        "large": pa.array([2**64 - 1] * 3, pa.uint64()),
        **{name: pa.array(["x", "y", "z"]) for name in ("IMAGE", "Label", "image.path", "a.b", "", "new\nline", "$")},
        **{f"n{k}": pa.array([k] * 3) for k in range(12)},
    }
    file = write(tmp_path / "s.parquet", **odd)
    table = further_columns(file, names(file)[::-1])
    stored = pq.read_table(file)
    assert table.column_names == list(odd)
    for name in odd:
        assert table[name].to_pylist() == stored[name].to_pylist()[::-1]
        assert table[name].type == stored[name].type


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
