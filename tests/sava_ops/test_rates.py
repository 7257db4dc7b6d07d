"""Of what is flagged at a nominal rate, no more is good than that, where pool and reference are exchangeable."""

import numpy as np
import pytest

from sava_ops import value_points
from sava_ops.decisions.conformal import benjamini_hochberg

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
