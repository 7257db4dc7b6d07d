"""The yardsticks, against their definitions."""

import numpy as np
import pytest
import torch

from sava_ops.baselines import logistic_regression, nearest_neighbours
from sava_ops.cost import Points
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


@pytest.mark.parametrize("method", [logistic_regression, nearest_neighbours], ids=lambda m: m.__name__.split(".")[-1])
def test_yardsticks_find_planted_errors(method):
    features, labels = clouds(200, seed=2)
    noisy, wrong = mislabelled(labels, share=0.2, classes=3)
    train = Points(torch.from_numpy(features), torch.from_numpy(noisy))
    assert auroc(method.score(train, points(100, 1)), wrong) > 0.95
