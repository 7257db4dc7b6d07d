"""Training images that also stand in the reference or test set, in the table of decisions: there, and of no value.

Those that stand in the reference set because a person confirmed them are published as that person said.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sava_assets.formats.columns import places_of
from sava_assets.formats.decision_files import read_decisions, standing
from sava_assets.formats.names import shown
from sava_assets.freshness.computation import Run
from sava_assets.freshness.overlap import SET_ASIDE, without_judges
from sava_assets.freshness.promotion import JUDGES, PROMOTED
from sava_assets.home.result import Result


def with_set_aside(run: Run, points: pa.Table) -> tuple[pa.Table, dict[str, Any]]:
    """The decided points of all shards and, where they lie in their shards, the images that are set aside; and how many
    of each shard that are. Whatever values say is null of these. Without any, the table as it is."""
    shards = run.read_shards("raw_images")
    aside = {shard: found for shard in shards if (found := run.set_aside(shard))}
    if not aside:
        return points, {}
    tables = []
    for shard, result in shards.items():
        own = points.filter(pc.field("shard") == shard)
        tables.append(_joined(own, result, shard, aside[shard], run) if shard in aside else own)
        for name, reason in aside.get(shard, {}).items():
            run.log.info(f"set aside {shown(name)}: {shown(reason)}")
    counts = {shard: len(lost) for shard, found in aside.items() if (lost := without_judges(found))}
    judging = sum(map(len, aside.values())) - sum(counts.values())
    numbers = ({"set_aside": counts} if counts else {}) | ({"promoted": judging} if judging else {})
    return pa.concat_tables(tables, promote_options="default"), numbers


def judges(run: Run) -> set[str]:
    """Pixel hashes of the images of the pool that judge others."""
    found: set[str] = set()
    for shard, result in run.read_shards("raw_images").items():
        if ids := [name for name, reason in run.set_aside(shard).items() if reason == JUDGES]:
            points = result.table("points.parquet", ["id", "pixel_hash"])
            found |= set(points.filter(pc.field("id").isin(pa.array(ids)))["pixel_hash"].to_pylist())
    return found


def _joined(own: pa.Table, images: Result, shard: str, aside: Mapping[str, str], run: Run) -> pa.Table:
    """A person has no say in what was in a clean set before: who wants one in the training data takes it out there."""
    every = images.table("points.parquet", ["id", "label", "pixel_hash"])
    out = every.filter(pc.field("id").isin(pa.array(list(aside), pa.string())))
    reasons = [aside[name] for name in out["id"].to_pylist()]
    facts: dict[str, list] = {
        "shard": [shard] * len(out),
        "reason": reasons,
        "keep": [False] * len(out),
        "action": [SET_ASIDE] * len(out),
    }
    if JUDGES in reasons:
        facts |= _as_decided(run, out, reasons)
    out = out.drop_columns(["pixel_hash"])
    for name, values in facts.items():
        kind = own.schema.field(name).type if name in own.column_names else pa.string()
        out = out.append_column(name, pa.array(values, kind))
    both = pa.concat_tables([own, out], promote_options="default")
    return both.take(pa.array(np.argsort(places_of(both["id"], every["id"].combine_chunks()))))


def _as_decided(run: Run, out: pa.Table, reasons: Sequence[str]) -> dict[str, list]:
    """Columns of images of which some judge others, as people said; the clean probability is that of the own label."""
    holding = standing(read_decisions(run.workspace.folder(run.knobs.decisions)))
    rows = zip(out["label"].to_pylist(), out["pixel_hash"].to_pylist(), reasons, strict=True)
    said = [(own, holding[name] if reason == JUDGES else None) for own, name, reason in rows]
    labels = [each and (each.label or own) for own, each in said]
    stays = [each and label == own for (own, each), label in zip(said, labels, strict=True)]
    return {
        "keep": [bool(each) for each in stays],
        "action": [PROMOTED if each else SET_ASIDE for _, each in said],
        "curated_label": labels,
        "clean_probability": [None if each is None else float(each) for each in stays],
        "decided_by": [each and each.who for _, each in said],
        "decision_note": [each and each.note for _, each in said],
    }
