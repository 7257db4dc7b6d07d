"""ResNet18 as a feature extractor: uint8 images → (n, 512) features (SAVA §5: ResNet18 without its last layer)."""

import io
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

import fsspec
import torch
from jaxtyping import Float, Int64, UInt8
from safetensors.torch import load as load_safetensors
from safetensors.torch import save_file as save_safetensors
from torch import Tensor, nn

from sava_ops.errors import BadInput
from sava_ops.images.classifier import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    PixelResNet18,
    Progress,
    Stem,
    predict,
    resnet18,
    stem_for,
    train,
)
from sava_ops.images.pixel_file import PixelFile
from sava_ops.images.training import TrainingConfig

FEATURES = 512
METADATA_KEY = "sava_encoder"


@dataclass(frozen=True)
class InputFormat:
    """The images a network was trained on: its weights do not say it, and a wrong guess ruins every feature."""

    image_size: int
    """Height and width, px."""
    stem: Stem
    mean: tuple[float, ...] = IMAGENET_MEAN
    """Per channel, in 0..255."""
    std: tuple[float, ...] = IMAGENET_STD

    def __post_init__(self) -> None:
        if self.image_size < 1:
            raise BadInput(f"`image_size` is {self.image_size}: it must be at least 1")
        if self.stem not in get_args(Stem):
            raise BadInput(f"`stem` is {self.stem!r}: it must be 'imagenet', 'small' or 'tiny'")
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise BadInput(f"`mean` is {self.mean} and `std` {self.std}: pass three numbers each, `std` above 0")


@dataclass(frozen=True)
class Encoder:
    """Call it with images (n, 3, s, s) on the device of `network` for pooled features (n, 512)."""

    network: PixelResNet18
    input_format: InputFormat

    def __call__(self, images: UInt8[Tensor, "n 3 s s"]) -> Float[Tensor, "n 512"]:
        return self.network(images)


def embed(
    encoder: Encoder,
    images: UInt8[Tensor, "n 3 s s"],
    *,
    batch_size: int = 256,
    device: str = "cpu",
    progress: Progress | None = None,
) -> Float[Tensor, "n 512"]:
    """Pooled features, float32 on the CPU. Raises BadInput for images that are not of the encoder's size."""
    size = encoder.input_format.image_size
    if images.shape[-1] != size:
        raise BadInput(f"images are {images.shape[-1]} px and the encoder takes {size} px: fit them to {size} first")
    if len(images) == 0:
        return torch.empty(0, FEATURES)
    return predict(encoder.network, images, batch_size=batch_size, device=device, progress=progress)


def train_encoder(
    images: UInt8[Tensor, "n 3 s s"] | PixelFile,
    labels: Int64[Tensor, " n"],
    *,
    classes: int,
    config: TrainingConfig,
    seed: int,
    device: str = "cpu",
    progress: Progress | None = None,
) -> Encoder:
    """Train a classifier on the clean set and keep what comes before its last layer. Raises BadInput."""
    size = images.shape[-1]
    model = resnet18(classes, stem=stem_for(size), seed=seed)
    train(model, images, labels, config=config, seed=seed, device=device, progress=progress)
    return _without_classifier(model, InputFormat(size, stem_for(size)))


def save_encoder(encoder: Encoder, path: str | Path) -> None:
    """One local safetensors file, its input format in the metadata; equal encoders give equal bytes."""
    weights = {name: t.cpu().contiguous() for name, t in encoder.network.network.state_dict().items()}
    # One metadata key: safetensors writes several in an order that changes from run to run.
    save_safetensors(weights, path, {METADATA_KEY: json.dumps(asdict(encoder.input_format))})


def load_encoder(
    source: str,
    *,
    image_size: int | None = None,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
    stem: Stem | None = None,
) -> Encoder:
    """A torchvision ResNet18: "imagenet", or the path or URL of a .safetensors, .pt or .pth file of weights.

    `image_size` (px), `mean` and `std` (per channel, in 0..255) are what the network was trained on. Files of
    `save_encoder` know them, "imagenet" has defaults, any other file needs them. The stem is read off the weights, a
    3×3 one as "small": its stride does not show, so pass "tiny" for stride 1. A last layer in the file is ignored.
    Raises BadInput for what is not such a checkpoint, or contradicts what is passed.
    """
    passed = {"image_size": image_size, "mean": mean, "std": std, "stem": stem}
    asked = {name: value for name, value in passed.items() if value is not None}
    if source == "imagenet":
        weights, known = _download_imagenet(), None
        asked = {"image_size": 224, "mean": IMAGENET_MEAN, "std": IMAGENET_STD} | asked
    else:
        weights, known = _read_checkpoint(source)
    input_format = _agreed(known, asked, source) if known else _described(asked, weights, source)
    return _from_weights(weights, input_format, source)


