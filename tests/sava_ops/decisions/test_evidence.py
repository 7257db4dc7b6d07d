"""Image and label in one unit."""

import numpy as np
import pytest

from sava_ops.decisions.conformal import bad_share, benjamini_hochberg, conformal_p_values
from sava_ops.decisions.detection import auroc
from sava_ops.decisions.evidence import MOST_SURPRISE, MistakenOdds, Side, common_shift, weigh


def sides(seed: int = 0, *, damaged: float = 0.0, wrong: float = 0.0, count: int = 4_000):
    """A pool and 800 clean points: foreignness ~ N(0, 1), damaged + 4; log odds ~ N(−6, 2), wrong ones + 9."""
    generator = np.random.default_rng(seed)
    bad, mislabelled = generator.random(count) < damaged, generator.random(count) < wrong
    pool = side(generator.normal(size=count) + 4 * bad, generator.normal(-6, 2, count) + 9 * mislabelled)
    clean = side(generator.normal(size=800), generator.normal(-6, 2, 800))
    return pool, clean, bad, mislabelled


def side(foreign, label_odds) -> Side:
    return Side(foreign, label_odds, np.zeros(len(foreign), dtype=np.int64))


def weighed(pool: Side, clean: Side):
    return weigh(pool, clean, np.full(len(clean.foreign), len(pool.foreign) / 800), None, other_labels=9)


def evidence(pool: Side, clean: Side):
    found = weighed(pool, clean)
    return found.pool, found.clean


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
    assert auroc(found.total, bad | wrong) > max(auroc(own, bad | wrong) for own in (pool.foreign, pool.label_odds))


def test_more_of_either_is_more_evidence():
    pool, clean, _, _ = sides(damaged=0.2, wrong=0.2)
    rising, level = np.linspace(-10, 10, 41), np.full(41, 0.5)
    for own in (side(rising, level), side(level, rising)):
        found, _ = evidence(Side(*(np.concatenate(both) for both in zip(pool, own, strict=True))), clean)
        assert (np.diff(found.total[-41:]) >= 0).all()
        assert found.total[-1] > found.total[-41] + 1


def test_what_all_images_of_a_pool_have_in_common_is_not_held_against_them():
    pool, clean, bad, _ = sides(damaged=0.2)
    near, far = (evidence(side(pool.foreign + c, pool.label_odds), clean)[0] for c in (1.0, 50.0))
    np.testing.assert_allclose(far.total, near.total, rtol=1e-6, atol=1e-9)
    assert auroc(far.image, bad) > 0.95


@pytest.mark.parametrize("damaged", [0.0, 0.1, 0.3, 0.5, 0.7])
@pytest.mark.parametrize("common", [0.0, 1.0, 50.0])
def test_damaged_images_do_not_hide_in_what_all_have_in_common(damaged, common):
    """However many there are: their share is seen, they are found, and no others beyond the promised rate."""
    pool, clean, bad, _ = sides(damaged=damaged)
    shift = common_shift(side(pool.foreign + common, pool.label_odds), clean.foreign, np.ones(800), judges=800)
    p_values = conformal_p_values(shift.without, clean.foreign, np.ones(800))
    assert bad_share(p_values, judges=800).share == pytest.approx(bad.mean(), abs=0.06 if common else 0.035)
    flagged = benjamini_hochberg(p_values, rate=0.1)
    assert (flagged & ~bad).sum() <= 0.11 * flagged.sum()
    assert flagged[bad].sum() >= 0.9 * bad.sum()


def other_camera(seed: int = 0, *, bad: float = 0.0):
    """A pool that lies 8 nats above the clean points, one of its ten classes 6 further; wrong labels as in `sides`."""
    pool, clean, _, wrong = sides(seed, wrong=bad)
    classes = np.random.default_rng([seed, 1]).integers(10, size=len(wrong))
    return Side(pool.foreign + 8 + 6 * (classes == 3), pool.label_odds, classes), clean, wrong


def test_what_all_images_of_a_class_have_in_common_is_no_damage_if_all_have_something():
    pool, clean, _ = other_camera()
    assert evidence(pool, clean)[0].image.max() == 0
    alone = Side(pool.foreign - 8, pool.label_odds, pool.best_labels)
    found = evidence(alone, clean)[0].image
    assert np.median(found[pool.best_labels == 3]) > 2
    far = Side(pool.foreign + 6 * (pool.best_labels == 3), pool.label_odds, pool.best_labels)
    assert np.median(evidence(far, clean)[0].image[pool.best_labels == 3]) > 0.5, "no more than all have"


