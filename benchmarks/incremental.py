"""What one more shard costs, beside the first valuation: `make incremental`.

20 shards of 2,000 points, already embedded, against 5,000 reference points: the time of the assets from `batches` to
`point_values`, first for the 20 shards, then after a 21st has arrived.
"""

import io
import logging
import platform
import tempfile
import time

import dagster as dg
import numpy as np
import pyarrow as pa
import torch
from PIL import Image

from sava_assets import freshness
from sava_assets.computation import SHARDS
from sava_assets.definitions import ASSETS
from sava_assets.resources import Workspace
from sava_assets.store import Output, Store, table_file, tensor_file
from sava_ops.cost import moments

SHARD_COUNT, SHARD_POINTS, REFERENCE_POINTS, CLASSES, WIDTH = 20, 2_000, 5_000, 10, 512
VALUATION = ("label_distances", "batch_ot", "batch_plan", "point_values")


def grey_png() -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (8, 8), "grey").save(data, format="png")
    return data.getvalue()


GREY = grey_png()


def main() -> None:
    logging.getLogger("dagster").setLevel(logging.CRITICAL)
    with tempfile.TemporaryDirectory() as folder, dg.DagsterInstance.ephemeral() as instance:
        workspace = Workspace(home=folder)
        put_points(workspace.store, "reference_embeddings", None, REFERENCE_POINTS, seed=0)
        put_points(workspace.store, "reference_images", None, REFERENCE_POINTS, seed=0)
        run(workspace, instance, "reference_batches")
        seconds = []
        for shards in (range(SHARD_COUNT), [SHARD_COUNT]):
            names = [f"shard-{number:02}" for number in shards]
            instance.add_dynamic_partitions(str(SHARDS.name), names)
            for number, name in zip(shards, names, strict=True):
                for asset in ("raw_images", "embeddings"):
                    put_points(workspace.store, asset, name, SHARD_POINTS, seed=1 + number)
            started = time.perf_counter()
            for name in names:
                run(workspace, instance, "batches", shard=name)
            run(workspace, instance, *VALUATION)
            seconds.append(time.perf_counter() - started)
    first, more = seconds
    print(f"Python {platform.python_version()}, torch {torch.__version__}, {torch.get_num_threads()} CPU threads")
    print(f"first valuation of {SHARD_COUNT} shards of {SHARD_POINTS:,} points: {first:.1f} s")
    print(f"one more shard: {more:.1f} s = {more / first:.1%}")


def run(workspace: Workspace, instance: dg.DagsterInstance, *assets: str, shard: str | None = None) -> None:
    dg.materialize(
        ASSETS,
        selection=dg.AssetSelection.assets(*assets),
        instance=instance,
        partition_key=shard,
        resources={"workspace": workspace},
        run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
    )


def put_points(store: Store, asset: str, shard: str | None, count: int, *, seed: int) -> None:
    """A stored result of features in ten clouds, a fifth of the labels wrong; one grey picture stands for all."""
    generator = np.random.default_rng(seed)
    true = generator.integers(0, CLASSES, count)
    centres = np.random.default_rng(99).normal(size=(CLASSES, WIDTH))
    features = torch.from_numpy(centres[true] + 2 * generator.normal(size=(count, WIDTH))).half()
    wrong = (generator.random(count) < 0.2) & (shard is not None)
    labels = np.where(wrong, (true + 1) % CLASSES, true)
    ids = [f"{shard or 'reference'}/{row}" for row in range(count)]
    points = pa.table({"id": ids, "label": labels.astype(str), "pixel_hash": ids})
    files = {
        "points.parquet": table_file(points),
        "features.safetensors": tensor_file({"features": features}),
        "moments.safetensors": tensor_file(moments(features)),
        "images.parquet": table_file(pa.table({"id": ids, "image": [GREY] * count})),
    }
    numbers = {"points": count, "classes": sorted(set(labels.astype(str).tolist()))}
    store.set_current(store.save(asset, freshness.key({"seed": seed}), Output(files, numbers)), shard)


if __name__ == "__main__":
    main()
