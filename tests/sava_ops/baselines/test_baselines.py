"""The other methods, against their definitions."""

import sys
from dataclasses import replace
from itertools import combinations
from math import comb

import numpy as np
import psutil
import pytest
import torch
from captum.influence import TracInCPFast
from cleanlab.rank import get_label_quality_scores
from geomloss import SamplesLoss
from sklearn.cluster import MiniBatchKMeans
from torch.nn.functional import cross_entropy
from torch.utils.data import TensorDataset

from sava_ops import BadInput, ValuationConfig, value_points
from sava_ops.baselines import (
    METHODS,
    confident_learning,
    el2n,
    influence,
    knn_shapley,
    linear_head,
    logistic_regression,
    mean_discrepancy,
    nearest_neighbours,
    prototypes,
    random_order,
    tracin,
    transport,
)
from sava_ops.baselines.method import Method
from sava_ops.decisions.detection import auroc
from sava_ops.errors import OutOfMemory
from sava_ops.ot.cost import Points, feature_cost, mean_feature_cost
from sava_ops.reference.logistic import LEAST_PROBABILITY
from tests.toy import clouds, mislabelled

pytestmark = pytest.mark.long
PAPER = replace(ValuationConfig.paper(), held_out_sample=0)
FINDERS = [name for name in METHODS if name != "random"]


def points(count: int, seed: int) -> Points:
    return Points(*map(torch.from_numpy, clouds(count, seed=seed)))


def mislabelled_points(count: int, *, share: float = 0.2, dtype: type = np.float64) -> tuple[Points, np.ndarray]:
    features, labels = clouds(count, seed=2, dtype=dtype)
    noisy, wrong = mislabelled(labels, share=share, classes=3)
    return Points(torch.from_numpy(features), torch.from_numpy(noisy)), wrong


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


@pytest.mark.parametrize("block", [2, 64])
def test_knn_shapley_takes_the_neighbours_that_vote_best(block, monkeypatch):
    monkeypatch.setattr(knn_shapley, "BLOCK", block)
    monkeypatch.setattr(knn_shapley, "GRID", (1, 3, 40))
    train, reference = mislabelled_points(30, share=0.4)[0], points(25, 4)
    order = feature_cost(reference.features, train.features).argsort(1)
    # There are 30 points, so 40 neighbours are 30.
    expected = [
        np.mean(
            [np.bincount(train.labels[row[:k]]).argmax() == y for row, y in zip(order, reference.labels, strict=True)]
        )
        for k in (1, 3, 30)
    ]
    np.testing.assert_allclose(knn_shapley.vote_accuracies(train, reference), expected)
    best = knn_shapley.GRID[int(np.argmax(expected))]
    assert best != 1
    chosen = knn_shapley.score(train, reference)
    np.testing.assert_array_equal(chosen, knn_shapley.score(train, reference, neighbours=best))


def test_prototypes_are_the_clusters_started_at_the_class_means():
    train = points(20, 3)
    means = np.stack([train.features[train.labels == c].mean(0).numpy() for c in range(3)])
    clusters = MiniBatchKMeans(3, init=means, n_init=1, reassignment_ratio=0.0, random_state=prototypes.SEED)
    centres = torch.from_numpy(clusters.fit(train.features.numpy()).cluster_centers_)
    expected = [
        1 - torch.cosine_similarity(x, centres[label], dim=0).item()
        for x, label in zip(train.features, train.labels, strict=True)
    ]
    np.testing.assert_allclose(prototypes.score(train, points(5, 4)), expected, atol=1e-12)


