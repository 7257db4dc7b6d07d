"""Of what is flagged at a nominal rate, no more is good than that, where pool and reference are exchangeable; where all
images are otherwise, no good ones are thrown away."""

import numpy as np
import pytest

from sava_ops import value_points
from sava_ops.decisions.conformal import benjamini_hochberg
from sava_ops.decisions.detection import auroc

pytestmark = pytest.mark.long
SEEDS, RATES = range(6), (0.01, 0.05, 0.1, 0.2)


def realised(
    classes: int, each: int, width: int, apart: float, seed: int, *, wrong: float
) -> tuple[list[float], float]:
    """Share of good points among the flagged, at each rate, and the share of all points flagged at the last.

    Gaussian classes, so many reference points of each, 600 points of which this share has another label.
    """
    generator = np.random.default_rng([seed, classes, each])
    means = apart / np.sqrt(2 * width) * generator.normal(size=(classes, width))
    reference, truth = np.repeat(np.arange(classes), each), generator.integers(0, classes, 600)
    features = [(means[y] + generator.normal(size=(len(y), width))).astype(np.float32) for y in (truth, reference)]
    bad = generator.random(600) < wrong
    labels = np.where(bad, (truth + generator.integers(1, classes, 600)) % classes, truth)
    found = value_points(features[0], labels, features[1], reference)
    flags = [benjamini_hochberg(found.p_values, rate=rate) for rate in RATES]
    return [float((flagged & ~bad).sum() / max(flagged.sum(), 1)) for flagged in flags], float(flags[-1].mean())


@pytest.mark.parametrize("apart", [0.0, 12.0], ids=["useless", "telling"])
@pytest.mark.parametrize(("classes", "each", "width"), [(2, 100, 16), (2, 10, 256), (10, 20, 16), (40, 5, 64)])
def test_the_rate_is_kept(classes, each, width, apart):
    rates = np.array([realised(classes, each, width, apart, seed, wrong=0.3)[0] for seed in SEEDS])
    errors = rates.std(0, ddof=1) / np.sqrt(len(rates))
    assert (rates.mean(0) <= np.array(RATES) + 2 * errors).all()


@pytest.mark.parametrize(("classes", "each", "width"), [(2, 100, 16), (10, 20, 16), (40, 5, 64)])
def test_where_nothing_is_wrong_nothing_is_flagged(classes, each, width):
    flagged = [realised(classes, each, width, 12.0, seed, wrong=0.0)[1] for seed in SEEDS]
    assert np.mean(flagged) <= 0.001


def test_where_there_is_enough_to_judge_by_much_is_found():
    assert realised(2, 100, 16, 12.0, 0, wrong=0.3)[1] > 0.2


def through_another_camera(strength: float, seed: int, *, wrong: float, lacking: bool = False):
    """Pool and reference of ten Gaussian classes, the latter moved: all alike, and as far again each class by itself;
    `strength` standard deviations. Of `lacking` the last class, the reference has no image."""
    generator = np.random.default_rng([seed, 7])
    means = 12 / np.sqrt(2 * 32) * generator.normal(size=(10, 32))
    moved = strength / np.sqrt(32) * (generator.normal(size=32) + generator.normal(size=(10, 32)))
    reference, truth = np.repeat(np.arange(10 - lacking), 60), generator.integers(0, 10, 2_000)
    bad = generator.random(2_000) < wrong
    labels = np.where(bad, (truth + generator.integers(1, 10, 2_000)) % 10, truth)
    pool = (means[truth] + generator.normal(size=(2_000, 32))).astype(np.float32)
    judges = ((means + moved)[reference] + generator.normal(size=(len(reference), 32))).astype(np.float32)
    return value_points(pool, labels, judges, reference), labels, bad


@pytest.mark.parametrize("strength", [1.0, 3.0, 9.0])
def test_through_another_camera_good_images_are_kept(strength):
    realised = []
    for seed in SEEDS:
        found, _, bad = through_another_camera(strength, seed, wrong=0.0)
        assert benjamini_hochberg(found.p_values, rate=0.2).mean() <= 0.001
        found, _, bad = through_another_camera(strength, seed, wrong=0.3)
        flags = [benjamini_hochberg(found.p_values, rate=rate) for rate in RATES]
        realised.append([(flagged & ~bad).sum() / max(flagged.sum(), 1) for flagged in flags])
        assert auroc(found.evidence, bad) > 0.9
    assert (np.mean(realised, 0) <= np.array(RATES) + 0.05).all()


@pytest.mark.parametrize("strength", [0.0, 3.0])
def test_a_label_that_the_reference_lacks_is_wrong_through_any_camera(strength):
    found, labels, _ = through_another_camera(strength, 0, wrong=0.0, lacking=True)
    flagged = benjamini_hochberg(found.p_values, rate=0.1)
    assert flagged[labels == 9].all()
    assert (flagged & (labels != 9)).sum() <= 0.1 * flagged.sum()
