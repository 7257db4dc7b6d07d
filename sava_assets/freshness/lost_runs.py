"""Runs that end outside of any asset: a launcher that fails, a process that is killed. What they were to make would be
due again at once, and asked for again without end; noted as failed, it is tried ever more rarely."""

import dagster as dg

from sava_assets.freshness.condition import asset_of
from sava_assets.freshness.rules import RULES, inputs, key
from sava_assets.freshness.survey import Survey
from sava_assets.home.resources import Workspace

PARTITION, FIRST, LAST = (
    "dagster/partition",
    "dagster/asset_partition_range_start",
    "dagster/asset_partition_range_end",
)


def note_lost(workspace: Workspace, run: dg.DagsterRun, shards: list[str], message: str, created: float) -> list[str]:
    """Note a failure of what this failed run left due, unless a later attempt noted one; returns what was noted.

    `created` is when the run was asked for, in seconds since the epoch.
    """
    survey, noted = Survey(workspace, shards), []
    selected = {asset_of(chosen) for chosen in run.asset_selection or ()}
    for asset in (name for name in survey.assets if name in selected):
        for shard in _shards_of(run, shards) if RULES[asset].sharded else [None]:
            state, before = survey.state(asset, shard), survey.store.failure(asset, shard)
            again = state.status == "failed" and before is not None and before.time < created
            if state.status != "due" and not again:
                continue
            name = key(inputs(asset, survey.home, shards, shard))
            told = f"its run {run.run_id} ended outside of it ({message})"
            workspace.store.set_failure(asset, shard, name, told)
            noted.append(state.title)
    return noted


def _shards_of(run: dg.DagsterRun, shards: list[str]) -> list[str]:
    """The partitions of a run, of those that there are."""
    if FIRST in run.tags:
        asked = run.tags[FIRST], run.tags[LAST]
        places = [shards.index(shard) for shard in asked if shard in shards]
        return shards[places[0] : places[-1] + 1] if len(places) == 2 else []
    return [shard for shard in shards if shard == run.tags.get(PARTITION)]
