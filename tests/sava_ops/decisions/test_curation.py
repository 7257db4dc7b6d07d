"""Corruptions, detection scores and pruning masks."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sava_ops import BadInput
from sava_ops.decisions.assessment import Assessment
from sava_ops.decisions.detection import auroc, average_precision, detection_curve, found_in_top
from sava_ops.decisions.pruning import PruneRule, decide, keep_lowest, keep_random
from sava_ops.images.classifier import resnet18
from sava_ops.images.corruptions import confused_labels, noisy_features, noisy_labels, poison_frogs, trojan_square
from sava_ops.images.encoder import Encoder, InputFormat

VALUES = st.lists(st.integers(-5, 5), min_size=2, max_size=40).map(lambda v: np.array(v, dtype=np.float64))


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


@given(VALUES, st.integers(0, 99))
def test_auroc_is_the_share_of_pairs_in_the_right_order(values, seed):
    bad = np.random.default_rng(seed).random(len(values)) < 0.5
    bad[:2] = [True, False]
    pairs = np.sign(values[bad][:, None] - values[~bad][None, :])
    assert auroc(values, bad) == pytest.approx(float((pairs + 1).mean() / 2))


def test_auroc_needs_both_kinds():
    with pytest.raises(BadInput, match="3 of 3 points are bad: AUROC needs good and bad points"):
        auroc(np.zeros(3), np.ones(3, dtype=bool))
    with pytest.raises(BadInput, match="0 of 3 points are bad"):
        auroc(np.zeros(3), np.zeros(3, dtype=bool))


def test_found_in_top_counts_the_bad_among_the_highest():
    values, bad = np.array([3.0, 9.0, 1.0, 7.0]), np.array([True, True, False, False])
    assert [found_in_top(values, bad, count=n) for n in range(5)] == [0, 1, 1, 2, 2]


@given(VALUES, st.floats(0, 0.999))
def test_pruning_takes_the_highest_values_and_exactly_the_fraction(values, fraction):
    keep = keep_lowest(values, fraction=fraction)
    assert (~keep).sum() == int(fraction * len(values))
    if not keep.all():
        assert values[~keep].min() >= values[keep].max()
    assert keep_random(len(values), pruned=int((~keep).sum()), seed=0).sum() == keep.sum()


def test_ties_are_broken_by_position_and_chance_by_seed():
    np.testing.assert_array_equal(keep_lowest(np.zeros(4), fraction=0.5), [True, True, False, False])
    one, again, other = (keep_random(50, pruned=25, seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, again)
    assert (one != other).any()


@pytest.mark.parametrize("fraction", [-0.1, 1.0])
def test_pruning_refuses_a_fraction_that_leaves_nothing(fraction):
    with pytest.raises(BadInput, match=f"`fraction` is {fraction}: it must be 0 or above and below 1"):
        keep_lowest(np.zeros(4), fraction=fraction)


def assessment(values, *, feature_values=None, confidence=1.0, p_values=None) -> Assessment:
    values = np.asarray(values, dtype=float)
    best = values if feature_values is None else np.asarray(feature_values, dtype=float)
    p = np.where(values > 5, 1e-9, 1.0) if p_values is None else p_values
    sure = np.broadcast_to(np.asarray(confidence, dtype=float), values.shape).copy()
    suggested = np.zeros(len(values), dtype=np.int64)
    return Assessment(values, best, values - best, suggested, sure, p, p)


ANY = PruneRule(class_floor=0.0, cap=1.0)


def test_what_to_do_follows_from_image_label_and_trust():
    found = assessment([1, 9, 9, 9], feature_values=[1, 9, 1, 1], confidence=[1, 1, 0.9, 0.5])
    made = decide(found, np.array([0, 1, 1, 1]), ANY)
    assert made.action.tolist() == ["keep", "drop", "relabel", "review"]
    assert made.keep.tolist() == [True, False, False, False]
    assert made.threshold == 9


def test_clean_points_are_left_alone():
    made = decide(assessment(np.arange(5)), np.zeros(5, dtype=np.int64), ANY)
    assert made.keep.all()
    assert set(made.action) == {"keep"}
    assert made.threshold is None


def test_a_fixed_fraction_flags_the_highest_values_whatever_their_p_values():
    made = decide(
        assessment([3, 1, 2, 4], p_values=np.ones(4)),
        np.zeros(4, dtype=np.int64),
        PruneRule(fraction=0.5, class_floor=0.0),
    )
    assert made.flagged.tolist() == [True, False, False, True]


@given(st.lists(st.integers(0, 9), min_size=1, max_size=60), st.floats(0, 1), st.floats(0, 1), st.integers(0, 9))
def test_bounds_hold_and_spare_the_lowest(values, floor, cap, seed):
    labels = np.random.default_rng(seed).integers(0, 3, len(values))
    made = decide(assessment(values), labels, PruneRule(class_floor=floor, cap=cap))
    values = np.array(values)
    out = ~made.keep
    assert out.sum() <= cap * len(values)
    assert not out[~made.flagged].any()
    for label in np.unique(labels):
        own = labels == label
        assert made.keep[own].sum() >= floor * own.sum()
        spared = own & made.flagged & made.keep
        assert set(made.action[spared]) <= {"review"}
        if out[own].any() and spared.any():
            assert values[spared].max() <= values[own & out].max()


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("fraction", 1.0, "0 or above and below 1, or null"),
        ("false_discovery_rate", 0.0, "above 0 and below 1"),
        ("class_floor", -0.1, "between 0 and 1"),
        ("cap", 1.1, "between 0 and 1"),
        ("relabel_confidence", 2.0, "between 0 and 1"),
    ],
)
def test_rules_out_of_range_name_themselves_and_the_range(name, value, allowed):
    with pytest.raises(BadInput, match=f"`{name}` is {value}: it must be {allowed}"):
        PruneRule(**{name: value})


@pytest.fixture(scope="module")
def frogs():
    """Sixty images in two classes, a target, and an encoder of no training."""
    pixels = np.random.default_rng(0).integers(0, 256, (60, 3, 8, 8), dtype=np.uint8)
    model = resnet18(2, stem="tiny", seed=0)
    model.network.fc = torch.nn.Identity()
    return pixels, np.arange(60) % 2, pixels[-1], Encoder(model.eval(), InputFormat(8, "tiny"))


def test_poison_frogs_collide_in_feature_space_and_touch_only_accepted_images(frogs):
    pixels, labels, target, encoder = frogs
    poisoned, touched = poison_frogs(pixels, labels, target, encoder=encoder, share=0.2, base=0, seed=0, close=0.7)
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
    again, _ = poison_frogs(pixels, labels, target, encoder=encoder, share=0.2, base=0, seed=0, close=0.7)
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


@given(VALUES, st.integers(0, 9))
def test_average_precision_is_its_definition(values, seed):
    bad = np.random.default_rng(seed).random(len(values)) < 0.5
    bad[0] = True
    # Over the distinct thresholds: precision times what recall gains there.
    thresholds = sorted(set(values), reverse=True)
    picked = [values >= t for t in thresholds]
    recall = np.array([0.0] + [bad[p].sum() / bad.sum() for p in picked])
    expected = sum(bad[p].mean() * gain for p, gain in zip(picked, np.diff(recall), strict=True))
    assert average_precision(values, bad) == pytest.approx(expected)


def test_a_detection_curve_counts_what_is_found():
    values, bad = np.array([4.0, 3.0, 2.0, 1.0]), np.array([True, False, True, False])
    inspected, found = detection_curve(values, bad, steps=4)
    np.testing.assert_allclose(inspected, [0, 0.25, 0.5, 0.75, 1])
    np.testing.assert_allclose(found, [0, 0.5, 0.5, 1, 1])


@pytest.mark.parametrize(
    ("measure", "name"), [(average_precision, "average precision"), (detection_curve, "a detection curve")]
)
def test_nothing_bad_has_no_measure(measure, name):
    with pytest.raises(BadInput, match=f"none of 3 points is bad: {name} needs one"):
        measure(np.zeros(3), np.zeros(3, dtype=bool))
