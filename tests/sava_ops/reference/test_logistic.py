"""Several regressions at once, against scikit-learn."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from torch.nn.functional import one_hot

from sava_ops.reference import logistic
from sava_ops.reference.logistic import (
    LEAST_PROBABILITY,
    Coordinates,
    Offset,
    Projected,
    Regressions,
    best_penalty,
    losses,
)
from tests.toy import clouds

NOBODY = torch.empty(0, dtype=torch.int64)
"""Labels of points whose classes are not known: no direction is shortened."""


def test_a_soft_label_is_as_many_labels_of_so_much_weight(monkeypatch):
    monkeypatch.setattr(logistic, "LOSS_TOLERANCE", 1e-12)
    features, _ = clouds(80, classes=3, seed=1)
    x = torch.from_numpy(features)
    targets = torch.rand(80, 3, generator=torch.Generator().manual_seed(0), dtype=x.dtype).softmax(1)
    points = Projected(x, NOBODY)
    found = Regressions(points, torch.ones(1, 80, dtype=x.dtype)).solve(targets[None], 4.0)
    unit = float(x.var(0, correction=0).sum()) ** 0.5
    model = LogisticRegression(C=4.0, tol=1e-10, max_iter=10_000)
    model.fit(np.repeat(features, 3, axis=0) / unit, np.tile([0, 1, 2], 80), sample_weight=targets.flatten().numpy())
    expected = model.predict_proba(features / unit)
    p = (points.x @ found.weights[0].T + found.biases[0]).softmax(1)
    np.testing.assert_allclose(p, expected, atol=1e-4)
    weights, biases = points.on_features(found.weights, found.biases)
    torch.testing.assert_close((x @ weights[0].T + biases[0]).softmax(1), p)
    assert found.converged


def test_what_has_no_weight_is_not_learned_from(monkeypatch):
    monkeypatch.setattr(logistic, "LOSS_TOLERANCE", 1e-12)
    features, labels = clouds(60, classes=2, seed=2)
    x, targets = torch.from_numpy(features), torch.nn.functional.one_hot(torch.from_numpy(labels), 2).double()
    weights = torch.ones(2, 60, dtype=x.dtype)
    weights[1, :20] = 0
    turned = targets.clone()
    turned[:20] = 1 - turned[:20]
    one, other = (Regressions(Projected(x, NOBODY), weights).solve(t.expand(2, -1, -1), 2.0) for t in (targets, turned))
    torch.testing.assert_close(one.weights[1], other.weights[1], atol=1e-3, rtol=1e-3)
    assert (one.weights[0] - other.weights[0]).abs().max() > 0.1


@pytest.mark.parametrize("logits_at_once", [1, 100, 10**6])
def test_a_fold_is_fitted_as_if_it_were_alone(monkeypatch, logits_at_once):
    """However many points go into a block, whatever the other folds leave out, each under the offset of its own run."""
    monkeypatch.setattr(logistic, "LOSS_TOLERANCE", 1e-12)
    monkeypatch.setattr(logistic, "BLOCK", logits_at_once)
    features, labels = clouds(60, classes=3, seed=5)
    points = Projected(torch.from_numpy(features), NOBODY)
    targets = torch.nn.functional.one_hot(torch.from_numpy(labels), 3).double()
    generator = torch.Generator().manual_seed(1)
    weights = torch.randint(0, 3, (4, 60), generator=generator).double()
    weights[:, :2] = 0  # in no fold
    weights[1, 2] = 1e-320
    runs = [torch.randn(4, 3, generator=generator, dtype=torch.float64) for _ in range(3)]
    together = Regressions(points, weights).solve(
        targets.expand(4, -1, -1), 2.0, [Offset(n, own) for n, own in zip((25, 0, 35), runs, strict=True)]
    )
    for fold in range(4):
        rows = weights[fold].nonzero()[:, 0]
        x, t, s = points.x[rows], targets[rows], weights[fold, rows] / weights[fold].sum()
        offset = torch.where((rows < 25)[:, None], runs[0][fold], runs[2][fold])
        w, b = together.weights[fold].requires_grad_(), together.biases[fold].requires_grad_()
        loss = s @ -(t * (x @ w.T + b + offset).log_softmax(1)).sum(1) + w.square().sum() / 4 / weights[fold].sum()
        for slope in torch.autograd.grad(loss, (w, b)):
            assert float(slope.abs().max()) < 2e-5


def test_what_the_coordinates_are_in_does_not_change_where_they_lead():
    """Weights and biases come back, and a linear function has the slope that gives its value."""
    generator = torch.Generator().manual_seed(4)
    pull, weights, by_weights = torch.randn(3, 2, 4, 5, generator=generator, dtype=torch.float64)
    mass = torch.tensor([[0.5, 0.3, 0.2, 0.0], [0.1, 0.1, 0.1, 0.7]], dtype=torch.float64)
    biases, by_biases = torch.randn(2, 2, 4, generator=generator, dtype=torch.float64)
    coordinates = Coordinates(pull, mass, torch.ones(5).double(), torch.tensor([0.1, 0.2]).double())
    flat = coordinates.of(weights, biases)
    torch.testing.assert_close(coordinates.back(flat), (weights, biases))
    value = float((weights * by_weights).sum() + (biases * by_biases).sum())
    assert flat @ coordinates.slope(by_weights, by_biases) == pytest.approx(value)


def test_regressions_on_features_are_found_again_on_the_directions():
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(60, 40, generator=generator, dtype=torch.float64)
    x[:, 3] *= 8
    points = Projected(x, torch.arange(30) % 3)
    assert points.lengths.min() < 1
    weights = torch.randn(2, 3, points.x.shape[1], generator=generator, dtype=x.dtype)
    biases = torch.randn(2, 3, generator=generator, dtype=x.dtype)
    torch.testing.assert_close(points.from_features(*points.on_features(weights, biases)), (weights, biases))


def log_shares(labels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.bincount(labels, minlength=2) / len(labels)).log()[None]


def test_populations_of_other_class_shares_have_the_same_regression(monkeypatch):
    """Two Gaussians at ±1: z_1 − z_0 = 2 x, however frequent the classes are on either side."""
    monkeypatch.setattr(logistic, "LOSS_TOLERANCE", 1e-12)
    rng = np.random.default_rng(3)
    labels = [(rng.random(40_000) < share).astype(int) for share in (0.03, 0.6)]
    x = torch.from_numpy(np.concatenate([2.0 * y - 1 + rng.normal(size=len(y)) for y in labels]))[:, None]
    targets = torch.nn.functional.one_hot(torch.from_numpy(np.concatenate(labels)), 2).double()[None]
    offsets = [Offset(len(y), log_shares(y)) for y in labels]

    def slope_and_bias(offsets: list[Offset]) -> tuple[float, float]:
        points = Projected(x, NOBODY)
        found = Regressions(points, torch.ones(1, len(x), dtype=x.dtype)).solve(targets, 1e3, offsets)
        weights, biases = points.on_features(found.weights, found.biases)
        return float(weights[0, 1] - weights[0, 0]), float(biases[0, 1] - biases[0, 0])

    slope, bias = slope_and_bias(offsets)
    assert slope == pytest.approx(2.0, abs=0.05)
    assert bias == pytest.approx(0.0, abs=0.05)
    assert abs(slope_and_bias([])[1]) > 0.5


def test_what_is_added_to_all_logits_is_taken_off_the_biases(monkeypatch):
    monkeypatch.setattr(logistic, "LOSS_TOLERANCE", 1e-12)
    features, labels = clouds(60, classes=3, seed=4)
    x, targets = torch.from_numpy(features), torch.nn.functional.one_hot(torch.from_numpy(labels), 3).double()[None]
    added = torch.tensor([[0.5, -1.0, 0.5]], dtype=x.dtype)
    plain, moved = (
        Regressions(Projected(x, NOBODY), torch.ones(1, 60, dtype=x.dtype)).solve(targets, 2.0, offsets)
        for offsets in ([], [Offset(20, added), Offset(40, added)])
    )
    torch.testing.assert_close(moved.weights, plain.weights, atol=1e-4, rtol=1e-3)
    torch.testing.assert_close(moved.biases + added, plain.biases, atol=1e-3, rtol=1e-3)


def test_losses_are_finite_and_those_of_the_probability():
    found = losses(torch.tensor([[0.0, 0.25, 0.75]], dtype=torch.float64))[0]
    np.testing.assert_allclose(found.exp().reciprocal()[1:], [0.25, 0.75], rtol=1e-5)
    assert float(found[0]) == -np.log(LEAST_PROBABILITY)


@given(st.integers(0, 6), st.integers(1, 7))
def test_the_best_penalty_is_found_from_the_middle_on(best, count):
    penalties, asked = [2.0**place for place in range(count)], []

    def fit(penalty: float) -> float:
        asked.append(penalty)
        return abs(np.log2(penalty) - best)

    made, found = best_penalty(fit, penalties, lambda tried, last: tried < last)
    assert found == min(penalties, key=lambda penalty: abs(np.log2(penalty) - best))
    assert made == abs(np.log2(found) - best)
    assert asked[0] == penalties[count // 2]
    assert len(asked) == len(set(asked))
    if min(best, count - 1) > count // 2:
        assert min(asked) == asked[0], "a larger one was better"


def test_penalties_that_are_as_good_leave_the_usual_one():
    assert best_penalty(lambda _: 1.0, (0.5, 2.0, 8.0), lambda tried, last: tried < last) == (1.0, 2.0)


def test_a_looser_tolerance_takes_fewer_steps_the_same_way(monkeypatch):
    x, generator = torch.randn(400, 6, generator=torch.Generator().manual_seed(4)).double(), np.random.default_rng(4)
    labels = torch.from_numpy(generator.integers(0, 3, 400))
    x[torch.arange(400), labels] += 2.0
    points = Projected(x, labels)
    targets, found, asked = one_hot(labels, 3).double()[None], [], []
    of_all = Regressions._objective
    monkeypatch.setattr(Regressions, "_objective", lambda *of: asked.append(of_all(*of)) or asked[-1])
    for tolerance in (None, 1e-2):
        asked.clear()
        Regressions(points, torch.ones(1, 400).double()).solve(targets, 2.0, tolerance=tolerance)
        found.append([value for value, *_ in asked])
    assert len(found[1]) < len(found[0])
    assert found[1] == found[0][: len(found[1])]
