"""What a training batch differs in from the reference set: class shares, and a systematic shift of its images."""

import numpy as np
import pytest
import torch

from sava_ops.decisions.detection import auroc
from sava_ops.ot.cost import Points, feature_cost
from sava_ops.reference.covariate_shift import Shift, covariate_shift
from sava_ops.reference.discriminant import Discriminant, fit_discriminant
from sava_ops.reference.label_shift import estimated_shares

CLASSES, WIDTH = 3, 8


def drawn(count: int, shares, seed: int, *, offset: float = 0.0, part: float = 1.0, apart: float = 12.0) -> Points:
    """Gaussian classes around axis-aligned means, this part of them moved by `offset` along the last axis."""
    generator = np.random.default_rng(seed)
    labels = np.sort(generator.choice(CLASSES, count, p=shares))
    features = apart * np.eye(WIDTH)[labels] + generator.normal(size=(count, WIDTH))
    features[generator.random(count) < part, -1] += offset
    return Points(torch.from_numpy(features), torch.from_numpy(labels))


EQUAL = np.full(CLASSES, 1 / CLASSES)
REFERENCE = drawn(600, EQUAL, 0)
DISCRIMINANT = fit_discriminant(REFERENCE, classes=CLASSES, seed=0)


def shift_of(batch: Points, shares: torch.Tensor, discriminant: Discriminant = DISCRIMINANT) -> Shift:
    return covariate_shift(batch, discriminant.losses(batch.features).argmin(1), shares, discriminant)


def shares_of(batch: Points) -> torch.Tensor:
    return estimated_shares(DISCRIMINANT.losses(batch.features), batch.labels, DISCRIMINANT)


def test_class_shares_follow_the_images_and_not_their_labels():
    skewed = drawn(600, [0.7, 0.2, 0.1], 1)
    truth = torch.bincount(skewed.labels, minlength=CLASSES).double() / 600
    torch.testing.assert_close(shares_of(skewed), truth, rtol=0, atol=0.02)
    mislabelled = Points(skewed.features, torch.zeros_like(skewed.labels))
    torch.testing.assert_close(shares_of(mislabelled), shares_of(skewed), rtol=0, atol=1e-3)


def test_what_a_batch_holds_counts_and_not_where_it_was_drawn_from():
    equal = drawn(300, EQUAL, 2)
    truth = torch.bincount(equal.labels, minlength=CLASSES).double() / 300
    assert float((truth - DISCRIMINANT.shares).abs().max()) > 0.05
    torch.testing.assert_close(shares_of(equal), truth, rtol=0, atol=0.01)
    torch.testing.assert_close(shares_of(REFERENCE), DISCRIMINANT.shares, rtol=0, atol=0.01)


@pytest.mark.parametrize("wrong", [0.0, 0.3, 0.6])
def test_weak_features_and_doubtful_labels_tell_together_what_neither_does(wrong):
    reference, rng = drawn(300, EQUAL, 30, apart=1.0), np.random.default_rng(31)
    discriminant = fit_discriminant(reference, classes=CLASSES, seed=0)
    batch = drawn(6_000, [0.75, 0.2, 0.05], 32, apart=1.0)
    given = torch.where(
        torch.from_numpy(rng.random(6_000) < wrong), torch.from_numpy(rng.integers(0, 3, 6_000)), batch.labels
    )
    truth, told = (torch.bincount(labels, minlength=CLASSES).double() / 6_000 for labels in (batch.labels, given))
    found = estimated_shares(discriminant.losses(batch.features), given, discriminant)
    assert float((found - truth).abs().sum()) <= 0.5 * float((told - truth).abs().sum()) + 0.04


def test_labels_that_the_reference_lacks_say_nothing():
    strangers = Points(REFERENCE.features, torch.full_like(REFERENCE.labels, 2))
    known = fit_discriminant(REFERENCE.take((REFERENCE.labels < 2).nonzero()[:, 0]), classes=CLASSES, seed=0)
    found = estimated_shares(known.losses(strangers.features), strangers.labels, known)
    torch.testing.assert_close(found, known.shares)


def test_confusion_is_corrected_for():
    """Overlapping classes: the predicted shares are wrong, the estimated ones are not."""
    reference = drawn(4_000, EQUAL, 3, apart=1.5)
    discriminant = fit_discriminant(reference, classes=CLASSES, seed=0)
    batch = drawn(4_000, [0.8, 0.1, 0.1], 4, apart=1.5)
    losses = discriminant.losses(batch.features)
    predicted = torch.bincount(losses.argmin(1), minlength=CLASSES) / len(batch)
    assert abs(float(predicted[0]) - 0.8) > 0.06
    assert float(estimated_shares(losses, batch.labels, discriminant)[0]) == pytest.approx(0.8, abs=0.04)


def test_shares_are_a_measure_and_none_is_zero():
    shares = shares_of(drawn(300, [1.0, 0.0, 0.0], 5))
    assert float(shares.sum()) == pytest.approx(1)
    assert float(shares.min()) > 0


def test_what_all_share_is_no_damage_and_what_some_have_is():
    """A camera moves every image, damage some of them."""
    shares = DISCRIMINANT.shares
    clean, all_moved = shift_of(drawn(600, EQUAL, 6), shares), shift_of(drawn(600, EQUAL, 6, offset=5.0), shares)
    some_moved = shift_of(drawn(600, EQUAL, 6, offset=5.0, part=0.25), shares)
    assert float(clean.size) < 0.02
    assert float(all_moved.size) < 0.1
    assert float(some_moved.size) > 0.5
    direction = some_moved.direction / some_moved.direction.norm()
    assert float(direction[-1]) > 0.95


