"""Image and label in one unit."""

import numpy as np
import pytest

from sava_ops.decisions import evidence as evidence_module
from sava_ops.decisions.conformal import bad_share, benjamini_hochberg, conformal_p_values
from sava_ops.decisions.detection import auroc
from sava_ops.decisions.evidence import MOST_SURPRISE, MistakenOdds, Side, weigh


def sides(seed: int = 0, *, damaged: float = 0.0, wrong: float = 0.0, count: int = 4_000):
    """A pool and 800 clean points: foreignness ~ N(0, 1), damaged + 4; log odds ~ N(−6, 2), wrong ones + 9."""
    generator = np.random.default_rng(seed)
    bad, mislabelled = generator.random(count) < damaged, generator.random(count) < wrong
    pool = Side(generator.normal(size=count) + 4 * bad, generator.normal(-6, 2, count) + 9 * mislabelled)
    clean = Side(generator.normal(size=800), generator.normal(-6, 2, 800))
    return pool, clean, bad, mislabelled


def evidence(pool: Side, clean: Side):
    return weigh(pool, clean, np.full(len(clean.foreign), len(pool.foreign) / 800), None, other_labels=9)[:2]


def test_without_damage_the_odds_of_another_label_rank():
    pool, clean, _, wrong = sides(wrong=0.3)
    found, _ = evidence(pool, clean)
    assert found.image.max() == 0
    assert auroc(found.total, wrong) == pytest.approx(auroc(pool.label_odds, wrong), abs=1e-6)


def test_without_wrong_labels_the_image_ranks():
    pool, clean, bad, _ = sides(damaged=0.2)
    found, _ = evidence(pool, clean)
    assert auroc(found.total, bad) > auroc(pool.foreign, bad) - 0.003
    assert np.median(found.image[bad]) > 2 > 0.2 > np.median(found.image[~bad])


def test_what_is_odd_in_both_adds_up():
    pool, clean, bad, wrong = sides(damaged=0.3, wrong=0.3)
    found, _ = evidence(pool, clean)
    assert np.median(found.total[bad & wrong]) > np.median(found.total[bad | wrong])
    assert auroc(found.total, bad | wrong) > max(auroc(side, bad | wrong) for side in pool)


def test_more_of_either_is_more_evidence():
    pool, clean, _, _ = sides(damaged=0.2, wrong=0.2)
    rising, level = np.linspace(-10, 10, 41), np.full(41, 0.5)
    for own in (Side(rising, level), Side(level, rising)):
        found, _ = evidence(Side(*(np.concatenate(both) for both in zip(pool, own, strict=True))), clean)
        assert (np.diff(found.total[-41:]) >= 0).all()
        assert found.total[-1] > found.total[-41] + 1


def test_what_all_images_of_a_pool_have_in_common_is_not_held_against_them():
    pool, clean, bad, _ = sides(damaged=0.2)
    near, far = (evidence(Side(pool.foreign + c, pool.label_odds), clean)[0] for c in (1.0, 50.0))
    np.testing.assert_allclose(far.total, near.total, rtol=1e-6, atol=1e-9)
    assert auroc(far.image, bad) > 0.95


@pytest.mark.parametrize("damaged", [0.0, 0.1, 0.3, 0.5, 0.7])
@pytest.mark.parametrize("common", [0.0, 1.0, 50.0])
def test_damaged_images_do_not_hide_in_what_all_have_in_common(damaged, common):
    """However many there are: their share is seen, they are found, and no others beyond the promised rate."""
    pool, clean, bad, _ = sides(damaged=damaged)
    seen = evidence_module._without_the_common_shift(pool.foreign + common, clean.foreign, np.ones(800), judges=800)
    p_values = conformal_p_values(seen, clean.foreign, np.ones(800))
    assert bad_share(p_values, judges=800).share == pytest.approx(bad.mean(), abs=0.06 if common else 0.035)
    flagged = benjamini_hochberg(p_values, rate=0.1)
    assert (flagged & ~bad).sum() <= 0.11 * flagged.sum()
    assert flagged[bad].sum() >= 0.9 * bad.sum()


def test_the_unit_of_cost_does_not_matter():
    pool, clean, _, _ = sides(damaged=0.2, wrong=0.2)
    scaled = [Side(7 * side.foreign, side.label_odds) for side in (pool, clean)]
    for one, other in zip(evidence(pool, clean), evidence(*scaled), strict=True):
        np.testing.assert_allclose(one.total, other.total, rtol=1e-6, atol=1e-9)


def test_where_every_clean_point_looks_mislabelled_too_no_label_counts_as_wrong():
    """Features that tell nothing: what is as odd on either side is no evidence, and no number is lost."""
    pool, clean, _, _ = sides(wrong=0.2)
    hopeless = Side(pool.foreign, np.full_like(pool.label_odds, 200.0)), Side(clean.foreign, np.full(800, 200.0))
    for found in evidence(*hopeless):
        assert np.isfinite(found.total).all()
        assert np.ptp(found.total) == 0


@pytest.mark.parametrize("wrong", [0.05, 0.3, 0.6])
@pytest.mark.parametrize("apart", [1.0, 4.0])
def test_wrong_labels_are_counted_however_hard_they_are_to_recognise(wrong, apart):
    generator = np.random.default_rng(5)
    odds = generator.normal(-3, 1.5, 8_000) + apart * (generator.random(8_000) < wrong)
    even, ones = np.zeros(8_000), np.ones(8_000)
    clean = Side(even, generator.normal(-3, 1.5, 8_000))
    mistaken = MistakenOdds(clean.label_odds + apart, ones)
    *_, prior = weigh(Side(even, odds), clean, ones, mistaken, other_labels=1)
    assert 1 / (1 + np.exp(-prior)) == pytest.approx(wrong, abs=0.05)
    *_, if_always_recognised = weigh(Side(even, odds), clean, ones, None, other_labels=1)
    assert if_always_recognised < prior


def test_images_that_are_hard_to_classify_on_both_sides_leave_the_image_to_rank():
    """What clean points show is no share of wrong labels."""
    pool, clean, bad, _ = sides(damaged=0.2)
    generator = np.random.default_rng(1)
    hard = [Side(own.foreign, generator.normal(-2, 4, len(own.foreign))) for own in (pool, clean)]
    found, _ = evidence(*hard)
    assert auroc(found.total, bad) > auroc(pool.foreign, bad) - 0.01


@pytest.mark.parametrize("count", [1, 2, 30])
def test_few_or_equal_clean_points_leave_it_finite(count):
    equal = Side(np.zeros(count), np.zeros(count))
    pool = Side(np.array([-1.0, 0, 1e6, 0]), np.array([-1e6, 0, 1e6, -np.inf]))
    found, usual, _ = weigh(pool, equal, np.ones(count), None, other_labels=0)
    for side in (found, usual):
        assert np.isfinite(side.total).all()
        assert np.isfinite(side.image).all()
    assert found.image.max() <= MOST_SURPRISE
