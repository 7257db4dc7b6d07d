import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from upath import UPath

from sava_assets.formats.demo_sets import Labelled, write_set
from sava_assets.formats.landing import find_shards, fingerprint, landed, read_images
from sava_ops import BadInput
from tests.pictures import noise, png

IMAGES = [png(noise(seed=k)) for k in range(4)]
LABELS = pa.array([1, 0, 1, 1])
NAMES = ["cat", "dog"]


def plain_table(path, columns: dict) -> UPath:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)
    return UPath(path)


def hugging_face(path) -> UPath:
    write_set(path, Labelled(IMAGES, LABELS.to_numpy(), NAMES))
    return UPath(path)


def class_folders(folder) -> UPath:
    for k, name in enumerate(["dog", "cat", "dog", "dog"]):
        (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / name / f"{k}.png").write_bytes(IMAGES[k])
    (folder / ".DS_Store").write_bytes(b"")
    return UPath(folder)


def test_hugging_face_parquet_names_classes_and_rows(tmp_path):
    found = list(read_images(hugging_face(tmp_path / "a.parquet")))
    assert [image.name for image in found] == ["0", "1", "2", "3"]
    assert [image.label for image in found] == ["dog", "cat", "dog", "dog"]
    assert [image.data for image in found] == IMAGES


def test_rows_are_named_by_path_where_every_path_is_its_own(tmp_path):
    rows = [{"bytes": data, "path": f"{k}.png"} for k, data in enumerate(IMAGES)]
    found = list(read_images(plain_table(tmp_path / "a.parquet", {"image": rows, "label": ["x"] * 4})))
    assert [image.name for image in found] == ["0.png", "1.png", "2.png", "3.png"]
    rows[3]["path"] = "0.png"
    found = list(read_images(plain_table(tmp_path / "b.parquet", {"image": rows, "label": ["x"] * 4})))
    assert [image.name for image in found] == ["0", "1", "2", "3"]


def test_class_folders_name_class_and_image(tmp_path):
    found = list(read_images(class_folders(tmp_path / "set")))
    assert [image.name for image in found] == ["cat/1.png", "dog/0.png", "dog/2.png", "dog/3.png"]
    assert [image.label for image in found] == ["cat", "dog", "dog", "dog"]
    assert found[0].data == IMAGES[1]


def test_a_folder_of_parquet_files_is_one_set(tmp_path):
    for name in ("p1", "p2"):
        hugging_face(tmp_path / "set" / f"{name}.parquet")
    names = [image.name for image in read_images(UPath(tmp_path / "set"))]
    assert names == [f"{part}/{row}" for part in ("p1", "p2") for row in range(4)]


def test_bare_bytes_strings_and_numbers_are_understood(tmp_path):
    words = plain_table(tmp_path / "w.parquet", {"image": IMAGES, "label": ["a", "b", None, "a"]})
    assert [image.label for image in read_images(words)] == ["a", "b", None, "a"]
    numbers = plain_table(tmp_path / "n.parquet", {"image": [*IMAGES[:3], None], "label": [3, 0, None, 1]})
    assert [image.label for image in read_images(numbers)] == ["3", "0", None, "1"]
    assert [image.label for image in read_images(numbers, ["a", "b", "c", "d"])] == ["d", "a", None, "b"]
    assert [image.data for image in read_images(numbers)] == [*IMAGES[:3], b""]


def test_bad_sets_get_one_clear_sentence(tmp_path):
    def refused(path: UPath, message: str, classes: list[str] | None = None) -> None:
        with pytest.raises(BadInput, match=message):
            list(read_images(path, classes))

    refused(UPath(tmp_path / "absent"), "the image set .*absent does not exist: create it, or name another one")
    unlabelled = plain_table(tmp_path / "u.parquet", {"image": IMAGES, "caption": ["x"] * 4})
    refused(unlabelled, r"u.parquet has no `label` column \(it has image, caption\): add one")
    imageless = plain_table(tmp_path / "i.parquet", {"label": LABELS})
    refused(imageless, r"i.parquet has no `image` column \(it has label\): add one")
    (tmp_path / "cut.parquet").write_bytes(b"PAR1 and no more")
    refused(UPath(tmp_path / "cut.parquet"), r"cut.parquet is not a readable Parquet file \(.*\): write it again")
    outside = plain_table(tmp_path / "o.parquet", {"image": IMAGES, "label": [0, 1, 7, 9]})
    refused(outside, r"`label` of .* has 2 values outside 0..1 \(first: 7 at row 2\): mend the column or", NAMES)
    fractions = plain_table(tmp_path / "f.parquet", {"image": IMAGES, "label": [0.5] * 4})
    refused(fractions, "`label` of .* is double: store class numbers or class names")
    (tmp_path / "flat").mkdir()
    (tmp_path / "flat" / "x.png").write_bytes(IMAGES[0])
    refused(UPath(tmp_path / "flat"), "x.png is not inside a class folder: lay the set .* out as <class>/<image>")


def test_shards_are_files_and_folders_but_not_what_is_hidden_or_unfinished(tmp_path):
    hugging_face(tmp_path / "b.parquet")
    class_folders(tmp_path / "a")
    for name in (".hidden.parquet", "_half.parquet", "c.parquet.tmp", "notes.txt"):
        (tmp_path / name).write_bytes(b"")
    assert {name: path.name for name, path in find_shards(UPath(tmp_path)).items()} == {"a": "a", "b": "b.parquet"}


def test_a_landing_folder_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(BadInput, match=r"the landing folder .*gone does not exist: create it, or name another one"):
        find_shards(UPath(tmp_path / "gone"))


def test_two_of_one_name_are_one_shard_that_is_unclear(tmp_path):
    hugging_face(tmp_path / "a.parquet")
    hugging_face(tmp_path / "b.parquet")
    class_folders(tmp_path / "a")
    found = landed(UPath(tmp_path))
    assert found.unclear == {"a": f"a and a.parquet in {tmp_path} both name the shard 'a': rename one"}
    assert list(found.shards) == ["a", "b"]
    (passed,) = found.passed_over
    assert (passed.name, passed.reason) == ("a.parquet", "a and a.parquet name the same shard: rename one")


def test_fingerprint_is_of_content_and_names_and_not_of_time(tmp_path):
    folder = class_folders(tmp_path / "set")
    before = fingerprint(folder)
    (tmp_path / "set" / "dog" / "0.png").touch()
    assert fingerprint(folder) == before
    (tmp_path / "set" / "dog" / "0.png").rename(tmp_path / "set" / "cat" / "0.png")
    moved = fingerprint(folder)
    assert moved != before
    (tmp_path / "set" / "cat" / "0.png").write_bytes(b"other")
    assert fingerprint(folder) != moved
    assert fingerprint(hugging_face(tmp_path / "a.parquet")) == fingerprint(UPath(tmp_path / "a.parquet"))
