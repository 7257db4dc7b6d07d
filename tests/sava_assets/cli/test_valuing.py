"""`sava value`: an answer that can be trusted, or one sentence and no file."""

import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.sava_assets.cli.test_cli import refused, sava
from tests.toy import clouds

pytestmark = pytest.mark.long
X, Y = clouds(40, seed=0, dtype=np.float32)
RX, RY = clouds(30, seed=1, dtype=np.float32)


def lists(x: np.ndarray) -> pa.Array:
    return pa.array(list(x), pa.list_(pa.from_numpy_dtype(x.dtype)))


@pytest.fixture
def write(tmp_path):
    def file(name: str, features: object, labels: object, **more: object):
        pq.write_table(pa.table({"features": features, "label": labels, **more}), tmp_path / name, row_group_size=7)
        return tmp_path / name

    return file


@pytest.fixture
def reference(write):
    return write("reference.parquet", lists(RX), RY)


def values(train, reference, out, *options) -> pa.Table:
    code, said = sava("value", train, reference, "-o", out, *options)
    assert code == 0, said
    assert "warning" not in said
    return pq.read_table(out)


TENSOR = pa.fixed_shape_tensor(pa.float32(), [5])
FORMS = {
    "float64": lists(X.astype(np.float64)),
    "large lists": pa.array(list(X), pa.large_list(pa.float32())),
    "fixed lists": pa.FixedSizeListArray.from_arrays(pa.array(X.ravel()), 5),
    "tensors": pa.ExtensionArray.from_storage(TENSOR, pa.FixedSizeListArray.from_arrays(pa.array(X.ravel()), 5)),
}


@pytest.mark.parametrize("form", FORMS)
def test_the_form_of_the_column_changes_nothing(write, reference, tmp_path, form):
    plain = values(write("a.parquet", lists(X), Y), reference, tmp_path / "o.parquet")
    other = values(write("b.parquet", FORMS[form], Y), reference, tmp_path / "p.parquet")
    assert other.equals(plain)


