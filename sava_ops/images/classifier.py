"""ResNet18 and the one training loop that encoder and classifier share."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR

from sava_ops.errors import BadInput
from sava_ops.images.pixel_file import PixelFile
from sava_ops.images.training import Augmentation, TrainingConfig

Stem = Literal["imagenet", "small", "tiny"]
Progress = Callable[[int, int], None]
"""Called with (done, total)."""

IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_STD = (58.395, 57.12, 57.375)

LEAST_WEIGHT = 1e-6
"""Of a batch: one whose images count nothing moves nothing."""


class PixelResNet18(nn.Module):
    """ResNet18 on uint8 pixels: normalisation is part of the model, so none is fed what another was trained on."""

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        classes: int,
        *,
        stem: Stem,
        mean: tuple[float, ...] = IMAGENET_MEAN,
        std: tuple[float, ...] = IMAGENET_STD,
    ) -> None:
        # Takes longer to import than torch itself.
        from torchvision import models

        super().__init__()
        self.network = models.resnet18(weights=None, num_classes=classes)
        if stem != "imagenet":
            stride = 2 if stem == "small" else 1
            self.network.conv1 = nn.Conv2d(3, 64, 3, stride=stride, padding=1, bias=False)
            self.network.maxpool = nn.Identity()  # pyright: ignore[reportAttributeAccessIssue]
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)
        self.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    def forward(
        self, images: UInt8[Tensor, "n 3 height width"] | Float[Tensor, "n 3 height width"]
    ) -> Float[Tensor, "n outputs"]:
        pixels = (images.float() - self.mean) / self.std
        return self.network(pixels.contiguous(memory_format=torch.channels_last))


@dataclass(frozen=True)
class LabelledImages:
    images: UInt8[Tensor, "n 3 s s"] | PixelFile
    labels: Int64[Tensor, " n"]


@dataclass(frozen=True)
class TrainingSet:
    """Part of a pool, as it is or with other labels and weights."""

    rows: Int64[Tensor, " chosen"]
    labels: Int64[Tensor, " chosen"] | None = None
    """Instead of the pool's."""
    weights: Float[Tensor, " chosen"] | None = None
    """How much each image counts, 0 or above; all alike without them."""


@dataclass(frozen=True)
class Comparison:
    """What all trainings of a comparison have in common."""

    classes: int
    config: TrainingConfig
    seeds: tuple[int, ...] = (0, 1, 2)


def stem_for(image_size: int) -> Stem:
    """The published stem shrinks images fourfold at once; small ones would not survive it."""
    return "tiny" if image_size <= 16 else "small" if image_size <= 64 else "imagenet"


def resnet18(classes: int, *, stem: Stem, seed: int) -> PixelResNet18:
    """An untrained network, initialised by seed: uint8 (n, 3, s, s) → logits (n, classes)."""
    if classes < 1:
        raise BadInput(f"`classes` is {classes}: it must be at least 1")
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would also seed the GPUs
        return PixelResNet18(classes, stem=stem)


def train(
    model: PixelResNet18,
    images: UInt8[Tensor, "n 3 s s"] | PixelFile,
    labels: Int64[Tensor, " n"],
    *,
    config: TrainingConfig,
    seed: int,
    weights: Float[Tensor, " n"] | None = None,
    device: str = "cpu",
    progress: Progress | None = None,
) -> PixelResNet18:
    """Train in place, on `device`, for `config.steps` steps; returns the model in evaluation mode.

    With `weights`, the loss of a batch is the weighted mean over its images.

    Raises BadInput for an empty set, labels the model has no output for, and a loss that is no longer finite.
    """
    _check_labels(labels, classes=model.network.fc.out_features)
    model.to(device).train()
    optimizer, schedule = _descent(model, config)
    loss_of = nn.CrossEntropyLoss(label_smoothing=config.label_smoothing, reduction="none")
    weights = torch.ones(len(images)) if weights is None else weights
    generator = torch.Generator().manual_seed(seed)
    for step, rows in enumerate(_minibatches(len(images), config, generator), start=1):
        batch = _augment(images[rows].to(device), config.augmentation, generator)
        with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=_fast_bf16(device)):
            losses, counted = loss_of(model(batch), labels[rows].to(device)), weights[rows].to(device)
            loss = (losses * counted).sum() / counted.sum().clamp(min=LEAST_WEIGHT)
        if not torch.isfinite(loss):
            raise BadInput(f"training diverged at step {step} of {config.steps}: lower `learning_rate`")
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
        if progress:
            progress(step, config.steps)
    return model.eval()


def predict(
    model: PixelResNet18,
    images: UInt8[Tensor, "n 3 s s"] | PixelFile,
    *,
    batch_size: int = 256,
    device: str = "cpu",
    progress: Progress | None = None,
) -> Float[Tensor, "n outputs"]:
    """Outputs in evaluation mode, float32 on the CPU. Moves the model to `device`, and computes in bfloat16 where that
    is faster. Raises BadInput without images."""
    if len(images) == 0:
        raise BadInput("there are no images to predict: pass at least one")
    if batch_size < 1:
        raise BadInput(f"`batch_size` is {batch_size}: it must be at least 1")
    model.to(device).eval()
    kind, outputs = torch.device(device).type, []
    with torch.inference_mode(), torch.autocast(kind, torch.bfloat16, enabled=_fast_bf16(device)):
        for batch in images.split(batch_size):
            # From pinned memory, a GPU fetches the next batch while it computes.
            waiting = batch.pin_memory() if kind == "cuda" else batch
            outputs.append(model(waiting.to(device, non_blocking=True)).float())
            if progress:
                progress(sum(map(len, outputs)), len(images))
    return torch.cat(outputs).cpu()


