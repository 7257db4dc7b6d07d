import numpy as np
import pytest
import torch

from sava_ops.ot.cost import (
    Points,
    feature_cost,
    ground_cost,
    mean_feature_cost,
    moments,
)
from sava_ops.ot.moments import mean_feature_cost_of_moments
from tests.toy import clouds


def points(count: int, seed: int, dtype: type = np.float64, classes: int = 3) -> Points:
    features, labels = clouds(count, classes=classes, seed=seed, dtype=dtype)
    return Points(torch.from_numpy(features), torch.from_numpy(labels))


def test_ground_cost_is_equation_8_term_by_term():
    train, reference = points(7, 0), points(5, 1)
    distances = torch.rand(3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    cost = ground_cost(train, reference, label_distances=distances, label_weight=0.7)
    for k in range(7):
        for m in range(5):
            feature_part = 0.5 * (train.features[k] - reference.features[m]).square().sum()
            label_part = 0.7 * 0.5 * distances[train.labels[k], reference.labels[m]]
            assert float(cost[k, m]) == pytest.approx(float(feature_part + label_part), rel=1e-12)


def test_without_label_weight_only_features_count():
    train, reference = points(7, 0), points(5, 1)
    cost = ground_cost(train, reference, label_distances=torch.ones(3, 3, dtype=torch.float64), label_weight=0.0)
    torch.testing.assert_close(cost, feature_cost(train.features, reference.features))


def test_unknown_distances_of_absent_classes_do_not_spread():
    train, reference = points(7, 0, classes=2), points(5, 1, classes=2)
    distances = torch.full((3, 3), torch.nan, dtype=torch.float64)
    distances[:2, :2] = 1.0
    cost = ground_cost(train, reference, label_distances=distances, label_weight=1.0)
    torch.testing.assert_close(cost, feature_cost(train.features, reference.features) + 0.5)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_shift_of_all_points_changes_no_cost(dtype):
    train, reference = points(20, 0, dtype), points(20, 1, dtype)
    shifted = feature_cost(train.features + 1_000, reference.features + 1_000)
    torch.testing.assert_close(shifted, feature_cost(train.features, reference.features), rtol=1e-3, atol=1e-3)


def test_equal_points_cost_nothing_and_nothing_is_negative():
    x = points(50, 0, np.float32).features
    cost = feature_cost(x, x)
    assert float(cost.min()) >= 0.0
    torch.testing.assert_close(cost.diagonal(), torch.zeros(50), rtol=0, atol=1e-4)


def test_mean_feature_cost_is_the_mean_over_all_pairs():
    x, y = points(30, 0).features, points(20, 1).features
    assert mean_feature_cost(x, y) == pytest.approx(float(feature_cost(x, y).mean()), rel=1e-12)


def test_mean_feature_cost_of_one_point_is_exactly_zero():
    x = torch.full((4, 3), 0.1)
    assert mean_feature_cost(x, x) == 0.0


@pytest.mark.parametrize("unit_norm", [False, True])
def test_moments_give_the_mean_feature_cost_of_a_union(unit_norm):
    sizes = (20, 50)
    parts = [points(size, seed).features for seed, size in enumerate(sizes)]
    reference = points(30, 2).features
    *given, last = [{name: m.numpy() for name, m in moments(side).items()} for side in (*parts, reference)]
    found = mean_feature_cost_of_moments(list(zip(sizes, given, strict=True)), last, unit_norm=unit_norm)
    sides = torch.cat(parts), reference
    if unit_norm:
        sides = tuple(torch.nn.functional.normalize(side, dim=1) for side in sides)
    assert found == pytest.approx(float(feature_cost(*sides).mean()), rel=1e-12)


@pytest.mark.parametrize(("n", "d"), [(1, 1), (5, 64), (300, 65), (4_097, 512), (9_000, 130)])
def test_moments_part_by_part_are_those_of_all_at_once_to_the_last_bit(n, d):
    x = torch.randn(n, d, generator=torch.Generator().manual_seed(n)).relu().half()
    x[0] = 0
    found = moments(x)
    for kind, side in (("raw", x.double()), ("unit", torch.nn.functional.normalize(x.double(), dim=1))):
        assert torch.equal(found[f"{kind}_mean"], side.mean(0))
        assert torch.equal(found[f"{kind}_square"], side.square().sum(1).mean())
