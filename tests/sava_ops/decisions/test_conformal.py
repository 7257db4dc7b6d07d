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
    class_p_values,
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


@pytest.mark.parametrize("judges", [20, 60, 120, 2_000])
def test_chance_among_the_judges_is_no_share_of_bad_points(judges):
    generator = np.random.default_rng(2)

    def found(bad: int) -> float:
        values = generator.normal(size=1_000) + 6 * (np.arange(1_000) < bad)
        p = conformal_p_values(values, generator.normal(size=judges), np.ones(judges))
        return bad_share(p, judges=judges).share

    assert np.mean([found(0) > 0 for _ in range(300)]) < 0.03
    assert np.mean([found(600) for _ in range(30)]) == pytest.approx(0.6, abs=0.1)


@pytest.mark.parametrize("judges", [150, 500, 5_000])
def test_few_bad_points_that_nothing_clean_comes_near_are_counted(judges):
    """A twentieth; a bound at a tenth or more of the clean points would be lost in chance, or found by chance alone."""
    generator = np.random.default_rng(14)

    def found() -> float:
        values = generator.normal(size=3_000) + 9 * (np.arange(3_000) < 150)
        p = conformal_p_values(values, generator.normal(size=judges), np.ones(judges))
        return bad_share(p, judges=judges).share

    assert np.mean([abs(found() - 0.05) for _ in range(200)]) < 0.02


@pytest.mark.parametrize(("further", "expected"), [(0, (0.1, 0.01)), (28, (0.1, 0.01)), (30, (0.13, 0.3))])
def test_a_larger_bound_is_taken_where_it_is_beyond_the_further_chance(further, expected):
    """Of 1,000 points, a tenth lie beyond all clean ones, and so many at a quarter of these. One standard error between
    the bounds at 0.01 and at 0.3 is √((3/7 − 1/99) · 2 / 1,000) = 0.029."""
    clean = np.linspace(5e-4, 1 - 5e-4, 900 - further)
    p_values = np.concatenate([np.zeros(100), np.full(further, 0.25), clean])
    assert bad_share(p_values, judges=1_000) == pytest.approx(expected)


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


def test_a_class_that_is_taken_for_another_is_judged_by_its_own_clean_points():
    """Its clean points weigh next to nothing in the pooled p-values, as it is thought rare."""
    clean, labels = np.concatenate([np.linspace(0, 1, 200), np.full(14, 5.0)]), np.repeat([0, 1], [200, 14])
    weights = np.where(labels == 1, 1e-3, 1.0)
    values, given_labels = np.array([0.5, 4.0, 4.0, 6.0]), np.array([0, 0, 1, 1])
    pooled = conformal_p_values(values, clean, weights)
    assert pooled[2] < 0.01
    found = class_p_values(pooled, values, given_labels, clean, labels, weights, points=214)
    np.testing.assert_array_equal(found[[0, 1, 3]], pooled[[0, 1, 3]])
    assert found[2] == pytest.approx(1.0)
    few = class_p_values(pooled, values, given_labels, clean[:201], labels[:201], weights[:201], points=201)
    np.testing.assert_array_equal(few, pooled)  # one point is chance
    np.testing.assert_array_equal(
        class_p_values(pooled, values, given_labels, clean, labels, weights * (labels == 0), points=214), pooled
    )  # clean points without weight say nothing
    np.testing.assert_array_equal(
        class_p_values(pooled, values, given_labels, clean, labels, np.zeros(214), points=214), pooled
    )
    alike = class_p_values(pooled, values, given_labels, clean, labels, weights, points=214, ratios=np.full(214, 3.0))
    np.testing.assert_array_equal(alike, found)
    rare = np.where(np.arange(214) > 200, 1e-9, 1.0)  # but one of them, nothing like them is in the pool
    np.testing.assert_array_equal(
        class_p_values(pooled, values, given_labels, clean, labels, weights, points=214, ratios=rare), pooled
    )
    repeated = (np.tile(part, 5) for part in (clean, labels, weights))
    np.testing.assert_allclose(class_p_values(pooled, values, given_labels, *repeated, points=214), found)