def accuracy(
    model: PixelResNet18,
    images: UInt8[Tensor, "n 3 s s"] | PixelFile,
    labels: Int64[Tensor, " n"],
    *,
    device: str = "cpu",
) -> float:
    """Share (0..1) of images whose largest logit is at their label. Raises BadInput without images."""
    return float((predict(model, images, device=device).argmax(1) == labels).double().mean())


def compare_training_sets(
    pool: LabelledImages,
    sets: Mapping[str, TrainingSet],
    test: LabelledImages,
    *,
    comparison: Comparison,
    device: str = "cpu",
    progress: Progress | None = None,
) -> dict[str, list[float]]:
    """Test accuracy (0..1) of a classifier trained on each set of the pool, one per seed, with equal steps.

    All sets of a seed start from the same weights. `progress` counts the steps of all trainings. Raises BadInput.
    """
    total, done = len(comparison.seeds) * len(sets) * comparison.config.steps, 0
    accuracies: dict[str, list[float]] = {name: [] for name in sets}
    for seed in comparison.seeds:
        for name, chosen in sets.items():
            told = _shifted(progress, done, total)
            found = trained_accuracy(pool, chosen, test, comparison=comparison, seed=seed, device=device, progress=told)
            accuracies[name].append(found)
            done += comparison.config.steps
    return accuracies


def trained_accuracy(
    pool: LabelledImages,
    chosen: TrainingSet,
    test: LabelledImages,
    *,
    comparison: Comparison,
    seed: int,
    device: str = "cpu",
    progress: Progress | None = None,
) -> float:
    """One training of a comparison: test accuracy (0..1) of a classifier trained on this set. Raises BadInput."""
    _check_labels(test.labels, classes=comparison.classes)
    model = resnet18(comparison.classes, stem=stem_for(pool.images.shape[-1]), seed=seed)
    train(
        model,
        _part(pool.images, chosen.rows),
        pool.labels[chosen.rows] if chosen.labels is None else chosen.labels,
        config=comparison.config,
        seed=seed,
        weights=chosen.weights,
        device=device,
        progress=progress,
    )
    return accuracy(model, test.images, test.labels, device=device)


def _part(images: Tensor | PixelFile, rows: Tensor) -> Tensor | PixelFile:
    return images.part(rows) if isinstance(images, PixelFile) else images[rows]


def _shifted(progress: Progress | None, before: int, total: int) -> Progress | None:
    return (lambda step, _: progress(before + step, total)) if progress else None


def _check_labels(labels: Tensor, *, classes: int) -> None:
    if len(labels) == 0:
        raise BadInput("the image set is empty: pass at least one image")
    outside = ((labels < 0) | (labels >= classes)).nonzero().flatten()
    if len(outside):
        first = int(outside[0])
        raise BadInput(
            f"`labels` has {len(outside)} values outside 0..{classes - 1} (first: {int(labels[first])} at row "
            f"{first}): raise `classes` or mend the labels"
        )


def _descent(model: nn.Module, config: TrainingConfig) -> tuple[torch.optim.SGD, LRScheduler]:
    optimizer = torch.optim.SGD(
        model.parameters(),
        lr=config.learning_rate,
        momentum=0.9,
        nesterov=not config.drops,
        weight_decay=config.weight_decay,
    )
    if not config.drops:
        return optimizer, OneCycleLR(optimizer, config.learning_rate, total_steps=config.steps + 1)
    return optimizer, LambdaLR(optimizer, config.factor)


def _minibatches(size: int, config: TrainingConfig, generator: torch.Generator) -> Iterator[Tensor]:
    """`steps` batches of rows; a fresh seeded order whenever the last is used up, so every batch is full."""
    queue = torch.empty(0, dtype=torch.int64)
    for _ in range(config.steps):
        while len(queue) < config.batch_size:
            queue = torch.cat([queue, torch.randperm(size, generator=generator)])
        yield queue[: config.batch_size]
        queue = queue[config.batch_size :]


def _augment(images: Tensor, augmentation: Augmentation, generator: torch.Generator) -> Tensor:
    """Shift each image by up to an eighth of its size (reflected at the border), and mirror half of them."""
    if augmentation == "none":
        return images
    n, size = len(images), images.shape[-1]
    shift = size // 8
    offsets = torch.randint(-shift, shift + 1, (2, n, 1), generator=generator)
    y, x = size - 1 - (size - 1 - (offsets + torch.arange(size)).abs()).abs()
    if augmentation == "crop+flip":
        x = torch.where(torch.rand(n, 1, generator=generator) < 0.5, x.flip(1), x)
    y, x = y.to(images.device), x.to(images.device)
    rows = torch.arange(n, device=images.device)
    return images[rows[:, None, None], :, y[:, :, None], x[:, None, :]].permute(0, 3, 1, 2)


def _fast_bf16(device: str) -> bool:
    """Whether the device has instructions for bfloat16; without them it is slower than float32."""
    kind = torch.device(device).type
    if kind == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    # The public torch.cpu.get_capabilities is not in every torch we support.
    return kind == "cpu" and (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
