"""What a person is shown: which images, what is new, and the realised rate of false discoveries."""

import pyarrow as pa
import pytest

from sava_assets.review.shown import MOST_LINES, changes, in_words, realised, tables, to_show, with_people

POINTS = pa.table(
    {
        "id": ["a", "b", "c", "d"],
        "label": ["cat", "cat", "dog", "dog"],
        "suggested_label": ["dog", "cat", "cat", "dog"],
        "shard": ["s", "t", "s", "t"],
        "evidence": [5.0, 9.0, 7.0, 1.0],
        "p_value": [0.01, 0.001, 0.004, 0.9],
        "expected_bad": [1.0, 0.8, 1.1, -0.1],
        "action": ["relabel", "drop", "review", "keep"],
        "curated_label": [None, None, "dog", "dog"],
    }
)


def test_every_flagged_image_is_shown_the_most_evident_first():
    assert to_show(with_people(POINTS))["id"].to_pylist() == ["b", "c", "a"]


def test_what_a_person_decided_is_shown_though_it_was_not_flagged():
    decided = with_people(POINTS).drop(["decided_by"]).append_column("decided_by", pa.array([None] * 3 + ["ann"]))
    assert to_show(decided)["id"].to_pylist() == ["b", "c", "a", "d"]


def test_tables_count_by_class_and_shard_and_name_what_is_confused():
    found = tables(with_people(POINTS), judges=1_000_000)
    assert [line[:2] + line[3:] for line in found["label"]["lines"]] == [["cat", 2, 2, 2], ["dog", 2, 1, 0]]
    assert [line[:2] + line[3:] for line in found["shard"]["lines"]] == [["s", 2, 2, 1], ["t", 2, 1, 1]]
    # Two images tell little; so many judges leave no more doubt.
    assert found["shard"]["lines"][0][2] == [1.0, pytest.approx(1 - 1.96 * 0.05 / 2**0.5, abs=1e-3), 1.0]
    assert found["label"]["lines"][1][2] == [0.5, 0.0, 1.0]
    assert found["confusions"] == {"lines": [["cat", "dog", 1], ["dog", "cat", 1]], "more": 0}


def test_long_tables_say_how_much_is_left():
    many = pa.concat_tables([POINTS.slice(0, 1)] * (MOST_LINES + 3))
    names = pa.array([f"s{k}" for k in range(len(many))])
    found = tables(with_people(many.set_column(many.column_names.index("shard"), "shard", names)), judges=10)
    assert (len(found["shard"]["lines"]), found["shard"]["more"]) == (MOST_LINES, 3)


def test_what_is_new_since_the_last_curation():
    points = with_people(POINTS)
    before = pa.table({"id": ["a", "b", "d", "gone"], "action": ["keep", "review", "drop", "keep"]})
    news, counts = changes(to_show(points), points, before)
    assert news == ["was review", "new image", "newly flagged"]
    assert counts == {
        "was review": 1, "new image": 1, "newly flagged": 1, "no longer flagged": 1, "gone from the pool": 1
    }  # fmt: skip
    assert changes(to_show(points), points, None) == (["", "", ""], None)


def sample(rows: list[tuple[str, str | None, str, bool]]) -> pa.Table:
    """Of (pixel hash, decided by, action, whether it was drawn)."""
    names = ("pixel_hash", "decided_by", "action", "sample")
    return pa.table({name: pa.array([row[k] for row in rows]) for k, name in enumerate(names)})


def test_the_realised_rate_counts_each_sampled_image_once_and_no_other():
    rows = [
        ("p", "ann", "keep", True),
        ("p", "ann", "keep", True),  # a copy
        ("q", "ann", "drop", True),
        ("r", "bob", "relabel", True),
        ("s", None, "drop", True),
        ("t", "ann", "keep", False),
    ]
    rate = realised(sample(rows), 0.05)
    assert (rate["sample"], rate["sample_decided"], rate["sample_clean"]) == (4, 3, 1)
    assert rate["realised_false_discovery_rate"] == pytest.approx(1 / 3)
    assert in_words(rate) == (
        "false discoveries: 5.0% nominal; realised 33.3% (95 % interval 0.8% to 90.6%): 1 clean among 3 decided of a "
        "sample of 4"
    )


def test_without_decisions_and_without_a_nominal_rate_it_says_so():
    rate = realised(sample([("p", None, "drop", True)]), None)
    assert (rate["realised_false_discovery_rate"], rate["realised_low"], rate["realised_high"]) == (None, 0.0, 1.0)
    assert in_words(rate) == "false discoveries: a fixed share is cut; of the sample of 1 nothing is decided yet"
