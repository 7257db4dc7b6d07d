"""What the reference set says of its classes, against scikit-learn."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from sava_ops.batches import split_batches
from sava_ops.ot.cost import Points
from sava_ops.reference import discriminant as module
from sava_ops.reference.discriminant import FOLDS, INVERSE_PENALTY, LEAST_PROBABILITY, fit_discriminant
from tests.toy import clouds

CLASSES = 4


def reference(count: int = 60, classes: int = 3) -> Points:
    features, labels = clouds(count, classes=classes, seed=0)
    return Points(torch.from_numpy(features), torch.from_numpy(labels))


def test_each_fold_is_judged_by_the_regression_of_the_others(monkeypatch):
    monkeypatch.setattr(module, "GRADIENT_TOLERANCE", 1e-9)
    points = reference()
    found = fit_discriminant(points, classes=CLASSES, seed=3)
    x, y = points.features.numpy(), points.labels.numpy()
    unit = x.var(0).sum() ** 0.5
    for number, fold in enumerate(split_batches(y, batch_size=-(-len(y) // FOLDS), seed=3)):
        others = np.setdiff1d(np.arange(len(y)), fold)
        model = LogisticRegression(C=INVERSE_PENALTY, tol=1e-10, max_iter=10_000).fit(x[others] / unit, y[others])
        probability = np.zeros((len(fold), CLASSES))
        probability[:, model.classes_] = model.predict_proba(x[fold] / unit)
        expected = -np.log(LEAST_PROBABILITY + (1 - CLASSES * LEAST_PROBABILITY) * probability)
        np.testing.assert_allclose(found.reference_losses[fold].numpy(), expected, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(found.weights[number][model.classes_].numpy() * unit, model.coef_, atol=1e-4)
    assert torch.equal(found.biases[:, 3], torch.full((FOLDS,), -torch.inf, dtype=torch.float64))


@pytest.mark.parametrize(("tolerance", "converged"), [(1e-3, True), (0.0, False)])
def test_not_converging_is_a_stated_outcome(tolerance, converged, monkeypatch):
    monkeypatch.setattr(module, "GRADIENT_TOLERANCE", tolerance)
    assert bool(fit_discriminant(reference(), classes=CLASSES, seed=0).converged) is converged


def test_one_class_alone_costs_nothing():
    losses = fit_discriminant(reference(classes=1), classes=2, seed=0).reference_losses
    assert float(losses[:, 0].max()) < 1e-5 < float(losses[:, 1].min())
