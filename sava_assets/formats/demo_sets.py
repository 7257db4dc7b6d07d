"""Data sets with planted wrong labels, to see what curation finds: scikit-learn's digits, and CIFAR-10."""

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from sklearn.datasets import load_digits

from sava_assets.formats.landing import MARKER, image_schema
from sava_assets.parquet import read_table
from sava_ops.errors import BadInput
from sava_ops.images.corruptions import noisy_labels

PLANTED = "planted.parquet"
"""Which ids carry a wrong label; beside the landing folder, where the pipeline never looks."""

DIGITS_SETTINGS = {
    "encoder": {
        "source": "train",
        "image_size": 8,
        "training": {"steps": 80, "batch_size": 64, "learning_rate": 0.05},
    },
    "classifier": {"seeds": 2, "training": {"steps": 70, "batch_size": 32, "learning_rate": 0.03}},
}
CIFAR10_SETTINGS = {
    "encoder": {
        "source": "encoder.safetensors",
        "image_size": 32,
        "mean": [125.3, 123.0, 113.9],
        "std": [63.0, 62.1, 66.7],
    },
    "classifier": {
        "seeds": 3,
        "training": {"steps": 300, "batch_size": 128, "learning_rate": 0.1, "augmentation": "crop+flip"},
    },
}

MISTAKES = {"truck": "automobile", "bird": "airplane", "deer": "horse", "cat": "dog", "dog": "cat"}
STUDY_SHARD, STUDY_SETS = 3_000, 2_500
"""Images of a shard, and of reference and test set, of the reduced study."""


@dataclass(frozen=True)
class Labelled:
    """Encoded images, class numbers, and the names of the classes."""

    images: Sequence[bytes]
    labels: np.ndarray
    names: Sequence[str]

    def take(self, rows: np.ndarray) -> "Labelled":
        return Labelled([self.images[row] for row in rows], self.labels[rows], self.names)


def write_digits(home: Path, *, seed: int = 0) -> None:
    """1,797 scans: 4 landing shards of 250 with 25 % wrong labels, 400 reference images, 397 test images."""
    digits: Any = load_digits()
    images = [_png((image * (255 / 16)).round().astype(np.uint8)) for image in digits.images]
    everything = Labelled(images, digits.target.astype(np.int64), [str(name) for name in digits.target_names])
    order = np.random.default_rng(seed).permutation(len(images))
    reference, test, pool = np.split(order, [400, 797])
    write_set(home / "reference" / "digits.parquet", everything.take(reference))
    write_set(home / "test" / "digits.parquet", everything.take(test))
    _finished(home / "reference")
    _finished(home / "test")
    shards = {f"digits-{k}": everything.take(rows) for k, rows in enumerate(np.array_split(pool, 4), start=1)}
    write_noisy_shards(home, shards, share=0.25, seed=seed)


def write_cifar10(home: Path, source: Path, *, seed: int = 0) -> None:
    """Shards 3-4 with 30 % wrong labels, the test images halved into reference and test, and the encoder."""
    clean, encoder = _cifar10(source)
    half = len(clean.labels) // 2
    write_set(home / "reference" / "cifar10.parquet", clean.take(np.arange(half)))
    write_set(home / "test" / "cifar10.parquet", clean.take(np.arange(half, len(clean.labels))))
    _finished(home / "reference")
    _finished(home / "test")
    shards = {f"train-{k}": read_set(source / "cifar10" / f"train-{k:05d}-of-00005.parquet") for k in (3, 4)}
    write_noisy_shards(home, shards, share=0.3, seed=seed)
    (home / "encoder.safetensors").write_bytes(encoder.read_bytes())


def _cifar10(source: Path) -> tuple[Labelled, Path]:
    """The test images, and where the encoder lies."""
    folder, encoder = source / "cifar10", source / "cifar10_encoder" / "resnet18_cifar10_first30k.safetensors"
    if not folder.is_dir() or not encoder.is_file():
        raise BadInput(f"{source} does not hold cifar10/ and {encoder.relative_to(source)}: name the folder that does")
    return read_set(folder / "test-00000-of-00001.parquet"), encoder


def write_study(home: Path, source: Path, *, full: bool) -> None:
    """CIFAR-10 with its true labels, for the study to make dirty: shards 3-4, the test images halved, the encoder."""
    if (home / "encoder.safetensors").exists():
        return
    clean, encoder = _cifar10(source)
    half = len(clean.labels) // 2
    for name, first in (("reference", 0), ("test", half)):
        rows = np.arange(first, first + (half if full else STUDY_SETS))
        write_set(home / name / "cifar10.parquet", clean.take(rows))
        _finished(home / name)
    for k in (3, 4):
        shard = read_set(source / "cifar10" / f"train-{k:05d}-of-00005.parquet")
        rows = np.arange(len(shard.labels) if full else STUDY_SHARD)
        write_set(home / "landing" / f"train-{k}.parquet", shard.take(rows))
    (home / "encoder.safetensors").write_bytes(encoder.read_bytes())


def study_settings(*, full: bool) -> dict[str, Any]:
    """The knobs of a study of CIFAR-10."""
    training = CIFAR10_SETTINGS["classifier"]["training"]
    if full:
        sizes = {"seeds": 5, "training": training | {"steps": 7_800, "batch_size": 256}}
    else:
        short = training | {"steps": 90, "batch_size": 64}
        sizes = {"seeds": 2, "last_layer_steps": 800, "training": short}
    return {"encoder": CIFAR10_SETTINGS["encoder"], "study": {"mistakes": MISTAKES, **sizes}}


def write_noisy_shards(home: Path, shards: dict[str, Labelled], *, share: float, seed: int) -> None:
    """Landing shards in which this share of the labels is wrong, and the list of which."""
    planted = []
    for number, (name, shard) in enumerate(shards.items()):
        labels, wrong = noisy_labels(shard.labels, share=share, classes=len(shard.names), seed=seed + number)
        write_set(home / "landing" / f"{name}.parquet", Labelled(shard.images, labels, shard.names))
        planted += [f"{name}/{row}" for row in wrong.nonzero()[0]]
    pq.write_table(pa.table({"id": planted}), home / PLANTED)


def _finished(folder: Path) -> None:
    """Say that nothing more comes, so that nobody waits for it."""
    (folder / MARKER).touch()


def planted_errors(home: Path) -> set[str]:
    """Ids of the training images whose label was made wrong."""
    return set(read_table(home / PLANTED)["id"].to_pylist())


def write_set(path: Path, points: Labelled) -> None:
    """An image set in the Hugging Face Parquet layout."""
    rows = [{"bytes": image, "path": None} for image in points.images]
    schema = image_schema(points.names)
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table([pa.array(rows, schema.field("image").type), pa.array(points.labels)], schema=schema), path)


def read_set(file: Path) -> Labelled:
    """An image set that `write_set` wrote, or one of that layout."""
    table = read_table(file)
    features = json.loads(table.schema.metadata[b"huggingface"])["info"]["features"]
    images = [image["bytes"] for image in table["image"].to_pylist()]
    return Labelled(images, table["label"].to_numpy(), features["label"]["names"])


def _png(pixels: np.ndarray) -> bytes:
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, format="png")
    return data.getvalue()
