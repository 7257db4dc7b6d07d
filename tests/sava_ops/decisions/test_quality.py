"""Image quality as evidence: exact tails, nothing where nothing differs, and p-values that hold what they promise."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sava_ops.decisions.conformal import benjamini_hochberg, conformal_p_values
from sava_ops.decisions.evidence import MOST_SURPRISE
from sava_ops.decisions.quality import (
    ENOUGH,
    FOLDS,
    MEASURES,
    ODDITIES,
    Measured,
    surprise,
    weigh_quality,
)

pytestmark = pytest.mark.long
BLURRED = next(k for k, oddity in enumerate(ODDITIES) if oddity.name == "blurred")
ATOMS = st.lists(st.integers(-3, 3), min_size=1, max_size=30).map(lambda v: np.array(v, dtype=float))


def drawn(seed: int, count: int, *, classes: int = 2) -> Measured:
    """Skewed, heavy-tailed and dependent measures, some of a few values, of classes that differ; one size for all."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, classes, count)
    values = generator.standard_t(5, (count, len(MEASURES)))
    values[:, 1] = -generator.exponential(size=count) + 0.5 * values[:, 0]
    values[:, :3] += labels[:, None]
    values[:, 3] = np.log(100)
    values[:, 4] = generator.choice([0.0, 0.4, -0.4], count, p=[0.8, 0.15, 0.05])
    return Measured(values, labels, generator.integers(0, FOLDS, count))


def sources(count: int) -> np.ndarray:
    return np.arange(count) % 2


def with_damage(pool: Measured, share: float, by: float, seed: int = 9) -> tuple[Measured, np.ndarray]:
    bad = np.random.default_rng(seed).random(len(pool.labels)) < share
    measures = pool.measures.copy()
    measures[bad, 2] -= by
    return pool._replace(measures=measures), bad


@given(ATOMS, ATOMS)
def test_the_tail_is_counted_exactly_with_ties(values, trusted):
    found = surprise(values, trusted)
    counted = -np.log([(1 + (trusted >= v).sum()) / (1 + len(trusted)) for v in values])
    inside = values <= np.sort(trusted)[int(np.ceil(0.9 * len(trusted))) - 1]
    np.testing.assert_allclose(found[inside], counted[inside], atol=1e-12)
    order = np.argsort(values, kind="stable")
    assert (np.diff(found[order]) >= 0).all()


def test_what_all_trusted_images_share_says_nothing_and_gives_another_value_no_scale():
    found = surprise(np.array([7.0, 6.0, 7.1, 1e9]), np.full(99, 7.0))
    np.testing.assert_allclose(found, [0, 0, np.log(100), np.log(100)])


@pytest.mark.parametrize(("draw", "far"), [("exponential", 12.0), ("standard_cauchy", 1e4)])
def test_the_tail_beyond_what_was_seen_follows_its_shape(draw, far):
    generator = np.random.default_rng(0)
    trusted = np.abs(getattr(generator, draw)(size=20_000))
    chance = np.exp(-far) if draw == "exponential" else 2 / np.pi / far
    (found,) = surprise(np.array([far]), trusted)
    assert found == pytest.approx(-np.log(chance), rel=0.15)
    assert surprise(np.array([1e300]), trusted).max() <= MOST_SURPRISE


@given(st.integers(0, 999))
def test_images_that_are_all_alike_have_no_evidence(seed):
    generator = np.random.default_rng(seed)
    one = generator.normal(size=len(MEASURES))
    pool, trusted = (
        Measured(np.tile(one, (n, 1)), generator.integers(0, 2, n), generator.integers(0, FOLDS, n)) for n in (90, 300)
    )
    found = weigh_quality(pool, trusted, sources(90))
    assert not found.pool.any()
    assert not found.trusted.any()
    assert not found.share.any()


def p_values(pool: Measured, trusted: Measured) -> np.ndarray:
    """Of the pool's images, by what is oddest about them."""
    odd = [side.max(1) for side in weigh_quality(pool, trusted, sources(len(pool.labels))).surprises]
    return conformal_p_values(*odd, np.ones(len(trusted.labels)))


@pytest.mark.parametrize("classes", [1, 2])
def test_p_values_are_valid_however_many_looks_are_taken(classes):
    """Exchangeable sides: P(p ≤ t) ≤ t, on average over sets.

    It would be more, were trusted images to judge themselves, and several times that, were looks not counted.
    """
    levels = np.array([0.01, 0.05, 0.1, 0.3])
    found = np.mean(
        [
            [(p <= t).mean() for t in levels]
            for seed in range(30)
            for p in [p_values(drawn(seed, 500, classes=classes), drawn(1_000 + seed, 300, classes=classes))]
        ],
        axis=0,
    )
    assert (found <= 1.15 * levels + 0.002).all(), found
    assert (found >= 0.3 * levels).all(), found


