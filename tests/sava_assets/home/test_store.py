import json
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pytest
import torch
from upath import UPath

from sava_assets.home.result import DamagedResult, Output, bytes_file, digest, table_file, tensor_file
from sava_assets.home.store import Store, file_name
from sava_ops import BadInput


@pytest.fixture(params=["local", "memory"])
def store(request, tmp_path) -> Store:
    root = UPath(tmp_path / "store") if request.param == "local" else UPath(f"memory://{tmp_path.name}/store")
    return Store(root)


def output() -> Output:
    return Output(
        files={
            "t.parquet": table_file(pa.table({"id": ["a", "b"], "n": [1, 2]})),
            "x.safetensors": tensor_file({"x": torch.arange(6.0).reshape(2, 3).T}),
            "b.bin": bytes_file(b"bytes"),
        },
        numbers={"points": 2},
        pictures={"p": "![](x)"},
    )


def test_what_was_saved_is_found(store):
    saved = store.save("asset", "k1", output())
    found = store.find("asset", "k1")
    assert found == saved
    assert found.numbers == {"points": 2}
    assert found.pictures == {"p": "![](x)"}
    assert found.table("t.parquet").to_pydict() == {"id": ["a", "b"], "n": [1, 2]}
    assert found.table("t.parquet", ["n"]).column_names == ["n"]
    assert torch.equal(found.tensors("x.safetensors")["x"], torch.arange(6.0).reshape(2, 3).T)
    assert found.read("b.bin") == b"bytes"
    assert store.find("asset", "k2") is None
    assert store.find("other", "k1") is None


def test_equal_content_has_equal_data_versions_and_bytes(store):
    one, two = store.save("asset", "k1", output()), store.save("asset", "k2", output())
    assert one.data_version == two.data_version
    assert {n: f.sha256 for n, f in one.files.items()} == {n: f.sha256 for n, f in two.files.items()}
    other = store.save("asset", "k3", Output({"b.bin": bytes_file(b"other")}))
    assert other.data_version != one.data_version
    assert store.save("asset", "k4", Output({}, data_version="given")).data_version == "given"


def test_current_is_what_was_set_last_by_shard(store):
    assert store.current("asset") is None
    for shard, key in ((None, "k1"), ("s", "k2"), ("s", "k3")):
        store.set_current(store.save("asset", key, output()), shard)
    assert store.current("asset").key == "k1"
    assert store.current("asset", "s").key == "k3"
    assert store.current("asset", "other") is None


@pytest.mark.parametrize("letter", ["x", "猫", "🐟"])
def test_shards_with_names_as_long_as_a_file_system_allows_are_told_apart(store, letter):
    longest = letter * (252 // len(letter.encode()))
    for shard in (longest, longest[:-1] + "y", "short"):
        store.set_current(store.save("a", f"key of {shard[-1]}", output()), shard)
        assert len(f"{file_name(shard)}.parquet".encode()) <= 255
    assert store.current("a", longest).key == f"key of {letter}"
    assert store.current("a", longest[:-1] + "y").key == "key of y"
    assert file_name("short") == "short"


def test_a_result_without_its_manifest_does_not_exist(store):
    saved = store.save("asset", "k1", output())
    (store.root / "results" / "asset" / "k1" / "manifest.json").unlink()
    assert saved.files["b.bin"].path.exists()
    assert store.find("asset", "k1") is None


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda path: path.write_bytes(b"bytez"), r"b.bin is damaged \(checksum differs\): materialize asset again"),
        (lambda path: path.write_bytes(b"byt"), r"b.bin is damaged \(checksum differs\)"),
        (lambda path: path.unlink(), "b.bin is missing: materialize asset again"),
    ],
)
def test_damage_is_found_and_named(store, harm, message):
    saved = store.save("asset", "k1", output())
    saved.check()
    harm(saved.files["b.bin"].path)
    with pytest.raises(DamagedResult, match=message):
        saved.check()
    with pytest.raises(DamagedResult, match=message):
        saved.read("b.bin")


