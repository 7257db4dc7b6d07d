"""Nearly equal images of stored sets: what they look like, and how near is near."""

import numpy as np
import pyarrow as pa
from jaxtyping import Int64

from sava_assets.freshness.promotion import PROMOTED
from sava_assets.home.result import Result
from sava_assets.home.store import Store
from sava_ops.decisions.near_copies import (
    DistanceCounts,
    Hashes,
    as_hashes,
    difference_threshold,
    distance_counts,
    nearest,
)

LOOKS = "perceptual_hash"
"""Column of what an image looks like; null where it has no structure."""
NOTE = "looks/differences.json"


def looks_of(points: pa.Table) -> tuple[Int64[np.ndarray, " k"], Hashes]:
    """Rows and hashes of the images of a set that have structure; none of a set that was read before there were
    hashes, and is due. Promoted images of a reference set are the pool's: it keeps their near copies."""
    if LOOKS not in points.column_names:
        return np.empty(0, dtype=np.int64), as_hashes([])
    there = points[LOOKS].is_valid().to_numpy()
    if "role" in points.column_names:
        there &= np.array(points["role"].to_pylist(), dtype=str) != PROMOTED
    return there.nonzero()[0], as_hashes(points[LOOKS].filter(pa.array(there)).to_pylist())


def threshold(store: Store, reference: Result, *, among: int) -> int:
    """Bits up to which two images are near copies, if each is compared with `among` others; -1 if nothing is."""
    return difference_threshold(_known(store, reference), among=max(among, 1))


def candidate_threshold(store: Store, reference: Result) -> int:
    """The same of the most generous one, which does not depend on the size of the pool: what is farther apart never
    counts as near."""
    return threshold(store, reference, among=1)


def _known(store: Store, reference: Result) -> DistanceCounts:
    """Distances between reference images, taken once for each content; exact copies count once."""
    stored = store.read_json(NOTE) or {}
    if stored.get("compared") != reference.key:
        points = reference.table("points.parquet")
        rows, hashes = looks_of(points)
        points = points.take(pa.array(rows))
        first = np.unique(np.array(points["pixel_hash"].to_pylist(), dtype=str), return_index=True)[1]
        labels = np.array(points["label"].to_pylist(), dtype=object)
        known = distance_counts(hashes[first], labels[first])
        counts = {"different": known.different.tolist(), "same": known.same.tolist()}
        stored = {"compared": reference.key, "images": known.images, **counts}
        store.put_json(NOTE, stored)
    different, same = (np.array(stored[name], dtype=np.int64) for name in ("different", "same"))
    return DistanceCounts(stored["images"], different, same)


def near_images(store: Store, one: pa.Table, other: pa.Table) -> list[tuple[str, str]]:
    """Ids of the images of one set that are nearly equal to an image of the other, and of the nearest such one; none
    where there is no reference set to say how near is near. Of the points of both."""
    (rows, hashes), (beside, others) = looks_of(one), looks_of(other)
    if not len(hashes) or not len(others) or not (reference := store.current("reference_images")):
        return []
    found, far = nearest(hashes, others)
    near = far.astype(np.int64) <= threshold(store, reference, among=len(others))
    pairs = ((one, rows[near]), (other, beside[found[near]]))
    ids = [points["id"].take(pa.array(own)).to_pylist() for points, own in pairs]
    return list(zip(*ids, strict=True))
