"""Limits of what is published: each by its sentence, what it waits for, and what it leaves alone."""

import time

import pyarrow as pa
import pytest
import yaml

from sava_assets.freshness.history import collect_garbage
from sava_assets.freshness.limits import HELD, WAITS, group_numbers, judged
from sava_assets.freshness.snapshots import SNAPSHOTS, Snapshot, published, snapshots
from sava_assets.home.resources import Workspace
from sava_assets.home.result import Output, table_file
from sava_ops.errors import BadInput

WITHIN = {
    "points": 1_000,
    "cut": 100,
    "bad_share_of_shard": {"monday": 0.1, "tuesday": 0.3, "wed\x1bnesday": 0.6},
    "images_of_class": {"cat": 400, "dog": 90},
}
PUBLISHED = "before"


class Home:
    """A home of results that are nothing but numbers."""

    def __init__(self, root):
        self.workspace = Workspace(home=str(root))
        self.store = self.workspace.store
        self.put("pruned_dataset", "now", WITHIN)
        self.put("reference_embeddings", "judges")
        self.put("reference_images", "judges", {"classes": ["cat", "dog", "emu"]})
        self.trust(2)

    def put(self, asset, version, numbers=(), inputs=(), *, current=True, files=()):
        result = self.store.save(
            asset, f"{asset}-{version}", Output(dict(files), dict(numbers), data_version=version), dict(inputs)
        )
        if current:
            self.store.set_current(result)

    def trust(self, suspicious, judges="judges"):
        numbers = {"points": 100, "suspicious": suspicious}
        self.put("reference_values", f"{judges}-{suspicious}", numbers, {"reference_embeddings": {"": judges}})

    def accuracy(self, version, mean, *, test="test", steps=1, current=True):
        inputs = {"pruned_dataset": {"": version}, "test_images": {"": test}, "knobs": {"steps": steps}}
        name = f"{version}-{mean}-{test}-{steps}"
        self.put("probe_accuracy", name, {"pruned_mean": mean}, inputs, current=current)
        return f"probe_accuracy-{name}"

    def row(self, number, version, held_back="", **results):
        results["pruned_dataset"] = f"pruned_dataset-{version}"
        row = Snapshot(number, time.time(), results, {}, {}, held_back)
        self.store.put_json(f"{SNAPSHOTS}/{number:06}.json", vars(row))

    def judged(self, *, proven=True, **settings):
        (self.workspace.root / "sava.yaml").write_text(yaml.safe_dump(settings))
        return judged(self.workspace, proven=proven)


@pytest.fixture
def home(tmp_path) -> Home:
    return Home(tmp_path)


EXCEEDED = {
    "brake": ({"prune": {"brake": 0.05}}, "100 of 1,000 images would be cut, more than `prune.brake` allows (5%)"),
    "shard": (
        {"gates": {"shard_bad_share": 0.5}},
        "of the shards wed\\x1bnesday is about 60% bad, more than `gates.shard_bad_share` allows (50%)",
    ),
    "shards": (
        {"gates": {"shard_bad_share": 0.1}},
        "of the shards wed\\x1bnesday is about 60% bad, tuesday is about 30% bad, more than",
    ),
    "class": (
        {"gates": {"class_images": 90}},
        "of the classes emu would have 0 images of 90 that `gates.class_images` wants",
    ),
    "classes": (
        {"gates": {"class_images": {"cat": 500, "dog": 90, "yak": 1}}},
        "of the classes cat would have 400 images of 500, yak would have 0 images of 1 that",
    ),
}
PASSING = [
    {},
    {"prune": {"brake": 0.1}},
    {"prune": {"brake": 0.05, "fraction": 0.2}},
    {"prune": {"brake": 0.05, "confirm": True}},
    {"prune": {"brake": 0.05, "dry_run": True}},
    {"gates": {"shard_bad_share": 0.6, "class_images": {"cat": 400, "dog": 90}, "reference_trusted": True}},
]


@pytest.mark.parametrize("name", EXCEEDED)
def test_what_is_beyond_a_limit_is_held_back_and_says_why(home, name):
    settings, told = EXCEEDED[name]
    (kind, sentence), = home.judged(**settings).items()  # fmt: skip
    assert kind == HELD
    assert sentence.startswith(f"held back, and what is published stays as it is: {told}")
    assert sentence.endswith('or let this one pass with `gates: {confirm: "now"}`')
    assert ("prune: {confirm: true}" in sentence) == (name == "brake")


def test_half_of_the_images_may_be_cut_unasked(home):
    home.put("pruned_dataset", "half", {**WITHIN, "cut": 500})
    assert home.judged() == {}
    home.put("pruned_dataset", "more", {**WITHIN, "cut": 501})
    assert "501 of 1,000 images would be cut, more than `prune.brake` allows (50%)" in home.judged()[HELD]
    assert home.judged(prune={"brake": 0.9}) == {}


