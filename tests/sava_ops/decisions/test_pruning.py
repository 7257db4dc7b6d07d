"""Masks, bounds and actions."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sava_ops import BadInput
from sava_ops.decisions.assessment import Assessment
from sava_ops.decisions.pruning import PruneRule, decide, keep_lowest, keep_random

VALUES = st.lists(st.integers(-5, 5), min_size=2, max_size=40).map(lambda v: np.array(v, dtype=np.float64))


@given(VALUES, st.floats(0, 0.999))
def test_pruning_takes_the_highest_values_and_exactly_the_fraction(values, fraction):
    keep = keep_lowest(values, fraction=fraction)
    assert (~keep).sum() == int(fraction * len(values))
    if not keep.all():
        assert values[~keep].min() >= values[keep].max()
    assert keep_random(len(values), pruned=int((~keep).sum()), seed=0).sum() == keep.sum()


def test_ties_are_broken_by_position_and_chance_by_seed():
    np.testing.assert_array_equal(keep_lowest(np.zeros(4), fraction=0.5), [True, True, False, False])
    one, again, other = (keep_random(50, pruned=25, seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, again)
    assert (one != other).any()


@pytest.mark.parametrize("fraction", [-0.1, 1.0])
def test_pruning_refuses_a_fraction_that_leaves_nothing(fraction):
    with pytest.raises(BadInput, match=f"`fraction` is {fraction}: it must be 0 or above and below 1"):
        keep_lowest(np.zeros(4), fraction=fraction)


def assessment(values, *, feature_values=None, confidence=1.0, p_values=None) -> Assessment:
    values = np.asarray(values, dtype=float)
    best = values if feature_values is None else np.asarray(feature_values, dtype=float)
    p = np.where(values > 5, 1e-9, 1.0) if p_values is None else p_values
    sure = np.broadcast_to(np.asarray(confidence, dtype=float), values.shape).copy()
    suggested = np.zeros(len(values), dtype=np.int64)
    return Assessment(values, best, values - best, suggested, sure, p, p, values, best, 1 - p)


ANY = PruneRule(class_floor=0.0, cap=1.0)


def test_what_to_do_follows_from_image_label_and_trust():
    found = assessment([1, 9, 9, 9], feature_values=[1, 9, 1, 1], confidence=[1, 1, 0.9, 0.5])
    made = decide(found, np.array([0, 1, 1, 1]), ANY)
    assert made.action.tolist() == ["keep", "drop", "relabel", "review"]
    assert made.keep.tolist() == [True, False, False, False]
    assert made.threshold == 9


def test_clean_points_are_left_alone():
    made = decide(assessment(np.arange(5)), np.zeros(5, dtype=np.int64), ANY)
    assert made.keep.all()
    assert set(made.action) == {"keep"}
    assert made.threshold is None


def test_a_fixed_fraction_flags_the_highest_values_whatever_their_p_values():
    made = decide(
        assessment([3, 1, 2, 4], p_values=np.ones(4)),
        np.zeros(4, dtype=np.int64),
        PruneRule(fraction=0.5, class_floor=0.0),
    )
    assert made.flagged.tolist() == [True, False, False, True]


@given(st.lists(st.integers(0, 9), min_size=1, max_size=60), st.floats(0, 1), st.floats(0, 1), st.integers(0, 9))
def test_bounds_hold_and_spare_the_lowest(values, floor, cap, seed):
    labels = np.random.default_rng(seed).integers(0, 3, len(values))
    made = decide(assessment(values), labels, PruneRule(class_floor=floor, cap=cap))
    values = np.array(values)
    out = ~made.keep
    assert out.sum() <= cap * len(values)
    assert not out[~made.flagged].any()
    for label in np.unique(labels):
        own = labels == label
        assert made.keep[own].sum() >= floor * own.sum()
        spared = own & made.flagged & made.keep
        assert set(made.action[spared]) <= {"review"}
        if out[own].any() and spared.any():
            assert values[spared].max() <= values[own & out].max()


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("fraction", 1.0, "0 or above and below 1, or null"),
        ("false_discovery_rate", 0.0, "above 0 and below 1"),
        ("class_floor", -0.1, "between 0 and 1"),
        ("cap", 1.1, "between 0 and 1"),
        ("relabel_confidence", 2.0, "between 0 and 1"),
    ],
)
def test_rules_out_of_range_name_themselves_and_the_range(name, value, allowed):
    with pytest.raises(BadInput, match=f"`{name}` is {value}: it must be {allowed}"):
        PruneRule(**{name: value})
