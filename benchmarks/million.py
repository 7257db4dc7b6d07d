"""A million points through the real assets, at the size of Clothing1M: `make million`, or `million.py [POINTS ...]`.

Shards of 50,000 points of 14 classes, embedded already (512 numbers, half precision, on disk), against 14,000 reference
points: the time of the assets from `batches` to `point_values`, and the largest memory of the process that runs them.
Each size has a process of its own; the points are made by another one. Time has a fixed part (calibration, starting
potentials, pictures), so the table says what a million takes at that pace and what a further one takes. Writes
benchmarks/million.md.
"""

import logging
import multiprocessing
import platform
import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import dagster as dg
import torch
from stored_points import VALUATION, put_set, run

from sava_assets.freshness.computation import SHARDS
from sava_assets.home.resources import Workspace

SHARD_POINTS, REFERENCE_POINTS, CLASSES = 50_000, 14_000, 14


def main(sizes: Sequence[int]) -> None:
    spawn, threads = multiprocessing.get_context("spawn"), torch.get_num_threads()
    lines = [
        "# A million points through the assets", "",
        "Written by `make million`; [million.py](million.py) says what is measured.", "",
        f"Python {platform.python_version()}, torch {torch.__version__}, {threads} CPU threads; {gpu()}.",
        "",
        "| points | seconds | seconds a million | for a further million | peak memory |", "|---:|---:|---:|---:|---:|",
    ]  # fmt: skip
    before: tuple[int, float] | None = None
    for points in sizes:
        with tempfile.TemporaryDirectory() as folder:
            shards = points // SHARD_POINTS
            with spawn.Pool(1) as maker:
                maker.apply(put_all, (folder, shards))
            with spawn.Pool(1) as worker:
                seconds, memory = worker.apply(value_all, (folder, shards))
        further = f"{(seconds - before[1]) / (points - before[0]) * 1e6:.0f}" if before else "–"
        before = points, seconds
        lines.append(f"| {points:,} | {seconds:.1f} | {seconds / points * 1e6:.0f} | {further} | {memory:.2f} GB |")
        print(lines[-1], flush=True)
    Path(__file__).with_name("million.md").write_text("\n".join(lines) + "\n")


def put_all(folder: str, shards: int) -> None:
    workspace = Workspace(home=folder)
    put_set(workspace, None, REFERENCE_POINTS, classes=CLASSES, seed=0)
    for number in range(shards):
        put_set(workspace, name_of(number), SHARD_POINTS, classes=CLASSES, seed=1 + number)


def value_all(folder: str, shards: int) -> tuple[float, float]:
    """Seconds, and gigabytes of memory at most."""
    logging.getLogger("dagster").setLevel(logging.CRITICAL)
    workspace = Workspace(home=folder)
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions(str(SHARDS.name), [name_of(number) for number in range(shards)])
        started = time.perf_counter()
        run(workspace, instance, "reference_batches")
        for number in range(shards):
            run(workspace, instance, "batches", shard=name_of(number))
        run(workspace, instance, *VALUATION)
        seconds = time.perf_counter() - started
    return seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def gpu() -> str:
    return f"on {torch.cuda.get_device_name()}" if torch.cuda.is_available() else "not measured on a GPU"


def name_of(number: int) -> str:
    return f"shard-{number:02}"


if __name__ == "__main__":
    main([int(size) for size in sys.argv[1:]] or [100_000, 300_000, 1_000_000])
