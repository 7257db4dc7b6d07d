"""How well a ranking finds what is bad."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sava_ops import BadInput
from sava_ops.decisions.detection import auroc, average_precision, detection_curve, found_in_top

VALUES = st.lists(st.integers(-5, 5), min_size=2, max_size=40).map(lambda v: np.array(v, dtype=np.float64))


@given(VALUES, st.integers(0, 99))
def test_auroc_is_the_share_of_pairs_in_the_right_order(values, seed):
    bad = np.random.default_rng(seed).random(len(values)) < 0.5
    bad[:2] = [True, False]
    pairs = np.sign(values[bad][:, None] - values[~bad][None, :])
    assert auroc(values, bad) == pytest.approx(float((pairs + 1).mean() / 2))


def test_auroc_needs_both_kinds():
    with pytest.raises(BadInput, match="3 of 3 points are bad: AUROC needs good and bad points"):
        auroc(np.zeros(3), np.ones(3, dtype=bool))
    with pytest.raises(BadInput, match="0 of 3 points are bad"):
        auroc(np.zeros(3), np.zeros(3, dtype=bool))


def test_found_in_top_counts_the_bad_among_the_highest():
    values, bad = np.array([3.0, 9.0, 1.0, 7.0]), np.array([True, True, False, False])
    assert [found_in_top(values, bad, count=n) for n in range(5)] == [0, 1, 1, 2, 2]


@given(VALUES, st.integers(0, 9))
def test_average_precision_is_its_definition(values, seed):
    bad = np.random.default_rng(seed).random(len(values)) < 0.5
    bad[0] = True
    # Over the distinct thresholds: precision times what recall gains there.
    thresholds = sorted(set(values), reverse=True)
    picked = [values >= t for t in thresholds]
    recall = np.array([0.0] + [bad[p].sum() / bad.sum() for p in picked])
    expected = sum(bad[p].mean() * gain for p, gain in zip(picked, np.diff(recall), strict=True))
    assert average_precision(values, bad) == pytest.approx(expected)


def test_a_detection_curve_counts_what_is_found():
    values, bad = np.array([4.0, 3.0, 2.0, 1.0]), np.array([True, False, True, False])
    inspected, found = detection_curve(values, bad, steps=4)
    np.testing.assert_allclose(inspected, [0, 0.25, 0.5, 0.75, 1])
    np.testing.assert_allclose(found, [0, 0.5, 0.5, 1, 1])


@pytest.mark.parametrize(
    ("measure", "name"), [(average_precision, "average precision"), (detection_curve, "a detection curve")]
)
def test_nothing_bad_has_no_measure(measure, name):
    with pytest.raises(BadInput, match=f"none of 3 points is bad: {name} needs one"):
        measure(np.zeros(3), np.zeros(3, dtype=bool))
