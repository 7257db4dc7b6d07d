"""Whether pool and reference can be told apart."""

import math

import numpy as np
import pytest
import torch

from sava_ops.decisions.detection import auroc
from sava_ops.ot.cost import Points
from sava_ops.reference import logistic
from sava_ops.reference.both_sides import BothSides
from sava_ops.reference.density_ratio import DensityRatio, Likeness, fit_density_ratio, told_apart
from sava_ops.reference.discriminant import fit_discriminant
from sava_ops.reference.label_shift import estimated_shares

CLASSES, WIDTH = 3, 8
EQUAL = (1 / 3, 1 / 3, 1 / 3)


def drawn(count: int, seed: int, *, shares=EQUAL, offset: float = 0.0, part: float = 1.0) -> Points:
    """Gaussian classes around axis-aligned means, this part of them moved by `offset` along the last axis."""
    generator = np.random.default_rng(seed)
    labels = np.sort(generator.choice(CLASSES, count, p=shares))
    features = 6 * np.eye(WIDTH)[labels] + generator.normal(size=(count, WIDTH))
    features[generator.random(count) < part, -1] += offset
    return Points(torch.from_numpy(features), torch.from_numpy(labels))


def fitted(reference: Points, pool: Points) -> DensityRatio:
    known = fit_discriminant(reference, classes=CLASSES, seed=0)
    return fit_density_ratio(BothSides(reference, pool, known, seed=0))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("pool", [400, 4_000])
def test_exchangeable_sides_are_told_apart_by_nothing(seed, pool):
    found = fitted(drawn(300, seed), drawn(pool, 100 + seed))
    assert not found.reference_log_ratios.any()
    assert not found.log_ratios(drawn(50, 7).features).any()


@pytest.mark.parametrize("shares", [(0.8, 0.15, 0.05), (0.1, 0.1, 0.8)])
def test_other_class_shares_and_wrong_labels_are_no_difference(shares):
    pool = drawn(3_000, 1, shares=shares)
    turned = Points(pool.features, (pool.labels + torch.arange(3_000) % 3) % CLASSES)
    for side in (pool, turned):
        assert not fitted(drawn(600, 2), side).reference_log_ratios.any()


def test_the_log_density_ratio_of_two_gaussians_is_found():
    """N(1, 1) against N(0, 1) along one axis: z = x − 1/2, and P(z > z') = Φ(1/√2)."""
    found = fitted(drawn(2_000, 3), drawn(6_000, 4, offset=1.0))
    unseen = drawn(500, 5).features
    exact = unseen[:, -1] - 0.5
    assert float((found.log_ratios(unseen) - exact).abs().mean()) < 0.15
    apart = told_apart(
        found.log_ratios(drawn(2_000, 6, offset=1.0).features), found.reference_log_ratios, torch.ones(2_000)
    )
    assert float(apart) == pytest.approx((1 + math.erf(0.5)) / 2, abs=0.02)


def test_what_part_of_a_pool_shares_sets_it_apart():
    pool = drawn(4_000, 8, offset=5.0, part=0.1)
    z = fitted(drawn(600, 9), pool).log_ratios(pool.features).numpy()
    assert auroc(z, pool.features[:, -1].numpy() > 3) > 0.99


def test_images_that_are_foreign_do_not_tell_the_class_shares():
    """A third of all images is damaged alike, so that they look like class 0."""
    pool = drawn(3_000, 12)
    damaged = torch.from_numpy(np.random.default_rng(13).random(3_000) < 1 / 3)
    features = torch.where(damaged[:, None], 3 * torch.eye(WIDTH)[0] + 4 * torch.eye(WIDTH)[-1], pool.features)
    moved = Points(
        features + 0.3 * damaged[:, None] * torch.from_numpy(np.random.default_rng(14).normal(size=(3_000, WIDTH))),
        pool.labels,
    )
    reference = drawn(600, 15)
    known = fit_discriminant(reference, classes=CLASSES, seed=0)
    naive = estimated_shares(known.losses(moved.features), moved.labels, known)
    found = fitted(reference, moved).pool_shares
    errors = [float((shares - 1 / 3).abs().sum()) for shares in (naive, found)]
    assert errors[0] > 0.3
    assert errors[1] < errors[0] / 2


def test_a_reference_point_is_judged_by_what_has_not_seen_it():
    """A pool of reference images is told from them by nobody, however well one could learn them by heart."""
    reference = drawn(60, 10)
    found = fitted(reference, reference.take(torch.randperm(60)))
    assert not found.reference_log_ratios.any()


def test_without_a_pool_nothing_is_said():
    reference = drawn(30, 11)
    found = fitted(reference, reference.take(torch.arange(0)))
    assert not found.reference_log_ratios.any()
    assert found.log_ratios(reference.features).shape == (30,)


@pytest.mark.parametrize(("steps", "converged"), [(200, True), (1, False)])
def test_not_converging_is_a_stated_outcome(steps, converged, monkeypatch):
    monkeypatch.setattr(logistic, "MOST_STEPS", steps)
    found = fitted(drawn(600, 16), drawn(2_000, 17, offset=2.0))
    assert found.reference_log_ratios.any()
    assert bool(found.side_converged) == converged


def test_told_apart_is_the_area_under_the_roc_curve():
    generator = np.random.default_rng(0)
    pool, reference = generator.integers(0, 6, 50) + 1.0, generator.integers(0, 6, 40) * 1.0
    counts = generator.integers(1, 4, 40)
    repeated = np.concatenate([pool, np.repeat(reference, counts)])
    expected = auroc(repeated, np.arange(len(repeated)) < 50)
    found = told_apart(*(torch.from_numpy(side) for side in (pool, reference, 1.0 * counts)))
    assert float(found) == pytest.approx(expected, abs=1e-12)
    assert float(told_apart(torch.zeros(3), torch.zeros(2), torch.ones(2))) == 0.5


def test_what_images_like_the_pools_gain_is_less_certain_the_fewer_reference_points_are_like_them():
    gains = torch.tensor([3.0, 3.0, 3.0, 3.0, 3.0])
    alike = torch.full((5,), 0.2, dtype=torch.float64)

    def clear(weights: torch.Tensor, ordinary: float) -> bool:
        return Likeness(weights, torch.tensor(ordinary, dtype=torch.float64)).beyond_chance(gains.double())

    # 3 > 2 · √(9 / 5 + 9 · ordinary²) up to ordinary = √(1 / 4 − 1 / 5)
    assert clear(alike, 0.0)
    assert clear(alike, 0.22)
    assert not clear(alike, 0.23)
    one = torch.tensor([0.96, 0.01, 0.01, 0.01, 0.01], dtype=torch.float64)
    assert not clear(one, 0.0)


def test_an_ordinary_image_of_the_pool_weighs_what_its_odds_are():
    reference, pool = drawn(2_000, 3), drawn(2_001, 4, offset=2.0)
    found = fitted(reference, pool)
    likeness = found.likeness(pool.features)
    assert float(likeness.weights.sum()) == pytest.approx(1)
    whole = found.reference_log_ratios.double().exp().sum()
    assert float(likeness.ordinary * whole) == pytest.approx(float(found.log_ratios(pool.features).median().exp()))
    nobody = found.likeness(pool.features[:0])
    assert float(nobody.ordinary * whole) == pytest.approx(1)
