"""Images that a person confirmed, as further reference images: `review: {promote: true}`.

Who judges is not judged: a promoted image, with all its copies in the pool, is in no training batch and has no p-value;
what the person decided of it is published. And who was chosen says nothing of chance: the held-out reference points,
from which p-values and the false-discovery rate come, are those of the reference set that was given, never promoted
ones. These are no random sample of clean images (a wrong label that is found and mended is an easy image, a right one
that was flagged a hard one), so among the held-out ones they would move the rate to either side.

A quarter of all images, by lot, is never promoted: the sample that measures the false-discovery rate is then of these.
Of the flagged images that people looked at, the clean ones would else be gone from it.

A promoted image adds to a class of the reference set and makes none; it is no image of the test set, and none that the
reference set has. It stays while it is in the pool, and while the decision holds.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from sava_assets.formats.decision_files import PersonDecision, decisions_version, read_decisions, standing
from sava_assets.freshness.sources import Home
from sava_assets.home.result import Result
from sava_ops.decisions.audit import is_audited
from sava_ops.errors import BadInput

PROMOTED = "promoted"
"""Role of these images in the reference set, and their action in the table of decisions."""
PREFIX = f"{PROMOTED}/"
"""Of their ids in the reference set."""
JUDGES = "judges others, as a person confirmed it"
"""Why such an image is in no training batch."""
NOTE = "looks/promoted.json"


def confirmed(home: Home, shards: Sequence[str], *, proven: bool) -> dict[str, dict[str, str]]:
    """Shard → id → label of the images that people confirmed, one of each picture; `proven`: there is a test set.

    Nothing without `review.promote`. Raises BadInput where `overlap` is "refuse", and for decisions that cannot be
    read. Looked for once for each content of decisions, shards and test set.
    """
    knobs, store = home.knobs, home.store
    if not knobs.review.promote:
        return {}
    if knobs.overlap == "refuse":
        raise BadInput(
            "`review.promote` takes confirmed images out of the pool that they judge, and `overlap` is refuse: take "
            "one of the two out of sava.yaml"
        )
    seed, folder = knobs.review.seed, home.folder(knobs.decisions)
    test = store.current("test_images") if proven else None
    version = decisions_version(folder)
    if version is None or (proven and test is None):  # as long as nobody knows what is in the test set
        return {}
    images = {shard: found for shard in sorted(shards) if (found := store.current("raw_images", shard))}
    compared = {shard: found.data_version for shard, found in images.items()}
    compared |= {"": [version, test.data_version if test else "", seed]}
    known = store.read_json(NOTE) or {}
    if known.get("compared") != compared:
        known = {"compared": compared, "found": _found(standing(read_decisions(folder)), images, test, seed)}
        store.put_json(NOTE, known)
    return known["found"]


def _found(
    decisions: Mapping[str, PersonDecision], images: Mapping[str, Result], test: Result | None, seed: int
) -> dict[str, dict[str, str]]:
    stay = {name: each for name, each in decisions.items() if each.action != "drop" and not is_audited(name, seed=seed)}
    if test:
        own = set(test.table("points.parquet", ["pixel_hash"])["pixel_hash"].to_pylist())
        stay = {name: each for name, each in stay.items() if name not in own}
    wanted = pa.array(list(stay), pa.string())
    rows: list[dict[str, Any]] = []
    for shard, result in images.items():
        points = result.table("points.parquet", ["id", "label", "pixel_hash"])
        rows += [{**row, "shard": shard} for row in points.filter(pc.field("pixel_hash").isin(wanted)).to_pylist()]
    labels: dict[str, set[str]] = {}
    for row in rows:
        labels.setdefault(row["pixel_hash"], set()).add(stay[row["pixel_hash"]].label or row["label"])
    found: dict[str, dict[str, str]] = {}
    for row in rows:
        # Of copies that came under several labels, "keep" does not say which is right.
        if len(own := labels.pop(row["pixel_hash"], ())) == 1:
            found.setdefault(row["shard"], {})[row["id"]] = next(iter(own))
    return found
