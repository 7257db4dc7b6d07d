import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, binomtest

from sava_ops import BadInput
from sava_ops.decisions.audit import AUDITED, clopper_pearson, drawn, is_audited


@given(st.integers(1, 60), st.data(), st.sampled_from([0.5, 0.9, 0.95, 0.99]))
def test_the_interval_is_the_exact_one(total, data, level):
    count = data.draw(st.integers(0, total))
    expected = binomtest(count, total).proportion_ci(level, method="exact")
    assert clopper_pearson(count, total, level=level) == pytest.approx((expected.low, expected.high), abs=1e-12)


@pytest.mark.parametrize("share", [0.01, 0.05, 0.3, 0.5])
@pytest.mark.parametrize("total", [1, 10, 100])
def test_it_covers_at_least_as_often_as_it_says(share, total):
    """Exactly, by summing over all outcomes."""
    inside = [k for k in range(total + 1) if clopper_pearson(k, total)[0] <= share <= clopper_pearson(k, total)[1]]
    assert binom.pmf(inside, total, share).sum() >= 0.95


def test_without_draws_nothing_is_known():
    assert clopper_pearson(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("count", "total", "level", "words"),
    [
        (3, 2, 0.95, r"`count` is 3 of a `total` of 2: it must be between 0 and that"),
        (-1, 2, 0.95, "`count` is -1"),
        (1, 2, 1.0, r"`level` is 1.0: it must be above 0 and below 1"),
        (1, 2, 0.0, "`level` is 0.0"),
    ],
)
def test_what_is_no_share_is_refused(count, total, level, words):
    with pytest.raises(BadInput, match=words):
        clopper_pearson(count, total, level=level)


NAMES = st.sets(st.text(max_size=4), max_size=30)


@given(NAMES, NAMES, st.integers(0, 12), st.integers(0, 5))
def test_who_stays_keeps_its_place_in_the_draw(names, others, size, seed):
    sample = drawn(names, size=size, seed=seed)
    assert sample <= names
    assert len(sample) == min(size, len(names))
    assert drawn(sorted(names, reverse=True), size=size, seed=seed) == sample
    # More names only push some out: who is drawn of all is drawn of the fewer, too.
    assert drawn(names | others, size=size, seed=seed) & names <= sample


def test_another_seed_is_another_draw_and_every_name_has_its_chance():
    names = [str(k) for k in range(100)]
    draws = [drawn(names, size=10, seed=seed) for seed in range(200)]
    assert len({frozenset(each) for each in draws}) == 200
    often = [sum(name in each for each in draws) for name in names]
    assert min(often) >= 5
    assert max(often) <= 40


@pytest.mark.parametrize("seed", [0, 7])
def test_who_is_audited_is_drawn_first_and_is_a_share_of_all(seed):
    names = [str(k) for k in range(2_000)]
    audited = {name for name in names if is_audited(name, seed=seed)}
    assert binomtest(len(audited), len(names), AUDITED).pvalue > 0.01
    assert drawn(names, size=len(audited), seed=seed) == audited
    assert drawn(names, size=10, seed=seed) == drawn(audited, size=10, seed=seed)


def test_a_sample_of_those_that_are_audited_measures_the_rate_and_one_of_those_that_are_left_does_not():
    """Of 4,000 flagged images 10 % are clean; people confirm these, and they leave the pool, audited ones excepted."""
    clean = {str(k): k % 10 == 0 for k in range(4_000)}
    left = {name: found for name, found in clean.items() if not found or is_audited(name, seed=0)}
    honest = drawn([name for name in left if is_audited(name, seed=0)], size=400, seed=0)
    low, high = clopper_pearson(sum(clean[name] for name in honest), len(honest))
    assert low < 0.1 < high
    biased = sum(left.values()) / len(left)
    assert biased < 0.05
