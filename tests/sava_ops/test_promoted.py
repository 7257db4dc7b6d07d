"""Reference points that were chosen from the pool judge, and p-values are made of the given ones alone."""

import numpy as np
import pytest
import torch

from sava_ops.calibration import by_class, calibrate
from sava_ops.config import ValuationConfig
from sava_ops.decisions.conformal import benjamini_hochberg
from sava_ops.hierarchy import plan_batches
from sava_ops.inputs import as_points
from sava_ops.judgement import assess
from sava_ops.reference.label_noise import LabelNoise
from sava_ops.transport import BatchRow, held_out_rows, starting_potentials, transport_row

CONFIG = ValuationConfig(batch_size=None)
CLASSES, WIDTH = 4, 16
RATE, SEEDS = 0.1, range(4)


def row_of(train, reference, given: int | None) -> tuple[BatchRow, LabelNoise]:
    """One training batch against one reference batch, whose first points were given."""
    sides = [as_points(*side, side="training", unit_norm=True, device="cpu") for side in (train, reference)]
    calibration = calibrate(*sides, classes=CLASSES, config=CONFIG)
    rows = [np.arange(len(sides[1]))]
    batches = calibration.batches(sides[1], rows)
    starts = starting_potentials(batches, calibration, CONFIG)
    of = None if given is None else [(own < given).nonzero()[:, 0] for own in by_class(sides[1].labels, rows)]
    row = transport_row(sides[0], batches, starts, calibration, CONFIG, held_out_of=of)
    return row, calibration.label_noise


def clouds(labels: np.ndarray, generator: np.random.Generator, *, spread: float = 1.0) -> np.ndarray:
    means = 8 / np.sqrt(2 * WIDTH) * np.random.default_rng(9).normal(size=(CLASSES, WIDTH))
    noise = spread * generator.normal(size=(len(labels), WIDTH)) / np.sqrt(WIDTH)
    return (means[labels] + noise).astype(np.float32)


def promoted(seed: int) -> tuple[tuple, tuple, np.ndarray]:
    """A pool that has lost its easiest images to the reference set, which ends with them; and which of it are wrong."""
    generator = np.random.default_rng(seed)
    truth, reference = generator.integers(0, CLASSES, 500), np.repeat(np.arange(CLASSES), 40)
    easy = generator.integers(0, CLASSES, 160)
    wrong = generator.random(len(truth)) < 0.3
    labels = np.where(wrong, (truth + generator.integers(1, CLASSES, len(truth))) % CLASSES, truth)
    judging = np.concatenate([clouds(reference, generator), clouds(easy, generator, spread=0.3)])
    return (clouds(truth, generator), labels), (judging, np.concatenate([reference, easy])), wrong


def p_values(seed: int, *, given: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Of what is left of the pool, and which of it are wrong."""
    train, reference, wrong = promoted(seed)
    row, noise = row_of(train, reference, given)
    plan = plan_batches(row.costs[None].double().numpy(), [len(wrong)], [len(reference[1])], CONFIG)
    return assess([row], plan, CONFIG, noise=noise).found.p_values, wrong


def test_the_rate_is_kept_when_easy_images_are_promoted_which_among_the_held_out_would_make_others_look_worse():
    realised = []
    for seed in SEEDS:
        kept, wrong = p_values(seed, given=160)
        flagged = benjamini_hochberg(kept, rate=RATE)
        realised.append((flagged & ~wrong).sum() / max(flagged.sum(), 1))
        spoilt, _ = p_values(seed, given=None)
        assert spoilt[~wrong].mean() < kept[~wrong].mean() < 0.55
    assert np.mean(realised) <= RATE + 2 * np.std(realised, ddof=1) / np.sqrt(len(SEEDS))


def test_all_points_given_is_as_none_said():
    train, reference, _ = promoted(0)
    one, other = (row_of(train, (reference[0][:160], reference[1][:160]), given)[0] for given in (160, None))
    for name, tensor in vars(other).items():
        assert torch.allclose(getattr(one, name).double(), tensor.double(), rtol=1e-6, atol=0, equal_nan=True), name


@pytest.mark.parametrize("given", [1, 37, 160])
def test_only_given_points_go_along_and_stand_for_the_classes_of_the_batch(given):
    train, reference, _ = promoted(1)
    row, _ = row_of(train, reference, given)
    assert sorted(row.held_out_labels[:, 0].tolist()) == sorted(reference[1][:given])
    assert int(row.reference_points) == given
    assert float(row.held_out_weights.sum()) == pytest.approx(len(train[1]), rel=1e-5)


def test_of_so_many_so_many_go_along():
    config = ValuationConfig(held_out_sample=6)
    for turn in range(4):
        rows = held_out_rows([10, 20, 8], config, turn=turn, of=[4, 8, 0])
        assert [len(own) for own in rows] == [2, 4, 0]
        assert all((own < most).all() for own, most in zip(rows, [4, 8, 0], strict=True))
    assert [len(own) for own in held_out_rows([10, 1], config, turn=0, of=[5, 0])] == [0, 0]
