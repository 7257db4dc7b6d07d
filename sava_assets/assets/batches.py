"""Which batch each point belongs to, and the embedded points as the valuation takes them."""

import numpy as np
import pyarrow as pa
from jaxtyping import Bool

from sava_assets.formats.columns import codes_of, places_of
from sava_assets.freshness.computation import Run, computed
from sava_assets.home.result import Output, Result, table_file
from sava_ops.batches import split_batches
from sava_ops.inputs import as_points
from sava_ops.ot.cost import Points

NOTHING_LEFT = "every training image is also in the reference or test set: put other images into the shards"


@computed(group="training", kinds={"numpy"})
def batches(run: Run) -> Output:
    """Which batch each point of a shard belongs to; a later shard changes nothing here. Images that also stand in the
    reference or test set are in none."""
    embedded = run.read("embeddings")
    return _split(run, embedded, inside_batches(run, run.shard or "", embedded))


@computed(group="reference", kinds={"numpy"})
def reference_batches(run: Run) -> Output:
    """Which batch each reference point belongs to."""
    embedded = run.read("reference_embeddings")
    return _split(run, embedded, np.ones(embedded.numbers["points"], dtype=bool))


def inside_batches(run: Run, shard: str, embedded: Result) -> Bool[np.ndarray, " n"]:
    """The embedded points of a shard that are not set aside."""
    return places_of(embedded.table("points.parquet", ["id"])["id"], [*run.set_aside(shard)]) < 0


def _split(run: Run, embedded: Result, inside: Bool[np.ndarray, " n"]) -> Output:
    """Batch number of every point, null where it is not to be in one, and the sizes of the batches."""
    points, config = embedded.table("points.parquet"), run.knobs.valuation
    rows, count = inside.nonzero()[0], int(inside.sum())
    codes = codes_of(points["label"])[rows]
    size = config.batch_size or max(count, 1)
    parts = split_batches(codes, batch_size=size, seed=config.seed, batching=config.batching)
    numbers = np.empty(len(points), dtype=np.int32)
    for number, own in enumerate(parts):
        numbers[rows[own]] = number
    column = pa.array(numbers, mask=~inside) if count < len(points) else pa.array(numbers)
    aside = {"set_aside": len(points) - count} if count < len(points) else {}
    return Output(
        files={"points.parquet": table_file(points.append_column("batch", column))},
        numbers={"points": count, "batches": len(parts), "sizes": [len(own) for own in parts]}
        | {"embeddings": embedded.data_version}
        | aside,
    )


def batch_rows(split: Result) -> list[np.ndarray]:
    """Rows of the points of each batch."""
    numbers = split.table("points.parquet", ["batch"])["batch"].to_numpy()
    return [(numbers == number).nonzero()[0] for number in range(split.numbers["batches"])]


def points_of(run: Run, embedded: Result, classes: list[str], *, side: str, device: str) -> Points:
    features = embedded.tensors("features.safetensors")["features"]
    return as_points(
        features,
        class_ids(embedded, classes),
        side=side,
        unit_norm=run.knobs.valuation.unit_norm,
        device=device,
    )


def class_ids(embedded: Result, classes: list[str]) -> np.ndarray:
    return places_of(embedded.table("points.parquet", ["label"])["label"], classes)
