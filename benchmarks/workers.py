"""What the workers of a Ray cluster add to the batch matrix of one machine, on the same processors: `make workers`.

    python benchmarks/workers.py [training points] [reference points]

The real asset `batch_ot`, calibrated before: in turns in the process of the run with a thread for each processor, and
by a worker with one thread for each; the shorter of two times counts. The cluster is there before and its workers have
computed something: starting them is told apart. The stored rows of both are compared byte for byte.
"""

import logging
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

import dagster as dg
import torch
from stored_points import put_set, run

from sava_assets.freshness.computation import SHARDS
from sava_assets.freshness.workers import OnRay, connected
from sava_assets.home.resources import Workspace
from sava_assets.home.store import BATCH_ROWS
from sava_assets.home.worker_knobs import WorkerKnobs

SIZES = 200_000, 14_000
SHARD_POINTS, CLASSES, TURNS = 50_000, 10, 2
ON_RAY = "workers: {backend: ray, address: local}\n"


def main(train: int, reference: int) -> None:
    logging.getLogger("dagster").setLevel(logging.CRITICAL)
    processors = len(os.sched_getaffinity(0))
    torch.set_num_threads(processors)
    with tempfile.TemporaryDirectory() as folder, dg.DagsterInstance.ephemeral() as instance:
        home = Path(folder)
        workspace, shards = Workspace(home=folder), prepared(home, instance, train, reference)
        started = time.perf_counter()
        list(OnRay(WorkerKnobs(backend="ray", address="local")).map(warm, None, range(4 * processors)))
        print(f"Ray and its workers: ready in {time.perf_counter() - started:.0f} s", flush=True)
        times: dict[str, list[float]] = {"in the process": [], "on Ray": []}
        rows: list[dict[str, bytes]] = []
        for _ in range(TURNS):
            for who, taken in times.items():
                (home / "sava.yaml").write_text(ON_RAY if who == "on Ray" else "")
                for name in ("batch_ot", BATCH_ROWS):
                    shutil.rmtree(home / "store" / "results" / name, ignore_errors=True)
                started = time.perf_counter()
                run(workspace, instance, "batch_ot")
                taken.append(time.perf_counter() - started)
                print(f"{who}: {taken[-1]:.1f} s", flush=True)
                stored = (home / "store" / "results" / BATCH_ROWS).rglob("*.safetensors")
                rows.append({str(file): file.read_bytes() for file in stored})
        connected("local").shutdown()
    here, there = (min(taken) for taken in times.values())
    print(
        f"{train:,} × {reference:,} points in {shards} shards, {len(rows[0])} rows, {processors} processors, load "
        f"{os.getloadavg()[0]:.1f}: in the process {here:.1f} s, on Ray {there:.1f} s, {there / here - 1:+.0%}; stored "
        f"rows {'equal' if all(each == rows[0] for each in rows) else 'DIFFERENT'}"
    )


def prepared(home: Path, instance: dg.DagsterInstance, train: int, reference: int) -> int:
    """Everything up to the calibration; how many shards."""
    workspace, names = Workspace(home=str(home)), [f"shard-{k:02}" for k in range(max(1, train // SHARD_POINTS))]
    instance.add_dynamic_partitions(str(SHARDS.name), names)
    put_set(workspace, None, reference, classes=CLASSES, seed=0)
    for number, name in enumerate(names):
        put_set(workspace, name, train // len(names), classes=CLASSES, seed=1 + number)
        run(workspace, instance, "batches", shard=name)
    run(workspace, instance, "reference_batches", "label_distances")
    return len(names)


def warm(*_: object) -> None:
    """Imports what rows need."""
    import sava_assets.assets.rows

    assert sava_assets.assets.rows
    time.sleep(0.2)


if __name__ == "__main__":
    train, reference = [*map(int, sys.argv[1:]), *SIZES[len(sys.argv) - 1 :]]
    main(train, reference)
