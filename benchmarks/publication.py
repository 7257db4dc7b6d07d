"""Time and memory of publishing one shard whose images are more than 2 GiB, through the real asset.

    python benchmarks/publication.py [MB of images]

The images are random bytes: publication decodes none. As they are stored, they are one row group.
"""

import resource
import subprocess
import sys
import tempfile
import time

import dagster as dg
import numpy as np
import pyarrow as pa

from sava_assets.definitions import ASSETS
from sava_assets.home.publication import Publication
from sava_assets.home.resources import Workspace
from sava_assets.home.result import Output, table_file

SHARD = "large"
IMAGE_BYTES = 3_000_000
NUMBERS = {"pruned": 0, "bad_share": 0.0}


def peak() -> float:
    """Of this process so far, in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def write(workspace: Workspace, count: int) -> None:
    """Stored results as `raw_images` and `pruned_dataset` leave them; every tenth image is dropped."""
    chance, ids = np.random.default_rng(0), [f"{SHARD}/{k:04}.jpg" for k in range(count)]
    images = pa.chunked_array([pa.array([chance.bytes(IMAGE_BYTES)], pa.binary()) for _ in ids])
    points = pa.table({"id": ids, "label": ["cat"] * count})
    files = {"images.parquet": pa.table({"id": pa.array(ids), "image": images}), "points.parquet": points}
    numbers = {"classes": ["cat"], "images": count, "quarantined": 0}
    for asset, tables, shard in (
        ("raw_images", files, SHARD),
        ("pruned_dataset", {"points.parquet": decided(points)}, None),
    ):
        output = Output(
            {name: table_file(table) for name, table in tables.items()},
            numbers=numbers | NUMBERS | {"points": count},
        )
        workspace.store.set_current(workspace.store.save(asset, "stored", output), shard)


def decided(points: pa.Table) -> pa.Table:
    kept = [k % 10 != 0 for k in range(len(points))]
    columns = {
        "shard": [SHARD] * len(points),
        "value": np.zeros(len(points)),
        "keep": kept,
        "action": ["keep" if keep else "drop" for keep in kept],
        "curated_label": ["cat" if keep else None for keep in kept],
    }
    for name, column in columns.items():
        points = points.append_column(name, pa.array(column))
    return points


def publish(workspace: Workspace) -> None:
    before, started = peak(), time.monotonic()
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("shards", [SHARD])
        dg.materialize(
            ASSETS,
            selection=dg.AssetSelection.assets("curated_dataset"),
            instance=instance,
            resources={"workspace": workspace},
            run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
        )
    numbers = workspace.store.require("curated_dataset").numbers
    Publication(workspace.curated).check(numbers["version"])
    print(
        f"{numbers['kept']:,} images, {numbers['bytes'] / 1e9:.2f} GB published in {time.monotonic() - started:.1f} s; "
        f"peak of the process {peak():.2f} GB, {before:.2f} GB of it before (imports)"
    )


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["write", home, megabytes]:
            write(Workspace(home=home), int(megabytes) * 1_000_000 // IMAGE_BYTES)
        case ["publish", home]:
            publish(Workspace(home=home))
        case arguments:
            megabytes = arguments[0] if arguments else "2400"
            # Each a process of its own, started by a small one: a process inherits the peak of the one that started it.
            with tempfile.TemporaryDirectory() as home:
                for command in (["write", home, megabytes], ["publish", home]):
                    subprocess.run([sys.executable, __file__, *command], check=True)
