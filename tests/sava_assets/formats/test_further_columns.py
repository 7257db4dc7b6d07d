"""What a scraper knows of an image travels, with its type, beside the right image."""

import datetime
import json
import uuid

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


@pytest.mark.parametrize("kind", [pa.list_view(pa.int8()), pa.large_list_view(pa.string())])
def test_views_of_lists_travel_as_they_are(tmp_path, kind):
    """Arrow's cast of them to lists makes arrays that are not valid."""
    values = [[1], None, []] if "int8" in str(kind) else [["x", None], [], ["y"]]
    file = write(tmp_path / "s.parquet", said=pa.array(values, kind))
    table = further_columns(file, names(file)[::-1])
    table.validate(full=True)
    assert table["said"].to_pylist() == values[::-1]


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


ID = 2**60 + 1
"""No number of float64."""


@pytest.mark.parametrize(
    ("columns", "kind", "values"),
    [
        ([pa.array([1], pa.int32()), pa.array([ID])], pa.int64(), [1, ID]),
        ([pa.nulls(1), pa.array([0], pa.date32())], pa.date32(), [None, datetime.date(1970, 1, 1)]),
        ([pa.array([1]), pa.array(["a"])], pa.string(), ["1", "a"]),
        ([pa.array([7]), pa.array([1.5])], pa.float64(), [7.0, 1.5]),
        ([pa.array([ID]), pa.array([1.5])], pa.string(), [str(ID), "1.5"]),
        ([pa.array([2**64 - 1], pa.uint64()), pa.array([-1])], pa.string(), [str(2**64 - 1), "-1"]),
        ([pa.array([["é", None]]), pa.array([7])], pa.string(), ['["é", null]', "7"]),
        ([pa.array([{"a": b"x", "b": None}]), pa.array(["a"])], pa.string(), ['{"a": "x", "b": null}', "a"]),
        ([pa.array([b"\xff"]), pa.array([7])], pa.string(), ["\\xff", "7"]),
        ([pa.array([uuid.UUID(int=1).bytes], pa.binary(16)).cast(pa.uuid()), pa.array(["a"])], pa.string(),
         [str(uuid.UUID(int=1)), "a"]),
    ],
)  # fmt: skip
def test_types_that_differ_become_what_holds_all_or_text(tmp_path, columns, kind, values):
    for number, column in enumerate(columns):
        write(tmp_path / "set" / f"{number}.parquet", 1, c=column)
    table = further_columns(UPath(tmp_path / "set"), ["0/0", "1/0"])
    assert (table.schema.field("c").type, table["c"].to_pylist()) == (kind, values)


def test_columns_are_read_again_where_their_type_changes_alone():
    asked = []

    def column(place: str, name: str) -> pa.ChunkedArray:
        asked.append((place, name))
        return pa.chunked_array([[1]], pa.int32())

    kinds = {"a": pa.int64(), "b": pa.int32(), "c": pa.int64()}
    schemas = {place: pa.schema({"c": kind, "d": pa.string()}) for place, kind in kinds.items()}
    assert common_types(schemas, column) == {"c": pa.int64(), "d": pa.string()}
    assert asked == [("b", "c")]


def test_a_column_that_is_there_twice_is_refused(tmp_path):
    table = pa.table([[b"x"], ["east"], ["a"], ["b"]], names=["image", "label", "url", "url"])
    pq.write_table(table, tmp_path / "s.parquet")
    with pytest.raises(BadInput, match="has 2 columns 'url': keep one"):
        further_columns(UPath(tmp_path / "s.parquet"), ["0"])


def test_names_of_ours_are_renamed_as_often_as_it_takes():
    assert renamed(["url", "id"], ["id", "value"]) == {"url": "url", "id": "landing_id"}
    twice = {"id": "landing_landing_id", "landing_id": "landing_id"}
    assert renamed(["id", "landing_id"], ["id"]) == twice
    assert renamed(["landing_id", "id"], ["id"]) == twice
    ours = renamed(["id", "landing_id"], ["id", "landing_id"])
    assert len({*ours.values(), "id", "landing_id"}) == 4
