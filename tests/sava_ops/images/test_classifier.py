import re

import pytest
import torch

from sava_ops import BadInput
from sava_ops.images.classifier import (
    Comparison,
    LabelledImages,
    TrainingConfig,
    TrainingSet,
    accuracy,
    compare_training_sets,
    predict,
    resnet18,
    stem_for,
    train,
)
from tests.pictures import scans

pytestmark = pytest.mark.long
SHORT = TrainingConfig(steps=2, batch_size=4, learning_rate=0.01)


def weights(model: torch.nn.Module) -> bytes:
    return b"".join(t.numpy().tobytes() for t in model.state_dict().values())


def test_training_learns_what_the_pictures_show():
    images, labels = scans(64)
    model = resnet18(4, stem="tiny", seed=0)
    train(model, images, labels, config=TrainingConfig(steps=12, batch_size=32, learning_rate=0.02), seed=0)
    assert not model.training
    assert accuracy(model, *scans(40, seed=1)) > 0.9


def test_equal_seeds_give_equal_bytes_and_leave_the_global_generator_alone():
    images, labels = scans(8)
    before = torch.random.get_rng_state()
    runs = [train(resnet18(4, stem="tiny", seed=s), images, labels, config=SHORT, seed=s) for s in (0, 0, 1)]
    assert weights(runs[0]) == weights(runs[1])
    assert weights(runs[0]) != weights(runs[2])
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize("augmentation", ["none", "crop", "crop+flip"])
def test_augmentation_reaches_training(augmentation):
    images, labels = scans(8)
    config = TrainingConfig(steps=1, batch_size=4, learning_rate=0.01, augmentation=augmentation)
    assert train(resnet18(4, stem="tiny", seed=0), images, labels, config=config, seed=0)


def steps_taken(monkeypatch, config: TrainingConfig) -> list[dict]:
    """The optimizer's settings at every step of a training."""
    seen: list[dict] = []

    class Watched(torch.optim.SGD):
        def step(self, *args, **options):
            seen.append({name: self.param_groups[0][name] for name in ("lr", "momentum", "nesterov", "weight_decay")})
            return super().step(*args, **options)

    monkeypatch.setattr(torch.optim, "SGD", Watched)
    train(resnet18(4, stem="tiny", seed=0), *scans(4), config=config, seed=0)
    return seen


HALVES = ((0.5, 0.1), (0.75, 0.01))


@pytest.mark.parametrize(
    ("steps", "drops", "factors"),
    [
        (1, HALVES, [1]),
        (2, HALVES, [1, 0.1]),
        (3, HALVES, [1, 1, 0.1]),
        (4, HALVES, [1, 1, 0.1, 0.01]),
        (5, HALVES, [1, 1, 1, 0.1, 0.01]),
        (8, HALVES, [1] * 4 + [0.1] * 2 + [0.01] * 2),
        (3, ((0.1, 0.5), (0.2, 2.0)), [1, 2.0, 2.0]),  # both at step 1
        (3, ((1 / 3, 0.5), (2 / 3, 0.25)), [1, 0.5, 0.25]),
        (2, ((5e-324, 0.5),), [1, 0.5]),
        (2, ((1 - 1e-15, 0.5),), [1, 1]),
    ],
)
def test_the_rate_is_multiplied_from_each_share_of_the_steps_on(monkeypatch, steps, drops, factors):
    config = TrainingConfig(steps=steps, batch_size=2, learning_rate=0.02, weight_decay=1e-3, drops=drops)
    seen = steps_taken(monkeypatch, config)
    assert [at["lr"] for at in seen] == [0.02 * factor for factor in factors]
    assert {(at["momentum"], at["nesterov"], at["weight_decay"]) for at in seen} == {(0.9, False, 1e-3)}


