"""The other methods, against their definitions."""

from itertools import combinations
from math import comb

import numpy as np
import pytest
import torch

from sava_ops import BadInput
from sava_ops.baselines import (
    METHODS,
    knn_shapley,
    logistic_regression,
    mean_discrepancy,
    nearest_neighbours,
    prototypes,
)
from sava_ops.cost import Points, feature_cost, mean_feature_cost
from sava_ops.detection import auroc
from tests.toy import clouds, mislabelled


def points(count: int, seed: int) -> Points:
    return Points(*map(torch.from_numpy, clouds(count, seed=seed)))


def test_neighbours_vote(monkeypatch):
    monkeypatch.setattr(nearest_neighbours, "NEIGHBOURS", 3)
    monkeypatch.setattr(nearest_neighbours, "BLOCK", 7)
    train, reference = points(20, 0), points(15, 1)
    distances = torch.cdist(train.features, reference.features)
    expected = [
        (reference.labels[row.argsort()[:3]] != label).double().mean().item()
        for row, label in zip(distances, train.labels, strict=True)
    ]
    np.testing.assert_allclose(nearest_neighbours.score(train, reference), expected)


def test_with_few_reference_points_all_vote():
    train, reference = points(4, 0), points(5, 1)
    shares = [(reference.labels != label).double().mean().item() for label in train.labels]
    np.testing.assert_allclose(nearest_neighbours.score(train, reference), shares)


def test_logistic_regression_is_one_minus_the_probability_of_the_given_label():
    train, reference = points(20, 0), points(30, 1)
    probability, classes = logistic_regression.class_probabilities(train, reference)
    assert classes.tolist() == [0, 1, 2]
    np.testing.assert_allclose(probability.sum(1), 1)
    expected = 1 - probability[np.arange(20), train.labels.numpy()]
    np.testing.assert_allclose(logistic_regression.score(train, reference), expected)


def test_a_label_the_reference_lacks_is_certainly_wrong():
    train, reference = points(6, 0), points(30, 1)
    foreign = Points(train.features, torch.full_like(train.labels, 7))
    np.testing.assert_array_equal(logistic_regression.score(foreign, reference), 1.0)


@pytest.mark.parametrize("neighbours", [1, 3, 9])
def test_knn_shapley_is_the_shapley_value(neighbours, monkeypatch):
    monkeypatch.setattr(knn_shapley, "BLOCK", 2)
    train, reference = points(7, 3), points(5, 4)
    agrees = (train.labels[None] == reference.labels[:, None]).numpy()
    order = feature_cost(reference.features, train.features).argsort(1).numpy()

    def worth(chosen: tuple[int, ...]) -> float:
        nearest = [[k for k in row if k in chosen][:neighbours] for row in order]
        return float(np.mean([agrees[j, own].sum() / neighbours for j, own in enumerate(nearest)]))

    expected = np.zeros(7)
    for point in range(7):
        others = [k for k in range(7) if k != point]
        for size in range(7):
            for chosen in combinations(others, size):
                expected[point] += (worth((*chosen, point)) - worth(chosen)) / (7 * comb(6, size))
    np.testing.assert_allclose(-knn_shapley.score(train, reference, neighbours=neighbours), expected, atol=1e-10)


def test_knn_shapley_refuses_no_neighbours():
    with pytest.raises(BadInput, match="`neighbours` is 0: it must be at least 1"):
        knn_shapley.score(points(3, 0), points(3, 1), neighbours=0)


def test_mean_discrepancy_is_half_the_derivative(monkeypatch):
    monkeypatch.setattr(mean_discrepancy, "BLOCK", 3)
    train, reference = points(8, 3), points(6, 4)
    bandwidth = mean_feature_cost(train.features, reference.features)
    weights = torch.full((8,), 1 / 8, dtype=torch.float64, requires_grad=True)
    both = [train, reference]
    kernels = [
        [torch.exp(-feature_cost(p.features, q.features) / bandwidth) * (p.labels[:, None] == q.labels) for q in both]
        for p in both
    ]
    discrepancy = weights @ kernels[0][0] @ weights - 2 * (weights @ kernels[0][1]).mean() + kernels[1][1].mean()
    (slope,) = torch.autograd.grad(discrepancy, weights)
    np.testing.assert_allclose(mean_discrepancy.score(train, reference), slope.numpy() / 2, atol=1e-12)


def test_prototypes_are_class_means():
    train = points(20, 3)
    expected = [
        1 - torch.cosine_similarity(x, train.features[train.labels == label].mean(0), dim=0).item()
        for x, label in zip(train.features, train.labels, strict=True)
    ]
    np.testing.assert_allclose(prototypes.score(train, points(5, 4)), expected, atol=1e-12)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_finds_planted_errors(name):
    features, labels = clouds(200, seed=2)
    noisy, wrong = mislabelled(labels, share=0.2, classes=3)
    train = Points(torch.from_numpy(features), torch.from_numpy(noisy))
    scores = METHODS[name](train, points(100, 1))
    assert scores.shape == (200,)
    assert auroc(scores, wrong) > 0.95
