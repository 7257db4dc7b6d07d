"""What the reference set says of its classes, against scikit-learn."""

import numpy as np
import pytest
import torch
from sklearn.covariance import ledoit_wolf
from sklearn.linear_model import LogisticRegression

from sava_ops.batches import split_batches
from sava_ops.ot.cost import Points
from sava_ops.reference import discriminant as module
from sava_ops.reference import logistic
from sava_ops.reference.discriminant import FOLDS, INVERSE_PENALTIES, fit_discriminant, shrunk_covariance
from sava_ops.reference.logistic import LEAST_PROBABILITY
from tests.toy import clouds

CLASSES = 4


def reference(count: int = 60, classes: int = 3) -> Points:
    features, labels = clouds(count, classes=classes, seed=0)
    return Points(torch.from_numpy(features), torch.from_numpy(labels))


def test_each_fold_is_judged_by_the_regression_of_the_others(monkeypatch):
    monkeypatch.setattr(logistic, "LOSS_TOLERANCE", 1e-12)
    points = reference()
    found = fit_discriminant(points, classes=CLASSES, seed=3)
    x, y = points.features.numpy(), points.labels.numpy()
    unit = x.var(0).sum() ** 0.5
    for number, fold in enumerate(split_batches(y, batch_size=-(-len(y) // FOLDS), seed=3)):
        others = np.setdiff1d(np.arange(len(y)), fold)
        model = LogisticRegression(C=float(found.inverse_penalty), tol=1e-10, max_iter=10_000).fit(
            x[others] / unit, y[others]
        )
        probability = np.zeros((len(fold), CLASSES))
        probability[:, model.classes_] = model.predict_proba(x[fold] / unit)
        expected = -np.log(LEAST_PROBABILITY + (1 - CLASSES * LEAST_PROBABILITY) * probability)
        np.testing.assert_allclose(found.reference_losses[fold].numpy(), expected, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(found.weights[number][model.classes_].numpy() * unit, model.coef_, atol=1e-4)
    assert torch.equal(found.biases[:, 3], torch.full((FOLDS,), -torch.inf, dtype=torch.float64))


@pytest.mark.parametrize(("steps", "converged"), [(200, True), (1, False)])
def test_not_converging_is_a_stated_outcome(steps, converged, monkeypatch):
    monkeypatch.setattr(logistic, "MOST_STEPS", steps)
    assert bool(fit_discriminant(reference(), classes=CLASSES, seed=0).converged) is converged


@pytest.mark.parametrize("width", [5, 400])
def test_the_penalty_is_a_local_minimum_of_the_held_out_loss(width, monkeypatch):
    features, labels = clouds(90, classes=3, width=width, seed=0)
    points = Points(torch.from_numpy(0.3 * features), torch.from_numpy(labels))
    found = fit_discriminant(points, classes=3, seed=0)
    losses = {}
    for penalty in INVERSE_PENALTIES:
        monkeypatch.setattr(module, "INVERSE_PENALTIES", (penalty,))
        alone = fit_discriminant(points, classes=3, seed=0)
        losses[penalty] = float(alone.reference_losses.gather(1, points.labels[:, None]).mean())
    place = INVERSE_PENALTIES.index(float(found.inverse_penalty))
    around = INVERSE_PENALTIES[max(0, place - 1) : place + 2]
    # Each was solved from another start, to a tolerance.
    assert losses[INVERSE_PENALTIES[place]] <= min(losses[penalty] for penalty in around) * 1.001


@pytest.mark.parametrize("each", [1, 2])
def test_a_class_that_a_fold_lacks_has_a_loss_all_the_same(each):
    """With one point a class, every fold lacks some classes: what judges strangers knows them all."""
    classes = 12
    features = torch.eye(classes, dtype=torch.float64).repeat_interleave(each, 0)
    points = Points(features, torch.arange(classes).repeat_interleave(each))
    found = fit_discriminant(points, classes=classes, seed=0)
    assert torch.equal(found.losses(points.features).argmin(1), points.labels)


def test_one_class_alone_costs_nothing():
    losses = fit_discriminant(reference(classes=1), classes=2, seed=0).reference_losses
    assert float(losses[:, 0].max()) < 1e-5 < float(losses[:, 1].min())


@pytest.mark.parametrize("shape", [(100, 5), (10, 50), (2, 3)])
def test_the_covariance_is_shrunk_as_scikit_learn_does(shape):
    x = torch.from_numpy(np.random.default_rng(0).normal(size=shape)) * torch.arange(1, shape[1] + 1)
    expected, how_far = ledoit_wolf(x.numpy(), assume_centered=True)
    spread, shrinkage = shrunk_covariance(x)
    np.testing.assert_allclose(spread, expected, rtol=1e-12)
    assert shrinkage == pytest.approx(how_far)
    assert shrinkage > 0


def test_points_without_spread_have_no_covariance():
    spread, shrinkage = shrunk_covariance(torch.zeros(1, 4))
    assert not spread.any()
    assert shrinkage == 0


def test_how_far_off_its_class_a_point_lies_once_it_is_left_out():
    """Exactly what means and covariance without the point say, along any direction."""
    generator = np.random.default_rng(0)
    x, y = generator.normal(size=(30, 6)), np.arange(30) % 3
    found = fit_discriminant(Points(torch.from_numpy(x), torch.from_numpy(y)), classes=3, seed=0)
    inside = x - np.stack([x[y == c].mean(0) for c in range(3)])[y]
    covariance, shrinkage = ledoit_wolf(inside, assume_centered=True)
    isotropic = covariance - (1 - shrinkage) * inside.T @ inside / 30
    delta = generator.normal(size=6)
    for j in (0, 7, 29):
        rest = np.arange(30) != j
        means = np.stack([x[rest & (y == c)].mean(0) for c in range(3)])
        scatter = sum(np.outer(r, r) for r in x[rest] - means[y[rest]])
        without = np.linalg.inv((1 - shrinkage) * scatter / 30 + isotropic)
        expected = (x[j] - means[y[j]]) @ without @ delta
        seen = inside[j] @ found.precision.numpy() @ delta
        assert float(found.left_out[j]) * seen == pytest.approx(expected, rel=1e-9)
