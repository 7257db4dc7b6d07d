"""CIFAR-10 with every kind of dirt that the tables report, on features of an encoder that has seen none of it.

The pool is training shards 3 and 4 (20,000 images). By the seed, one half of the 10,000 test images is the reference
set; the other half stays unseen by valuation. Clean images are embedded once, corrupted ones once per seed, and kept in
a cache folder.
"""

import hashlib
import json
import platform
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file, save_file

from sava_assets.formats.demo_sets import CIFAR10_SETTINGS, read_set
from sava_ops.images.corruptions import confused_labels, noisy_features, noisy_labels, trojan_square
from sava_ops.images.decode import decode_all
from sava_ops.images.encoder import Encoder, embed, load_encoder

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
MISTAKES = {9: 1, 2: 0, 4: 7, 3: 5, 5: 3}
"""truck → automobile, bird → airplane, deer → horse, cat ↔ dog."""
CACHE = Path(__file__).parents[1] / "data" / "benchmark-features"
UNEQUAL = (0.0, 0.0, 0.1, 0.3, 0.6, 0.9)
SKEW = 10


def report_environment() -> str:
    """What the figures depend on beside the code."""
    return f"Python {platform.python_version()}, torch {torch.__version__}, {torch.get_num_threads()} CPU threads;"


@dataclass(frozen=True)
class Pool:
    """Labelled images and their features; `bad` marks what was corrupted."""

    pixels: np.ndarray
    features: np.ndarray
    labels: np.ndarray
    true_labels: np.ndarray
    bad: np.ndarray

    def take(self, rows: np.ndarray) -> "Pool":
        return Pool(**{name: values[rows] for name, values in vars(self).items()})

    def relabelled(self, labels: np.ndarray, touched: np.ndarray) -> "Pool":
        return replace(self, labels=labels, bad=self.bad | touched)


@dataclass(frozen=True)
class Scenario:
    """One corrupted pool and its reference set."""

    train: Pool
    reference: Pool
    shards: np.ndarray
    """(n,) shard number of each training point."""


