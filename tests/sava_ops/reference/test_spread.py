"""What varies far more than all else is shortened, and nothing else."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sava_ops import ValuationConfig, value_points
from sava_ops.decisions.conformal import benjamini_hochberg
from sava_ops.decisions.detection import auroc
from sava_ops.ot.cost import Points
from sava_ops.reference.spread import FEWEST, inside_classes, scaled, scales

VARIANCES = st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=60).map(lambda v: torch.tensor(v, dtype=torch.float64))


@given(VARIANCES, st.floats(1e-3, 1e3))
def test_the_widest_is_no_wider_than_it_may_be_and_the_order_stays(variances, unit):
    found = scales(variances)
    seen = variances * found.square()
    assert ((found > 0) & (found <= 1)).all()
    order = variances.argsort()
    assert (seen[order].diff() >= -1e-9 * seen.max()).all()
    number = float(seen.sqrt().sum().square() / seen.sum())
    assert float(seen.sum() / seen.max()) >= number / FEWEST * (1 - 1e-3)
    torch.testing.assert_close(scales(unit * variances), found, rtol=1e-6, atol=1e-9)
    assert (found[variances < seen.max() * (1 - 1e-6)] == 1).all(), "only the widest are shortened"


@pytest.mark.parametrize(
    "variances",
    [
        torch.ones(500),
        torch.cat([torch.ones(10), torch.full((500,), 1e-8)]),  # few directions and the noise of rounding
        torch.cat([torch.ones(30), torch.zeros(482)]),
        torch.linspace(1, 20, 300),
        torch.tensor([5.0]),
        torch.zeros(4),
    ],
)
def test_what_varies_alike_stays_as_it_is(variances):
    assert (scales(variances) == 1).all()


def test_a_feature_that_is_hundreds_of_times_as_wide_becomes_one_of_many():
    found = scales(torch.cat([torch.tensor([4e4]), torch.ones(1279)]))
    assert (found[1:] == 1).all()
    assert 4e4 * float(found[0]) ** 2 == pytest.approx(FEWEST, rel=0.02)


def test_variance_is_that_inside_the_classes():
    x = torch.tensor([[0.0, 1.0], [2.0, 1.0], [10.0, 5.0], [10.0, 9.0]])
    found = inside_classes(Points(x, torch.tensor([0, 0, 2, 2])))
    torch.testing.assert_close(found, torch.tensor([0.5, 2.0], dtype=torch.float64))
    assert not inside_classes(Points(x, torch.arange(4))).any()


def test_points_stay_as_long_as_they_were():
    x = torch.randn(20, 3, generator=torch.Generator().manual_seed(0))
    x[4] = 0
    own = torch.tensor([1.0, 0.1, 0.5])
    found = scaled(x, own)
    torch.testing.assert_close(found.norm(dim=1), x.norm(dim=1))
    torch.testing.assert_close(torch.nn.functional.normalize(found), torch.nn.functional.normalize(x * own))
    assert scaled(x, torch.ones(3)) is x


def test_one_feature_of_another_size_decides_nothing():
    """Wrong labels are found as without it, and few right ones are flagged, though the pool differs in it."""
    generator = np.random.default_rng(0)
    means = 0.2 * generator.normal(size=(5, 400))
    truth, known = generator.integers(0, 5, 600), np.arange(200) % 5
    pool, reference = (means[y] + 1.2 * generator.normal(size=(len(y), 400)) for y in (truth, known))
    bad = generator.random(600) < 0.2
    given_labels = np.where(bad, (truth + generator.integers(1, 5, 600)) % 5, truth)
    wide = [100 * generator.normal(size=(len(side), 1)) for side in (pool, reference)]
    wide[0] += 70
    sides = [np.concatenate(pair, 1) for pair in zip((pool, reference), wide, strict=True)]
    alone = value_points(pool, given_labels, reference, known)
    found = value_points(sides[0], given_labels, sides[1], known)
    assert auroc(found.evidence, bad) > auroc(alone.evidence, bad) - 0.01
    flagged = benjamini_hochberg(found.p_values, rate=0.2)
    assert (flagged & ~bad).sum() <= 0.25 * max(flagged.sum(), 1)
    as_they_are = value_points(sides[0], given_labels, sides[1], known, config=ValuationConfig(shorten_columns=False))
    assert auroc(as_they_are.evidence, bad) < auroc(found.evidence, bad) - 0.02
