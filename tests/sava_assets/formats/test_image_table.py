"""Tables of images in all the forms that are met, and a sentence for each that is not read."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from upath import UPath

from sava_assets.formats.image_table import EncodedImage
from sava_assets.formats.landing import count, image_schema, read_images
from sava_ops import BadInput
from tests.pictures import noise, png

IMAGES = [png(noise(seed=k)) for k in range(4)]
STRUCT = pa.struct({"bytes": pa.binary(), "path": pa.string()})
ROWS = pa.array([{"bytes": data, "path": None} for data in IMAGES], STRUCT)
NAMES = ["east", "north"]
WORDS = pa.array(["east", "north", "east", "north"])
NUMBERS = pa.array([0, 1, 0, 1])


def written(path, image=ROWS, label=WORDS, metadata: object = None) -> UPath:
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = {"image": image} | ({} if label is None else {"label": label})
    table = pa.table(columns)
    if metadata is not None:
        table = table.replace_schema_metadata({b"huggingface": json.dumps(metadata).encode()})
    pq.write_table(table, path)
    return UPath(path)


def named(names: object) -> dict:
    return {"info": {"features": {"label": {"names": names}}}}


def labels(path: UPath, classes: list[str] | None = None) -> list[str | None]:
    return [image.label for image in read_images(path, classes)]


def refused(path: UPath, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        list(read_images(path))


@pytest.mark.parametrize(
    "image",
    [
        pa.array([{"bytes": data} for data in IMAGES]),
        pa.array(IMAGES, pa.large_binary()),
        pa.array(IMAGES, pa.binary_view()),
        pa.array(IMAGES).dictionary_encode(),
        pa.StructArray.from_arrays([pa.array(IMAGES).dictionary_encode()], ["bytes"]),
        pa.array([{"bytes": data, "path": 7} for data in IMAGES]),
        pa.array([{"path": f"{k}.png", "bytes": data, "size": 8} for k, data in enumerate(IMAGES)]),
    ],
    ids=["no path", "large", "view", "categories", "categories inside", "numbers as paths", "more fields"],
)
def test_bytes_are_read_however_they_are_stored(tmp_path, image):
    assert [found.data for found in read_images(written(tmp_path / "a.parquet", image))] == IMAGES


@pytest.mark.parametrize(
    ("label", "metadata"),
    [
        (WORDS.dictionary_encode(), None),
        (WORDS.cast(pa.string_view()), None),
        (WORDS.cast(pa.large_string()), {"info": None}),
        (pa.array(["east ", "north\n", " east", "\tnorth"]), None),
        (NUMBERS, named(NAMES)),
        (NUMBERS.cast(pa.uint8()).dictionary_encode(), named(["east ", "\u200bnorth"])),
        (WORDS, named(["other", "names"])),
    ],
    ids=["category", "view", "large, broken metadata", "blanks", "numbers", "numbers as categories", "words"],
)
def test_labels_are_read_however_they_are_stored(tmp_path, label, metadata):
    assert labels(written(tmp_path / "a.parquet", label=label, metadata=metadata)) == WORDS.to_pylist()


def test_names_in_the_settings_are_class_names_too(tmp_path):
    assert labels(written(tmp_path / "a.parquet", label=NUMBERS), ["east ", "north"]) == WORDS.to_pylist()


@pytest.mark.parametrize("label", [pa.array([0, -1, None, -7]), pa.array(["east", " ", None, "\u200b"])])
def test_a_row_without_a_label_is_set_aside_and_the_others_are_read(tmp_path, label):
    found = list(read_images(written(tmp_path / "a.parquet", label=label, metadata=named(NAMES))))
    assert [image.label for image in found] == ["east", None, None, None]
    assert [image.fault.split(" (")[0] for image in found] == ["", "no label", "no label", "no label"]


def test_a_path_without_bytes_is_set_aside_for_what_it_is(tmp_path):
    rows = pa.array([{"bytes": IMAGES[0], "path": "a"}, {"bytes": None, "path": "/etc/hosts"}], STRUCT)
    found = list(read_images(written(tmp_path / "a.parquet", rows, WORDS[:2])))
    assert [image.fault for image in found] == ["", "a path and no bytes: embed the images in the table"]
    assert found[1].data == b""


@pytest.mark.parametrize(
    ("image", "label", "metadata", "message"),
    [
        (pa.array(["http://x/0.png"] * 4), WORDS, None, "`image` of .*a.parquet is string: store the bytes of encoded"),
        (pa.array([[[0, 1], [2, 3]]] * 4), WORDS, None, "`image` of .* is list<.*: store the bytes of encoded images"),
        (pa.array([{"path": "x"}] * 4), WORDS, None, "`image` of .* is struct<path: string>: store .* as `bytes`"),
        (pa.array([{"bytes": "x"}] * 4), WORDS, None, "`image` of .* is struct<bytes: string>: store .* as `bytes`"),
        (ROWS, pa.array([True] * 4), None, "`label` of .* is bool: store class numbers or class names"),
        (ROWS, pa.array([b"east"] * 4), None, "`label` of .* is binary: store class numbers or class names"),
        (ROWS, pa.nulls(4), None, "`label` of .* is null: store class numbers or class names"),
        (ROWS, NUMBERS, named({"0": "east"}), "the class names in the `huggingface` metadata of .* are no list"),
        (ROWS, NUMBERS, named(["east", 1]), "the class names in the `huggingface` metadata of .* are no list"),
    ],
)  # fmt: skip
def test_what_is_no_table_of_images_is_refused_by_its_type(tmp_path, image, label, metadata, message):
    refused(written(tmp_path / "a.parquet", image, label, metadata), message)


def test_broken_metadata_repeated_columns_and_damaged_files_are_refused(tmp_path):
    table = pa.table({"image": ROWS, "label": NUMBERS})
    pq.write_table(table.replace_schema_metadata({b"huggingface": b"{"}), tmp_path / "m.parquet")
    refused(UPath(tmp_path / "m.parquet"), "the `huggingface` metadata of .*m.parquet is not JSON")
    pq.write_table(table.replace_schema_metadata({b"huggingface": b"[" * 100_000}), tmp_path / "d.parquet")
    refused(UPath(tmp_path / "d.parquet"), "the `huggingface` metadata of .*d.parquet is not JSON")
    pq.write_table(pa.table({f"c{k}": [0] for k in range(999)}), tmp_path / "w.parquet")
    refused(UPath(tmp_path / "w.parquet"), r"w.parquet has no `image` column \(it has c0, c1, c2, c3, c4, …\): add one")
    pq.write_table(pa.Table.from_arrays([ROWS, WORDS, WORDS], ["image", "label", "label"]), tmp_path / "t.parquet")
    refused(UPath(tmp_path / "t.parquet"), "t.parquet has 2 columns `label`: keep one")
    pq.write_table(table, tmp_path / "p.parquet", compression="zstd")
    data = bytearray((tmp_path / "p.parquet").read_bytes())
    data[4:60] = bytes(56)
    (tmp_path / "p.parquet").write_bytes(data)
    refused(UPath(tmp_path / "p.parquet"), r"p.parquet is not a readable Parquet file \(.*\): write it again")


def test_files_that_were_joined_are_refused_and_indexes_are_not(tmp_path):
    """Read by the last footer, the rows of one are lost and those of the other are what lies in their places."""
    one, other = (written(tmp_path / f"{k}.parquet", ROWS.take(pa.array([k, k]))[:2], WORDS[:2]) for k in range(2))
    (tmp_path / "j.parquet").write_bytes(one.read_bytes() + other.read_bytes())
    refused(UPath(tmp_path / "j.parquet"), "j.parquet is several Parquet files one after the other: put each into a")
    empty = written(tmp_path / "e.parquet", ROWS[:0], WORDS[:0])
    (tmp_path / "k.parquet").write_bytes(one.read_bytes() + empty.read_bytes())
    refused(UPath(tmp_path / "k.parquet"), "k.parquet is several Parquet files one after the other")
    table = pa.table({"image": ROWS, "label": WORDS})
    pq.write_table(table, tmp_path / "i.parquet", write_page_index=True, row_group_size=1)
    assert len(labels(UPath(tmp_path / "i.parquet"))) == 4
    assert not labels(empty)


# -- Hive partitions ----------------------------------------------------------------------------------------------


def test_files_of_one_name_in_several_folders_keep_their_images_apart(tmp_path):
    for name in NAMES:
        written(tmp_path / f"label={name}" / "part-0.parquet", label=pa.array([name] * 4))
    found = list(read_images(UPath(tmp_path)))
    assert [image.name for image in found] == [f"label={name}/part-0/{row}" for name in NAMES for row in range(4)]
    assert count(UPath(tmp_path)) == 8


def test_a_partition_folder_is_the_label_where_the_table_has_none(tmp_path):
    for folder in ("label=east", "date=1/label=a%2Fb", "label=__HIVE_DEFAULT_PARTITION__"):
        written(tmp_path / folder / "x.parquet", ROWS[:1], None)
    found = {image.name: (image.label, image.fault) for image in read_images(UPath(tmp_path))}
    assert found == {
        "label=east/x/0": ("east", ""),
        "date=1/label=a%2Fb/x/0": ("a/b", ""),
        "label=__HIVE_DEFAULT_PARTITION__/x/0": (None, "no label"),
    }


def test_a_number_as_partition_folder_has_the_name_that_numbers_have(tmp_path):
    written(tmp_path / "label=1" / "x.parquet", label=None, metadata=named(NAMES))
    (tmp_path / "label=0").mkdir()
    (tmp_path / "label=0" / "y.png").write_bytes(IMAGES[0])
    assert labels(UPath(tmp_path), NAMES) == ["north"] * 4 + ["east"]


def test_class_folders_may_be_partition_folders(tmp_path):
    (tmp_path / "label=east").mkdir()
    (tmp_path / "label=east" / "0.png").write_bytes(IMAGES[0])
    assert list(read_images(UPath(tmp_path))) == [EncodedImage("label=east/0.png", "east", IMAGES[0])]


@pytest.mark.parametrize("label", [pa.array(["east", "north", None, "east"]), pa.array([0, 1, 0, 0])])
def test_a_table_that_contradicts_its_folder_is_refused(tmp_path, label):
    written(tmp_path / "label=east" / "x.parquet", label=label, metadata=named(NAMES))
    refused(UPath(tmp_path), "x.parquet lies in `label=east` and says north at row 1: keep one of the two")


# -- tables and class folders together ----------------------------------------------------------------------------


def test_class_folders_beside_a_table_are_both_read(tmp_path):
    written(tmp_path / "extra.PARQUET")
    (tmp_path / "south").mkdir()
    (tmp_path / "south" / "0.png").write_bytes(IMAGES[0])
    found = list(read_images(UPath(tmp_path)))
    assert [image.name for image in found] == ["extra/0", "extra/1", "extra/2", "extra/3", "south/0.png"]
    assert count(UPath(tmp_path)) == 5


def test_names_that_meet_are_refused(tmp_path):
    written(tmp_path / "south.parquet", pa.array([{"bytes": IMAGES[0], "path": "0.png"}], STRUCT), WORDS[:1])
    (tmp_path / "south").mkdir()
    (tmp_path / "south" / "0.png").write_bytes(IMAGES[0])
    refused(UPath(tmp_path), "has two images of the name south/0.png: rename one of their files")


def test_what_is_written_is_read(tmp_path):
    schema = image_schema(NAMES)
    pq.write_table(pa.table([ROWS, NUMBERS], schema=schema), tmp_path / "a.parquet")
    assert labels(UPath(tmp_path / "a.parquet")) == WORDS.to_pylist()


@pytest.mark.parametrize("names", [["east", "east"], ["east", "north", " east\n"], ["e\u0301", "é", "east"]])
def test_two_numbers_of_one_class_are_refused(tmp_path, names):
    numbers = pa.array([0, 1, 0, 1])
    with pytest.raises(BadInput, match=r"metadata of .* has the class '.*' twice, for two numbers"):
        labels(written(tmp_path / "a.parquet", label=numbers, metadata=named(names)))
    with pytest.raises(BadInput, match=r"`classes` in sava.yaml has the class '.*' twice, for two numbers"):
        labels(written(tmp_path / "b.parquet", label=numbers), names)


def test_numbers_without_a_name_may_be_several(tmp_path):
    assert labels(written(tmp_path / "a.parquet", label=NUMBERS, metadata=named(["east", "north", "", ""]))) == [
        "east", "north", "east", "north",
    ]  # fmt: skip
