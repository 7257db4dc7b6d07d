from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode

from sava_ops import BadInput, ValuationConfig, judgement, transport, value_points
from sava_ops.baselines.logistic_regression import class_probabilities
from sava_ops.calibration import calibrate, calibration_rows
from sava_ops.decisions.assessment import Assessment
from sava_ops.decisions.conformal import benjamini_hochberg
from sava_ops.decisions.detection import auroc
from sava_ops.hierarchy import calibrated_gradient, plan_batches
from sava_ops.judgement import assess
from sava_ops.ot.cost import Points
from sava_ops.transport import KERNELS, BatchRow, pairs_at_once, starting_potentials, transport_row
from tests.sava_ops.reference.test_label_noise import drawn, marked
from tests.toy import clouds, mislabelled

pytestmark = pytest.mark.long
DEFAULT = ValuationConfig(tolerance=1e-8)
PAPER = replace(ValuationConfig.paper(), tolerance=1e-7, epsilon=0.5)
BOTH = pytest.mark.parametrize("config", [DEFAULT, PAPER], ids=["default", "paper"])
TRAIN, REFERENCE = clouds(60, seed=0), clouds(40, seed=1)


@pytest.mark.parametrize(
    ("config", "bound"),
    # Balanced transport pays for class shares that differ between two batches, so it finds fewer.
    [(ValuationConfig(batch_size=50), 0.99), (replace(ValuationConfig.paper(), batch_size=50, epsilon=0.1), 0.9)],
    ids=["default", "paper"],
)
def test_planted_label_errors_rank_first(config, bound):
    features, labels = clouds(300, seed=2)
    noisy, wrong = mislabelled(labels, share=0.3, classes=3)
    assert auroc(value_points(features, noisy, *REFERENCE, config=config).values, wrong) > bound


@BOTH
def test_result_has_the_promised_shapes(config):
    valuation = value_points(*TRAIN, *REFERENCE, config=replace(config, batch_size=25))
    assert valuation.values.shape == (60,)
    assert valuation.batch_costs.shape == valuation.batch_plan.shape == valuation.converged.shape == (3, 2)
    assert valuation.label_distances.shape == (3, 3)
    assert valuation.converged.all()
    assert sorted(np.concatenate(valuation.train_batches)) == list(range(60))
    assert sorted(np.concatenate(valuation.reference_batches)) == list(range(40))


def test_batch_plan_has_the_masses_of_the_batches_as_marginals():
    config = replace(PAPER, batch_size=25)
    valuation = value_points(*TRAIN, *clouds(70, seed=1), config=config)
    sizes = [np.array([len(rows) for rows in side]) for side in (valuation.train_batches, valuation.reference_batches)]
    np.testing.assert_allclose(valuation.batch_plan.sum(1), sizes[0] / 60, rtol=1e-9)
    np.testing.assert_allclose(valuation.batch_plan.sum(0), sizes[1] / 70, atol=1e-6)


def test_lava_is_sava_with_one_batch_a_side():
    lava = value_points(*TRAIN, *REFERENCE, config=replace(ValuationConfig.lava(), epsilon=0.1))
    sava = value_points(*TRAIN, *REFERENCE, config=replace(ValuationConfig.paper(), epsilon=0.1, batch_size=60))
    np.testing.assert_array_equal(lava.values, sava.values)
    assert lava.batch_plan.tolist() == [[1.0]]


def test_batchwise_lava_is_the_mean_over_reference_batches():
    config = replace(ValuationConfig.batchwise_lava(), batch_size=20, epsilon=0.1)
    valuation = value_points(*TRAIN, *REFERENCE, config=config)
    train, reference = (Points(*map(torch.from_numpy, side)) for side in (TRAIN, REFERENCE))
    calibration = calibrate(train, reference, classes=3, config=config)
    batches = calibration.batches(reference, valuation.reference_batches)
    starts = starting_potentials(batches, calibration, config)
    for rows in valuation.train_batches:
        row = transport_row(train.take(torch.from_numpy(rows)), batches, starts, calibration, config)
        own = row.potentials[:, :, :1]
        expected = calibrated_gradient(own, own[:, :, 0]).mean(1)[:, 0].numpy()
        np.testing.assert_allclose(valuation.values[rows], expected, rtol=1e-12)


