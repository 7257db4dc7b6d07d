"""When Dagster's automation requests an asset: the answer of `freshness.survey`, as a condition without memory."""

import dagster as dg

from sava_assets.freshness.rules import SHARDS_NAME
from sava_assets.freshness.survey import Survey
from sava_assets.home.resources import Workspace, default_home


class Due(dg.AutomationCondition):
    """Requests a result when its inputs name another one than the store holds, and nothing it reads is due itself."""

    @property
    def description(self) -> str:
        return "Another result is due than the current one, and all it reads is there"

    def evaluate(self, context: dg.AutomationContext) -> dg.AutomationResult:
        workspace = Workspace(home=default_home())
        instance = context.asset_graph_view.instance  # pyright: ignore[reportAttributeAccessIssue]
        survey = Survey(workspace, instance.get_dynamic_partitions(SHARDS_NAME))
        due = survey.requestable(context.key.to_user_string())
        if context.partitions_def is None:
            wanted = context.candidate_subset if due else context.get_empty_subset()
        else:
            keys = {state.shard for state in due if state.shard is not None}
            wanted = context.asset_graph_view.get_subset_from_partition_keys(  # pyright: ignore
                context.key, context.partitions_def, keys
            )
        return dg.AutomationResult(context, wanted)


def automation_condition() -> dg.AutomationCondition:
    """What is due, except what is being computed at this moment."""
    return Due() & ~dg.AutomationCondition.in_progress()