@pytest.mark.parametrize("settings", PASSING)
def test_what_is_within_the_limits_names_nothing(home, settings):
    assert home.judged(**settings) == {}


def test_all_limits_that_are_exceeded_are_named_and_of_many_groups_the_first(home):
    many = {f"class {k}": 5 for k in range(6)}
    sentence = home.judged(prune={"brake": 0.05}, gates={"shard_bad_share": 0.5, "class_images": many})[HELD]
    assert sentence.count("; of the ") == 2
    assert "class 2 would have 0 images of 5 and 3 more that" in sentence


def test_one_curation_is_let_pass_by_its_name_and_no_other(home):
    assert home.judged(gates={"shard_bad_share": 0.5, "confirm": "now"}) == {}
    assert HELD in home.judged(gates={"shard_bad_share": 0.5, "confirm": "yesterday"})


def test_a_limit_that_is_set_later_takes_nothing_back(home):
    home.row(1, "now")
    assert home.judged(gates={"shard_bad_share": 0.5}) == {}
    home.row(2, "other", held_back="too much")
    assert home.judged(gates={"shard_bad_share": 0.5}) == {}
    home.put("pruned_dataset", "third", WITHIN)
    assert HELD in home.judged(gates={"shard_bad_share": 0.5})


def test_a_reference_set_that_is_not_trusted_holds_back_and_one_not_looked_at_yet_is_waited_for(home):
    home.trust(3)
    told = home.judged(gates={"reference_trusted": True})[HELD]
    assert "3 of 100 reference images look as if they should not judge, more than `gates.reference_trusted`" in told
    assert home.judged() == {}
    home.trust(0, judges="others")
    assert home.judged(gates={"reference_trusted": True}) == {WAITS: "reference_values"}


def test_an_accuracy_is_compared_with_that_of_the_last_published_curation(home):
    old, better = home.accuracy("old", 0.8, current=False), home.accuracy("better", 0.95, current=False)
    home.put("pruned_dataset", "old", WITHIN, current=False)
    home.row(1, "old", probe_accuracy=old)
    home.row(2, "better", held_back="too much", probe_accuracy=better)
    limit = {"accuracy_drop": 0.05}
    assert home.judged(gates=limit) == {WAITS: "probe_accuracy"}
    home.accuracy("now", 0.76)
    assert home.judged(gates=limit) == {}
    home.accuracy("now", 0.74)
    told = home.judged(gates=limit)[HELD]
    assert "fell from 0.800 (curation 1) to 0.740, by more than `gates.accuracy_drop` allows (0.05)" in told
    home.row(3, "unproven")
    assert HELD in home.judged(gates=limit)


@pytest.mark.parametrize("other", [{"test": "another"}, {"steps": 2}])
def test_accuracies_that_say_nothing_of_each_other_are_not_compared(home, other):
    home.row(1, "old", probe_accuracy=home.accuracy("old", 0.9, current=False))
    home.accuracy("now", 0.1, **other)
    assert home.judged(gates={"accuracy_drop": 0.05}) == {}


def test_the_first_accuracy_has_none_before_it(home):
    home.accuracy("now", 0.1)
    assert home.judged(gates={"accuracy_drop": 0.0}) == {}


def test_a_limit_on_accuracy_needs_a_test_set(home):
    with pytest.raises(BadInput, match=r"`gates.accuracy_drop` compares accuracies, and there is no test set: put "):
        home.judged(gates={"accuracy_drop": 0.1}, proven=False)


def test_a_cut_that_was_stored_without_these_numbers_is_looked_at_itself(home):
    points = pa.table(
        {
            "shard": 20 * ["a", "a", "b", "b"],
            "action": 20 * ["keep", "drop", "keep", "set_aside"],
            "p_value": pa.array(20 * [0.9, 0.0, 0.9, None]),
            "curated_label": pa.array(20 * ["cat", None, "cat", None]),
        }
    )
    found = group_numbers(points, cut=1)
    assert found["images_of_class"] == {"cat": 40}
    assert found["bad_share_of_shard"] == {"a": pytest.approx(1 - 0.5 / 0.99), "b": 0.0}
    home.put("pruned_dataset", "older", {"points": 80}, files={"points.parquet": table_file(points)})
    told = home.judged(gates={"shard_bad_share": 0.4, "class_images": {"cat": 41}})[HELD]
    assert "a is about 49% bad" in told
    assert "cat would have 40 images of 41" in told


def test_the_published_curation_outlives_later_ones_that_were_held_back(home):
    for number, held in ((1, ""), (2, ""), (3, "too much"), (4, "too much")):
        home.row(number, str(number), held)
    assert [row.number for row in published(home.store)] == [2, 1]
    collect_garbage(home.workspace, [], keep=1, grace=0)
    assert [row.number for row in snapshots(home.store)] == [2, 4]
    collect_garbage(home.workspace, [], keep=0, grace=0)
    assert snapshots(home.store) == []
