"""Exact copies inside the pool: whether there are any, for whoever names results; and how many, in words."""

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from sava_assets.home.result import Result
from sava_assets.home.store import Store

NOTE = "looks/copies.json"
COUNTS = ("copied_images", "copied_pictures", "copies_under_two_labels", "copies_left_out")
"""Numbers of `pruned_dataset`; those of near copies begin with near_."""
NOT_TOLD = (
    "near copies: none are looked for, as the reference images are too few, too small or too much alike to tell a near "
    "copy from another image"
)
EXACTLY = "copies: {:,} images of the pool show {:,} {}", ("picture", "pictures")
NEARLY = "near copies: {:,} images of the pool look nearly alike, in {:,} {}", ("group", "groups")


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


def in_words(numbers: Mapping[str, Any], near: Mapping[str, Any]) -> list[str]:
    """What the numbers of `pruned_dataset` say of copies, and of near copies; nothing if there are none. From those of
    `near_copies`, whether these could be told."""
    said = []
    for prefix, (told, words) in (("", EXACTLY), ("near_", NEARLY)):
        images, pictures, mixed, out = (numbers.get(f"{prefix}{name}") for name in COUNTS)
        if not images:
            continue
        line = told.format(images, pictures, words[pictures != 1])
        if mixed:
            line += f"; {mixed:,} of them are also there under another label, and to be reviewed"
        if out:
            line += f"; {out:,} are left out, as another one stands for them"
        said.append(line)
    return said if can_be_told(near) else [*said, NOT_TOLD]


def can_be_told(near: Mapping[str, Any]) -> bool:
    """Whether the reference images tell a near copy from another image; from the numbers of `near_copies`."""
    return near["threshold_bits"] >= 0
