"""What a valuation will cost, before it is computed.

A pair of batches is a matrix product (n, d) × (d, m), an exponential and some sweeps over the n × m kernel, so its time
is a multiple of the product's, which is measured here and now (`make bench` measures the multiple). What all pairs
share is learned by regressions on all classes: n points × C classes numbers in each of their steps.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import psutil
import torch

from sava_ops.calibration import POOL_POINTS
from sava_ops.config import ValuationConfig
from sava_ops.errors import BadInput
from sava_ops.reference.logistic import MOST_DIRECTIONS

PRODUCTS = 2.5
"""Time of a pair in units of its matrix product."""
COPIES = 4
"""Of the features of a batch and of the reference: stored, centred with one coordinate more, twice in the kernel."""
SCORE_BYTES = 120
"""Of each training point: its findings."""
PROBE = 1_024
"""Rows and columns of the product that is timed."""


CLASS_SECONDS, CLASS_SECONDS_BY_DIRECTION = 3.7e-6, 2e-8
"""Of the calibration on one core: of each point and class, and more for each direction of the features."""
CLASS_BYTES, DIRECTION_BYTES = 240, 1_300
"""Of the calibration: of each point and class, and of each class and direction."""


@dataclass(frozen=True)
class Forecast:
    """What a part of the valuation will take."""

    seconds: float
    bytes: int
    """Beyond what the process holds already."""


def forecast(
    train_sizes: Sequence[int], reference_sizes: Sequence[int], *, width: int, config: ValuationConfig, device: str
) -> Forecast:
    """Time and memory of batches of these sizes, `width` features a point, float32."""
    company = min(config.held_out_sample, sum(reference_sizes))
    entries = sum(size + company for size in train_sizes) * sum(reference_sizes)
    largest = max(max(train_sizes), company) * max(reference_sizes)
    points = max(train_sizes) + sum(reference_sizes)
    return Forecast(
        seconds=PRODUCTS * entries / PROBE**2 * product_seconds(width, device),
        bytes=4 * (largest + COPIES * width * points) + SCORE_BYTES * sum(train_sizes),
    )


def calibration_forecast(train: int, reference: int, *, classes: int, width: int) -> Forecast:
    """Time and memory of what so many training and reference points say of their classes, on one core."""
    entries = (min(train, 2 * POOL_POINTS) + reference) * classes
    directions = min(width, MOST_DIRECTIONS)
    return Forecast(
        seconds=(CLASS_SECONDS + CLASS_SECONDS_BY_DIRECTION * directions) * entries,
        bytes=CLASS_BYTES * entries + DIRECTION_BYTES * classes * directions,
    )


def refuse_too_many_classes(train: int, reference: int, *, classes: int, width: int, device: str) -> Forecast:
    """Raise BadInput where the memory that is free is not enough for this; else what it will take."""
    made = calibration_forecast(train, reference, classes=classes, width=width)
    free = psutil.virtual_memory().available
    if device == "cpu" and made.bytes > free:
        raise BadInput(
            f"{train:,} training and {reference:,} reference points of {classes:,} classes need about "
            f"{made.bytes / 1e9:.1f} GB of memory and {free / 1e9:.1f} GB are free: take fewer reference points, merge "
            "classes, or use a machine with more memory"
        )
    return made


def product_seconds(width: int, device: str) -> float:
    """Of (PROBE, width) × (width, PROBE), the best of a few."""
    x, y = torch.rand(PROBE, width, device=device), torch.rand(width, PROBE, device=device)
    return min(_timed(x, y) for _ in range(5))


def _timed(x: torch.Tensor, y: torch.Tensor) -> float:
    started = time.perf_counter()
    # Reading one number waits for the device.
    float((x @ y)[0, 0])
    return time.perf_counter() - started