def test_prototypes_of_separate_classes_are_their_means():
    centres = 10 * torch.eye(4, dtype=torch.float64)
    labels = torch.arange(40) % 4
    noise = 0.1 * torch.randn(40, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x = centres[labels] + noise
    means = torch.stack([x[labels == c].mean(0) for c in range(4)])
    # Small batches of few points give means near those of all.
    torch.testing.assert_close(prototypes.centres(x, means), means, rtol=0, atol=0.05)


def test_a_step_of_the_head_follows_the_mean_gradient():
    train = points(20, 0)
    (first,) = linear_head.train_head(train, classes=4, epochs=1, seed=0)
    weights = torch.zeros(4, 5, dtype=torch.float64, requires_grad=True)
    biases = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    slopes = torch.autograd.grad(cross_entropy(train.features @ weights.T + biases, train.labels), [weights, biases])
    rate = linear_head.LEARNING_RATE / (1 + train.features.square().sum(1).mean())
    assert first.learning_rate == pytest.approx(float(rate))
    torch.testing.assert_close(first.weights, -rate * slopes[0])
    torch.testing.assert_close(first.biases, -rate * slopes[1])


def test_the_head_takes_every_point_once_an_epoch_in_an_order_of_the_seed(monkeypatch):
    monkeypatch.setattr(linear_head, "BATCH", 8)
    seen = []
    monkeypatch.setattr(linear_head, "_stepped", lambda head, batch: (seen.append(batch.labels), head)[1])
    train = Points(torch.zeros(20, 2), torch.arange(20))
    heads = linear_head.train_head(train, classes=20, epochs=2, seed=0)
    assert [len(labels) for labels in seen] == [8, 8, 4] * 2
    orders = torch.cat(seen).view(2, 20)
    assert orders.sort(1).values.equal(torch.arange(20).expand(2, 20))
    assert not orders[0].equal(orders[1])
    assert len(heads) == 2


def test_the_head_learns_and_repeats_itself():
    train, reference = points(200, 0), points(100, 1)
    one, other = (linear_head.train_head(train, classes=3, epochs=3, seed=5)[-1] for _ in range(2))
    assert torch.equal(one.weights, other.weights)
    assert one.accuracy(reference) > 0.98
    labels = [int((one.weights @ x + one.biases).argmax()) for x in reference.features]
    assert one.accuracy(reference) == np.mean(np.array(labels) == reference.labels.numpy())


def test_tracin_is_the_product_of_gradients():
    train, reference = points(12, 3), points(7, 4)
    expected = np.zeros(12)
    for head in linear_head.train_head(train, classes=3, epochs=tracin.EPOCHS, seed=tracin.SEED):

        def gradients(side: Points, head: linear_head.Head = head) -> torch.Tensor:
            found = []
            for x, y in zip(side.features, side.labels, strict=True):
                parameters = [head.weights.clone().requires_grad_(), head.biases.clone().requires_grad_()]
                loss = cross_entropy(parameters[0] @ x + parameters[1], y)
                found.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters)]))
            return torch.stack(found)

        expected -= head.learning_rate * (gradients(train) @ gradients(reference).T).mean(1).numpy()
    np.testing.assert_allclose(tracin.score(train, reference), expected, atol=1e-12)


def test_tracin_is_that_of_captum():
    train, reference = points(12, 3), points(7, 4)
    heads = linear_head.train_head(train, classes=3, epochs=tracin.EPOCHS, seed=tracin.SEED)
    # captum leaves the bias out, so it is the weight of a constant feature here.
    model = torch.nn.Sequential(torch.nn.ConstantPad1d((0, 1), 1.0), torch.nn.Linear(6, 3, bias=False).double())

    def load(model: torch.nn.Module, number: str) -> float:
        head = heads[int(number)]
        model[1].load_state_dict({"weight": torch.cat([head.weights, head.biases[:, None]], 1)})
        return head.learning_rate

    oracle = TracInCPFast(
        model,
        model[1],
        TensorDataset(train.features, train.labels),
        [str(number) for number in range(len(heads))],
        checkpoints_load_func=load,
        loss_fn=torch.nn.CrossEntropyLoss(reduction="sum"),
        batch_size=5,
    )
    pairs = oracle.influence((reference.features, reference.labels))
    np.testing.assert_allclose(tracin.score(train, reference), -pairs.mean(0).numpy(), atol=1e-10)