CLASSES = st.integers(1, 4).flatmap(
    lambda classes: st.tuples(st.integers(0, 10**6), st.integers(0, 60), st.integers(0, 60), st.just(classes))
)


@given(CLASSES)
def test_p_values_of_a_class_are_never_lower_and_fall_in_the_value(drawn):
    seed, count, known, classes = drawn
    generator = np.random.default_rng(seed)
    values, clean = generator.integers(0, 20, count).astype(float), generator.normal(8, 6, known).round()
    labels, clean_labels = generator.integers(0, 4, count), generator.integers(0, classes, known)
    clean += 6 * (clean_labels == 0)
    weights = (generator.random(known) + 0.1) * np.where(clean_labels == 0, 0.1, 1.0)
    pooled = conformal_p_values(values, clean, weights)
    found = class_p_values(pooled, values, labels, clean, clean_labels, weights, points=max(known, 1))
    assert (found >= pooled).all()
    assert (found <= 1).all()
    for label in range(4):
        of = labels == label
        order = np.argsort(-values[of], kind="stable")
        assert (np.diff(found[of][order]) >= 0).all()
        if not (clean_labels == label).any():
            np.testing.assert_array_equal(found[of], pooled[of])


def test_classes_as_all_others_leave_the_p_values_as_they_are():
    """But in one of 740 cases, as 3 standard errors say; a p-value of 1,000 points that are not independent."""
    generator, changed = np.random.default_rng(11), []
    for _ in range(200):
        values, clean = generator.normal(size=1_000), generator.normal(size=500)
        labels, clean_labels = generator.integers(0, 10, 1_000), generator.integers(0, 10, 500)
        weights = np.where(clean_labels % 2 == 1, 0.01, 1.0)  # most labels of these are thought mistaken
        pooled = conformal_p_values(values, clean, weights)
        found = class_p_values(pooled, values, labels, clean, clean_labels, weights, points=500)
        changed.append((found > pooled).mean())
    assert 0 < np.mean(changed) < 0.01


@pytest.mark.parametrize(("weight", "by_all"), [(1.01, True), (0.99, False)])
def test_a_class_is_judged_by_all_unless_most_of_its_labels_are_thought_mistaken(weight, by_all):
    """Half of the points are of a class that has a little more, or less, than a quarter of the clean ones' weight."""
    labels = np.repeat([0, 1], 100)
    clean, weights = np.where(labels == 1, 5.0, 0.0), np.where(labels == 1, weight, 3.0)
    values, given_labels = np.array([0.0, 5.0]), np.array([0, 1])
    pooled = conformal_p_values(values, clean, weights)
    found = class_p_values(pooled, values, given_labels, clean, labels, weights, points=200)
    np.testing.assert_allclose(found, pooled if by_all else [pooled[0], 1.0])


def test_the_rate_holds_in_a_class_that_is_taken_for_another():
    """A tenth of all images are of a class that is thought rare, whose clean points look as mistaken as what is."""
    generator, realised, by_all = np.random.default_rng(12), [], []
    for _ in range(50):
        labels, clean_labels = (generator.random(n) < 0.1 for n in (2_000, 600))
        bad = generator.random(2_000) < 0.2
        values = generator.normal(size=2_000) + 4.0 * (bad | labels)
        clean = generator.normal(size=600) + 4.0 * clean_labels
        weights = np.where(clean_labels, 0.01, 1.0)
        pooled = conformal_p_values(values, clean, weights)
        found = class_p_values(pooled, values, labels.astype(int), clean, clean_labels.astype(int), weights, points=600)
        for p, rates in ((found, realised), (pooled, by_all)):
            flagged = benjamini_hochberg(p, rate=0.1)
            rates.append((flagged & ~bad).sum() / max(flagged.sum(), 1))
    assert np.mean(realised) < 0.1 < 0.25 < np.mean(by_all)
