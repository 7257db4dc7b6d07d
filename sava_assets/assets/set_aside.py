"""Training images that also stand in the reference or test set, in the table of decisions: there, and of no value."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sava_assets.formats.columns import places_of
from sava_assets.formats.names import shown
from sava_assets.freshness.computation import Run
from sava_assets.freshness.overlap import SET_ASIDE
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
        tables.append(_joined(own, result, shard, aside[shard]) if shard in aside else own)
        for name, reason in aside.get(shard, {}).items():
            run.log.info(f"set aside {shown(name)}: {shown(reason)}")
    return pa.concat_tables(tables), {"set_aside": {shard: len(found) for shard, found in aside.items()}}


def _joined(own: pa.Table, images: Result, shard: str, aside: Mapping[str, str]) -> pa.Table:
    """A person has no say in these: who wants one in the training data takes it out of the clean set."""
    every = images.table("points.parquet", ["id", "label"])
    out = every.filter(pc.field("id").isin(pa.array(list(aside), pa.string())))
    facts = {
        "shard": [shard] * len(out),
        "reason": [aside[name] for name in out["id"].to_pylist()],
        "keep": [False] * len(out),
        "action": [SET_ASIDE] * len(out),
    }
    for name, values in facts.items():
        out = out.append_column(name, pa.array(values, own.schema.field(name).type))
    both = pa.concat_tables([own, out], promote_options="default")
    return both.take(pa.array(np.argsort(places_of(both["id"], every["id"].combine_chunks()))))
