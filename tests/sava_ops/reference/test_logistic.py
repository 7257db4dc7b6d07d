"""Several regressions at once, against scikit-learn."""

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression

from sava_ops.reference import logistic
from sava_ops.reference.logistic import LEAST_PROBABILITY, Projected, Regressions, losses
from tests.toy import clouds


def test_a_soft_label_is_as_many_labels_of_so_much_weight(monkeypatch):
    monkeypatch.setattr(logistic, "LOSS_TOLERANCE", 1e-12)
    features, _ = clouds(80, classes=3, seed=1)
    x = torch.from_numpy(features)
    targets = torch.rand(80, 3, generator=torch.Generator().manual_seed(0), dtype=x.dtype).softmax(1)
    found = Regressions(Projected(x), torch.ones(1, 80, dtype=x.dtype)).solve(targets[None], 4.0)
    unit = float(x.var(0, correction=0).sum()) ** 0.5
    model = LogisticRegression(C=4.0, tol=1e-10, max_iter=10_000)
    model.fit(np.repeat(features, 3, axis=0) / unit, np.tile([0, 1, 2], 80), sample_weight=targets.flatten().numpy())
    expected = model.predict_proba(features / unit)
    p = (x @ found.weights[0].T + found.biases[0]).softmax(1).numpy()
    np.testing.assert_allclose(p, expected, atol=1e-4)
    assert found.converged


def test_what_has_no_weight_is_not_learned_from(monkeypatch):
    monkeypatch.setattr(logistic, "LOSS_TOLERANCE", 1e-12)
    features, labels = clouds(60, classes=2, seed=2)
    x, targets = torch.from_numpy(features), torch.nn.functional.one_hot(torch.from_numpy(labels), 2).double()
    weights = torch.ones(2, 60, dtype=x.dtype)
    weights[1, :20] = 0
    turned = targets.clone()
    turned[:20] = 1 - turned[:20]
    one, other = (Regressions(Projected(x), weights).solve(t.expand(2, -1, -1), 2.0) for t in (targets, turned))
    torch.testing.assert_close(one.weights[1], other.weights[1], atol=1e-3, rtol=1e-3)
    assert (one.weights[0] - other.weights[0]).abs().max() > 0.1


def test_losses_are_finite_and_those_of_the_probability():
    found = losses(torch.tensor([[0.0, 0.25, 0.75]], dtype=torch.float64))[0]
    np.testing.assert_allclose(found.exp().reciprocal()[1:], [0.25, 0.75], rtol=1e-5)
    assert float(found[0]) == -np.log(LEAST_PROBABILITY)
