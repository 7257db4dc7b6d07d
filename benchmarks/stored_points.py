"""Points in the store as if they had been embedded, and runs of assets over them: what the benchmarks share."""

import hashlib
import io

import dagster as dg
import numpy as np
import pyarrow as pa
import torch
from PIL import Image

from sava_assets.assets.ingest import MEASURED
from sava_assets.definitions import ASSETS
from sava_assets.freshness import rules as freshness
from sava_assets.home.resources import Workspace
from sava_assets.home.result import Output, table_file, tensor_file
from sava_assets.home.store import Store
from sava_ops.ot.cost import moments

WIDTH = 512
VALUATION = ("label_distances", "batch_ot", "batch_plan", "point_values")


def grey_png() -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (8, 8), "grey").save(data, format="png")
    return data.getvalue()


GREY = grey_png()


def run(workspace: Workspace, instance: dg.DagsterInstance, *assets: str, shard: str | None = None) -> None:
    dg.materialize(
        ASSETS,
        selection=dg.AssetSelection.assets(*assets),
        instance=instance,
        partition_key=shard,
        resources={"workspace": workspace},
        run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
    )


def put_set(workspace: Workspace, shard: str | None, count: int, *, classes: int, seed: int) -> None:
    """A shard, or the reference set: its images and their embeddings."""
    for asset in ("raw_images", "embeddings") if shard else ("reference_images", "reference_embeddings"):
        put_points(workspace.store, asset, shard, count, classes=classes, seed=seed)


def put_points(store: Store, asset: str, shard: str | None, count: int, *, classes: int, seed: int) -> None:
    """A stored result of features in clouds, a fifth of the labels wrong; one grey picture stands for all, which are
    said to be of all sizes and qualities."""
    generator = np.random.default_rng(seed)
    true = generator.integers(0, classes, count)
    centres = np.random.default_rng(99).normal(size=(classes, WIDTH))
    features = torch.from_numpy(centres[true] + 2 * generator.normal(size=(count, WIDTH))).half()
    wrong = (generator.random(count) < 0.2) & (shard is not None)
    labels = np.where(wrong, (true + 1) % classes, true)
    ids = [f"{shard or 'reference'}/{row}" for row in range(count)]
    hashes = [hashlib.sha256(name.encode()).hexdigest() for name in ids]
    points = pa.table({"id": ids, "label": labels.astype(str), "pixel_hash": hashes})
    sides = pa.array(generator.integers(200, 800, count), pa.int32())
    for name in ("width", "height"):
        points = points.append_column(name, sides)
    for name, kind in MEASURED.items():
        points = points.append_column(name, pa.array(generator.normal(size=count), kind))
    files = {
        "points.parquet": table_file(points),
        "features.safetensors": tensor_file({"features": features}),
        "moments.safetensors": tensor_file(moments(features)),
        "images.parquet": table_file(pa.table({"id": ids, "image": [GREY] * count})),
    }
    numbers = {"points": count, "classes": sorted(set(labels.astype(str).tolist()))}
    store.set_current(store.save(asset, freshness.key({"seed": seed}), Output(files, numbers)), shard)
