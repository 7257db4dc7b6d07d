"""Points with more features than there are points: as many coordinates as they span, and nothing else changes."""

import numpy as np
import pytest
import torch

from sava_ops import inputs
from sava_ops.config import ValuationConfig
from sava_ops.inputs import in_their_span
from sava_ops.ot.cost import Points
from sava_ops.valuation import value_points
from tests.toy import clouds


def sides(width: int, count: int = 30) -> tuple[Points, Points]:
    made = [clouds(count + seed, width=width, seed=seed) for seed in range(2)]
    return tuple(Points(torch.from_numpy(x), torch.from_numpy(y)) for x, y in made)  # pyright: ignore


def products(points: tuple[Points, Points]) -> torch.Tensor:
    x = torch.cat([side.features for side in points])
    return x @ x.T


@pytest.fixture(autouse=True)
def _no_width_is_affordable(monkeypatch):
    monkeypatch.setattr(inputs, "AFFORDABLE_WIDTH", 0)


@pytest.mark.parametrize("width", [62, 500])
def test_every_product_is_kept(width):
    before = sides(width)
    after = in_their_span(*before)
    assert [side.features.shape for side in after] == [(30, 61), (31, 61)]
    torch.testing.assert_close(products(after), products(before))
    assert all(torch.equal(one.labels, other.labels) for one, other in zip(before, after, strict=True))


@pytest.mark.parametrize("width", [1, 61])
def test_points_with_no_more_features_than_points_stay_as_they_are(width):
    before = sides(width)
    assert all(one is other for one, other in zip(before, in_their_span(*before), strict=True))


def test_points_of_fewer_directions_than_points():
    points = Points(torch.ones(3, 9, dtype=torch.float64), torch.tensor([0, 1, 0]))
    assert torch.allclose(products(in_their_span(points, points)), torch.full((6, 6), 9.0, dtype=torch.float64))


@pytest.mark.parametrize("config", [ValuationConfig(), ValuationConfig.paper()], ids=["default", "paper"])
def test_columns_of_zeros_change_no_value(config):
    """However many: twenty thousand are as good as a hundred."""
    (x, y), (reference, known) = clouds(40, width=90, seed=0), clouds(40, width=90, seed=1)

    def values(width: int) -> np.ndarray:
        padded = [np.pad(side, ((0, 0), (0, width - 90))) for side in (x, reference)]
        return value_points(padded[0], y, padded[1], known, config=config).values

    few = values(90)
    for width in (100, 20_000):
        np.testing.assert_allclose(values(width), few, rtol=1e-6, atol=1e-9)
