"""Which training images stand in a clean set, and that a look does not compare twice."""

import pyarrow as pa
import pytest
from upath import UPath

from sava_assets.freshness import overlap as module
from sava_assets.freshness.overlap import CLEAN_SETS, in_words, overlap, shared_images, valued
from sava_assets.home.result import Output, table_file
from sava_assets.home.store import Store


def put(store: Store, asset: str, images: dict[str, str], shard: str | None = None) -> None:
    """A set of these images: id → pixel hash."""
    table = pa.table({"id": list(images), "pixel_hash": list(images.values())}, pa.schema(FIELDS))
    key = f"{len(list(store.root.rglob('manifest.json')))}"
    store.set_current(store.save(asset, key, Output({"points.parquet": table_file(table)})), shard)


FIELDS = {"id": pa.string(), "pixel_hash": pa.string()}


@pytest.fixture
def store(tmp_path) -> Store:
    store = Store(UPath(tmp_path))
    put(store, "raw_images", {"s/0": "a", "s/1": "b", "s/2": "c", "s/3": "b", "s/4": "d"}, "s")
    put(store, "raw_images", {"t/0": "q"}, "t")
    put(store, "reference_images", {"reference/0": "b", "reference/1": "x"})
    put(store, "test_images", {"test/0": "b", "test/1": "d"})
    return store


def test_every_copy_is_found_with_its_reason_and_the_reference_set_is_named_first(store):
    assert overlap(store, "s", CLEAN_SETS) == {
        "s/1": "also in the reference set (reference/0)",
        "s/3": "also in the reference set (reference/0)",
        "s/4": "also in the test set (test/1)",
    }
    assert overlap(store, "s", ["test_images"]) == {
        "s/1": "also in the test set (test/0)",
        "s/3": "also in the test set (test/0)",
        "s/4": "also in the test set (test/1)",
    }
    assert overlap(store, "t", CLEAN_SETS) == {}


def test_sets_that_are_not_there_are_apart_from_all(store):
    assert overlap(store, "gone", CLEAN_SETS) == overlap(store, "s", []) == {}
    empty = Store(store.root / "empty")
    put(empty, "raw_images", {"s/0": "a"}, "s")
    assert overlap(empty, "s", CLEAN_SETS) == {}


def test_equal_contents_are_compared_once_and_other_contents_again(store, monkeypatch):
    compared = []

    def counted(one, other):
        compared.append(other.asset)
        return shared_images(one, other)

    monkeypatch.setattr(module, "shared_images", counted)
    first = overlap(store, "s", CLEAN_SETS)
    assert overlap(store, "s", CLEAN_SETS) == first
    assert compared == list(CLEAN_SETS)
    put(store, "test_images", {"test/0": "c"})
    assert overlap(store, "s", CLEAN_SETS).keys() == {"s/1", "s/2", "s/3"}
    put(store, "raw_images", {"s/9": "c"}, "s")
    assert overlap(store, "s", CLEAN_SETS) == {"s/9": "also in the test set (test/0)"}
    assert compared == list(CLEAN_SETS) * 3


def test_a_damaged_note_of_what_was_found_is_made_anew(store):
    found = overlap(store, "s", CLEAN_SETS)
    (note,) = (store.root / "looks" / "overlaps").iterdir()
    note.write_bytes(b'{"compared": ')
    assert overlap(store, "s", CLEAN_SETS) == found


def test_the_sentence_counts_by_shard_most_first_and_is_silent_about_nothing():
    aside = {"b": {"b/0": "x"}, "a": {}, "c\n": {str(k): "x" for k in range(1_200)}, "d": {"d/0": "x"}}
    said = in_words(aside)
    assert said.startswith("1,202 training images are set aside, being in the reference or test set too: 1,200 of c")
    assert said.endswith(", 1 of b, 1 of d")
    assert "\n" not in said
    assert in_words({"a": {}}) == in_words({}) == ""


def test_what_is_set_aside_is_not_valued():
    table = pa.table({"id": ["a", "b"], "action": ["keep", "set_aside"]})
    assert valued(table)["id"].to_pylist() == ["a"]
