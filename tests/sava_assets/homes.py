"""Toy homes: four classes of 8 × 8 pictures, some with a wrong label."""

import shutil
from pathlib import Path

import dagster as dg
import numpy as np
import yaml
from torch import nn

from sava_assets.definitions import ASSETS, CHECKS
from sava_assets.formats.demo_sets import Labelled, write_set
from sava_assets.home.resources import Workspace
from sava_ops.images.classifier import resnet18
from sava_ops.images.encoder import Encoder, InputFormat, save_encoder
from tests.pictures import png, scan
from tests.toy import mislabelled

NAMES = ["east", "north", "south", "west"]
SHORT = {"steps": 12, "batch_size": 16, "learning_rate": 0.02}
SETTINGS = {
    "settle_seconds": 0,
    "encoder": {"source": "train", "image_size": 8, "training": SHORT},
    "valuation": {"batch_size": 16},
    "prune": {"fraction": 0.25},
    "classifier": {"seeds": 1, "training": {"steps": 2, "batch_size": 8, "learning_rate": 0.01}},
}


def pictures(count: int, *, first: int) -> Labelled:
    labels = np.arange(count) % 4
    return Labelled([png(scan(label, first + k)) for k, label in enumerate(labels)], labels, NAMES)


def noisy(clean: Labelled, *, seed: int) -> tuple[Labelled, np.ndarray]:
    labels, wrong = mislabelled(clean.labels, share=0.2, classes=4, seed=seed)
    return Labelled(clean.images, labels, NAMES), wrong


def write_folders(folder: Path, points: Labelled) -> None:
    """One folder per class."""
    for row, (image, label) in enumerate(zip(points.images, points.labels, strict=True)):
        (folder / NAMES[label]).mkdir(parents=True, exist_ok=True)
        (folder / NAMES[label] / f"{row:03}.png").write_bytes(image)


def write_home(home: Path, settings: dict = SETTINGS) -> set[str]:
    """Two shards (Parquet, class folders), a reference and a test set, `sava.yaml`; the ids of the wrong labels."""
    first, wrong_first = noisy(pictures(40, first=0), seed=1)
    second, wrong_second = noisy(pictures(24, first=1_000), seed=2)
    write_set(home / "landing" / "first.parquet", first)
    write_folders(home / "landing" / "second", second)
    write_folders(home / "reference", pictures(48, first=2_000))
    write_set(home / "test" / "clean.parquet", pictures(12, first=3_000))
    (home / "sava.yaml").write_text(yaml.safe_dump(settings))
    named = {f"second/{NAMES[second.labels[row]]}/{row:03}.png" for row in wrong_second.nonzero()[0]}
    return named | {f"first/{row}" for row in wrong_first.nonzero()[0]}


def untrained_checkpoint(home: Path, *, scale: float = 1.0) -> dict:
    """Settings that use a finished encoder, which costs no training; `scale` multiplies its first weights."""
    form = InputFormat(8, "tiny")
    model = resnet18(4, stem="tiny", seed=0)
    model.network.fc = nn.Identity()
    model.network.conv1.weight.data *= scale
    home.mkdir(parents=True, exist_ok=True)
    save_encoder(Encoder(model.eval(), form), home / "encoder.safetensors")
    return SETTINGS | {"encoder": {"source": "encoder.safetensors", "image_size": 8}}


def copy_of(home: Path, target: Path) -> Workspace:
    shutil.copytree(home, target, symlinks=True)
    return Workspace(home=str(target))


def materialize(
    workspace: Workspace,
    instance: dg.DagsterInstance,
    *assets: str,
    shard: str | None = None,
    tags: dict[str, str] | None = None,
) -> dg.ExecuteInProcessResult:
    return dg.materialize(
        [*ASSETS, *CHECKS],
        selection=dg.AssetSelection.assets(*assets),
        instance=instance,
        partition_key=shard,
        tags=tags,
        resources={"workspace": workspace},
        run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
    )