def test_hierarchical_value_adds_the_gradient_of_the_batch():
    config = replace(PAPER, batch_size=20)
    plain = value_points(*TRAIN, *REFERENCE, config=config)
    full = value_points(*TRAIN, *REFERENCE, config=replace(config, hierarchical=True))
    plan = plan_batches(full.batch_costs, [20, 20, 20], [20, 20], replace(config, hierarchical=True))
    assert plan.batch_gradient.sum() == pytest.approx(0.0, abs=1e-9)
    for batch, rows in enumerate(full.train_batches):
        np.testing.assert_allclose(full.values[rows] - plain.values[rows], plan.batch_gradient[batch], atol=1e-9)


def test_calibrated_gradient_is_equation_6():
    potentials = torch.rand(5, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    gradient = calibrated_gradient(potentials[:, :, None], potentials)[:, :, 0]
    for k in range(5):
        others = potentials[[i for i in range(5) if i != k]].mean(0)
        torch.testing.assert_close(gradient[k], potentials[k] - others)
    torch.testing.assert_close(calibrated_gradient(potentials[:, :, None] + 7, potentials + 7)[:, :, 0], gradient)
    alone = calibrated_gradient(potentials[:1, :, None], potentials[:1])
    assert torch.equal(alone, torch.zeros(1, 2, 1, dtype=torch.float64))
    no_choice = torch.full_like(potentials[:1, :, None], torch.inf)
    assert calibrated_gradient(no_choice, potentials[:1]).isinf().all()


@BOTH
def test_scaling_all_features_changes_no_ranking(config):
    config = replace(config, batch_size=20)
    one = value_points(*TRAIN, *REFERENCE, config=config).values
    ten = value_points(10 * TRAIN[0], TRAIN[1], 10 * REFERENCE[0], REFERENCE[1], config=config).values
    np.testing.assert_array_equal(one.argsort(), ten.argsort())
    np.testing.assert_allclose(ten, one * (1 if config.unit_norm else 100), rtol=1e-5, atol=1e-7)


@BOTH
def test_permuting_points_permutes_values(config):
    config = replace(config, batch_size=None, class_sample=1_000, tolerance=1e-10)
    order = np.random.default_rng(0).permutation(60)
    straight = value_points(*TRAIN, *REFERENCE, config=config).values
    permuted = value_points(TRAIN[0][order], TRAIN[1][order], *REFERENCE, config=config).values
    # Under "published" the sample of a class is its whole, so only the last digits of the sums differ.
    np.testing.assert_allclose(permuted, straight[order], rtol=1e-5, atol=1e-6)


@BOTH
def test_numpy_and_torch_give_the_same_bytes_every_time(config):
    numpy_values = value_points(*TRAIN, *REFERENCE, config=config).values
    tensors = [torch.from_numpy(array) for side in (TRAIN, REFERENCE) for array in side]
    for _ in range(2):
        assert value_points(*tensors, config=config).values.tobytes() == numpy_values.tobytes()


@BOTH
def test_threads_change_no_byte(config, request):
    small = replace(config, batch_size=10)  # six batches of training points
    before = value_points(*TRAIN, *REFERENCE, config=small)
    request.getfixturevalue("three_threads")
    after = value_points(*TRAIN, *REFERENCE, config=small)
    assert len(after.train_batches) == 6
    for name in ("values", "evidence", "p_values", "batch_costs"):
        assert getattr(before, name).tobytes() == getattr(after, name).tobytes()


@BOTH
def test_float32_agrees_with_float64(config):
    config = replace(config, tolerance=1e-6, batch_size=20)
    wide = value_points(*TRAIN, *REFERENCE, config=config).values
    narrow = value_points(
        TRAIN[0].astype(np.float32), TRAIN[1], REFERENCE[0].astype(np.float32), REFERENCE[1], config=config
    ).values
    np.testing.assert_allclose(narrow, wide, rtol=0, atol=1e-4 * np.ptp(wide))


@BOTH
def test_half_precision_and_small_integers_are_accepted(config):
    features, labels = TRAIN[0].astype(np.float16), TRAIN[1].astype(np.int8)
    reference = REFERENCE[0].astype(np.float32), REFERENCE[1].astype(np.int32)
    assert np.isfinite(value_points(features, labels, *reference, config=replace(config, tolerance=1e-3)).values).all()


@BOTH
@settings(max_examples=12)
@given(
    count=st.integers(1, 12),
    size=st.sampled_from([1, 2, 5, None]),
    train_classes=st.sets(st.integers(0, 3), min_size=1),
    reference_classes=st.sets(st.integers(0, 3), min_size=1),
    seed=st.integers(0, 100),
)
def test_missing_classes_and_tiny_batches_give_finite_values(
    config, count, size, train_classes, reference_classes, seed
):
    generator = np.random.default_rng(seed)
    train, reference = clouds(count, classes=4, seed=seed)[0], clouds(9, classes=4, seed=seed + 1)[0]
    labels = generator.choice(sorted(train_classes), count)
    reference_labels = generator.choice(sorted(reference_classes), 9)
    config = replace(config, batch_size=size, tolerance=1e-2)
    valuation = value_points(train, labels, reference, reference_labels, config=config)
    assert np.isfinite(valuation.values).all()
    assert np.isfinite(valuation.batch_costs).all()
    assert np.isfinite(valuation.batch_plan).all()


@pytest.mark.usefixtures("untyped")
def test_a_batch_of_one_point_has_no_gradient_and_an_absolute_value():
    train, reference = clouds(20, seed=0), clouds(10, seed=1)
    paper = value_points(*train, *reference, config=replace(PAPER, batch_size=1))
    assert (paper.values == 0).all()
    absolute = value_points(*train, *reference, config=replace(DEFAULT, batch_size=1))
    assert len(np.unique(absolute.values)) == 20


@BOTH
def test_duplicate_points_have_equal_values(config):
    features, labels = np.concatenate([TRAIN[0], TRAIN[0]]), np.concatenate([TRAIN[1], TRAIN[1]])
    values = value_points(features, labels, *REFERENCE, config=replace(config, batch_size=None)).values
    np.testing.assert_allclose(values[:60], values[60:], rtol=1e-9, atol=1e-12)


@BOTH
def test_identical_points_have_no_value(config):
    features, labels = np.ones((8, 3)), np.zeros(8, dtype=int)
    values = value_points(features, labels, features, labels, config=config).values
    np.testing.assert_allclose(values, 0.0, atol=1e-9)


def test_inputs_are_not_written_to():
    before = [array.copy() for side in (TRAIN, REFERENCE) for array in side]
    value_points(*TRAIN, *REFERENCE)
    for array, old in zip([array for side in (TRAIN, REFERENCE) for array in side], before, strict=True):
        np.testing.assert_array_equal(array, old)


def test_too_few_sweeps_are_reported_and_not_an_error():
    valuation = value_points(*TRAIN, *REFERENCE, config=replace(PAPER, tolerance=1e-12, max_sweeps=1))
    assert not valuation.converged.any()
    assert np.isfinite(valuation.values).all()


def test_a_row_is_a_function_of_its_batch_the_reference_and_the_calibration():
    """Whatever else is in the pool: what makes a new shard add rows and touch none."""
    config = replace(DEFAULT, batch_size=20)
    train, reference = (Points(*map(torch.from_numpy, side)) for side in (TRAIN, REFERENCE))
    calibration = calibrate(train, reference, classes=3, config=config)
    batches = calibration.batches(reference, [np.arange(20), np.arange(20, 40)])
    starts = starting_potentials(batches, calibration, config)
    first, second = (train.take(torch.arange(s, s + 20)) for s in (0, 20))
    alone = transport_row(second, batches, starts, calibration, config)
    transport_row(first, batches, starts, calibration, config)
    after = transport_row(second, batches, starts, calibration, config)
    assert all(torch.equal(getattr(alone, name), getattr(after, name)) for name in vars(alone))


@pytest.mark.parametrize("seed", range(3))
def test_the_sample_is_not_what_others_draw_with_the_same_seed(seed):
    """As they do who plant wrong labels to see whether they are found: the sample has its share of them, no more."""
    wrong = np.zeros(2_000, bool)
    wrong[np.random.default_rng(seed).permutation(len(wrong))[:600]] = True
    rows = calibration_rows(np.zeros(len(wrong), int), size=1_000, per_class=1, seed=seed)
    assert abs(wrong[rows].mean() - 0.3) < 5 * (0.3 * 0.7 / 1_000) ** 0.5


def test_calibration_sample_holds_every_class_and_a_share_of_the_pool():
    labels = np.array([0] * 500 + [1] * 3 + [2] * 50)
    rows = calibration_rows(labels, size=40, per_class=5, seed=0)
    counts = np.bincount(labels[rows])
    assert counts[1] == 3
    assert counts.min() >= 3
    assert 40 <= len(rows) <= 40 + 15
    np.testing.assert_array_equal(rows, calibration_rows(labels, size=40, per_class=5, seed=0))
    np.testing.assert_array_equal(calibration_rows(labels, size=600, per_class=5, seed=0), np.arange(553))


X, Y = TRAIN
BAD = {
    "NaN or infinite": (
        np.where(np.arange(60)[:, None] == 7, np.nan, X),
        Y,
        "1 of 60 training points have NaN or infinite features \\(first: row 7\\)",
    ),
    "one-dimensional": (
        X[:, 0],
        Y,
        "training features have shape \\(60,\\) and labels \\(60,\\): pass \\(points, width\\)",
    ),
    "another count": (X, Y[:-1], "there are 60 training features and 59 labels: pass one label a point"),
    "empty": (X[:0], Y[:0], "the training set is empty: pass at least one point"),
    "no columns": (X[:, :0], Y, "training features have no columns: pass at least one"),
    "labels that are no numbers of classes": (
        X,
        Y.astype(float),
        "training labels are torch.float64: pass whole class numbers",
    ),
    "boolean labels": (X, Y > 0, "training labels are torch.bool: pass whole class numbers"),
    "negative labels": (
        X,
        np.where(np.arange(60) == 3, -1, Y),
        "1 values below 0 \\(first: -1 at row 3\\): number the classes from 0",
    ),
    "another width": (
        X[:, :4],
        Y,
        "training features have 4 columns and reference features 5: embed both with the same encoder",
    ),
    "another precision": (
        X.astype(np.float32),
        Y,
        "training features are torch.float32 and reference features torch.float64: convert one side",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_points_get_one_clear_sentence(case):
    features, labels, message = BAD[case]
    with pytest.raises(BadInput, match=message):
        value_points(features, labels, *REFERENCE)


def test_an_empty_reference_set_is_refused():
    with pytest.raises(BadInput, match="the reference set is empty: pass at least one point"):
        value_points(*TRAIN, REFERENCE[0][:0], REFERENCE[1][:0])


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("batch_size", 0, "at least 1, or null"),
        ("class_sample", 0, "at least 1"),
        ("calibration_sample", 0, "at least 1"),
        ("max_sweeps", 0, "at least 1"),
        ("epsilon", 0.0, "above 0"),
        ("epsilon", float("inf"), "finite"),
        ("rho", -1.0, "above 0"),
        ("tolerance", 0.0, "above 0"),
        ("plan_epsilon", 0.0, "above 0"),
        ("label_weight", -0.1, "0 or above"),
        ("classifier_weight", -0.1, "0 or above"),
        ("shift_weight", float("inf"), "0 or above"),
        ("held_out_sample", -1, "0 or above"),
        ("seed", -1, "0 or above"),
        ("batching", "sorted", "'stratified' or 'random'"),
        ("label_metric", "cosine", "'published' or 'divergence'"),
        ("class_shares", "equal", "'estimated' or 'reference'"),
        ("gradient", "raw", "'absolute' or 'calibrated'"),
        ("batch_weights", "none", "'plan' or 'uniform'"),
    ],
)
@pytest.mark.usefixtures("untyped")
def test_knobs_out_of_range_name_themselves_and_the_range(name, value, allowed):
    with pytest.raises(BadInput, match=f"`{name}` is {value!r}: it must be {allowed}"):
        ValuationConfig(**{name: value})


@pytest.mark.parametrize("at_once", [2, 3, 100])
def test_reference_batches_side_by_side_give_the_values_of_one_after_the_other(monkeypatch, at_once):
    """What a GPU does, which has room for several."""
    config = replace(DEFAULT, batch_size=15, tolerance=1e-9)
    single = value_points(*TRAIN, *REFERENCE, config=config)
    monkeypatch.setattr(transport, "pairs_at_once", lambda *_, **__: at_once)
    several = value_points(*TRAIN, *REFERENCE, config=config)
    assert single.batch_costs.shape[1] > 2
    np.testing.assert_allclose(several.batch_costs, single.batch_costs, rtol=1e-9)
    for name in ("values", "label_values", "p_values"):
        np.testing.assert_allclose(getattr(several, name), getattr(single, name), rtol=1e-7, atol=1e-9)
    assert (several.suggested_labels == single.suggested_labels).all()


def gpu_with(monkeypatch, *, free: int, reserved: int, allocated: int) -> torch.Tensor:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (free, 80 * 10**9))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: reserved)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _: allocated)
    with FakeTensorMode():
        return torch.empty(1, device="cuda:0")


