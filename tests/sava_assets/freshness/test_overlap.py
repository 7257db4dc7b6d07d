"""Which training images stand in a clean set, and that a look does not compare twice."""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pytest
from upath import UPath

from sava_assets.freshness import overlap as module
from sava_assets.freshness.near import threshold
from sava_assets.freshness.overlap import CLEAN_SETS, in_words, overlap, refuse_near_images, shared_rows, valued
from sava_assets.home.result import Output, table_file
from sava_assets.home.store import Store
from sava_ops import BadInput
from sava_ops.images.perceptual_hash import HASH_BYTES


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
        compared.append(other["id"][0].as_py().split("/")[0] + "_images")
        return shared_rows(one, other)

    monkeypatch.setattr(module, "shared_rows", counted)
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


LOOKED_AT = {**FIELDS, "label": pa.string(), "role": pa.string(), "perceptual_hash": pa.binary(HASH_BYTES)}


def put_looks(store: Store, asset: str, hashes: Mapping[str, bytes | None], shard: str | None = None) -> None:
    """A set of images that look like this, all with other pixels, of two classes."""
    ids = list(hashes)
    columns = {
        "id": ids,
        "pixel_hash": ids,
        "label": [f"{k % 2}" for k in range(len(ids))],
        "role": ["promoted" if name.startswith("promoted/") else "valuation" for name in ids],
        "perceptual_hash": list(hashes.values()),
    }
    key = f"{len(list(store.root.rglob('manifest.json')))}"
    output = Output({"points.parquet": table_file(pa.table(columns, pa.schema(LOOKED_AT)))}, {"images": len(ids)})
    store.set_current(store.save(asset, key, output), shard)


@pytest.fixture
def looked_at(tmp_path) -> Store:
    """Random reference and test images; the shard has near images of two, one that is exact, one flat, one new."""
    store, rng = Store(UPath(tmp_path)), np.random.default_rng(0)
    known = [rng.bytes(HASH_BYTES) for _ in range(80)]
    put_looks(store, "reference_images", {f"reference/{k}": one for k, one in enumerate(known)})
    put_looks(store, "test_images", {f"test/{k}": rng.bytes(HASH_BYTES) for k in range(20)} | {"test/x": known[5]})
    near = bytes([known[3][0] ^ 5, *known[3][1:]])
    mirrored = bytes(byte ^ (255 if k % 16 >= 8 else 0) for k, byte in enumerate(known[4]))
    shard = {
        "s/0": near,
        "s/1": mirrored,
        "reference/7": known[7],
        "s/2": None,
        "s/3": rng.bytes(HASH_BYTES),
        "s/4": known[5],
    }
    put_looks(store, "raw_images", shard, "s")
    return store


def test_near_images_are_named_as_such_and_exact_ones_as_they_were(looked_at):
    assert overlap(looked_at, "s", CLEAN_SETS) == {
        "s/0": "nearly the same as an image of the reference set (reference/3)",
        "s/1": "nearly the same as an image of the reference set (reference/4)",
        "s/4": "nearly the same as an image of the reference set (reference/5)",
        "reference/7": "also in the reference set (reference/7)",
    }
    found = overlap(looked_at, "s", ["test_images"])
    assert found == {"s/4": "nearly the same as an image of the test set (test/x)"}
    assert in_words({"s": overlap(looked_at, "s", CLEAN_SETS)}) == (
        "4 training images are set aside, being in the reference or test set too (3 of them nearly): 4 of s"
    )


def test_near_images_are_refused_where_that_is_asked(looked_at):
    shard, reference = looked_at.require("raw_images", "s"), looked_at.require("reference_images")
    message = r"s nearly shares 4 images with the reference set \(first: s/0 is nearly reference/3\): remove them from"
    with pytest.raises(BadInput, match=message):
        refuse_near_images(looked_at, {"s": shard}, "reference", reference)
    put_looks(looked_at, "raw_images", {"s/9": np.random.default_rng(9).bytes(HASH_BYTES)}, "s")
    refuse_near_images(looked_at, {"s": looked_at.require("raw_images", "s")}, "reference", reference)


def test_too_few_reference_images_set_nothing_aside_and_their_exact_copies_count_once(looked_at):
    kept = {
        "reference/0": np.random.default_rng(0).bytes(HASH_BYTES),
        "reference/1": np.random.default_rng(1).bytes(HASH_BYTES),
    }
    put_looks(looked_at, "reference_images", kept)
    assert overlap(looked_at, "s", CLEAN_SETS) == {}
    rng = np.random.default_rng(0)
    put_looks(looked_at, "reference_images", {f"reference/{k}": rng.bytes(HASH_BYTES) for k in range(80)})
    reference = looked_at.require("reference_images")
    within = threshold(looked_at, reference, among=80)
    assert within > 10
    points = reference.table("points.parquet")
    twice = pa.concat_tables([points, points.slice(0, 30)])
    again = looked_at.save("reference_images", "twice", Output({"points.parquet": table_file(twice)}))
    assert threshold(looked_at, again, among=80) == within


def test_promoted_images_neither_say_how_near_is_near_nor_set_their_near_copies_aside(looked_at):
    rng = np.random.default_rng(5)
    given = {f"reference/{k}": rng.bytes(HASH_BYTES) for k in range(80)}
    put_looks(looked_at, "reference_images", given)
    within = threshold(looked_at, looked_at.require("reference_images"), among=80)
    alike = {f"promoted/s/{k}": bytes([k, *given["reference/0"][1:]]) for k in range(40)}
    put_looks(looked_at, "reference_images", given | alike | {"promoted/s/x": rng.bytes(HASH_BYTES)})
    reference = looked_at.require("reference_images")
    assert threshold(looked_at, reference, among=80) == within > 10
    put_looks(looked_at, "raw_images", {"s/x": reference.table("points.parquet")["perceptual_hash"][-1].as_py()}, "s")
    assert overlap(looked_at, "s", CLEAN_SETS) == {}
