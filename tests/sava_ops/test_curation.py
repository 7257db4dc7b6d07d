"""Corruptions, detection scores and pruning masks."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sava_ops import BadInput
from sava_ops.corruptions import noisy_labels
from sava_ops.detection import auroc, found_in_top
from sava_ops.pruning import keep_lowest, keep_random

VALUES = st.lists(st.integers(-5, 5), min_size=2, max_size=40).map(lambda v: np.array(v, dtype=np.float64))


@given(st.integers(1, 200), st.floats(0, 1), st.integers(2, 9), st.integers(0, 9))
def test_noisy_labels_touches_exactly_the_share_and_reports_it(count, share, classes, seed):
    labels = np.random.default_rng(seed).integers(0, classes, count)
    noisy, touched = noisy_labels(labels, share=share, classes=classes, seed=seed)
    np.testing.assert_array_equal(noisy != labels, touched)
    assert touched.sum() == round(share * count)
    assert noisy.min() >= 0
    assert noisy.max() < classes


def test_noisy_labels_is_uniform_over_the_other_classes_and_seeded():
    labels = np.zeros(30_000, dtype=np.int64)
    noisy, _ = noisy_labels(labels, share=1.0, classes=4, seed=0)
    assert np.bincount(noisy, minlength=4)[0] == 0
    np.testing.assert_allclose(np.bincount(noisy)[1:] / 30_000, 1 / 3, atol=0.02)
    np.testing.assert_array_equal(noisy, noisy_labels(labels, share=1.0, classes=4, seed=0)[0])
    assert (noisy != noisy_labels(labels, share=1.0, classes=4, seed=1)[0]).any()


def test_noisy_labels_refuses_what_makes_no_sense():
    labels = np.zeros(3, dtype=np.int64)
    with pytest.raises(BadInput, match=r"`share` is 1.5: it must be between 0 and 1"):
        noisy_labels(labels, share=1.5, classes=2, seed=0)
    with pytest.raises(BadInput, match="`classes` is 1: a wrong label needs at least 2"):
        noisy_labels(labels, share=0.5, classes=1, seed=0)


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


@given(VALUES, st.floats(0, 0.999))
def test_pruning_takes_the_highest_values_and_exactly_the_fraction(values, fraction):
    keep = keep_lowest(values, fraction=fraction)
    assert (~keep).sum() == int(fraction * len(values))
    if not keep.all():
        assert values[~keep].min() >= values[keep].max()
    assert keep_random(len(values), fraction=fraction, seed=0).sum() == keep.sum()


def test_ties_are_broken_by_position_and_chance_by_seed():
    np.testing.assert_array_equal(keep_lowest(np.zeros(4), fraction=0.5), [True, True, False, False])
    one, again, other = (keep_random(50, fraction=0.5, seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, again)
    assert (one != other).any()


@pytest.mark.parametrize("fraction", [-0.1, 1.0])
def test_pruning_refuses_a_fraction_that_leaves_nothing(fraction):
    with pytest.raises(BadInput, match=f"`fraction` is {fraction}: it must be 0 or above and below 1"):
        keep_lowest(np.zeros(4), fraction=fraction)
