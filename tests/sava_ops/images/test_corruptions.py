"""What is made dirty, and what is left as it was."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sava_ops import BadInput
from sava_ops.images.classifier import resnet18
from sava_ops.images.corruptions import confused_labels, noisy_features, noisy_labels, poison_frogs, trojan_square
from sava_ops.images.encoder import Encoder, InputFormat

pytestmark = pytest.mark.long


@given(st.integers(1, 200), st.floats(0, 1), st.integers(2, 9), st.integers(0, 9))
def test_noisy_labels_touches_exactly_the_share_and_reports_it(count, share, classes, seed):
    labels = np.random.default_rng(seed).integers(0, classes, count)
    noisy, touched = noisy_labels(labels, share=share, classes=classes, seed=seed)
    np.testing.assert_array_equal(noisy != labels, touched)
    assert touched.sum() == round(share * count)
    assert noisy.min() >= 0
    assert noisy.max() < classes


def test_noisy_labels_is_uniform_over_the_other_classes_and_seeded():
    labels = np.zeros(30_000, dtype=np.int64)
    noisy, _ = noisy_labels(labels, share=1.0, classes=4, seed=0)
    assert np.bincount(noisy, minlength=4)[0] == 0
    np.testing.assert_allclose(np.bincount(noisy)[1:] / 30_000, 1 / 3, atol=0.02)
    np.testing.assert_array_equal(noisy, noisy_labels(labels, share=1.0, classes=4, seed=0)[0])
    assert (noisy != noisy_labels(labels, share=1.0, classes=4, seed=1)[0]).any()


def test_noisy_labels_refuses_what_makes_no_sense():
    labels = np.zeros(3, dtype=np.int64)
    with pytest.raises(BadInput, match=r"`share` is 1.5: it must be between 0 and 1"):
        noisy_labels(labels, share=1.5, classes=2, seed=0)
    with pytest.raises(BadInput, match="`classes` is 1: a wrong label needs at least 2"):
        noisy_labels(labels, share=0.5, classes=1, seed=0)


@given(st.integers(1, 200), st.floats(0, 1), st.integers(0, 9))
def test_confused_labels_touches_exactly_the_share_of_each_named_class(count, share, seed):
    labels, mistakes = np.random.default_rng(seed).integers(0, 4, count), {0: 2, 3: 0}
    noisy, touched = confused_labels(labels, share=share, mistakes=mistakes, seed=seed)
    np.testing.assert_array_equal(noisy != labels, touched)
    for label, mistaken in mistakes.items():
        assert touched[labels == label].sum() == round(share * (labels == label).sum())
        assert (noisy[touched & (labels == label)] == mistaken).all()
    assert not touched[(labels == 1) | (labels == 2)].any()


def test_a_class_is_not_mistaken_for_itself():
    with pytest.raises(BadInput, match="`mistakes` takes class 1 for itself: name another class"):
        confused_labels(np.zeros(3, dtype=np.int64), share=0.5, mistakes={1: 1}, seed=0)


PIXELS = np.random.default_rng(0).integers(60, 190, (300, 3, 32, 32), dtype=np.uint8)


def test_noisy_features_touches_exactly_the_share_with_the_stated_noise():
    before = PIXELS.copy()
    noisy, touched = noisy_features(PIXELS, share=0.3, seed=1, sigma=0.05)
    np.testing.assert_array_equal(PIXELS, before)
    assert touched.sum() == 90
    np.testing.assert_array_equal((noisy != PIXELS).any((1, 2, 3)), touched)
    difference = noisy[touched].astype(float) - PIXELS[touched]
    assert difference.mean() == pytest.approx(0, abs=0.1)
    assert difference.std() == pytest.approx(255 * 0.05, rel=0.01)


@pytest.mark.parametrize("fixed", [False, True])
def test_trojan_square_changes_its_square_and_label_and_nothing_else(fixed):
    labels = np.random.default_rng(0).integers(0, 3, 300)
    noisy, relabelled, touched = trojan_square(PIXELS, labels, share=0.1, target=0, seed=1, fixed=fixed)
    assert touched.sum() == 30
    assert not touched[labels == 0].any()
    np.testing.assert_array_equal(relabelled, np.where(touched, 0, labels))
    changed = noisy != PIXELS
    np.testing.assert_array_equal(changed.any((1, 2, 3)), touched)
    outside = np.ones((32, 32), dtype=bool)
    outside[18:28, 18:28] = False
    assert not changed[..., outside].any()
    squares = noisy[touched][..., 18:28, 18:28]
    assert (squares == squares[:1]).all() == fixed


def test_a_trojan_needs_enough_images_of_other_classes():
    with pytest.raises(BadInput, match=r"`share` 0.5 of 300 images is more than the 0 of other classes than 0: lower"):
        trojan_square(PIXELS, np.zeros(300, dtype=np.int64), share=0.5, target=0, seed=0)


@pytest.fixture(scope="module")
def frogs():
    """Sixty images in two classes, a target, and an encoder of no training."""
    pixels = np.random.default_rng(0).integers(0, 256, (60, 3, 8, 8), dtype=np.uint8)
    model = resnet18(2, stem="tiny", seed=0)
    model.network.fc = torch.nn.Identity()
    return pixels, np.arange(60) % 2, pixels[-1], Encoder(model.eval(), InputFormat(8, "tiny"))


def test_poison_frogs_collide_in_feature_space_and_touch_only_accepted_images(frogs):
    pixels, labels, target, encoder = frogs
    asked = {"encoder": encoder, "share": 0.2, "base": 0, "seed": 0, "close": 0.7, "steps": 20}
    poisoned, touched = poison_frogs(pixels, labels, target, **asked)
    assert touched.any()
    assert touched.sum() <= 12
    assert (labels[touched] == 0).all()
    np.testing.assert_array_equal((poisoned != pixels).any((1, 2, 3)), touched)
    with torch.no_grad():
        goal = encoder(torch.from_numpy(target[None]))
        before, after = (
            (encoder(torch.from_numpy(images[touched])) - goal).norm(dim=1) for images in (pixels, poisoned)
        )
    assert (after <= 0.7 * before).all()
    again, _ = poison_frogs(pixels, labels, target, **asked)
    np.testing.assert_array_equal(again, poisoned)


def test_a_poison_that_does_not_get_close_is_left_as_it_was(frogs):
    pixels, labels, target, encoder = frogs
    poisoned, touched = poison_frogs(pixels, labels, target, encoder=encoder, share=0.2, base=0, seed=0, steps=1)
    assert not touched.any()
    np.testing.assert_array_equal(poisoned, pixels)


def test_poison_frogs_need_images_of_their_class(frogs):
    pixels, labels, target, encoder = frogs
    with pytest.raises(BadInput, match=r"`share` 0.6 of 60 images is more than the 30 of class 0: lower it"):
        poison_frogs(pixels, labels, target, encoder=encoder, share=0.6, base=0, seed=0)
