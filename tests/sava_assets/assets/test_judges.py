"""Too few reference images are named with what to do; enough of them are no warning."""

import numpy as np
import pytest

from sava_assets.assets.judges import Judges
from sava_assets.home.resources import Knobs
from sava_ops.decisions.conformal import benjamini_hochberg, conformal_p_values

TRAINED = {"encoder": {"source": "train"}}
RATE = "at a false-discovery rate of 5% nothing is flagged of a pool that is less than"
HALF = "half of the reference set trains the encoder"


def judges(counts: dict[str, int], settings: dict | None = None) -> Judges:
    return Judges(counts, Knobs.model_validate(settings or {}))


def test_two_hundred_images_are_enough_whatever_their_classes():
    twenty_each = judges({str(k): 17 + 6 * (k % 2) for k in range(10)}, TRAINED)
    assert twenty_each.enough
    assert twenty_each.in_words() == "200 reference images judge 10 classes, at least 17 each"
    assert judges({str(k): 5 for k in range(100)}).enough


@pytest.mark.parametrize(
    ("counts", "told"),
    [
        ({"cat": 4, "dog": 400}, "fewer than 5 judge, cat (4): add images of them"),
        (
            {"cat": 1, "dog": 1, "ibis": 3, "owl": 400},
            "cat (1), dog (1), ibis (3), of which 2 are never blamed, having one image: add images of them",
        ),
    ],
)
def test_classes_with_few_images_are_named(counts, told):
    assert not judges(counts).enough
    assert told in judges(counts).in_words()
    assert RATE not in judges(counts).in_words()


@pytest.mark.parametrize(("each", "share"), [(5, 0.39), (10, 0.2), (15, 0.13)])
def test_a_reference_with_which_nothing_usual_is_flagged_says_how_many_it_takes(each, share):
    few = judges({str(k): each for k in range(10)})
    assert not few.enough
    assert f"{RATE} {share:.0%} bad: let 199 judge" in few.in_words()


def test_another_rate_takes_other_numbers_and_a_fixed_share_none():
    counts = {str(k): 10 for k in range(10)}
    assert judges(counts, {"prune": {"false_discovery_rate": 0.1}}).enough
    assert judges(counts, {"prune": {"fraction": 0.2}}).enough
    assert "let 999 judge" in judges(counts, {"prune": {"false_discovery_rate": 0.01}}).in_words()


@pytest.mark.parametrize(
    ("settings", "told"), [(TRAINED, True), (TRAINED | {"clean_train": "more"}, False), ({}, False)]
)
def test_the_half_that_trains_is_spoken_of_where_there_is_one(settings, told):
    assert (HALF in judges({"cat": 3}, settings).in_words()) == told


@pytest.mark.parametrize(("reference", "rate"), [(39, 0.05), (99, 0.1), (199, 0.05)])
def test_the_least_share_is_the_one_from_which_on_the_cut_begins(reference, rate):
    """On a pool whose bad images all lie above every held-out one."""
    least = judges({"a": reference}, {"prune": {"false_discovery_rate": rate}}).least_bad_share
    assert least == pytest.approx(1 / (rate * (reference + 1)))
    clean, pool = np.linspace(0, 1, reference), 1_000
    for bad, flagged in ((round(least * pool), True), (round(least * pool) - 1, False)):
        values = np.r_[np.full(bad, 2.0), np.full(pool - bad, -1.0)]
        p_values = conformal_p_values(values, clean, np.ones(reference))
        assert benjamini_hochberg(p_values, rate=rate).any() == flagged