def test_a_gpu_takes_as_many_pairs_as_its_memory_holds(monkeypatch):
    pair = KERNELS * 2048 * 2000 * 4
    like = gpu_with(monkeypatch, free=2 * pair, reserved=10**9 + pair, allocated=10**9)
    assert pairs_at_once(2048, 2000, like) == 3
    # What is held for them already does not count as taken.
    assert pairs_at_once(2048, 2000, like, held=2 * pair) == 5
    assert pairs_at_once(2048, 2000, torch.empty(1)) == 1


def test_a_gpu_without_room_for_one_pair_says_so(monkeypatch):
    like = gpu_with(monkeypatch, free=10**9, reserved=0, allocated=0)
    sentence = (
        r"a pair of batches of 50,000 × 10,000 points needs 6.0 GB of memory and cuda:0 has 1.0 GB free: "
        "lower `batch_size`"
    )
    with pytest.raises(BadInput, match=sentence):
        pairs_at_once(50_000, 10_000, like)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_rare_class_of_the_reference_is_no_fault_of_the_pool(count):
    """Well-separated classes without an error, of one of which the reference has next to nothing."""
    train, labels = clouds(300, seed=4)
    reference, reference_labels = clouds(120, seed=5)
    kept = (reference_labels != 2) | (np.cumsum(reference_labels == 2) <= count)
    found = value_points(train, labels, reference[kept], reference_labels[kept])
    assert np.isfinite(found.values).all()
    flagged = benjamini_hochberg(found.p_values, rate=0.05)
    assert flagged.sum() == 0
    if count == 1:
        # Nobody knows what a right label of it costs, so no label of it is blamed.
        assert (found.label_values[labels == 2] <= 0).all()