def test_a_writer_that_fails_leaves_nothing_behind(store):
    def fail(path):
        path.write_bytes(b"half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        store.save("asset", "k1", Output({"a.bin": bytes_file(b"whole"), "b.bin": fail}))
    assert store.find("asset", "k1") is None
    left = [path.name for path in (store.root / "results").rglob("*") if path.is_file()]
    assert len(left) == 1
    assert left[0].endswith("a.bin")
    if (store.root / "partial").exists():
        assert not list((store.root / "partial").iterdir())


def test_replacing_a_result_replaces_it_whole(store):
    store.save("asset", "k1", output())
    store.save("asset", "k1", Output({"b.bin": bytes_file(b"new")}))
    found = store.find("asset", "k1")
    assert list(found.files) == ["b.bin"]
    assert found.read("b.bin") == b"new"


def test_digest_names_values_and_not_their_order():
    assert digest({"a": 1, "b": [1.5, None]}) == digest({"b": [1.5, None], "a": 1})
    assert digest({"a": 1}) != digest({"a": 1.5})
    assert len(digest({})) == 32


def test_manifest_is_plain_json(store):
    saved = store.save("asset", "k1", output())
    manifest = json.loads((store.root / "results" / "asset" / "k1" / "manifest.json").read_text())
    assert manifest["files"]["b.bin"]["sha256"] == saved.files["b.bin"].sha256


def test_what_is_required_and_not_there_is_said_by_name(store):
    store.set_current(store.save("asset", "k1", output()), "s")
    assert store.require("asset", "s").key == "k1"
    with pytest.raises(BadInput, match=r"^asset\[other\] has no result yet: materialize asset first$"):
        store.require("asset", "other")
    with pytest.raises(BadInput, match=r"^asset has no result yet: materialize asset first$"):
        store.require("asset")


def test_pointers_are_all_that_is_current_whoever_made_it(store):
    for asset, shard, key in (("a", None, "k1"), ("b", "s.1", "k2"), ("b", "corruption/method", "k3")):
        store.set_current(store.save(asset, key, output()), shard)
    assert set(store.pointers()) == {("a", "k1"), ("b", "k2"), ("b", "k3")}
    assert set(Store(store.root / "nothing yet").pointers()) == set()


@pytest.mark.parametrize("left", [b"", b"\0" * 40, b'{"key": ', b"[]", b"\xff\xfe"])
def test_what_a_power_cut_left_of_a_pointer_or_manifest_counts_as_not_there(store, left, caplog):
    saved = store.save("asset", "k1", output())
    store.set_current(saved)
    (store.root / "current" / "asset.json").write_bytes(left)
    assert store.current("asset") is None
    assert list(store.pointers()) == []
    assert "asset.json is damaged and counts as not there" in caplog.text
    store.set_current(saved)
    (store.root / "results" / "asset" / "k1" / "manifest.json").write_bytes(left)
    assert store.current("asset") is None


def test_a_new_file_replaces_nothing(store):
    store.put_json("snapshots/1.json", {"by": "one"}, new=True)
    with pytest.raises(FileExistsError):
        store.put_json("snapshots/1.json", {"by": "another"}, new=True)
    assert store.read_json("snapshots/1.json") == {"by": "one"}
    store.put_json("snapshots/1.json", {"by": "another"})
    assert store.read_json("snapshots/1.json") == {"by": "another"}


def test_a_new_file_on_a_file_system_without_links(tmp_path, monkeypatch):
    def link(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr("os.link", link)
    test_a_new_file_replaces_nothing(Store(UPath(tmp_path)))


def test_of_twenty_writers_of_a_new_file_one_is_told_that_it_came_first(tmp_path):
    def write(number: int) -> bool:
        try:
            Store(UPath(tmp_path)).put_json("one.json", {"by": number}, new=True)
        except FileExistsError:
            return False
        return True

    with ThreadPoolExecutor(20) as writers:
        first = [number for number, won in enumerate(writers.map(write, range(20))) if won]
    assert [Store(UPath(tmp_path)).read_json("one.json")["by"]] == first


def test_parts_are_named_checked_and_followed(store):
    row = store.save("rows", "r1", output())
    whole = store.save("asset", "k1", Output({"b.bin": bytes_file(b"bytes")}, parts=[("rows", "r1")]))
    assert store.find("asset", "k1") == whole
    assert whole.parts == (("rows", "r1"),)
    store.check(whole)
    row.files["t.parquet"].path.write_bytes(b"?")
    with pytest.raises(
        DamagedResult, match=r"t.parquet is damaged .*, of which it is a part: materialize asset"
    ) as told:
        store.check(whole)
    assert told.value.result == whole
    store.forget(row)
    with pytest.raises(DamagedResult, match="rows/r1 is missing: materialize asset again"):
        store.check(whole)
    store.forget(whole)
    assert store.find("asset", "k1") is None
