"""Nearly equal images of stored sets: what they look like, and how near is near."""

import numpy as np
import pyarrow as pa
from jaxtyping import Int64, UInt64

from sava_assets.home.result import Result
from sava_assets.home.store import Store
from sava_ops.decisions.near_copies import as_hashes, difference_threshold, distance_counts, nearest

LOOKS = "perceptual_hash"
"""Column of what an image looks like; null where it has no structure."""
NOTE = "looks/differences.json"


def looks_of(images: Result) -> tuple[Int64[np.ndarray, " k"], UInt64[np.ndarray, "k 2"]]:
    """Rows and hashes of the images of a set that have structure; none of a set that was read before there were
    hashes, and is due."""
    points = images.table("points.parquet")
    if LOOKS not in points.column_names:
        return np.empty(0, dtype=np.int64), as_hashes([])
    column = points[LOOKS]
    there = column.is_valid().to_numpy().nonzero()[0]
    return there, as_hashes(column.drop_null().to_pylist())


def threshold(store: Store, reference: Result, *, among: int) -> int:
    """Bits up to which two images are near copies, if each is compared with `among` others; -1 if nothing is.

    From the distances between reference images, which are taken once for each content; exact copies count once.
    """
    known = store.read_json(NOTE) or {}
    if known.get("compared") != reference.key:
        rows, hashes = looks_of(reference)
        points = reference.table("points.parquet", ["label", "pixel_hash"]).take(pa.array(rows))
        first = np.unique(np.array(points["pixel_hash"].to_pylist(), dtype=str), return_index=True)[1]
        labels = np.array(points["label"].to_pylist(), dtype=object)
        counts, least = distance_counts(hashes[first], labels[first])
        known = {"compared": reference.key, "counts": counts.tolist(), "nearest": least.tolist()}
        store.put_json(NOTE, known)
    counts, least = (np.array(known[name], dtype=np.int64) for name in ("counts", "nearest"))
    return difference_threshold(counts, least, among=max(among, 1))


def near_images(store: Store, one: Result, other: Result) -> list[tuple[str, str]]:
    """Ids of the images of one set that are nearly equal to an image of the other, and of the nearest such one; none
    where there is no reference set to say how near is near."""
    (rows, hashes), (beside, others) = looks_of(one), looks_of(other)
    if not len(hashes) or not len(others) or not (reference := store.current("reference_images")):
        return []
    found, far = nearest(hashes, others)
    near = far.astype(np.int64) <= threshold(store, reference, among=len(others))
    pairs = ((one, rows[near]), (other, beside[found[near]]))
    ids = [images.table("points.parquet", ["id"])["id"].take(pa.array(own)).to_pylist() for images, own in pairs]
    return list(zip(*ids, strict=True))