def test_one_reference_point_a_class_still_gives_values():
    train, labels = clouds(60, seed=4)
    reference, reference_labels = clouds(3, seed=5)
    values = value_points(train, labels, reference, reference_labels).values
    assert len(np.unique(values)) == 60


def one_row(labels: np.ndarray, config: ValuationConfig) -> tuple[BatchRow, Callable[..., Assessment]]:
    """Of the training points with these labels, and what is then said of them."""
    train, reference = (Points(*map(torch.from_numpy, side)) for side in ((TRAIN[0], labels), REFERENCE))
    calibration = calibrate(train, reference, classes=3, config=config)
    batches = calibration.batches(reference, [np.arange(40)])
    row = transport_row(train, batches, starting_potentials(batches, calibration, config), calibration, config)
    plan = plan_batches(row.costs[None].double().numpy(), [60], [40], config)

    def assessed(rows: list[BatchRow], **further) -> Assessment:
        return assess(rows, plan, config, noise=calibration.label_noise, **further).found

    return row, assessed


@BOTH
def test_further_evidence_adds_to_that_of_images_where_it_has_their_unit(config):
    row, assessed = one_row(TRAIN[1], config)
    plain = assessed([row])
    further, of_clean = np.zeros(60), np.zeros(len(row.held_out_labels))
    nothing = assessed([row], further=(further, of_clean))
    further[7] = 3.0
    of_clean[:] = 0.5
    found = assessed([row], further=(further, of_clean))
    for name, values in vars(plain).items():
        np.testing.assert_array_equal(getattr(nothing, name), values)
    if config is PAPER:
        np.testing.assert_array_equal(found.evidence, plain.evidence)
        return
    np.testing.assert_allclose(found.evidence - plain.evidence, further, atol=1e-12)
    np.testing.assert_allclose(found.image_evidence - plain.image_evidence, further, atol=1e-12)
    assert found.p_values[7] <= plain.p_values[7]
    assert (np.delete(found.p_values, 7) >= np.delete(plain.p_values, 7)).all()


