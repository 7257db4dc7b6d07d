"""Linear probes against scikit-learn, and what must not change them."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from sava_ops import BadInput
from sava_ops.images import probe
from sava_ops.images.classifier import TrainingSet
from sava_ops.images.probe import Fit, LabelledFeatures, Probes, probe_training_sets
from tests.toy import clouds, mislabelled


@pytest.fixture
def exact(monkeypatch):
    monkeypatch.setattr(probe, "LOSS_TOLERANCE", 1e-14)
    monkeypatch.setattr(probe, "MOST_STEPS", 2_000)


def points(count: int, *, seed: int = 0, classes: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    features, labels = clouds(count, classes=classes, seed=seed)
    return torch.from_numpy(features / 3), torch.from_numpy(labels)


def fitted(features: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor, *, classes: int = 3) -> Probes:
    return Fit(features, labels[None], classes=classes).solve(weights[None], inverse_penalty=2.0)


def alike(one: Probes, other: Probes, tolerance: float = 1e-4) -> None:
    torch.testing.assert_close(one.weights, other.weights, atol=tolerance, rtol=tolerance)
    torch.testing.assert_close(one.biases, other.biases, atol=tolerance, rtol=tolerance)


@pytest.mark.usefixtures("exact")
@pytest.mark.parametrize("block", [7, 4_096])
@pytest.mark.parametrize(("classes", "weighted"), [(3, False), (3, True), (4, True)])
def test_the_optimum_is_that_of_scikit_learn(monkeypatch, block, classes, weighted):
    monkeypatch.setattr(probe, "BLOCK", block)
    x, y = points(90, classes=classes, seed=classes)
    y = torch.from_numpy(mislabelled(y.numpy(), share=0.3, classes=classes)[0])
    weights = torch.from_numpy(np.random.default_rng(1).exponential(size=90)) if weighted else torch.ones(90).double()
    share = (weights / weights.sum()).numpy()
    centre = share @ x.numpy()
    unit = (share @ ((x.numpy() - centre) ** 2).sum(1)) ** 0.5
    model = LogisticRegression(C=2.0, tol=1e-12, max_iter=100_000)
    model.fit((x.numpy() - centre) / unit, y.numpy(), sample_weight=weights.numpy())
    found = fitted(x, y, weights, classes=classes)
    assert found.converged
    np.testing.assert_allclose(found.weights[0] * unit, model.coef_, atol=1e-4)
    p = (x @ found.weights[0].T + found.biases[0]).softmax(1)
    np.testing.assert_allclose(p, model.predict_proba((x.numpy() - centre) / unit), atol=1e-4)
    np.testing.assert_array_equal(found.told(x)[0], model.predict((x.numpy() - centre) / unit))


@pytest.mark.usefixtures("exact")
def test_the_order_of_the_points_does_not_matter():
    x, y = points(60)
    order = torch.randperm(60, generator=torch.Generator().manual_seed(0))
    weights = torch.linspace(0.1, 2, 60).double()
    alike(fitted(x, y, weights), fitted(x[order], y[order], weights[order]))


@pytest.mark.usefixtures("exact")
def test_a_point_twice_is_a_point_of_twice_the_weight():
    x, y = points(60)
    weights = torch.ones(60).double()
    weights[:20] = 2
    twice = torch.ones(80).double()
    alike(fitted(x, y, weights), fitted(torch.cat([x, x[:20]]), torch.cat([y, y[:20]]), twice))


@pytest.mark.usefixtures("exact")
def test_the_scale_and_place_of_the_features_does_not_matter():
    x, y = points(60)
    ones = torch.ones(60).double()
    one, other = fitted(x, y, ones), fitted(1_000 * x + 5, y, ones)
    torch.testing.assert_close(one.weights, 1_000 * other.weights, atol=1e-4, rtol=1e-4)


@pytest.mark.usefixtures("exact")
def test_what_a_set_has_not_is_not_learned_from_nor_told():
    x, y = points(60)
    weights = (y != 2).double()
    turned = torch.where(y == 2, 0, y)
    one, other = fitted(x, y, weights), fitted(x, turned, weights)
    alike(one, other)
    assert one.biases[0, 2] == -torch.inf
    assert set(one.told(x)[0].tolist()) == {0, 1}


@pytest.mark.usefixtures("exact")
def test_sets_do_not_see_each_other():
    x, y = points(60)
    wrong = torch.from_numpy(mislabelled(y.numpy(), share=0.5, classes=3)[0])
    weights = torch.stack([torch.ones(60), torch.linspace(0.1, 2, 60)]).double()
    both = Fit(x, torch.stack([y, wrong]), classes=3).solve(weights)
    # One centre and unit for all sets: those of all together.
    for k, labels in enumerate((y, wrong)):
        again = Fit(x, labels.expand(2, -1), classes=3)
        alone = again.solve(weights)
        torch.testing.assert_close(both.weights[k], alone.weights[k], atol=1e-4, rtol=1e-4)


def sets_of(y: torch.Tensor, wrong: np.ndarray) -> dict[str, TrainingSet]:
    everything, right = torch.arange(len(y)), torch.from_numpy((~wrong).nonzero()[0])
    weights = torch.from_numpy(np.where(wrong, 0.01, 1).astype(np.float32))
    return {
        "all": TrainingSet(everything),
        "pruned": TrainingSet(right),
        "mended": TrainingSet(everything, labels=y),
        "weighted": TrainingSet(everything, weights=weights),
    }


def noisy_pool(count: int = 300) -> tuple[LabelledFeatures, dict[str, TrainingSet], LabelledFeatures]:
    x, y = points(count, classes=4)
    wrong = np.random.default_rng(3).random(count) < 0.6  # most of a class bear the name of the next one
    labels = np.where(wrong, (y.numpy() + 1) % 4, y.numpy())
    x_test, y_test = points(200, classes=4, seed=1)
    pool = LabelledFeatures(x.half(), torch.from_numpy(labels))
    return pool, sets_of(y, wrong), LabelledFeatures(x_test.half(), y_test)


def test_sets_with_better_labels_have_better_probes_and_each_seed_its_own():
    pool, sets, test = noisy_pool()
    steps: list[tuple[int, int]] = []
    found = probe_training_sets(
        pool, sets, test, classes=4, seeds=(0, 1, 2), progress=lambda done, total: steps.append((done, total))
    )
    assert found.converged
    mean = {name: np.mean(each) for name, each in found.accuracies.items()}
    assert mean["all"] < 0.4
    assert all(mean[name] > 0.9 for name in ("pruned", "mended", "weighted"))
    assert len(set(found.accuracies["all"])) > 1
    assert steps == sorted(steps)
    assert steps[-1] == (3 * probe.MOST_STEPS, 3 * probe.MOST_STEPS)


def test_equal_seeds_give_equal_numbers_and_a_seed_is_its_own_chance():
    pool, sets, test = noisy_pool(100)
    one, two = (probe_training_sets(pool, sets, test, classes=4, seeds=(5, 6)) for _ in range(2))
    assert one == two
    other = probe_training_sets(pool, sets, test, classes=4, seeds=(7, 8))
    assert other != one


def test_features_on_disk_give_the_same(tmp_path):
    pool, sets, test = noisy_pool(100)
    stored = np.memmap(tmp_path / "features", dtype=np.float16, mode="w+", shape=tuple(pool.features.shape))
    stored[:] = pool.features.numpy()
    mapped = LabelledFeatures(torch.from_numpy(stored), pool.labels)
    one, two = (probe_training_sets(p, sets, test, classes=4, seeds=(0,)) for p in (pool, mapped))
    assert one == two


def test_of_a_large_pool_each_seed_looks_at_a_sample(monkeypatch):
    pool, sets, test = noisy_pool()
    whole = probe_training_sets(pool, sets, test, classes=4, seeds=(0, 1))
    monkeypatch.setattr(probe, "MOST_POINTS", 100)
    one, two = (probe_training_sets(pool, sets, test, classes=4, seeds=(0, 1)) for _ in range(2))
    assert one == two != whole
    assert np.mean(one.accuracies["pruned"]) > 0.9


def test_an_optimisation_that_is_cut_short_says_so(monkeypatch):
    monkeypatch.setattr(probe, "MOST_STEPS", 1)
    pool, sets, test = noisy_pool(100)
    assert not probe_training_sets(pool, sets, test, classes=4, seeds=(0,)).converged


def test_what_cannot_be_compared_is_refused():
    pool, sets, test = noisy_pool(40)
    none = LabelledFeatures(test.features[:0], test.labels[:0])
    narrow = LabelledFeatures(test.features[:, :3], test.labels)
    empty = {**sets, "nothing": TrainingSet(torch.arange(0))}
    weightless = {"weightless": TrainingSet(torch.arange(9), weights=torch.zeros(9))}
    for arguments, classes, message in [
        ((pool, sets, narrow), 4, "the pool has 5 features and the test set 3: embed both with one encoder"),
        ((pool, sets, none), 4, "the test set is empty: pass at least one point"),
        ((pool, sets, test), 3, r"`labels` of the pool has \d+ values outside 0..2 \(first: 3 at row \d+\): raise"),
        ((pool, empty, test), 4, "the training set 'nothing' has no image that counts: nothing can be learned"),
        ((pool, weightless, test), 4, "the training set 'weightless' has no image that counts"),
    ]:
        with pytest.raises(BadInput, match=message):
            probe_training_sets(*arguments, classes=classes, seeds=(0,))
