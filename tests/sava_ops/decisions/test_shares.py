import numpy as np
import pytest

from sava_ops import value_points
from sava_ops.decisions.conformal import bad_share
from sava_ops.decisions.shares import Mistaken, Seen, beyond_chance, expected_bad, share_of_bad
from tests.toy import clouds


def seen(rng: np.random.Generator, bad: np.ndarray, recognised: float, usual: float) -> np.ndarray:
    """Evidence of which 1 − e^{−…} has these means for bad and clean points."""
    return -np.log1p(-np.where(bad, recognised, usual) * rng.uniform(0.9, 1.1, len(bad)))


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9])
@pytest.mark.parametrize(("usual", "recognised"), [(0.0, 0.9), (0.05, 0.7), (0.3, 0.5)])
def test_labels_are_counted_however_hard_they_are_to_recognise(share, usual, recognised):
    rng = np.random.default_rng(0)
    pool, nothing, ones = rng.random(20_000) < share, np.zeros(2_000), np.ones(2_000)
    labels, known = rng.integers(0, 4, 20_000), rng.integers(0, 4, 2_000)
    clean = seen(rng, nothing > 0, recognised, usual)
    wrong = Mistaken(seen(rng, ones > 0, recognised, usual), (known + 1) % 4, ones)
    found = expected_bad(
        Seen(np.zeros(20_000), seen(rng, pool, recognised, usual), labels), Seen(nothing, clean, known), ones, wrong
    )
    assert found.mean() == pytest.approx(pool.mean(), abs=0.01)
    for c in range(4):
        assert found[labels == c].mean() == pytest.approx(pool[labels == c].mean(), abs=0.02)


def test_a_label_that_is_hard_to_tell_is_held_against_nobody():
    """Of the second class clean images look wrong, and wrong ones hardly more so."""
    rng = np.random.default_rng(1)
    labels, known, ones = np.arange(10_000) % 2, np.arange(4_000) % 2, np.ones(4_000)
    bad = rng.random(10_000) < 0.2
    usual, recognised = np.array([0.01, 0.4]), np.array([0.95, 0.6])
    against = -np.log1p(-np.where(bad, recognised[labels], usual[labels]))
    clean, wrong = -np.log1p(-usual[known]), -np.log1p(-recognised[1 - known])
    found = expected_bad(
        Seen(np.zeros(10_000), against, labels),
        Seen(np.zeros(4_000), clean, known),
        ones,
        Mistaken(wrong, 1 - known, ones),
    )
    for c in (0, 1):
        assert found[labels == c].mean() == pytest.approx(bad[labels == c].mean(), abs=0.02)


def test_images_have_the_share_that_their_tails_leave_and_add_to_labels():
    rng = np.random.default_rng(2)
    damaged, ones = np.arange(10_000) < 3_000, np.ones(5_000)
    images = np.where(damaged, 9.0, 0.1) * rng.uniform(0.5, 1.0, 10_000)
    clean_images = 0.1 * rng.uniform(0.5, 1.0, 5_000)
    labels, known = np.zeros(10_000, dtype=int), np.zeros(5_000, dtype=int)
    wrong = Mistaken(np.full(5_000, 3.0), known, ones)
    found = expected_bad(
        Seen(images, np.zeros(10_000), labels), Seen(clean_images, np.zeros(5_000), known), ones, wrong
    )
    assert found.mean() == pytest.approx(0.3, abs=0.02)
    assert found[damaged].mean() > 0.9
    assert abs(found[~damaged].mean()) < 0.03
    half = np.where(np.arange(10_000) % 2, 3.0, 0.0)
    found = expected_bad(Seen(images, half, labels), Seen(clean_images, np.zeros(5_000), known), ones, wrong)
    assert found.mean() == pytest.approx(1 - 0.7 * 0.5, abs=0.03)


def test_a_reference_point_that_stands_ten_times_is_one():
    """100 clean images judge 10,000 clean ones, each in the company of ten batches."""
    nothing, known, many = np.zeros(10_000), np.zeros(10_000, dtype=int), np.zeros(1_000)

    def share(seed: int, **reference: float) -> float:
        rng = np.random.default_rng([4, seed])
        pool, clean = Seen(rng.exponential(size=10_000), nothing, known), rng.exponential(size=100).repeat(10)
        wrong = Mistaken(many + 3.0, known[:1_000], many + 1)
        return float(expected_bad(pool, Seen(clean, many, known[:1_000]), many + 1, wrong, **reference).mean())

    assert all(share(seed, reference_points=100) == pytest.approx(0, abs=1e-6) for seed in range(20))
    assert sum(share(seed) > 0.1 for seed in range(20)) > 2, "had they been as many as they stand"


def test_without_evidence_of_two_kinds_storeys_bound_is_what_is_expected():
    rng = np.random.default_rng(3)
    p_values = np.concatenate([rng.random(7_000), rng.random(3_000) * 1e-3])
    found = beyond_chance(p_values, judges=2_000)
    assert found.mean() == pytest.approx(bad_share(p_values, judges=2_000).share, abs=1e-12)
    assert found.mean() == pytest.approx(0.3, abs=0.03)
    assert (beyond_chance(np.full(10, 0.99), judges=5) == 0).all()


def test_the_interval_holds_the_truth_as_often_as_it_says():
    rng, hits = np.random.default_rng(4), 0
    for _ in range(400):
        # One hundred points, and as many that told what is usual.
        found = (rng.random(100) < 0.3) - rng.normal(0, np.sqrt(0.21)) / 10
        share = share_of_bad(found, judges=100)
        assert share.low <= share.value <= share.high
        hits += share.low <= 0.3 <= share.high
    assert 0.92 <= hits / 400 <= 0.98


def test_of_nothing_or_by_nobody_nothing_is_known():
    assert share_of_bad(np.array([]), judges=10) == (0.0, 0.0, 1.0)
    assert share_of_bad(np.array([0.2]), judges=0) == (0.0, 0.0, 1.0)


@pytest.mark.parametrize("share", [0.0, 0.2, 0.4])
def test_wrong_labels_of_a_pool_are_counted_in_all_and_by_class(share):
    """Classes that overlap, so that neither clean nor wrong labels are certain."""
    rng = np.random.default_rng(5)
    train, right = clouds(2_000, seed=6)
    reference, known = clouds(1_000, seed=7)
    train, reference = (x + rng.normal(0, 1.5, x.shape) for x in (train, reference))
    bad = rng.random(len(right)) < share
    labels = np.where(bad, (right + rng.integers(1, 3, len(right))) % 3, right)
    found = value_points(train, labels, reference, known).expected_bad
    assert found.mean() == pytest.approx(share, abs=0.04)
    for c in range(3):
        assert found[labels == c].mean() == pytest.approx(bad[labels == c].mean(), abs=0.06)
