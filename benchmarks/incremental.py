"""What one more shard costs, beside the first valuation: `make incremental`.

20 shards of 2,000 points, already embedded, against 5,000 reference points: the time of the assets from `batches` to
`point_values`, first for the 20 shards, then after a 21st has arrived.
"""

import logging
import platform
import tempfile
import time

import dagster as dg
import torch
from stored_points import VALUATION, put_set, run

from sava_assets.freshness.computation import SHARDS
from sava_assets.home.resources import Workspace

SHARD_COUNT, SHARD_POINTS, REFERENCE_POINTS, CLASSES = 20, 2_000, 5_000, 10


def main() -> None:
    logging.getLogger("dagster").setLevel(logging.CRITICAL)
    with tempfile.TemporaryDirectory() as folder, dg.DagsterInstance.ephemeral() as instance:
        workspace = Workspace(home=folder)
        put_set(workspace, None, REFERENCE_POINTS, classes=CLASSES, seed=0)
        run(workspace, instance, "reference_batches")
        seconds = []
        for shards in (range(SHARD_COUNT), [SHARD_COUNT]):
            names = [f"shard-{number:02}" for number in shards]
            instance.add_dynamic_partitions(str(SHARDS.name), names)
            for number, name in zip(shards, names, strict=True):
                put_set(workspace, name, SHARD_POINTS, classes=CLASSES, seed=1 + number)
            started = time.perf_counter()
            for name in names:
                run(workspace, instance, "batches", shard=name)
            run(workspace, instance, *VALUATION)
            seconds.append(time.perf_counter() - started)
    first, more = seconds
    print(f"Python {platform.python_version()}, torch {torch.__version__}, {torch.get_num_threads()} CPU threads")
    print(f"first valuation of {SHARD_COUNT} shards of {SHARD_POINTS:,} points: {first:.1f} s")
    print(f"one more shard: {more:.1f} s = {more / first:.1%}")


if __name__ == "__main__":
    main()