class Cifar10:
    """The scenarios of one data folder, by name and seed."""

    def __init__(self, source: Path, cache: Path = CACHE) -> None:
        settings = CIFAR10_SETTINGS["encoder"]
        checkpoint = source / "cifar10_encoder" / "resnet18_cifar10_first30k.safetensors"
        self.encoder: Encoder = load_encoder(
            str(checkpoint),
            image_size=settings["image_size"],
            mean=tuple(settings["mean"]),
            std=tuple(settings["std"]),
        )
        self.cache = cache
        cache.mkdir(parents=True, exist_ok=True)
        folder = source / "cifar10"
        shards = [self._read(folder / f"train-{k:05d}-of-00005.parquet") for k in (3, 4)]
        self.pool = Pool(*(np.concatenate(parts) for parts in zip(*(vars(s).values() for s in shards), strict=True)))
        self.test = self._read(folder / "test-00000-of-00001.parquet")

    def halves(self, seed: int) -> tuple[Pool, Pool]:
        """Reference half and unseen half of the test images."""
        order = np.random.default_rng([seed, 1]).permutation(len(self.test.labels))
        return self.test.take(order[: len(order) // 2]), self.test.take(order[len(order) // 2 :])

    def scenario(self, name: str, seed: int) -> Scenario:
        return SCENARIOS[name](self, seed)

    def plain(self, pool: Pool, seed: int) -> Scenario:
        return Scenario(pool, self.halves(seed)[0], np.zeros(len(pool.labels), dtype=int))

    def embedded(self, pixels: np.ndarray, changed: np.ndarray, features: np.ndarray) -> np.ndarray:
        """Features of images of which only the changed ones have to be embedded."""
        if not changed.any():
            return features
        made = features.copy()
        made[changed] = self._features(pixels[changed])
        return made

    def _features(self, pixels: np.ndarray) -> np.ndarray:
        file = self.cache / f"{hashlib.sha256(pixels.tobytes()).hexdigest()[:32]}.safetensors"
        if not file.exists():
            save_file({"features": embed(self.encoder, torch.from_numpy(pixels)).numpy()}, file)
        return load_file(file)["features"]

    def _read(self, file: Path) -> Pool:
        found = read_set(file)
        pixels = decode_all(found.images, size=self.encoder.input_format.image_size).numpy()
        assert tuple(found.names) == CLASSES, json.dumps(found.names)
        return Pool(pixels, self._features(pixels), found.labels, found.labels, np.zeros(len(found.labels), dtype=bool))


def symmetric(share: float) -> Callable[[Cifar10, int], Scenario]:
    def make(data: Cifar10, seed: int) -> Scenario:
        return data.plain(_symmetric(data.pool, share, seed), seed)

    return make


def asymmetric(data: Cifar10, seed: int) -> Scenario:
    labels, touched = confused_labels(data.pool.labels, share=0.3, mistakes=MISTAKES, seed=seed)
    return data.plain(data.pool.relabelled(labels, touched), seed)


def noise(share: float) -> Callable[[Cifar10, int], Scenario]:
    def make(data: Cifar10, seed: int) -> Scenario:
        return data.plain(_noisy(data, data.pool, share, seed), seed)

    return make


def trojan(*, fixed: bool) -> Callable[[Cifar10, int], Scenario]:
    def make(data: Cifar10, seed: int) -> Scenario:
        return data.plain(_trojan(data, data.pool, 0.1, seed, fixed=fixed), seed)

    return make


def mixture(data: Cifar10, seed: int) -> Scenario:
    """15 % symmetric wrong labels, 10 % noisy images, 5 % trojans, each on points that the others leave alone."""
    third = np.random.default_rng([seed, 2]).permutation(len(data.pool.labels)) % 3
    parts = [data.pool.take((third == k).nonzero()[0]) for k in range(3)]
    parts = [
        _symmetric(parts[0], 0.45, seed),
        _noisy(data, parts[1], 0.3, seed),
        _trojan(data, parts[2], 0.15, seed, fixed=False),
    ]
    pool = Pool(*(np.concatenate(p) for p in zip(*(vars(part).values() for part in parts), strict=True)))
    return data.plain(pool.take(np.random.default_rng([seed, 3]).permutation(len(pool.labels))), seed)


def unequal_shards(data: Cifar10, seed: int) -> Scenario:
    """Six shards with 0, 0, 10, 30, 60 and 90 % symmetric wrong labels."""
    shards = np.random.default_rng([seed, 4]).permutation(len(data.pool.labels)) % len(UNEQUAL)
    pool = data.pool
    labels, bad = pool.labels.copy(), pool.bad.copy()
    for k, share in enumerate(UNEQUAL):
        rows = (shards == k).nonzero()[0]
        labels[rows], bad[rows] = noisy_labels(pool.labels[rows], share=share, classes=len(CLASSES), seed=seed * 10 + k)
    return replace(data.plain(pool.relabelled(labels, bad), seed), shards=shards)


def skewed(data: Cifar10, seed: int) -> Scenario:
    """True class sizes fall geometrically, the first ten times the last; then 30 % symmetric wrong labels."""
    generator, labels = np.random.default_rng([seed, 5]), data.pool.labels
    largest = np.bincount(labels).max()
    rows = np.concatenate(
        [
            generator.permutation((labels == c).nonzero()[0])[: int(largest * SKEW ** (-c / (len(CLASSES) - 1)))]
            for c in range(len(CLASSES))
        ]
    )
    return data.plain(_symmetric(data.pool.take(np.sort(rows)), 0.3, seed), seed)


def _symmetric(pool: Pool, share: float, seed: int) -> Pool:
    return pool.relabelled(*noisy_labels(pool.labels, share=share, classes=len(CLASSES), seed=seed))


def _noisy(data: Cifar10, pool: Pool, share: float, seed: int) -> Pool:
    pixels, touched = noisy_features(pool.pixels, share=share, seed=seed)
    features = data.embedded(pixels, touched, pool.features)
    return replace(pool, pixels=pixels, features=features, bad=pool.bad | touched)


def _trojan(data: Cifar10, pool: Pool, share: float, seed: int, *, fixed: bool) -> Pool:
    pixels, labels, touched = trojan_square(pool.pixels, pool.labels, share=share, target=0, seed=seed, fixed=fixed)
    features = data.embedded(pixels, touched, pool.features)
    return replace(pool.relabelled(labels, touched), pixels=pixels, features=features)


SCENARIOS: dict[str, Callable[[Cifar10, int], Scenario]] = {
    "clean": lambda data, seed: data.plain(data.pool, seed),
    "symmetric 10 %": symmetric(0.1),
    "symmetric 30 %": symmetric(0.3),
    "symmetric 50 %": symmetric(0.5),
    "asymmetric 30 %": asymmetric,
    "unequal shards": unequal_shards,
    "skewed classes": skewed,
    "noisy features 30 %": noise(0.3),
    "trojan square 10 %": trojan(fixed=False),
    "patch trigger 10 %": trojan(fixed=True),
    "mixture": mixture,
}
