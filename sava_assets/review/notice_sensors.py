"""Who watches the runs of a served home, and tells people when nothing is left to do."""

import json
import time

import dagster as dg

from sava_assets.freshness.computation import Home
from sava_assets.freshness.rules import SHARDS_NAME
from sava_assets.freshness.sensors import LOOK_SECONDS, SENSORS_AT_FIRST
from sava_assets.freshness.survey import RETRY_SECONDS, Survey
from sava_assets.review.telling import failures, tell


@dg.sensor(minimum_interval_seconds=LOOK_SECONDS, default_status=SENSORS_AT_FIRST)
def notices(context: dg.SensorEvaluationContext, workspace: Home) -> dg.SensorResult:
    """People are told of a curation when its last run is through, and of what failed (`notify` in sava.yaml)."""
    if not workspace.knobs.notify.wanted:
        return _said("`notify` in sava.yaml names nobody", context.cursor)
    # A look, as everywhere, and no event of a run: that comes once, and is gone if it was too early or did not arrive.
    now = _last_change(context.instance)
    told = json.loads(context.cursor) if context.cursor else {"at": now, "retry": None}
    if told["at"] == now and (told["retry"] is None or time.time() < told["retry"]):
        return _said("no run since the last notice", json.dumps(told))
    survey = Survey(workspace, context.instance.get_dynamic_partitions(SHARDS_NAME))
    for asset in survey.assets:
        for state in survey.requestable(asset):  # the runs to come will tell
            return _said(f"{state.title} is still to come: {state.reason}", context.cursor)
    faults = tell(workspace, failures(survey.all()))
    retry = time.time() + RETRY_SECONDS if faults else None
    return _said("; ".join(faults) or "people know how it stands", json.dumps({"at": now, "retry": retry}))


def _said(why: str, cursor: str | None) -> dg.SensorResult:
    return dg.SensorResult(skip_reason=why, cursor=cursor)


def _last_change(instance: dg.DagsterInstance) -> str:
    """Names the last change of any run."""
    records = instance.get_run_records(limit=1, order_by="update_timestamp")
    return " ".join(f"{last.dagster_run.run_id} {last.update_timestamp}" for last in records)
