"""What is found where all reference images come from another camera: `make cameras`, or `benchmarks/other_cameras.py
FOLDER`.

FOLDER as in `detection`. 5,000 images of CIFAR-10 as they are, against a reference of 70 a class as they are, through
another camera (less sharp, less contrast, another tint), and in black and white; through the CIFAR-10 network, a
network with random weights, and as pixels of an 8 × 8 image. The rows of `other_encoders`, and noisy images.
"""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from other_encoders import PIXELS, flooded, random_weights
from other_sets import Row, Sides, first_of_each, report, unit, wrong_labels
from scenarios import Cifar10
from torch.nn.functional import adaptive_avg_pool2d, avg_pool2d, interpolate

from sava_ops.images.corruptions import noisy_features
from sava_ops.images.encoder import embed

POOL, PER_CLASS = 5_000, 70
SMALL = 20
"""Rows and columns that the other camera tells apart."""
CONTRAST, TINT, LIGHTER = 0.7, (1.08, 1.0, 0.88), 15


def same(images: torch.Tensor) -> torch.Tensor:
    return images


def another(images: torch.Tensor) -> torch.Tensor:
    """Less sharp, less contrast, another tint."""
    size = images.shape[2]
    small = interpolate(images, size=SMALL, mode="bilinear", antialias=True)
    seen = (interpolate(small, size=size, mode="bilinear") - 128) * CONTRAST + 128 + LIGHTER
    return seen * torch.tensor(TINT)[:, None, None]


def black_and_white(images: torch.Tensor) -> torch.Tensor:
    gray = images.mean(1, keepdim=True).expand(-1, 3, -1, -1)
    return avg_pool2d(gray, 3, stride=1, padding=1, count_include_pad=False)


CAMERAS = {"the same camera": same, "another camera": another, "black and white": black_and_white}


def through(camera: str, pixels: np.ndarray) -> np.ndarray:
    return CAMERAS[camera](torch.from_numpy(pixels).float()).clamp(0, 255).round().to(torch.uint8).numpy()


def rows(source: Path, seed: int) -> Iterator[Row]:
    data, random = Cifar10(source), random_weights()
    encoders = {
        "the CIFAR-10 network": lambda pixels: embed(data.encoder, torch.from_numpy(pixels)).numpy(),
        "random weights": lambda pixels: embed(random, torch.from_numpy(pixels)).numpy(),
        "pixels": lambda pixels: adaptive_avg_pool2d(torch.from_numpy(pixels).float(), PIXELS).flatten(1).numpy(),
    }
    pool = data.pool.take(np.random.default_rng([seed, 5]).permutation(len(data.pool.labels))[:POOL])
    reference = data.test.take(first_of_each(data.test.labels, PER_CLASS, seed))
    noisy, bad = noisy_features(pool.pixels, share=0.3, seed=seed)
    for encoder, features in encoders.items():
        of_pool, of_noisy = (unit(features(pixels)) for pixels in (pool.pixels, noisy))
        for camera in CAMERAS:
            name, seen = f"{camera}, {encoder}", unit(features(through(camera, reference.pixels)))
            sides = Sides(of_pool, pool.true_labels, seen, reference.labels)
            yield from wrong_labels(name, sides, seed)
            yield flooded(name, sides, seed)
            of_damaged = Sides(of_noisy, pool.true_labels, seen, reference.labels)
            yield f"{name}: 30 % noisy images", pool.true_labels, bad, of_damaged


def main(source: Path, seeds: Sequence[int]) -> None:
    if not (source / "cifar10").is_dir():
        sys.exit(f"{source / 'cifar10'} is not there: name the folder that holds it")
    report((row for seed in seeds for row in rows(source, seed)), seeds)


if __name__ == "__main__":
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "../shared/data")
    main(folder, [int(seed) for seed in sys.argv[2:]] or [0, 1, 2])