@pytest.mark.parametrize("share", [0.0, 0.1])
def test_the_false_discovery_rate_is_kept(share):
    rates, recall = [], []
    for seed in range(25):
        pool, bad = with_damage(drawn(seed, 600), share, 30.0, seed)
        trusted = drawn(2_000 + seed, 1_500)
        found = weigh_quality(pool, trusted, sources(600))
        # Joined with evidence of another kind, which is noise here.
        noise = np.random.default_rng(seed).exponential(0.3, size=2_100)
        p = conformal_p_values(found.pool + noise[:600], found.trusted + noise[600:], np.ones(1_500))
        flagged = benjamini_hochberg(p, rate=0.1)
        rates.append((flagged & ~bad).sum() / max(flagged.sum(), 1))
        recall.append(flagged[bad].mean() if share else 1.0)
    assert np.mean(rates) <= 0.1 + 2 * np.std(rates) / np.sqrt(len(rates))
    assert np.mean(recall) > 0.7


def test_what_is_blurred_is_found_and_named():
    pool, bad = with_damage(drawn(0, 2_000), 0.1, 12.0)
    found = weigh_quality(pool, drawn(1, 2_000), sources(2_000))
    assert (found.oddity[bad] == BLURRED).mean() > 0.95
    assert found.share[bad].min() > 0.9
    assert np.median(found.pool[bad]) > 2 > 0.1 > np.median(found.pool[~bad])


@pytest.mark.parametrize(("moved", "wider"), [(5.0, 1.0), (-300.0, 1.0), (0.0, 3.0), (2.0, 2.0)])
def test_another_camera_is_no_damage(moved, wider):
    """What a source shares, its own middle and spread, is not held against its images."""
    pool, trusted, source = drawn(0, 2_000), drawn(1, 2_000), sources(2_000)
    middle = np.median(pool.measures, axis=0)
    other = np.where((source == 1)[:, None], middle + wider * (pool.measures - middle) + moved, pool.measures)
    # One size or shape of most images has no spread in which the others could be seen.
    other[:, 4] = pool.measures[:, 4]
    assert weigh_quality(pool._replace(measures=other), trusted, source).pool.max() < 1
    # Damage inside of such a source is found nevertheless, by what sets it apart there and from trusted images.
    measures = other.copy()
    measures[:200, 2] = other[:, 2].min() - 30 * wider
    found = weigh_quality(pool._replace(measures=measures), trusted, source)
    assert np.median(found.pool[:200]) > 3


def test_a_format_of_its_source_is_no_damage_and_a_size_that_nothing_else_has_is():
    pool, trusted = drawn(0, 2_000), drawn(1, 2_000)
    measures = pool.measures.copy()
    measures[:200, 3] += 3.0  # one image in ten is as much larger
    measures[200:206, 3] -= 5.0
    odd = weigh_quality(pool._replace(measures=measures), trusted, sources(2_000)).surprises[0]
    names = [oddity.name for oddity in ODDITIES]
    large, small = odd[:, names.index("large")], odd[:, names.index("small")]
    assert large[:200].max() == pytest.approx(np.log(10))
    assert small[200:206].min() > 5
    assert not large[200:].any()


def test_by_their_class_where_it_has_enough_trusted_images():
    trusted = Measured(np.zeros((ENOUGH + 5, 5)), np.repeat([0, 1], [ENOUGH, 5]), np.arange(ENOUGH + 5) % FOLDS)
    pool = Measured(np.zeros((3, 5)), np.array([0, 1, 2]), np.zeros(3, dtype=np.int64))
    assert weigh_quality(pool, trusted, np.zeros(3, dtype=np.int64)).of_class.tolist() == [True, False, False]


@pytest.mark.parametrize(("count", "trusted"), [(3, 0), (1, 1), (2, 3)])
def test_few_images_say_nothing_and_do_no_harm(count, trusted):
    found = weigh_quality(drawn(0, count), drawn(1, trusted), sources(count))
    for array, size in ((found.pool, count), (found.trusted, trusted), (found.share, count)):
        assert array.shape == (size,)
        assert np.isfinite(array).all()


def test_the_order_of_the_images_does_not_matter():
    pool, trusted, source = with_damage(drawn(0, 300), 0.1, 9.0)[0], drawn(1, 400), sources(300)
    order = np.random.default_rng(0).permutation(300)
    turned = Measured(*(array[order] for array in pool))
    one, other = weigh_quality(pool, trusted, source), weigh_quality(turned, trusted, source[order])
    np.testing.assert_allclose(other.pool, one.pool[order])
    np.testing.assert_allclose(other.trusted, one.trusted)