def test_damage_is_seen_through_what_all_share():
    """The camera moves all along one axis, damage some along another."""
    moved = drawn(800, EQUAL, 6, offset=8.0, part=0.25)
    moved.features[:, -2] += 2.0
    shift = shift_of(moved, DISCRIMINANT.shares)
    assert float(shift.size) > 0.3
    along = moved.features @ shift.direction - shift.common
    assert auroc(along.numpy(), (moved.features[:, -1] > 4).numpy()) > 0.99


def test_what_chance_does_to_a_small_batch_is_no_shift():
    """T² of 40 points is far above that of many, and spreads widely."""
    found = [shift_of(drawn(40, EQUAL, seed), DISCRIMINANT.shares) for seed in range(100, 160)]
    assert sum(float(shift.size) > 0 for shift in found) <= 2
    moved = shift_of(drawn(40, EQUAL, 100, offset=20.0, part=0.3), DISCRIMINANT.shares)
    assert float(moved.size) > 0.3


def test_along_the_shift_clean_images_have_deviation_one():
    shift = shift_of(drawn(2_000, EQUAL, 6, offset=9.0, part=0.1), DISCRIMINANT.shares)
    along = REFERENCE.features @ shift.direction
    inside = along - (DISCRIMINANT.means @ shift.direction)[REFERENCE.labels]
    assert float(inside.std()) == pytest.approx(1, abs=0.15)


def test_a_batch_of_three_has_no_shift():
    assert float(shift_of(drawn(3, EQUAL, 6, offset=50.0), DISCRIMINANT.shares).size) == 0.0


def test_other_class_shares_are_no_shift():
    skewed = drawn(600, [0.8, 0.1, 0.1], 7)
    assert float(shift_of(skewed, shares_of(skewed)).size) < 0.05


@pytest.mark.parametrize("scale", [0.01, 100.0])
def test_the_unit_of_the_features_does_not_matter(scale):
    moved = drawn(400, EQUAL, 6, offset=8.0, part=0.3)
    scaled = fit_discriminant(Points(scale * REFERENCE.features, REFERENCE.labels), classes=CLASSES, seed=0)
    one = shift_of(moved, DISCRIMINANT.shares)
    other = shift_of(Points(scale * moved.features, moved.labels), scaled.shares, scaled)
    assert float(one.size) > 0.1
    assert float(other.size) == pytest.approx(float(one.size), rel=1e-6)
    torch.testing.assert_close(other.direction * scale, one.direction, rtol=1e-5, atol=1e-8)
    torch.testing.assert_close(
        scaled.losses(scale * moved.features), DISCRIMINANT.losses(moved.features), rtol=1e-5, atol=1e-5
    )


def test_the_coordinate_adds_the_square_of_what_is_beyond_the_middle():
    moved = drawn(200, EQUAL, 6, offset=6.0, part=0.3)
    shift = shift_of(moved, DISCRIMINANT.shares)
    seen = shift.augment(moved, weight=0.4, of_batch=True)
    judged = shift.augment(REFERENCE, weight=0.4, of_batch=False)
    added = feature_cost(seen.features, judged.features) - feature_cost(moved.features, REFERENCE.features)
    d = [
        (side.features @ shift.direction - shift.origin - middle).clamp(min=0)
        for side, middle in ((moved, shift.common), (REFERENCE, 0.0))
    ]
    torch.testing.assert_close(
        added, 0.5 * 0.4 * shift.size * (d[0][:, None] - d[1][None, :]).square(), rtol=1e-6, atol=1e-6
    )
    assert shift.augment(moved, weight=0.0, of_batch=True) is moved


def test_reference_losses_come_from_regressions_that_have_not_seen_the_point():
    """Labels of pure chance: whoever has seen them would do better than chance."""
    generator = np.random.default_rng(8)
    features = torch.from_numpy(generator.normal(size=(200, 100)))
    chance = Points(features, torch.from_numpy(generator.integers(0, 2, 200)))
    found = fit_discriminant(chance, classes=2, seed=0)
    right = (found.reference_losses.argmin(1) == chance.labels).double().mean()
    assert 0.35 < float(right) < 0.65
    assert float((found.losses(features).argmin(1) == chance.labels).double().mean()) > 0.65


@pytest.mark.parametrize("labels", [[0], [2], [0, 0, 0], [0, 1], [0, 1, 1, 2]])
def test_tiny_reference_sets_say_little_but_say_it(labels):
    labels = torch.tensor(labels)
    points = Points(torch.randn(len(labels), 4, generator=torch.Generator().manual_seed(0)).double(), labels)
    found = fit_discriminant(points, classes=CLASSES, seed=0)
    batch = drawn(20, EQUAL, 9)
    batch = Points(batch.features[:, :4], batch.labels)
    shares = estimated_shares(found.losses(batch.features), batch.labels, found)
    assert torch.isfinite(shares).all()
    assert float(shares.sum()) == pytest.approx(1)
    assert torch.isfinite(shift_of(batch, shares, found).direction).all()
    assert torch.isfinite(found.reference_losses).all()
    assert torch.isfinite(found.losses(batch.features)).all()
