"""What is found where the features hardly tell the classes: `make encoders`, or `benchmarks/other_encoders.py FOLDER`.

Three sets through encoders that were not made for them: the CIFAR-10 network on 100 classes and on clothing, a network
with random weights, and the pixels of an 8 × 8 image. FOLDER as in `other_sets`. Beside its rows, a label that floods
the pool: a quarter of all images carry it. Then the features of `other_sets` as some encoders give them: a few are far
wider than all others. A process for every processor.
"""

import hashlib
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from other_sets import FEATURES, Row, Sides, clothing, first_of_each, report, tiny_imagenet, unit, wrong_labels
from safetensors.numpy import load_file, save_file
from scenarios import CACHE, Cifar10

from sava_ops.images.classifier import resnet18
from sava_ops.images.decode import decode_all
from sava_ops.images.encoder import Encoder, InputFormat, embed

NEEDED = ("cifar10", "cifar10_encoder", "tiny_imagenet100", "clothing")
PIXELS = 8
FLOOD = 0.25
WIDE_FEATURES, TIMES = 5, 50
TINY_IMAGENET_PER_CLASS, CIFAR10_PER_CLASS = 25, 20


class Images:
    """Features of files of images through any encoder, kept in a cache folder."""

    def __init__(self, source: Path, encoder: Encoder) -> None:
        random, self.source = random_weights(), source
        self.encoders: dict[str, Callable[[list[bytes]], np.ndarray]] = {
            "the CIFAR-10 network": lambda images: embed(encoder, decode_all(images, size=32)).numpy(),
            "random weights": lambda images: embed(random, decode_all(images, size=32)).numpy(),
            "pixels": lambda images: decode_all(images, size=PIXELS).float().flatten(1).numpy(),
        }

    def features(self, file: Path, encoder: str) -> np.ndarray:
        key = hashlib.sha256(f"{encoder} {PIXELS}".encode() + file.read_bytes()).hexdigest()[:32]
        if not (kept := CACHE / f"{key}.safetensors").exists():
            images = [image["bytes"] for image in pq.read_table(file, columns=["image"])["image"].to_pylist()]
            save_file({"features": self.encoders[encoder](images)}, kept)
        return load_file(kept)["features"]


def random_weights() -> Encoder:
    """A network that has learned nothing."""
    random = resnet18(2, stem="small", seed=0)
    random.network.fc = torch.nn.Identity()  # pyright: ignore[reportAttributeAccessIssue]
    return Encoder(random.eval(), InputFormat(32, "small"))


def main(source: Path, seeds: Sequence[int]) -> None:
    if missing := [str(source / name) for name in NEEDED if not (source / name).is_dir()]:
        sys.exit(f"{', '.join(missing)} is not there: name the folder that holds it")
    report((row for seed in seeds for row in rows(source, seed)), seeds)


def rows(source: Path, seed: int) -> Iterator[Row]:
    data = Cifar10(source)
    images = Images(source, data.encoder)
    for encoder in images.encoders:
        for name, sides in sets(images, data, encoder, seed):
            yield from wrong_labels(f"{name}, {encoder}", sides, seed)
            yield flooded(f"{name}, {encoder}", sides, seed)
    of_imagenet = tiny_imagenet(source, TINY_IMAGENET_PER_CLASS, seed), clothing(source).without_junk()
    for name, sides in zip(("100 classes", "clothing"), of_imagenet, strict=True):
        yield from wrong_labels(f"{name}, uneven features", uneven(sides, seed), seed)


def sets(images: Images, data: Cifar10, encoder: str, seed: int) -> Iterator[tuple[str, Sides]]:
    """Those that the encoder was not trained on."""
    source = images.source
    if encoder != "the CIFAR-10 network":
        few = first_of_each(data.test.labels, CIFAR10_PER_CLASS, seed)
        shards = [images.features(source / "cifar10" / f"train-{k:05d}-of-00005.parquet", encoder) for k in (3, 4)]
        judges = images.features(source / "cifar10" / "test-00000-of-00001.parquet", encoder)[few]
        features = unit(np.concatenate(shards)), unit(judges)
        yield "CIFAR-10", Sides(features[0], data.pool.true_labels, features[1], data.test.labels[few])
    folder, chosen = source / "tiny_imagenet100", tiny_imagenet(source, TINY_IMAGENET_PER_CLASS, seed)
    few = first_of_each(load_file(folder / FEATURES)["reference_label"], TINY_IMAGENET_PER_CLASS, seed)
    pool, judges = (images.features(folder / f"{side}.parquet", encoder) for side in ("train", "reference"))
    yield "100 classes", replace(chosen, features=unit(pool), reference_features=unit(judges[few]))
    folder, known = source / "clothing", clothing(source)
    pool = np.concatenate([images.features(file, encoder) for file in sorted((folder / "landing").iterdir())])
    judges = images.features(folder / "reference.parquet", encoder)
    yield "clothing", replace(known, features=unit(pool), reference_features=unit(judges)).without_junk()


def uneven(sides: Sides, seed: int) -> Sides:
    """Some features many times as wide."""
    factors = np.ones(sides.features.shape[1], dtype=np.float32)
    factors[np.random.default_rng([seed, 4]).permutation(len(factors))[:WIDE_FEATURES]] = TIMES
    return replace(
        sides, features=unit(sides.features * factors), reference_features=unit(sides.reference_features * factors)
    )


def flooded(name: str, sides: Sides, seed: int) -> Row:
    """A quarter of the images of other classes are labelled as one."""
    generator = np.random.default_rng([seed, 3])
    label = int(generator.integers(sides.classes))
    bad = (generator.random(len(sides.labels)) < FLOOD) & (sides.labels != label)
    return f"{name}: a quarter as one class", np.where(bad, label, sides.labels), bad, sides


if __name__ == "__main__":
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "../shared/data")
    main(folder, [int(seed) for seed in sys.argv[2:]] or [0, 1, 2])