def test_of_damaged_images_the_reference_set_alone_names_the_other_label():
    labels, _ = mislabelled(TRAIN[1], share=0.3, classes=3)
    row, assessed = one_row(labels, DEFAULT)
    others = (labels + 1 + np.arange(60) % 2) % 3
    row, plain = replace(row, reference_labels=torch.from_numpy(others)), assessed([row])
    damage = np.where(np.arange(60) < 40, 10.0, 0.0)
    found = assessed([row], further=(damage, np.zeros(len(row.held_out_labels))))
    asked = (plain.suggested_labels != labels) & (damage > 0)
    assert (others[asked] != plain.suggested_labels[asked]).any()
    np.testing.assert_array_equal(found.suggested_labels, np.where(asked, others, plain.suggested_labels))
    np.testing.assert_array_equal(found.confidence[~asked], plain.confidence[~asked])


def test_what_hides_behind_a_mark_is_named_as_often_as_by_the_reference_set_alone(monkeypatch):
    pool, reference = drawn(3_000, 31, apart=3.0), drawn(600, 52, apart=3.0)
    train, rows = marked(pool)

    def named() -> tuple[np.ndarray, np.ndarray]:
        found = value_points(train.features, train.labels, reference.features, reference.labels)
        return found.suggested_labels[rows], found.confidence[rows]

    labels, confidence = named()
    other, truth = labels != 0, pool.labels.numpy()[rows]
    alone, classes = class_probabilities(train, reference)
    right = (labels == truth)[other].mean()
    assert right >= (classes[alone.argmax(1)][rows] == truth)[other].mean()
    assert confidence[other].mean() == pytest.approx(right, abs=0.1)
    monkeypatch.setattr(judgement, "EVEN_ODDS", np.inf)
    by_both, _ = named()
    np.testing.assert_array_equal(by_both != 0, other)
    assert right > (by_both == truth)[other].mean() + 0.05
