import numpy as np
import ot
import pytest
import torch

from sava_ops.ot.cost import Points, feature_cost, mean_feature_cost
from sava_ops.ot.label_distance import EPSILON, class_samples, label_distances
from tests.toy import clouds


def samples(count: int = 60, *, classes: int = 3, seed: int = 0) -> dict[int, torch.Tensor]:
    features, labels = clouds(count, classes=classes, seed=seed)
    points = Points(torch.from_numpy(features), torch.from_numpy(labels))
    return class_samples(points, cap=1_000, seed=0)


def test_classes_of_one_point_are_as_far_as_their_points():
    train = {0: torch.tensor([[0.0, 0.0]]), 1: torch.tensor([[3.0, 4.0]])}
    reference = {0: torch.tensor([[0.0, 1.0]]), 1: torch.tensor([[3.0, 4.0]])}
    distances = label_distances(train, reference, classes=2, divergence=False)
    torch.testing.assert_close(distances, torch.tensor([[1.0, 25.0], [18.0, 0.0]]))


def test_published_distance_is_the_transport_cost_of_pot():
    train, reference = samples(seed=0), samples(seed=1)
    distances = label_distances(train, reference, classes=3, divergence=False)
    epsilon = EPSILON * mean_feature_cost(torch.cat(list(train.values())), torch.cat(list(reference.values())))
    for c in range(3):
        for d in range(3):
            cost = feature_cost(train[c], reference[d]).numpy()
            a, b = np.full(len(train[c]), 1 / len(train[c])), np.full(len(reference[d]), 1 / len(reference[d]))
            plan = ot.sinkhorn(a, b, cost, epsilon, method="sinkhorn_log", stopThr=1e-12, numItermax=10_000)
            assert float(distances[c, d]) == pytest.approx(2 * float((plan * cost).sum()), rel=1e-2)


def test_a_class_has_its_distance_by_global_id_whatever_else_is_missing():
    train, reference = samples(seed=0), samples(seed=1)
    whole = label_distances(train, reference, classes=4, divergence=False)
    part = label_distances({2: train[2], 0: train[0]}, {1: reference[1]}, classes=4, divergence=False)
    known = torch.zeros(4, 4, dtype=torch.bool)
    known[[0, 2], [1, 1]] = True
    assert torch.equal(torch.isfinite(part), known)
    # The scale of ε follows what is there, so the distances agree to within the entropic smoothing.
    torch.testing.assert_close(part[known], whole[known], rtol=0.05, atol=0.0)


def test_divergence_charges_nothing_for_the_spread_inside_a_class():
    distances = label_distances(samples(seed=0), samples(seed=1), classes=3, divergence=True)
    assert torch.equal(distances.diagonal(), torch.zeros(3, dtype=torch.float64))
    assert float(distances.min()) >= 0.0


def test_divergence_prices_a_mismatch_like_a_foreign_image():
    reference = samples(seed=1)
    distances = label_distances(samples(seed=0), reference, classes=3, divergence=True)
    features = torch.cat(list(reference.values()))
    assert float(0.5 * distances.sum() / 6) == pytest.approx(mean_feature_cost(features, features), rel=1e-9)


def test_divergence_knows_training_classes_that_the_reference_lacks():
    train, reference = samples(seed=0), samples(seed=1)
    del reference[1]
    distances = label_distances(train, reference, classes=3, divergence=True)
    assert torch.isfinite(distances[:, [0, 2]]).all()
    assert torch.isnan(distances[:, 1]).all()


def test_one_class_has_no_mismatch():
    distances = label_distances(samples(classes=1), samples(classes=1, seed=1), classes=1, divergence=True)
    assert float(distances) == 0.0


def test_sample_of_a_class_is_capped_and_seeded():
    features, labels = clouds(100)
    points = Points(torch.from_numpy(features), torch.from_numpy(labels))
    one, again, other = (class_samples(points, cap=10, seed=seed) for seed in (0, 0, 1))
    assert {label: len(sample) for label, sample in one.items()} == {0: 10, 1: 10, 2: 10}
    assert all(torch.equal(one[c], again[c]) for c in one)
    assert not torch.equal(one[0], other[0])
    own = {tuple(row) for row in features[labels == 2].tolist()}
    assert {tuple(row) for row in one[2].tolist()} <= own
