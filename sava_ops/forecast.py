"""What the batch matrix will cost, before it is computed.

A pair of batches is a matrix product (n, d) × (d, m), an exponential and some sweeps over the n × m kernel, so its time
is a multiple of the product's, which is measured here and now (`make bench` measures the multiple).
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from sava_ops.config import ValuationConfig

PRODUCTS = 2.5
"""Time of a pair in units of its matrix product."""
COPIES = 4
"""Of the features of a batch and of the reference: stored, centred with one coordinate more, twice in the kernel."""
SCORE_BYTES = 120
"""Of each training point: its findings."""
PROBE = 1_024
"""Rows and columns of the product that is timed."""


@dataclass(frozen=True)
class Forecast:
    """What the pairs of batches will take."""

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


def product_seconds(width: int, device: str) -> float:
    """Of (PROBE, width) × (width, PROBE), the best of a few."""
    x, y = torch.rand(PROBE, width, device=device), torch.rand(width, PROBE, device=device)
    return min(_timed(x, y) for _ in range(5))


def _timed(x: torch.Tensor, y: torch.Tensor) -> float:
    started = time.perf_counter()
    # Reading one number waits for the device.
    float((x @ y)[0, 0])
    return time.perf_counter() - started
