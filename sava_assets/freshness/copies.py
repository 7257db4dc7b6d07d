"""Exact copies inside the pool: whether there are any, for whoever names results; and how many, in words."""

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from sava_assets.home.result import Result
from sava_assets.home.store import Store

NOTE = "looks/copies.json"


def has_copies(store: Store, images: Mapping[str | None, Result]) -> bool:
    """Whether two images of these shards have equal pixels. Looked for once for each content of the shards."""
    compared = {str(shard): result.data_version for shard, result in images.items()}
    known = store.read_json(NOTE) or {}
    if known.get("compared") != compared:
        hashes = pa.chunked_array(
            [c for r in images.values() for c in r.table("points.parquet", ["pixel_hash"])["pixel_hash"].chunks],
            pa.string(),
        )
        known = {"compared": compared, "found": len(hashes.unique()) < len(hashes)}
        store.put_json(NOTE, known)
    return known["found"]


def in_words(numbers: Mapping[str, Any]) -> str:
    """What the numbers of `pruned_dataset` say of copies; empty if there are none."""
    if not (images := numbers.get("copied_images")):
        return ""
    said = f"copies: {images:,} images of the pool show {numbers['copied_pictures']:,} pictures"
    if mixed := numbers["copies_under_two_labels"]:
        said += f"; {mixed:,} of them are also there under another label, and to be reviewed"
    if out := numbers["copies_left_out"]:
        said += f"; {out:,} are left out, as another one stands for them"
    return said
