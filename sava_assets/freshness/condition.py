"""When Dagster's automation requests an asset: the answer of `freshness.survey`, as a condition without memory."""

import dagster as dg

from sava_assets.freshness.rules import NAME, SHARDS_NAME
from sava_assets.freshness.survey import Survey
from sava_assets.home.resources import Workspace, default_home


def asset_key(asset: str) -> dg.AssetKey:
    """What Dagster calls an asset of this home."""
    return dg.AssetKey([asset] if NAME is None else [NAME, asset])


def asset_of(key: dg.AssetKey) -> str:
    """The asset that Dagster calls so."""
    return key.path[-1]


class Due(dg.AutomationCondition):
    """Requests a result when its inputs name another one than the store holds, and nothing it reads is due itself."""

    @property
    def description(self) -> str:
        return "Another result is due than the current one, and all it reads is there"

    def evaluate(self, context: dg.AutomationContext) -> dg.AutomationResult:
        due = _survey(context).requestable(asset_of(context.key))
        if context.partitions_def is None:
            wanted = context.candidate_subset if due else context.get_empty_subset()
        else:
            keys = {state.shard for state in due if state.shard is not None}
            wanted = context.asset_graph_view.get_subset_from_partition_keys(  # pyright: ignore
                context.key, context.partitions_def, keys
            )
        return dg.AutomationResult(context, wanted)


_last_look: dict[object, Survey] = {}


def _survey(context: dg.AutomationContext) -> Survey:
    """One look for all assets of a tick."""
    workspace, instance = Workspace(home=default_home()), context.asset_graph_view.instance  # pyright: ignore
    tick = workspace, instance, context.evaluation_time
    if tick not in _last_look:
        _last_look.clear()
        _last_look[tick] = Survey(workspace, instance.get_dynamic_partitions(SHARDS_NAME))
    return _last_look[tick]


def automation_condition() -> dg.AutomationCondition:
    """What is due, except what is being computed at this moment."""
    return Due() & ~dg.AutomationCondition.in_progress()