def _agreed(known: InputFormat, asked: Mapping[str, Any], source: str) -> InputFormat:
    for name, value in asked.items():
        if value != getattr(known, name):
            raise BadInput(f"{source} was trained with `{name}` {getattr(known, name)}, not {value}: leave it out")
    return known


def _described(asked: Mapping[str, Any], weights: Mapping[str, Tensor], source: str) -> InputFormat:
    missing = [f"`{name}`" for name in ("image_size", "mean", "std") if name not in asked]
    if missing:
        raise BadInput(f"{source} does not say what images it was trained on: pass {', '.join(missing)} (0..255 units)")
    kernel = weights["conv1.weight"].shape[-1] if "conv1.weight" in weights else 7
    return InputFormat(**{"stem": "imagenet" if kernel == 7 else "small", **asked})


def _download_imagenet() -> Mapping[str, Tensor]:
    try:
        from torchvision.models import ResNet18_Weights

        return ResNet18_Weights.DEFAULT.get_state_dict(progress=False, check_hash=True)
    except (OSError, RuntimeError) as error:  # no network; a file that does not match its hash
        raise BadInput(
            f"the ImageNet weights could not be downloaded ({error}): connect to the network once, or name a "
            "checkpoint file as the encoder's source"
        ) from error


def _read_checkpoint(source: str) -> tuple[Mapping[str, Tensor], InputFormat | None]:
    if not source.endswith((".safetensors", ".pt", ".pth")):
        raise BadInput(f"{source} is not a checkpoint's name: pass 'imagenet' or a .safetensors, .pt or .pth file")
    try:
        # Only a URL is for fsspec: a file may have `::` in its name.
        with fsspec.open(source, "rb") if "://" in source else Path(source).open("rb") as stream:
            data: bytes = stream.read()  # pyright: ignore[reportAttributeAccessIssue]
    except (OSError, ValueError, ImportError) as error:  # also an unknown protocol, or one that is not installed
        raise BadInput(f"the checkpoint {source} cannot be read ({error}): name an existing file") from error
    try:
        if source.endswith(".safetensors"):
            return _unwrapped(load_safetensors(data), source), _stored_format(data)
        return _unwrapped(torch.load(io.BytesIO(data), map_location="cpu", weights_only=True), source), None
    except BadInput:
        raise
    except Exception as error:  # whatever unpickling and JSON raise for bytes that are neither
        raise BadInput(
            f"{source} is damaged or holds more than weights, which could run code: save the model's state_dict"
        ) from error


def _unwrapped(content: Any, source: str) -> Mapping[str, Tensor]:
    """The state dict inside a training checkpoint, without the prefix that parallel training leaves."""
    for nested in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(nested), Mapping):
            content = content[nested]
    if not isinstance(content, Mapping) or not all(isinstance(t, Tensor) for t in content.values()):
        raise BadInput(f"{source} is not a state dict of tensors: save the model's state_dict")
    return {str(name).removeprefix("module."): tensor for name, tensor in content.items()}


def _stored_format(data: bytes) -> InputFormat | None:
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    stored = header.get("__metadata__", {}).get(METADATA_KEY)
    if stored is None:
        return None
    fields = json.loads(stored)
    return InputFormat(fields["image_size"], fields["stem"], tuple(fields["mean"]), tuple(fields["std"]))


def _from_weights(weights: Mapping[str, Tensor], form: InputFormat, source: str) -> Encoder:
    with torch.random.fork_rng(devices=[]):  # the first weights are overwritten, but drawing them must leave no trace
        model = PixelResNet18(1, stem=form.stem, mean=form.mean, std=form.std)
    encoder = _without_classifier(model, form)
    wanted = encoder.network.network.state_dict()
    own = {name: tensor for name, tensor in weights.items() if not name.startswith("fc.")}
    # Old files lack the counters, and nothing here uses them.
    counters = {name for name in wanted if name.endswith("num_batches_tracked")}
    faults = {
        "are missing": sorted(wanted.keys() - own.keys() - counters),
        "are unexpected": sorted(own.keys() - wanted.keys()),
        "have another shape": [name for name in own.keys() & wanted.keys() if own[name].shape != wanted[name].shape],
    }
    found = [f"{len(names)} {fault} (first: {min(names)})" for fault, names in faults.items() if names]
    if found:
        raise BadInput(f"{source} is not a torchvision ResNet18: weights {', '.join(found)}: pass another checkpoint")
    encoder.network.network.load_state_dict(own, strict=False)  # casts half precision to float32
    return encoder


def _without_classifier(model: PixelResNet18, input_format: InputFormat) -> Encoder:
    model.network.fc = nn.Identity()  # pyright: ignore[reportAttributeAccessIssue]
    return Encoder(model.eval(), input_format)