def reference_objective(theta, x, y):
    return cross_entropy(x @ theta.T, y) + influence.PENALTY / 2 * theta.square().sum()


def test_influence_is_the_exact_solve():
    train, reference = points(25, 3), points(9, 4)
    spread, centre = train.features.var(0, correction=0).sum(), train.features.mean(0)
    x, others = (
        torch.cat([(side.features - centre) / spread.sqrt(), torch.ones(len(side), 1)], 1)
        for side in (train, reference)
    )
    theta = influence.fit(x, train.labels, 3)
    slope = torch.func.grad(reference_objective)(theta, x, train.labels)
    assert slope.abs().max() <= influence.GRADIENT_TOLERANCE
    hessian = torch.autograd.functional.hessian(lambda t: reference_objective(t, x, train.labels), theta)
    one = torch.func.grad(lambda t, x, y: cross_entropy((t @ x)[None], y[None]))
    each = [
        torch.func.vmap(one, (None, 0, 0))(theta, *side).flatten(1)
        for side in ((x, train.labels), (others, reference.labels))
    ]
    expected = -each[0] @ torch.linalg.solve(hessian.view(18, 18), each[1].mean(0))
    np.testing.assert_allclose(influence.score(train, reference), expected.numpy(), atol=1e-5 * expected.abs().max())


def test_influence_is_the_derivative_of_the_reference_loss():
    train, reference = points(25, 3), points(9, 4)
    x = torch.nn.functional.pad(train.features / 5, (0, 1), value=1.0)
    others = torch.nn.functional.pad(reference.features / 5, (0, 1), value=1.0)
    theta = influence.fit(x, train.labels, 3)
    residuals = influence._residuals(theta, others, reference.labels)
    direction = influence._solved(theta, x, residuals.T @ others / 9)
    scores = -(influence._residuals(theta, x, train.labels) * (x @ direction.T)).sum(1)
    # 200 copies of the set and one more of its first point: a weight of 1 / 5001 moves onto it.
    more = [torch.cat([side.repeat(200, *[1] * (side.ndim - 1)), side[:1]]) for side in (x, train.labels)]
    before, after = (cross_entropy(others @ t.T, reference.labels) for t in (theta, influence.fit(*more, 3)))
    # The mean of all gradients is −λ θ, not 0: that much weight leaves the others.
    slope = influence.PENALTY * (theta * direction).sum()
    assert float(after - before) * 5001 == pytest.approx(float(scores[0] - slope), rel=2e-2)


@pytest.mark.parametrize("what", ["the logistic regression", "the conjugate gradients"])
def test_influence_says_what_did_not_converge(what, monkeypatch):
    train = points(25, 3)
    if what == "the conjugate gradients":
        monkeypatch.setattr(influence, "fit", lambda x, *_: torch.zeros(3, x.shape[1], dtype=torch.float64))
    monkeypatch.setattr(influence, "MOST_STEPS", 1)
    with pytest.raises(BadInput, match=f"{what} did not converge in 1 steps: bring the columns of the features to one"):
        influence.score(train, points(9, 4))


def test_el2n_is_its_definition():
    train = points(20, 3)
    norms = []
    for seed in range(el2n.HEADS):
        head = linear_head.train_head(train, classes=3, epochs=el2n.EPOCHS, seed=seed)[-1]
        p = np.exp(train.features.numpy() @ head.weights.numpy().T + head.biases.numpy())
        norms.append(np.linalg.norm(p / p.sum(1, keepdims=True) - np.eye(3)[train.labels.numpy()], axis=1))
    np.testing.assert_allclose(el2n.score(train, points(5, 4)), np.mean(norms, 0), atol=1e-12)


