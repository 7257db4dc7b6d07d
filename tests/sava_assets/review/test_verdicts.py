"""A person outranks the algorithm, the later one the earlier."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sava_assets.formats.decision_files import PersonDecision
from sava_assets.review.verdicts import refuse_unknown_labels, resolved, ruled
from sava_ops import BadInput

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)


def said(image: str, decision: str, label: str | None = None, *, minute: int = 0, who: str = "ann") -> PersonDecision:
    return PersonDecision(image, decision, label, who, NOON + timedelta(minutes=minute), "", f"d.json, row {minute}")


WORDS = st.sampled_from([("keep", None), ("drop", None), ("relabel", "x"), ("accept", None), ("accept", "x")])


@given(st.lists(st.tuples(st.sampled_from("pq"), WORDS), unique_by=lambda _: object(), max_size=8), st.randoms())
def test_the_latest_holds_whatever_the_order(made, chance):
    decisions = [said(image, *word, minute=k) for k, (image, word) in enumerate(made)]
    mixed = list(decisions)
    chance.shuffle(mixed)
    verdicts = resolved(mixed)
    assert verdicts.standing == {each.pixel_hash: each for each in decisions}
    ways = {image: {d.outcome for d in decisions if d.pixel_hash == image} for image in "pq"}
    assert verdicts.contradicted == sum(len(each) > 1 for each in ways.values())


def test_of_equally_late_ones_the_one_that_is_read_last_holds():
    one, other = said("p", "keep"), said("p", "drop")
    assert resolved([one, other]).standing["p"] is other
    assert resolved([other, one]).standing["p"] is one


def test_agreeing_in_other_words_is_no_contradiction():
    assert resolved([said("p", "accept", minute=1), said("p", "drop", minute=2)]).contradicted == 0
    assert resolved([said("p", "accept", "x", minute=1), said("p", "relabel", "x", minute=2)]).contradicted == 0
    assert resolved([said("p", "relabel", "x", minute=1), said("p", "relabel", "y", minute=2)]).contradicted == 1


def test_a_contradiction_is_named_with_both_sides():
    found = resolved([said("p", "drop", minute=7), said("p", "relabel", "x", minute=9, who="bob")]).examples()
    assert found == [
        "ann: drop (2026-01-31 12:07, d.json, row 7) gives way to bob: relabel x (2026-01-31 12:09, d.json, row 9)"
    ]


ALGORITHM = [("keep", "a"), ("drop", None), ("relabel", None), ("relabel", "x"), ("review", None), ("review", "a")]
"""Action and curated label of an image that came as "a"."""


@pytest.mark.parametrize("algorithm", ALGORITHM)
@pytest.mark.parametrize(
    ("decision", "expected"),
    [
        (said("p", "keep"), (True, "keep", "a")),
        (said("p", "drop"), (False, "drop", None)),
        (said("p", "relabel", "y"), (False, "relabel", "y")),
        (said("p", "relabel", "a"), (True, "keep", "a")),
        (said("p", "accept", "y"), (False, "relabel", "y")),
        (said("p", "accept"), (False, "drop", None)),
    ],
)
def test_a_person_outranks_whatever_the_algorithm_says(algorithm, decision, expected):
    action, curated = algorithm
    columns, decided = ruled([action] * 2, [curated] * 2, ["a", "a"], ["p", "other"], resolved([decision]))
    rows = [{name: column[k].as_py() for name, column in columns.items()} for k in range(2)]
    assert (rows[0]["keep"], rows[0]["action"], rows[0]["curated_label"]) == expected
    assert (rows[0]["algorithm_action"], rows[0]["algorithm_label"], rows[0]["decided_by"]) == (action, curated, "ann")
    # The other image is the algorithm's alone; what stays with its label is kept.
    assert (rows[1]["action"], rows[1]["curated_label"], rows[1]["decided_by"]) == (action, curated, None)
    assert rows[1]["keep"] == (algorithm in [("keep", "a"), ("review", "a")])
    assert decided.tolist() == [True, False]


def test_a_label_that_no_class_has_is_refused_if_its_image_is_there():
    verdicts = resolved([said("p", "relabel", "Cat ", minute=3), said("gone", "relabel", "dodo")])
    refuse_unknown_labels(verdicts, {"q"}, ["cat", "dog"])
    with pytest.raises(BadInput, match=r"d.json, row 3: no class is called 'Cat ' \(it is written 'cat'\): correct"):
        refuse_unknown_labels(verdicts, {"p"}, ["cat", "dog"])
    with pytest.raises(BadInput, match=r"no class is called 'dodo' \(there are cat, dog\): .* into the reference set"):
        refuse_unknown_labels(verdicts, {"gone"}, ["cat", "dog"])
    refuse_unknown_labels(resolved([said("p", "accept", "cat"), said("q", "drop")]), {"p", "q"}, ["cat"])
