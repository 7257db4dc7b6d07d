import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import false_discovery_control
from sklearn.isotonic import IsotonicRegression

from sava_ops import BadInput
from sava_ops.decisions.conformal import (
    bad_share,
    benjamini_hochberg,
    clean_probability,
    conformal_p_values,
    effective_count,
    monotone,
    suggestion_confidence,
)

NUMBERS = st.lists(st.integers(-5, 5), min_size=1, max_size=30).map(lambda v: np.array(v, dtype=float))
P_VALUES = st.lists(st.floats(0, 1), min_size=1, max_size=40).map(np.array)


@given(NUMBERS, NUMBERS)
def test_p_values_count_the_clean_points_as_high(values, clean):
    p = conformal_p_values(values, clean, np.ones(len(clean)))
    expected = [(1 + (clean >= value).sum()) / (1 + len(clean)) for value in values]
    np.testing.assert_allclose(p, expected)


@given(NUMBERS, NUMBERS, st.integers(0, 9))
def test_a_weight_is_a_repetition(values, clean, seed):
    times = np.random.default_rng(seed).integers(1, 4, len(clean))
    weighted = conformal_p_values(values, clean, times.astype(float))
    one_more = times.mean()
    expected = [((clean >= v) @ times + one_more) / (times.sum() + one_more) for v in values]
    np.testing.assert_allclose(weighted, expected)


def test_without_clean_points_nothing_is_suspected():
    nothing = np.empty(0)
    np.testing.assert_array_equal(conformal_p_values(np.arange(3.0), nothing, nothing), 1.0)
    np.testing.assert_array_equal(clean_probability(np.arange(3.0), nothing, nothing, bad=0.0), 1.0)
    np.testing.assert_array_equal(suggestion_confidence(np.arange(3.0), nothing, np.empty(0, dtype=bool)), 0.0)


def test_clean_points_have_uniform_p_values():
    generator = np.random.default_rng(0)
    p = conformal_p_values(generator.normal(size=4_000), generator.normal(size=4_000), np.ones(4_000))
    for level in (0.01, 0.05, 0.2, 0.5):
        assert (p <= level).mean() == pytest.approx(level, abs=4 * np.sqrt(level / 2_000))


@given(P_VALUES, st.floats(0.01, 0.5))
def test_flagged_are_those_of_scipys_adjusted_p_values(p, rate):
    adjusted = false_discovery_control(p)
    flagged = benjamini_hochberg(p, rate=rate)
    clear = np.abs(adjusted - rate) > 1e-9
    np.testing.assert_array_equal(flagged[clear], (adjusted <= rate)[clear])


@pytest.mark.parametrize("share", [0.0, 0.1, 0.4])
def test_the_false_discovery_rate_and_the_bad_share_are_what_is_claimed(share):
    generator = np.random.default_rng(1)
    bad = np.arange(20_000) < share * 20_000
    values = generator.normal(size=20_000) + 4 * bad
    clean = generator.normal(size=20_000)
    p = conformal_p_values(values, clean, np.ones(20_000))
    flagged = benjamini_hochberg(p, rate=0.05)
    assert (flagged & ~bad).sum() <= 0.07 * max(flagged.sum(), 1) + 5
    assert bad_share(p, judges=20_000).share == pytest.approx(share, abs=0.03)
    if share:
        assert flagged[bad].mean() > 0.8


@pytest.mark.parametrize("judges", [20, 120, 2_000])
def test_chance_among_the_judges_is_no_share_of_bad_points(judges):
    generator = np.random.default_rng(2)

    def found(bad: int) -> float:
        values = generator.normal(size=1_000) + 6 * (np.arange(1_000) < bad)
        p = conformal_p_values(values, generator.normal(size=judges), np.ones(judges))
        return bad_share(p, judges=judges).share

    assert np.mean([found(0) > 0 for _ in range(300)]) < 0.03
    assert np.mean([found(600) for _ in range(30)]) == pytest.approx(0.6, abs=0.1)


def test_nobody_and_nothing_are_no_share_of_bad_points():
    assert bad_share(np.empty(0), judges=10) == bad_share(np.zeros(5), judges=0) == (0, 0)
    assert effective_count(np.array([2.0, 2.0, 0.0])) == 2
    assert effective_count(np.ones(12), points=4) == 4, "each thrice"
    assert effective_count(np.ones(3), points=4) == 3, "one did not go along"
    assert effective_count(np.empty(0)) == effective_count(np.zeros(3)) == 0


def test_clean_probability_falls_in_the_value_and_finds_the_mixture():
    generator = np.random.default_rng(2)
    bad = np.arange(20_000) < 6_000
    values = generator.normal(size=20_000) + 3 * bad
    clean = generator.normal(size=20_000)
    probability = clean_probability(values, clean, np.ones(20_000), bad=0.3)
    assert (np.diff(probability[values.argsort()]) <= 1e-12).all()
    assert 0 <= probability.min() <= probability.max() <= 1
    truth = 0.7 * np.exp(-(values**2) / 2)
    truth /= truth + 0.3 * np.exp(-((values - 3) ** 2) / 2)
    middle = (values > -1) & (values < 4)
    assert np.abs(probability - truth)[middle].mean() < 0.05


def test_confidence_is_the_share_of_right_suggestions_with_such_a_gap():
    clean_gaps, right = np.array([0.0, 0.0, 1.0, 1.0, 2.0, 2.0]), np.array([0, 0, 0, 1, 1, 1], dtype=bool)
    found = suggestion_confidence(np.array([-1.0, 0.0, 1.0, 2.0, 9.0]), clean_gaps, right)
    np.testing.assert_allclose(found, [0.0, 0.0, 0.5, 1.0, 1.0])


@pytest.mark.parametrize("rising", [False, True])
def test_monotone_regression_is_that_of_scikit_learn(rising):
    """With ties, points without weight, and in between and beyond the points."""
    generator = np.random.default_rng(3)
    x, y = generator.integers(0, 30, 200).astype(float), generator.random(200)
    weights, at = generator.integers(0, 3, 200).astype(float), np.linspace(-1, 31, 77)
    model = IsotonicRegression(increasing=rising, out_of_bounds="clip").fit(x, y, sample_weight=weights)
    np.testing.assert_allclose(monotone(x, y, weights, at=at, rising=rising), model.predict(at), atol=1e-12)


@pytest.mark.parametrize("rate", [0.0, 1.0])
def test_a_rate_that_makes_no_sense_is_refused(rate):
    with pytest.raises(BadInput, match=f"`false_discovery_rate` is {rate}: it must be above 0 and below 1"):
        benjamini_hochberg(np.ones(2), rate=rate)


def test_a_point_of_a_class_that_few_stand_for_is_never_beyond_doubt():
    """One clean point of a rare class stands for 50 others: nothing of that class has p below 50 / 150."""
    clean, weights = np.arange(101.0), np.array([50.0] + [1.0] * 100)
    p = conformal_p_values(np.array([1e6, 1e6]), clean, weights, own=np.array([50.0, 1.0]))
    np.testing.assert_allclose(p, [50 / 200, 1 / 151])
    np.testing.assert_allclose(
        conformal_p_values(clean, clean, weights, own=np.full(101, weights.mean())),
        conformal_p_values(clean, clean, weights),
    )