@pytest.mark.parametrize(
    ("pruned", "offset"), [(0.3, 0.0), (0.3, 0.1), (0.3, 0.3), (0.5, 0.25), (0.0, 0.0), (0.99, 0.99)]
)
@pytest.mark.parametrize("count", [1, 7, 50])
def test_a_window_keeps_what_follows_the_offset(pruned, offset, count):
    scores = np.random.default_rng(0).integers(0, 20, count).astype(float)
    hardest_first = sorted(range(count), key=lambda k: (-scores[k], k))
    kept = max(1, count - round(pruned * count))
    first = min(round(offset * count), count - kept)
    ranking = el2n.windowed(scores, pruned=pruned, offset=offset)
    inside = np.isin(np.arange(count), hardest_first[first : first + kept])
    assert el2n.kept_count(count, pruned) == kept
    assert ranking[inside].max() < ranking[~inside].min(initial=np.inf)


@pytest.mark.parametrize(("pruned", "offset"), [(0.3, 0.4), (0.3, -0.1), (1.0, 0.5)])
def test_a_window_needs_room(pruned, offset):
    with pytest.raises(
        BadInput, match=rf"`offset` is {offset} and `pruned` {pruned}: they must be 0 ≤ offset ≤ pruned"
    ):
        el2n.windowed(np.zeros(5), pruned=pruned, offset=offset)


def test_the_window_is_the_one_that_serves_the_reference_set_best(monkeypatch):
    train, reference = mislabelled_points(60)[0], points(100, 4)
    scores = el2n.score(train, reference)
    accuracies = []
    for offset in (0.6, 0.3, 0.0):
        rows = torch.from_numpy(el2n.windowed(scores, pruned=0.8, offset=offset).argsort()[:12]).sort().values
        head = linear_head.train_head(train.take(rows), classes=3, epochs=el2n.EPOCHS, seed=el2n.HEADS)[-1]
        accuracies.append(head.accuracy(reference))
    assert accuracies[2] < max(accuracies)
    # 0.9 leaves no window.
    monkeypatch.setattr(el2n, "OFFSETS", (0.9, 0.6, 0.3, 0.0))
    best = (0.6, 0.3, 0.0)[int(np.argmax(accuracies))]
    expected = el2n.windowed(scores, pruned=0.8, offset=best)
    np.testing.assert_array_equal(el2n.window_score(train, reference, pruned=0.8), expected)


def test_confident_learning_is_that_of_cleanlab():
    train, reference = mislabelled_points(60)[0], points(5, 4)
    probabilities = confident_learning.held_out_probabilities(train, classes=3)
    np.testing.assert_allclose(probabilities.sum(1), 1)
    quality = get_label_quality_scores(train.labels.numpy(), probabilities)
    np.testing.assert_array_equal(confident_learning.score(train, reference), 1 - quality)


def test_confident_learning_copes_with_classes_smaller_than_the_folds():
    train = points(30, 0)
    labels = train.labels.clone()
    labels[:2] = torch.tensor([3, 7])
    scores = confident_learning.score(Points(train.features, labels), points(5, 4))
    assert np.isfinite(scores).all()
    # No fold without the point knows its class.
    np.testing.assert_allclose(scores[:2], 1 - LEAST_PROBABILITY)
    assert scores[2:].max() < scores[:2].min()


@pytest.mark.parametrize("module", ["cleanlab", "cleanlab.rank"])
def test_confident_learning_says_what_to_install(module, monkeypatch):
    monkeypatch.delitem(sys.modules, "cleanlab.rank")
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(BadInput, match=r"^cleanlab is not installed: pip install 'sava-assets\[study\]'$"):
        confident_learning.score(points(10, 0), points(5, 1))


def test_confident_learning_says_when_it_did_not_converge(monkeypatch):
    monkeypatch.setattr("sava_ops.reference.logistic.MOST_STEPS", 1)
    with pytest.raises(BadInput, match="the logistic regressions did not converge: bring the columns of the features"):
        confident_learning.score(points(10, 0), points(5, 1))


