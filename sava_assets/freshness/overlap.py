"""Training images that also stand in the reference or the test set, by their pixels or nearly: set aside, with the
reason.

They stay in `raw_images` and `embeddings`, which say what a shard holds: another reference or test set costs no image a
second reading. They are left out where the points of a shard are divided into batches and where the calibration takes
its sample, as values, p-values and the cut are made of these alone. What names such a result is which of its own images
are shared, never the rest of the other sets; where none is, nothing is named.
"""

from collections.abc import Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from sava_assets.formats.names import counted, shown
from sava_assets.freshness.near import near_images
from sava_assets.freshness.promotion import JUDGES, PREFIX, PROMOTED
from sava_assets.home.result import Result
from sava_assets.home.store import Store, file_name
from sava_ops.errors import BadInput

CLEAN_SETS = ("reference_images", "test_images")
"""What training images are kept apart from."""
SET_ASIDE = "set_aside"
"""Action of these images in the table of decisions; they have neither value nor evidence."""
NEARLY = "nearly the same as an image of the "
"""Beginning of the reason, where the pixels differ."""


def overlap(store: Store, shard: str, clean: Sequence[str]) -> dict[str, str]:
    """Id of each image of the shard that stands in one of these sets, and why it is set aside; of sets that are there.

    Compared once for each content of shard and sets: a look reads what the last one found.
    """
    results = {name: result for name in clean if (result := store.current(name))}
    training = store.current("raw_images", shard)
    if training is None or not results:
        return {}
    # By key: what images look like is no part of their data version.
    compared = {name: result.key for name, result in {"raw_images": training, **results}.items()}
    place = f"looks/overlaps/{file_name(shard)}.json"
    known = store.read_json(place) or {}
    if known.get("compared") != compared:
        exactly: dict[str, str] = {}
        nearly: dict[str, str] = {}
        points = training.table("points.parquet")
        for name, result in results.items():
            title, others = name.removesuffix("_images"), result.table("points.parquet")
            shared, near = shared_rows(points, others), near_images(store, points, others)
            exactly = {one: _reason(name, other) for one, other in shared} | exactly
            nearly = {one: f"{NEARLY}{title} set ({other})" for one, other in near} | nearly
        found = nearly | exactly
        known = {"compared": compared, "found": found}
        store.put_json(place, known)
    return known["found"]


def _reason(clean: str, other: str) -> str:
    if clean == "reference_images" and other.startswith(PREFIX):
        return JUDGES
    return f"also in the {clean.removesuffix('_images')} set ({other})"


def valued(points: pa.Table) -> pa.Table:
    """Without the points that are set aside, or judge themselves."""
    return points.filter(~pc.field("action").isin(pa.array([SET_ASIDE, PROMOTED])))


def shared_images(one: Result, other: Result) -> list[tuple[str, str]]:
    """Ids of images with equal pixels in two sets."""
    return shared_rows(*(result.table("points.parquet", ["id", "pixel_hash"]) for result in (one, other)))


def shared_rows(first: pa.Table, second: pa.Table) -> list[tuple[str, str]]:
    """The same of their points."""
    shared = first.filter(pc.field("pixel_hash").isin(second["pixel_hash"].combine_chunks()))
    known = dict(zip(second["pixel_hash"].to_pylist(), second["id"].to_pylist(), strict=True)) if len(shared) else {}
    return [(row["id"], known[row["pixel_hash"]]) for row in shared.to_pylist()]


def refuse_near_images(store: Store, pool: Mapping[str, Result], other_name: str, other: Result) -> None:
    """Raise BadInput if a shard holds an image that is nearly one of the other set."""
    others = other.table("points.parquet")
    for name, one in pool.items():
        if near := near_images(store, one.table("points.parquet"), others):
            raise BadInput(
                f"{name} nearly shares {counted(len(near), 'image')} with the {other_name} set (first: {near[0][0]} is "
                f"nearly {near[0][1]}): remove them from one side"
            )


def refuse_shared_images(ones: Mapping[str, Result], other_name: str, other: Result) -> None:
    """Raise BadInput if a set of `ones` shares an image with the other set: it would judge itself."""
    for name, one in ones.items():
        if shared := shared_images(one, other):
            raise BadInput(
                f"{name} shares {counted(len(shared), 'image')} with the {other_name} set (first: {shared[0][0]} is "
                f"{shared[0][1]}): remove them from one side"
            )


def in_words(aside: Mapping[str, Mapping[str, str]]) -> str:
    """How many images are set aside, and of which shards; empty if none is. `aside`: shard → id → reason."""
    aside = {shard: without_judges(found) for shard, found in aside.items()}
    counts = {shard: len(found) for shard, found in aside.items() if found}
    if not counts:
        return ""
    near = sum(reason.startswith(NEARLY) for found in aside.values() for reason in found.values())
    also = f" ({near:,} of them nearly)" if near else ""
    parts = ", ".join(f"{count:,} of {shown(shard)}" for shard, count in sorted(counts.items(), key=_most_first))
    total = sum(counts.values())
    left = f"{counted(total, 'training image')} {'is' if total == 1 else 'are'} set aside"
    return f"{left}, being in the reference or test set too{also}: {parts}"


def without_judges(aside: Mapping[str, str]) -> dict[str, str]:
    """Those that are lost to the training data: promoted ones are not."""
    return {name: reason for name, reason in aside.items() if reason != JUDGES}


def _most_first(entry: tuple[str, int]) -> tuple[int, str]:
    return -entry[1], entry[0]