REFUSED = {
    "scalars": (pa.array(X[:, 0]), "is float: store one list of numbers a row"),
    "text": (pa.array([str(list(x)) for x in X]), "is string: store one list of numbers a row"),
    "bytes": (pa.array([x.tobytes() for x in X]), "is binary: store one list of numbers a row"),
    "nested": (pa.array([[list(x)] for x in X.astype(float)]), "is list<element: list<element: double>>"),
    "words": (pa.array([["a"]] * 40), "is list<element: string>: store one list of numbers a row"),
    "structs": (pa.array([{"x": 1.0}] * 40), "is struct<x: double>"),
    "no numbers": (pa.array([[]] * 40, pa.list_(pa.float32())), "training features have no columns"),
    "a gap": (pa.array([*map(list, X[:20].astype(float)), None, *map(list, X[21:].astype(float))]), "empty at row 20"),
    "widths": (pa.array([[1.0, 2.0]] * 20 + [[1.0]] * 20), "rows of different width ([1, 2])"),
    "beyond float32": (
        lists(X.astype(np.float64) * 1e200),
        "numbers beyond 3e+38, the largest in float32 (first: row 0",
    ),
    "below float32": (
        lists(np.where(np.arange(40)[:, None] == 31, X.astype(np.float64) * 1e-200, X)),
        "rows of numbers below 1e-38, the smallest in float32 (first: row 31): multiply all features by one number",
    ),
    "not of full precision": (lists(X * np.float32(1e-40)), "rows of numbers below 1e-38"),
    "not a number": (
        lists(np.where(np.arange(40)[:, None] == 30, np.nan, X)),
        "NaN or infinite features (first: row 30",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_features_that_are_no_lists_of_numbers_are_a_sentence(write, reference, tmp_path, what):
    features, message = REFUSED[what]
    assert message in refused("value", write("a.parquet", features, Y), reference, "-o", tmp_path / "o.parquet")
    assert not (tmp_path / "o.parquet").exists()


LABELS = {
    "lists": ([[int(y)] for y in Y], "`label` of", "is list<element: int64>: store class numbers or class names"),
    "bytes": ([str(y).encode() for y in Y], "`label` of", "is binary: store class numbers or class names"),
    "times": (pa.array(Y, pa.timestamp("s")), "`label` of", "is timestamp[ms]: store class numbers"),
    "not a number": (
        np.where(np.arange(40) == 33, np.nan, Y),
        "is nan at row 33: a class is a whole number, or a name",
    ),
    "fractions": (Y + 0.5, "is 2.5 at row 0: a class is a whole number, or a name"),
    "words": (
        [str(y) for y in Y],
        "the labels of",
        "are words and those of",
        "reference.parquet numbers: use the same",
    ),
    "truths": (Y > 0, "are booleans and those of", "reference.parquet numbers"),
    "others": (Y + 10, "no class in common (training: 10, 11, 12; reference: 0, 1, 2): name the classes alike"),
    "blanks": (["" if k == 11 else "a" for k in range(40)], "is empty at row 11: fill it or drop the row"),
    "letters that nobody sees": (["\u200b" if k == 12 else "a" for k in range(40)], "is empty at row 12"),
    "below 0": (Y - 1, "has", "values below 0 (first: -1 at row"),
}


@pytest.mark.parametrize("what", LABELS)
def test_labels_that_mean_nothing_here_are_a_sentence(write, reference, tmp_path, what):
    labels, *messages = LABELS[what]
    said = refused("value", write("a.parquet", lists(X), labels), reference, "-o", tmp_path / "o.parquet")
    assert all(message in said for message in messages), said
    assert not (tmp_path / "o.parquet").exists()


def test_numbers_of_every_width_and_categories_are_labels(write, reference, tmp_path):
    plain = values(write("a.parquet", lists(X), Y), reference, tmp_path / "o.parquet")
    for number, labels in enumerate((Y.astype(np.float64), Y.astype(np.uint8), pa.array(Y).dictionary_encode())):
        found = values(write(f"{number}.parquet", lists(X), labels), reference, tmp_path / "p.parquet")
        assert found["value"].equals(plain["value"])
        assert [int(y) for y in found["suggested_label"].to_pylist()] == plain["suggested_label"].to_pylist()


def test_a_suggested_class_that_the_label_column_cannot_hold_gets_a_wider_one(write, tmp_path):
    wide = write("wide.parquet", lists(RX), np.where(RY == 1, 303, RY))
    train = write("a.parquet", lists(X), pa.array(np.where(Y == 1, 0, Y), pa.int8()))
    assert set(values(train, wide, tmp_path / "o.parquet")["suggested_label"].to_pylist()) == {0, 2, 303}


@pytest.mark.parametrize(
    ("labels", "others", "found"),
    [
        (pa.array(Y, pa.int64()), pa.array([2**63 + 5 if y == 1 else int(y) for y in RY], pa.uint64()), 2**63 + 5),
        (Y * 1e300, RY * 1e300, str(int(1e300))),
    ],
    ids=["beyond int64", "beyond all"],
)
def test_numbers_that_no_type_of_the_column_holds_are_suggested_all_the_same(write, tmp_path, labels, others, found):
    judges = write("r.parquet", lists(RX), others)
    code, said = sava("value", write("a.parquet", lists(X), labels), judges, "-o", tmp_path / "o.parquet")
    assert code == 0, said
    assert found in pq.read_table(tmp_path / "o.parquet")["suggested_label"].to_pylist()


@pytest.mark.parametrize("name", ["confidence", "value", "suggested_label"])
def test_columns_of_ours_are_refused_beforehand(write, reference, tmp_path, name):
    train = write("a.parquet", lists(X), Y, **{name: np.arange(40)})
    said = refused("value", train, reference, "-o", tmp_path / "o.parquet")
    assert f"has columns that are to be written ({name}): rename or drop them" in said
    # Beside the reference points they disturb nobody.
    values(write("b.parquet", lists(X), Y), write("r.parquet", lists(RX), RY, **{name: RY}), tmp_path / "o.parquet")


def test_a_column_that_is_there_twice_is_refused(tmp_path, reference):
    table = pa.Table.from_arrays([lists(X), pa.array(Y), pa.array(Y)], names=["features", "label", "label"])
    pq.write_table(table, tmp_path / "a.parquet")
    assert "has two columns `label`: rename one" in refused(
        "value", tmp_path / "a.parquet", reference, "-o", tmp_path / "o.parquet"
    )


def test_the_output_is_never_an_input_under_any_name(write, reference, tmp_path):
    train = write("a.parquet", lists(X), Y)
    (tmp_path / "link").symlink_to(train)
    (tmp_path / "hard").hardlink_to(reference)
    (tmp_path / "sub").mkdir()
    before = train.read_bytes(), reference.read_bytes()
    for output in (train, reference, tmp_path / "link", tmp_path / "hard", tmp_path / "sub" / ".." / "a.parquet"):
        assert "whose features it would lose: name another file" in refused("value", train, reference, "-o", output)
    assert (train.read_bytes(), reference.read_bytes()) == before


def test_an_output_that_is_no_file_and_inputs_that_are_folders_are_refused(write, reference, tmp_path):
    train = write("a.parquet", lists(X), Y)
    (tmp_path / "folder").mkdir()
    said = refused("value", train, reference, "-o", tmp_path / "folder")
    assert "folder is not a file: name a Parquet file" in said
    assert "folder is a folder: name one Parquet file" in refused(
        "value", tmp_path / "folder", reference, "-o", tmp_path / "o.parquet"
    )
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("device", ["gpu", "cuda:x", "CPU", "cuda:99"])
def test_a_device_that_is_not_there_is_a_sentence(write, reference, tmp_path, device):
    train = write("a.parquet", lists(X), Y)
    said = refused("value", train, reference, "-o", tmp_path / "o.parquet", "--device", device)
    assert said.startswith(f"`device` is {device!r}")


@pytest.mark.parametrize("scale", [1e20, 3e37, 1e-30, 1e-37])
def test_unit_norm_does_not_see_the_scale(write, tmp_path, scale):
    """A power of two changes no digit of a number; squares of 1e20 overflow, those of 1e-30 vanish."""
    factor = np.float32(2.0 ** round(np.log2(scale)))
    one = values(write("a.parquet", lists(X), Y), write("r.parquet", lists(RX), RY), tmp_path / "o.parquet")
    scaled = [write(f"{n}.parquet", lists(x * factor), y) for n, x, y in (("b", X, Y), ("s", RX, RY))]
    other = values(*scaled, tmp_path / "p.parquet")
    np.testing.assert_allclose(other["value"].to_numpy(), one["value"].to_numpy(), rtol=1e-4, atol=1e-6)
    said = refused("value", *scaled, "-o", tmp_path / "q.parquet", "--paper") if scale > 1 else "squares overflow"
    assert "squares overflow" in said


@pytest.mark.parametrize("harm", [slice(40, 400), slice(-200, -20)])
def test_a_damaged_file_is_a_sentence(write, reference, tmp_path, harm):
    train = write("a.parquet", lists(X), Y)
    data = bytearray(train.read_bytes())
    data[harm] = b"\xff" * len(data[harm])
    train.write_bytes(data)
    assert "is not a readable Parquet file" in refused("value", train, reference, "-o", tmp_path / "o.parquet")


def test_what_makes_values_useless_is_said(write, reference, tmp_path):
    def said(train, judges) -> str:
        code, words = sava("value", train, judges, "-o", tmp_path / "o.parquet")
        assert code == 0
        return words

    train = write("a.parquet", lists(X), Y)
    assert "40 training points are reference points too" in said(train, write("same.parquet", lists(X), Y))
    alike = write("alike.parquet", lists(np.repeat(RX[:1], 30, 0)), RY)
    assert "all reference points are equal" in said(train, alike)
    assert "no reference point judges the classes 7" in said(
        write("b.parquet", lists(X), np.where(Y == 2, 7, Y)), reference
    )
    one = write("one.parquet", lists(X[:, :1]), Y), write("other.parquet", lists(RX[:, :1]), RY)
    assert "features of one column" in said(*one)


def test_a_reference_point_alone_is_said(write, tmp_path):
    judges = write("few.parquet", lists(RX[:7]), np.array([0, 0, 0, 1, 1, 1, 2]))
    code, said = sava("value", write("a.parquet", lists(X), Y), judges, "-o", tmp_path / "o.parquet")
    assert code == 0
    assert "one reference point alone judges the classes 2" in said


@pytest.mark.parametrize("other", ["B", "b ", "\tb", "ｂ", "b\u200b"])
def test_another_spelling_of_a_class_is_refused(write, tmp_path, other):
    train = write("a.parquet", lists(X), [("a", other, "c")[label] for label in Y])
    judges = write("r.parquet", lists(RX), [("a", "b", "c")[label] for label in RY])
    said = refused("value", train, judges, "-o", tmp_path / "o.parquet")
    assert "a.parquet writes classes otherwise than" in said
    assert "for 'b'): name them alike" in said


def test_a_name_as_long_as_can_be_is_written(write, reference, tmp_path):
    train = write("a.parquet", lists(X), Y)
    values(train, reference, tmp_path / f"{'o' * 247}.parquet")
    longer = tmp_path / f"{'o' * 248}.parquet"
    for paths in ((train, reference, "-o", longer), (longer, reference, "-o", train), (train, longer, "-o", reference)):
        assert "… cannot be looked at (File name too long): allow it, or name another place" in refused("value", *paths)
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("fault", [PermissionError(13, "Permission denied"), OSError(28, "No space left on device")])
def test_an_output_that_cannot_be_written_is_a_sentence(write, reference, tmp_path, monkeypatch, fault):
    def replace(*_: object) -> None:
        raise fault

    monkeypatch.setattr("pathlib.Path.replace", replace)
    train = write("a.parquet", lists(X), Y)
    said = refused("value", train, reference, "-o", tmp_path / "o.parquet")
    assert f"cannot be written ({fault.strerror}): choose another one" in said
    assert not list(tmp_path.glob(".*"))


def test_other_columns_stay_as_they_are_across_blocks(tmp_path, monkeypatch, write, reference):
    monkeypatch.setattr("sava_assets.formats.feature_table.ROWS_AT_ONCE", 16)
    more = {"words": [f"n{k}" for k in range(40)], "box": [{"x": k} if k % 3 else None for k in range(40)]}
    train = write("a.parquet", lists(X), Y, **more)
    table = values(train, reference, tmp_path / "o.parquet")
    assert table.select(["label", *more]).to_pydict() == pq.read_table(train).drop_columns(["features"]).to_pydict()
    assert table.schema.names[3:] == [
        "value", "feature_value", "label_value", "confidence", "p_value", "clean_probability", "evidence",
        "image_evidence", "expected_bad", "suggested_label",
    ]  # fmt: skip


def test_names_with_dots_are_names(write, reference, tmp_path):
    """Of a nested column, Arrow calls what is inside alike."""
    more = {"features.list.element": np.arange(40), "label.x": np.arange(40)}
    table = values(write("a.parquet", lists(X), Y, **more), reference, tmp_path / "o.parquet")
    assert table.schema.names[:3] == ["label", *more]
    assert table["features.list.element"].to_pylist() == list(range(40))


def test_a_table_of_a_column_for_each_feature_is_named_by_a_few(tmp_path, reference):
    pq.write_table(pa.table({f"f{k}": X[:, 0] for k in range(3_000)} | {"label": Y}), tmp_path / "a.parquet")
    said = refused("value", tmp_path / "a.parquet", reference, "-o", tmp_path / "o.parquet")
    assert "has no `features` column (it has f0, f1, f2, f3, f4, …): add one" in said


def test_files_that_were_joined_are_refused(write, reference, tmp_path):
    train = write("a.parquet", lists(X), Y)
    train.write_bytes(train.read_bytes() + reference.read_bytes() + train.read_bytes())
    said = refused("value", train, reference, "-o", tmp_path / "o.parquet")
    assert "a.parquet is several Parquet files one after the other: put each into a file of its own" in said


def test_what_is_no_parquet_file_is_told_what_is_wanted(write, reference, tmp_path):
    train = write("a.parquet", lists(X), Y)
    np.savez(tmp_path / "a.npz", features=X, label=Y)
    (tmp_path / "a.csv").write_text("f0,f1,label\n1,2,0\n")
    for name in ("a.npz", "a.csv"):
        said = refused("value", tmp_path / name, reference, "-o", tmp_path / "o.parquet")
        assert f"{name} is no Parquet file: write its features and labels as Parquet, in the columns `features`" in said
    os.mkfifo(tmp_path / "pipe")
    assert "pipe is no regular file: name a Parquet file" in refused(
        "value", train, tmp_path / "pipe", "-o", tmp_path / "o.parquet"
    )
    for name in ("o.csv", "o.NPZ"):
        said = refused("value", train, reference, "-o", tmp_path / name)
        assert f"{name} is called {name[1:].lower()} and would hold Parquet: call it .parquet" in said
        assert not (tmp_path / name).exists()


def test_many_classes_are_told_of_before_the_work_or_refused(write, reference, tmp_path, monkeypatch):
    train, out = write("train.parquet", lists(X), Y), tmp_path / "o.parquet"
    monkeypatch.setattr("sava_ops.forecast.CLASS_SECONDS", 1.0)
    said = sava("value", train, reference, "-o", out)[1]
    assert f"{len(X) + len(RX)} points of {len(set(Y))} classes: minutes before the first value, about " in said
    monkeypatch.setattr("sava_ops.forecast.CLASS_BYTES", 10**15)
    assert "take fewer reference points, merge classes" in refused("value", train, reference, "-o", out)