def test_random_scores_follow_the_seed_and_nothing_else(monkeypatch):
    wrong = mislabelled(np.zeros(2_000, dtype=int), share=0.2, classes=3)[1]
    train = points(2_000, 0)
    scores = random_order.score(train, points(5, 1))
    assert auroc(scores, wrong) == pytest.approx(0.5, abs=0.05)
    np.testing.assert_array_equal(random_order.score(train, points(9, 2)), scores)
    monkeypatch.setattr(random_order, "SEED", 1)
    assert not np.array_equal(random_order.score(train, points(5, 1)), scores)


@pytest.mark.parametrize(
    ("name", "config", "field"),
    [
        ("SAVA", ValuationConfig(), "evidence"),
        ("SAVA (label values)", ValuationConfig(), "label_values"),
        ("SAVA (paper)", PAPER, "values"),
        ("LAVA", ValuationConfig.lava(), "values"),
        ("batch-wise LAVA", ValuationConfig.batchwise_lava(), "values"),
    ],
)
def test_transport_methods_are_the_front_door(name, config, field):
    train, reference = points(30, 0), points(12, 1)
    valuation = value_points(train.features, train.labels, reference.features, reference.labels, config=config)
    np.testing.assert_array_equal(METHODS[name](train, reference), getattr(valuation, field))


@pytest.mark.parametrize("epsilon", [0.3, 2.0, 1e6])
def test_annealing_is_that_of_geomloss(epsilon):
    train, reference = points(20, 0), points(15, 1)
    cost = feature_cost(train.features, reference.features)
    f, g = transport.annealed_potentials(cost, epsilon=epsilon)
    # A target above the largest cost is beyond geomloss' schedule; it starts at the target then.
    diameter = max(float(cost.max()), epsilon) ** 0.5
    geomloss = SamplesLoss(
        "sinkhorn", p=2, blur=epsilon**0.5, scaling=0.5, diameter=diameter, debias=False, potentials=True,
        backend="tensorized",
    )  # fmt: skip
    expected = geomloss(train.features, reference.features)
    torch.testing.assert_close(f, expected[0].flatten())
    torch.testing.assert_close(g, expected[1].flatten())


def test_annealing_is_a_plain_replay():
    train, reference = points(20, 0), points(15, 1)
    cost = feature_cost(train.features, reference.features).numpy()
    f, g = np.zeros(20), np.zeros(15)

    def step(f: np.ndarray, g: np.ndarray, at: float) -> tuple[np.ndarray, np.ndarray]:
        return (
            -at * np.log(np.exp((g - cost) / at).mean(1)),
            -at * np.log(np.exp((f[:, None] - cost) / at).mean(0)),
        )

    at = cost.max()
    f, g = step(f, g, at)
    for epsilon in [at, at, at / 4, at / 16, at / 64, at / 100]:
        towards = step(f, g, epsilon)
        f, g = (f + towards[0]) / 2, (g + towards[1]) / 2
    f, g = step(f, g, at / 100)
    found = transport.annealed_potentials(torch.from_numpy(cost), epsilon=float(at / 100))
    np.testing.assert_allclose(found[0], f)
    np.testing.assert_allclose(found[1], g)


def test_annealing_between_two_batches_is_the_calibrated_potential():
    train, reference = points(30, 0), points(20, 1)
    config = replace(PAPER, label_weight=0.0)
    cost = feature_cost(train.features, reference.features)
    f, _ = transport.annealed_potentials(cost, epsilon=0.02 * mean_feature_cost(train.features, reference.features))
    expected = [f[k] - f[torch.arange(30) != k].mean() for k in range(30)]
    np.testing.assert_allclose(transport.annealed_score(train, reference, config=config), expected, atol=1e-10)


@pytest.mark.parametrize("config", [ValuationConfig(), PAPER], ids=["default", "paper"])
def test_without_a_label_cache_one_batch_a_side_is_sava(config):
    train, reference = mislabelled_points(60)[0], points(40, 1)
    expected = value_points(train.features, train.labels, reference.features, reference.labels, config=config).values
    found = transport.uncached_score(train, reference, config=config)
    np.testing.assert_allclose(found, expected, atol=1e-12)