@pytest.mark.parametrize("seed", range(3))
def test_where_no_clean_point_looks_as_the_pool_does_nothing_is_promised(seed):
    """And where all do, what was promised before: ratios of 1."""
    pool, clean, wrong = other_camera(seed, bad=0.3)
    found = weighed(pool, clean)
    p_values = conformal_p_values(found.pool.total, found.clean.total, found.clean_ratios, own=found.pool_ratios)
    assert not benjamini_hochberg(p_values, rate=0.2).any()
    assert auroc(found.pool.total, wrong) > 0.99
    alike, clean, *_ = sides(seed, wrong=0.3)
    found = weighed(alike, clean)
    assert found.pool_ratios.max() < 1.3
    assert found.clean_ratios.max() < 1.3


def test_ratios_of_densities_weigh_clean_points_as_the_pool_would():
    """N(1, 1) over N(0, 1) is e^{x − 1/2}, here up to a factor that all share, and no more than twice the shift; what
    all of the pool have in common, each has."""
    x = np.linspace(-3, 4, 701)
    pool, clean = side(x + 1, x), side(x, x)
    found = weigh(pool, clean, np.ones(len(x)), None, other_labels=9)
    start = np.quantile(x, 0.25)
    np.testing.assert_allclose(found.clean_ratios, np.exp(np.clip(x - start, 0, 2)), rtol=0.02)
    np.testing.assert_allclose(found.pool_ratios, np.exp(np.clip(x + 1 - start, 1, 2)), rtol=0.02)


def test_the_unit_of_cost_does_not_matter():
    pool, clean, _, _ = sides(damaged=0.2, wrong=0.2)
    scaled = [side(7 * own.foreign, own.label_odds) for own in (pool, clean)]
    for one, other in zip(evidence(pool, clean), evidence(*scaled), strict=True):
        np.testing.assert_allclose(one.total, other.total, rtol=1e-6, atol=1e-9)


def test_where_every_clean_point_looks_mislabelled_too_no_label_counts_as_wrong():
    """Features that tell nothing: what is as odd on either side is no evidence, and no number is lost."""
    pool, clean, _, _ = sides(wrong=0.2)
    hopeless = side(pool.foreign, np.full_like(pool.label_odds, 200.0)), side(clean.foreign, np.full(800, 200.0))
    for found in evidence(*hopeless):
        assert np.isfinite(found.total).all()
        assert np.ptp(found.total) == 0


@pytest.mark.parametrize("wrong", [0.05, 0.3, 0.6])
@pytest.mark.parametrize("apart", [1.0, 4.0])
def test_wrong_labels_are_counted_however_hard_they_are_to_recognise(wrong, apart):
    generator = np.random.default_rng(5)
    odds = generator.normal(-3, 1.5, 8_000) + apart * (generator.random(8_000) < wrong)
    even, ones = np.zeros(8_000), np.ones(8_000)
    clean = side(even, generator.normal(-3, 1.5, 8_000))
    mistaken = MistakenOdds(clean.label_odds + apart, ones)
    prior = weigh(side(even, odds), clean, ones, mistaken, other_labels=1).prior
    assert 1 / (1 + np.exp(-prior)) == pytest.approx(wrong, abs=0.05)
    if_always_recognised = weigh(side(even, odds), clean, ones, None, other_labels=1).prior
    assert if_always_recognised < prior


def test_images_that_are_hard_to_classify_on_both_sides_leave_the_image_to_rank():
    """What clean points show is no share of wrong labels."""
    pool, clean, bad, _ = sides(damaged=0.2)
    generator = np.random.default_rng(1)
    hard = [side(own.foreign, generator.normal(-2, 4, len(own.foreign))) for own in (pool, clean)]
    found, _ = evidence(*hard)
    assert auroc(found.total, bad) > auroc(pool.foreign, bad) - 0.01


@pytest.mark.parametrize("count", [1, 2, 30])
def test_few_or_equal_clean_points_leave_it_finite(count):
    equal = side(np.zeros(count), np.zeros(count))
    pool = side(np.array([-1.0, 0, 1e6, 0]), np.array([-1e6, 0, 1e6, -np.inf]))
    found = weigh(pool, equal, np.ones(count), None, other_labels=0)
    for own in (found.pool, found.clean):
        assert np.isfinite(own.total).all()
        assert np.isfinite(own.image).all()
    assert found.pool.image.max() <= MOST_SURPRISE