@pytest.mark.parametrize("steps", [1, 7, 30, 100, 1_000, 18_583, 100_000, 1_000_000])
def test_a_drop_happens_at_the_share_as_it_is_written(steps):
    """Also where the product in floating point is above the whole number that was meant."""
    for hundredths in range(1, 100):
        config = TrainingConfig(steps=steps, drops=((hundredths / 100, 0.5),))
        start = -(-hundredths * steps // 100)
        assert [config.factor(step) for step in (0, start - 1, start, steps)] == [1, 1, 0.5, 0.5]


def test_one_cycle_rises_to_the_learning_rate_and_falls(monkeypatch):
    seen = steps_taken(monkeypatch, TrainingConfig(steps=9, batch_size=2, learning_rate=0.02))
    rates = [at["lr"] for at in seen]
    top = rates.index(max(rates))
    assert rates[0] == pytest.approx(0.02 / 25)
    assert rates[top] <= 0.02
    assert rates == sorted(rates[: top + 1]) + sorted(rates[top + 1 :], reverse=True)
    assert all(at["nesterov"] for at in seen)


def test_progress_counts_every_step():
    seen: list[tuple[int, int]] = []
    train(resnet18(4, stem="tiny", seed=0), *scans(5), config=SHORT, seed=0, progress=lambda *at: seen.append(at))
    assert seen == [(1, 2), (2, 2)]


def test_predictions_do_not_depend_on_the_batch_size():
    model, (images, _) = resnet18(4, stem="tiny", seed=0), scans(7)
    torch.testing.assert_close(
        predict(model, images, batch_size=2), predict(model, images, batch_size=7), rtol=1e-4, atol=1e-5
    )


def test_comparison_gives_one_accuracy_per_set_and_seed_with_equal_steps():
    images, labels = scans(12)
    seen: list[tuple[int, int]] = []
    rows = {"all": torch.arange(12), "some": torch.arange(4), "all again": torch.arange(12)}
    sets = {name: TrainingSet(own) for name, own in rows.items()}
    comparison = Comparison(4, SHORT, seeds=(0, 1))
    found = compare_training_sets(
        LabelledImages(images, labels),
        sets,
        LabelledImages(*scans(8, seed=1)),
        comparison=comparison,
        progress=lambda *at: seen.append(at),
    )
    assert {name: len(values) for name, values in found.items()} == {"all": 2, "some": 2, "all again": 2}
    assert found["all"] == found["all again"]
    assert seen == [(step, 12) for step in range(1, 13)]


def test_labels_and_weights_of_a_set_replace_those_of_the_pool():
    images, labels = scans(16)
    wrong = (labels + 1) % 4
    everything, first = torch.arange(16), (torch.arange(16) < 8).float()
    sets = {
        "right": TrainingSet(everything),
        "mended": TrainingSet(everything, labels=labels),
        "all alike": TrainingSet(everything, weights=torch.full((16,), 3.0)),
    }
    test, comparison = LabelledImages(*scans(8, seed=1)), Comparison(4, SHORT, seeds=(0,))
    found = compare_training_sets(LabelledImages(images, labels), sets, test, comparison=comparison)
    assert found["mended"] == found["right"]
    assert found["all alike"] == found["right"]
    # Images of weight 0 might as well carry another label.
    models = [
        train(resnet18(4, stem="tiny", seed=0), images, y, config=SHORT, seed=0, weights=first)
        for y in (labels, torch.where(first > 0, labels, wrong))
    ]
    outputs = [predict(model, images) for model in models]
    torch.testing.assert_close(*outputs, rtol=0, atol=0)


@pytest.mark.parametrize(("size", "stem"), [(8, "tiny"), (16, "tiny"), (32, "small"), (64, "small"), (65, "imagenet")])
def test_stem_follows_the_image_size(size, stem):
    assert stem_for(size) == stem


@pytest.mark.parametrize(("stem", "size"), [("tiny", 8), ("small", 32), ("imagenet", 64)])
def test_every_stem_gives_logits(stem, size):
    model = resnet18(3, stem=stem, seed=0)
    assert predict(model, torch.zeros(2, 3, size, size, dtype=torch.uint8)).shape == (2, 3)


BAD_TRAINING = {
    "steps": (0, "at least 1"),
    "batch_size": (1, "at least 2"),
    "learning_rate": (0.0, "above 0"),
    "weight_decay": (-1.0, "0 or above"),
    "label_smoothing": (1.0, "0 or above and below 1"),
    "augmentation": ("mixup", "'none', 'crop' or 'crop+flip'"),
}


@pytest.mark.parametrize("name", BAD_TRAINING)
@pytest.mark.usefixtures("untyped")
def test_training_knobs_out_of_range_name_themselves(name):
    value, allowed = BAD_TRAINING[name]
    with pytest.raises(BadInput, match=re.escape(f"`{name}` is {value!r}: it must be {allowed}")):
        TrainingConfig(**{name: value})


@pytest.mark.parametrize(
    "drops",
    [
        ((0.0, 0.1),),
        ((1.0, 0.1),),
        ((float("nan"), 0.1),),
        ((0.5, 0.1), (0.5, 0.01)),
        ((0.75, 0.01), (0.5, 0.1)),
        ((0.5, 0.0),),
        ((0.5, -0.1),),
        ((0.5, float("inf")),),
        ((0.5, float("nan")),),
        ((0.5, 0.1), (0.75, 0.0)),
    ],
)
def test_drops_out_of_order_or_range_are_refused(drops):
    allowed = "pairs (share, factor), shares rising strictly between 0 and 1, factors above 0 and finite"
    with pytest.raises(BadInput, match=re.escape(f"`drops` is {drops!r}: it must be {allowed}")):
        TrainingConfig(drops=drops)


def test_bad_sets_get_one_clear_sentence():
    model, (images, labels) = resnet18(4, stem="tiny", seed=0), scans(4)
    with pytest.raises(BadInput, match="the image set is empty: pass at least one image"):
        train(model, images[:0], labels[:0], config=SHORT, seed=0)
    wrong = torch.tensor([0, 1, 7, -1])
    with pytest.raises(BadInput, match=r"`labels` has 2 values outside 0..3 \(first: 7 at row 2\): raise `classes`"):
        train(model, images, wrong, config=SHORT, seed=0)
    with pytest.raises(BadInput, match="there are no images to predict: pass at least one"):
        predict(model, images[:0])
    with pytest.raises(BadInput, match="`batch_size` is 0: it must be at least 1"):
        predict(model, images, batch_size=0)
    with pytest.raises(BadInput, match="`classes` is 0: it must be at least 1"):
        resnet18(0, stem="tiny", seed=0)


def test_divergence_is_said_and_not_trained_on():
    config = TrainingConfig(steps=20, batch_size=4, learning_rate=1e20)
    with pytest.raises(BadInput, match=r"training diverged at step \d+ of 20: lower `learning_rate`"):
        train(resnet18(4, stem="tiny", seed=0), *scans(8), config=config, seed=0)