@pytest.mark.parametrize("config", [ValuationConfig(), PAPER], ids=["default", "paper"])
def test_without_a_label_cache_every_pair_has_its_own_distances(config, monkeypatch):
    train, reference = mislabelled_points(60)[0], points(40, 1)
    config = replace(config, batch_size=20)
    sides = train.features, train.labels, reference.features, reference.labels
    pinned = value_points(*sides, config=config)
    assert not np.allclose(transport.uncached_score(train, reference, config=config), pinned.values)
    # With the pinned distances in every pair, what is left is SAVA.
    pinned_distances = torch.from_numpy(pinned.label_distances)
    monkeypatch.setattr(transport, "label_distances", lambda *_, **__: pinned_distances)
    found = transport.uncached_score(train, reference, config=config)
    np.testing.assert_allclose(found, pinned.values, atol=1e-12)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("name", FINDERS)
def test_every_method_finds_planted_errors(name, dtype):
    train, wrong = mislabelled_points(200, dtype=dtype)
    scores = METHODS[name](train, Points(*map(torch.from_numpy, clouds(100, seed=1, dtype=dtype))))
    assert scores.shape == (200,)
    assert scores.dtype == np.float64
    assert auroc(scores, wrong) > 0.95


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("name", METHODS)
def test_every_method_takes_a_class_that_the_reference_lacks(name, dtype):
    train, _ = mislabelled_points(60, dtype=dtype)
    features, labels = clouds(40, seed=1, dtype=dtype)
    reference = Points(*map(torch.from_numpy, (features[labels > 0], labels[labels > 0])))
    before = train.features.clone(), train.labels.clone()
    scores = METHODS[name](train, reference)
    assert scores.dtype == np.float64
    assert np.isfinite(scores).all()
    np.testing.assert_array_equal(METHODS[name](train, reference), scores)
    assert torch.equal(train.features, before[0])
    assert torch.equal(train.labels, before[1])


def test_the_registry_goes_by_the_names():
    assert all(method.name == name for name, method in METHODS.items())


@pytest.mark.parametrize("name", METHODS)
def test_more_points_need_no_less_memory(name):
    memory = METHODS[name].memory
    assert 0 < memory(1_000, 500, 64, 10) <= memory(2_000, 500, 64, 10)
    assert memory(1_000, 500, 64, 10) <= memory(1_000, 1_000, 64, 10)


def test_a_million_points_are_too_many_for_lava_alone():
    needed = {name: method.memory(1_000_000, 10_000, 512, 10) for name, method in METHODS.items()}
    assert {name for name, amount in needed.items() if amount > 20e9} == {"LAVA"}


def test_what_does_not_fit_is_refused_before_it_is_tried(monkeypatch):
    tried = []
    method = Method("LAVA", lambda *_: tried.append(1), lambda n, m, d, classes: n * m * d * classes, "O(N)", "nothing")
    method.require(1_000_000, 5_000, 2, 3, 30_000_000_000)
    message = (
        r"^LAVA: out of memory at N = 1,000,000: it needs 30\.0 GB and 20\.1 GB are free: choose a method that works"
    )
    with pytest.raises(OutOfMemory, match=message):
        method.require(1_000_000, 5_000, 2, 3, 20_100_000_000)
    free = psutil.virtual_memory()._replace(available=20 * 10 * 5 * 3 - 1)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: free)
    with pytest.raises(OutOfMemory, match="LAVA: out of memory at N = 20"):
        method(points(20, 0), points(10, 1))
    assert not tried


def test_methods_refuse_points_that_cannot_be_compared():
    train, reference = points(20, 0), points(10, 1)
    with pytest.raises(BadInput, match="training features have 5 columns and reference features 4"):
        METHODS["random"](train, replace(reference, features=reference.features[:, :4]))
