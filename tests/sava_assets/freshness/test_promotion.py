"""Which images of the pool may judge others: those that people confirmed, and none of the test set."""

import hashlib
import json

import pyarrow as pa
import pytest
import yaml

from sava_assets.freshness.promotion import confirmed
from sava_assets.home.resources import Workspace
from sava_assets.home.result import Output, table_file
from sava_ops.decisions.audit import is_audited
from sava_ops.errors import BadInput

POOL = {
    "a": [("a/0", "cat", "h0"), ("a/1", "dog", "h1"), ("a/2", "cat", "h2"), ("a/3", "dog", "h3")],
    "b": [("b/0", "cat", "h0"), ("b/1", "dog", "h2"), ("b/2", "dog", "h4")],
}


def hashed(picture: str, *, audited: bool = False) -> str:
    """Of a picture that may be promoted, or is kept for the audit."""
    names = (hashlib.sha256(f"{picture}{k}".encode()).hexdigest() for k in range(1_000))
    return next(name for name in names if is_audited(name, seed=0) == audited)


class Home:
    """A home with the shards of `POOL`, `review.promote`, and decisions."""

    def __init__(self, folder, **settings) -> None:
        self.workspace = Workspace(home=str(folder))
        folder.mkdir(exist_ok=True)
        (folder / "sava.yaml").write_text(yaml.safe_dump({"review": {"promote": True}} | settings))
        for shard, rows in POOL.items():
            self.put("raw_images", rows, shard)

    def put(self, asset: str, rows: list[tuple[str, str, str]], shard: str | None = None) -> None:
        rows = [(name, label, hashed(picture, audited=picture == "audited")) for name, label, picture in rows]
        columns = dict(zip(("id", "label", "pixel_hash"), map(list, zip(*rows, strict=True)), strict=True))
        store, output = self.workspace.store, Output({"points.parquet": table_file(pa.table(columns))})
        store.set_current(store.save(asset, hashed(f"{asset}{rows}")[:32], output), shard)

    def decide(self, **decisions: str) -> None:
        """Of pixel hashes: a word, or a label to relabel them."""
        rows = [
            {"pixel_hash": hashed(name, audited=name == "audited"), "decision": word, "when": "2026-01-01"}
            if word in ("keep", "drop")
            else {
                "pixel_hash": hashed(name, audited=name == "audited"),
                "decision": "relabel",
                "label": word,
                "when": "2026-01-01",
            }
            for name, word in decisions.items()
        ]
        folder = self.workspace.root / "decisions"
        folder.mkdir(exist_ok=True)
        (folder / "mine.json").write_text(json.dumps(rows))

    def confirmed(self, *, proven: bool = False, shards: tuple[str, ...] = ("a", "b")):
        return confirmed(self.workspace, shards, proven=proven)


@pytest.fixture
def home(tmp_path) -> Home:
    return Home(tmp_path / "home")


def test_what_stays_is_confirmed_once_for_each_picture_under_the_label_that_holds(home):
    assert home.confirmed() == {}
    home.decide(h0="keep", h1="cat", h3="drop", h4="dog", elsewhere="keep")
    assert home.confirmed() == {"a": {"a/0": "cat", "a/1": "cat"}, "b": {"b/2": "dog"}}
    assert home.confirmed(shards=("b",)) == {"b": {"b/0": "cat", "b/2": "dog"}}


def test_of_copies_under_two_labels_keep_says_nothing_and_a_label_everything(home):
    home.decide(h2="keep")
    assert home.confirmed() == {}
    home.decide(h2="dog")
    assert home.confirmed() == {"a": {"a/2": "dog"}}


def test_no_image_of_the_test_set_is_confirmed_nor_any_before_that_is_known(home):
    home.decide(h0="keep", h1="keep")
    assert home.confirmed(proven=True) == {}
    home.put("test_images", [("test/0", "cat", "h0"), ("test/1", "cat", "x")])
    assert home.confirmed(proven=True) == {"a": {"a/1": "dog"}}
    # Another test set is another answer, whatever was noted.
    home.put("test_images", [("test/0", "dog", "h1")])
    assert home.confirmed(proven=True) == {"a": {"a/0": "cat"}}


def test_a_share_of_all_images_stays_in_the_pool_to_be_sampled_from(home):
    home.put("raw_images", [("a/0", "cat", "audited"), ("a/1", "cat", "h1")], "a")
    home.decide(audited="keep", h1="keep")
    assert home.confirmed() == {"a": {"a/1": "cat"}}


def test_without_being_asked_nothing_is_confirmed(tmp_path):
    home = Home(tmp_path / "home", review={"sample": 3})
    home.decide(h0="keep")
    assert home.confirmed() == {}


def test_who_refuses_what_is_in_two_sets_cannot_promote(tmp_path):
    home = Home(tmp_path / "home", overlap="refuse")
    with pytest.raises(
        BadInput, match=r"`review.promote` takes confirmed images out of the pool .* `overlap` is refuse"
    ):
        home.confirmed()


def test_decisions_that_cannot_be_read_are_named(home):
    home.decide(h0="keep")
    (home.workspace.root / "decisions" / "mine.json").write_text("[{}]")
    with pytest.raises(BadInput, match=r"decisions/mine\.json, row 1"):
        home.confirmed()


def test_being_asked_names_no_result(home):
    assert home.workspace.knobs.review.promote
    assert "promote" not in home.workspace.knobs.value("review")
