"""Who watches the runs of a served home, and tells people when nothing is left to do."""

import dagster as dg

from sava_assets.freshness.computation import Home
from sava_assets.freshness.rules import SHARDS_NAME
from sava_assets.freshness.sensors import LOOK_SECONDS, SENSORS_AT_FIRST, note_failed_run
from sava_assets.freshness.survey import Survey
from sava_assets.home.resources import Workspace
from sava_assets.review.telling import failures, tell


@dg.run_status_sensor(
    run_status=dg.DagsterRunStatus.SUCCESS,
    minimum_interval_seconds=LOOK_SECONDS,
    default_status=SENSORS_AT_FIRST,
)
def notices(context: dg.RunStatusSensorContext, workspace: Home) -> None:
    """People are told of a curation when its last run is through (`notify` in sava.yaml)."""
    _tell(context, workspace)


@dg.run_failure_sensor(minimum_interval_seconds=LOOK_SECONDS, default_status=SENSORS_AT_FIRST)
def notices_of_failures(context: dg.RunFailureSensorContext, workspace: Home) -> None:
    """People are told of what failed, and of a curation that was held back (`notify` in sava.yaml)."""
    if workspace.knobs.notify.wanted:
        note_failed_run(context, workspace)  # else it would still be due
        _tell(context, workspace)


def _tell(context: dg.RunStatusSensorContext, workspace: Workspace) -> None:
    if not workspace.knobs.notify.wanted:
        return
    survey = Survey(workspace, context.instance.get_dynamic_partitions(SHARDS_NAME))
    if any(survey.requestable(asset) for asset in survey.assets):  # the runs to come will tell
        return
    for fault in tell(workspace, failures(survey.all())):
        context.log.warning(fault)
