"""What runs by itself: shards become partitions, what is due is requested, and every night all is looked at again."""

import os

import dagster as dg

from sava_assets.freshness.computation import SHARDS, Home
from sava_assets.freshness.condition import asset_key
from sava_assets.freshness.lost_runs import note_lost
from sava_assets.freshness.processes import bury_dead_runs, claim_shards
from sava_assets.freshness.proof import tonight
from sava_assets.freshness.rules import RULES, SHARDS_NAME, wanted
from sava_assets.freshness.sources import Look, shards_of

LOOK_SECONDS = int(os.environ.get("SAVA_LOOK_SECONDS", "30"))
NIGHTLY = "0 3 * * *"
AUTOMATION = "SAVA_AUTOMATION"
"""Set to 1 (by `sava serve`): sensors and schedule run from the start. Without it they are switched on in the UI."""
RUNNING = os.environ.get(AUTOMATION) == "1"
SENSORS_AT_FIRST = dg.DefaultSensorStatus.RUNNING if RUNNING else dg.DefaultSensorStatus.STOPPED
SCHEDULE_AT_FIRST = dg.DefaultScheduleStatus.RUNNING if RUNNING else dg.DefaultScheduleStatus.STOPPED


@dg.sensor(minimum_interval_seconds=LOOK_SECONDS, default_status=SENSORS_AT_FIRST)
def landing(context: dg.SensorEvaluationContext, workspace: Home) -> dg.SensorResult:
    """Every set in the landing folder is a shard: new ones become partitions, removed ones cease to be."""
    bury_dead_runs(context.instance)
    claim_shards(context.instance, workspace.root)
    landed = shards_of(Look.of(workspace))
    known = set(context.instance.get_dynamic_partitions(SHARDS_NAME))
    new, gone = sorted(landed.keys() - known), sorted(known - landed.keys())
    requests = [SHARDS.build_add_request(new)] if new else []
    requests += [SHARDS.build_delete_request(gone)] if gone else []
    return dg.SensorResult(dynamic_partitions_requests=requests)


automation = dg.AutomationConditionSensorDefinition(
    "automation",
    target=dg.AssetSelection.assets(*map(asset_key, RULES)),
    minimum_interval_seconds=LOOK_SECONDS,
    default_status=SENSORS_AT_FIRST,
    emit_backfills=False,
    use_user_code_server=True,
    description="Requests exactly what is due.",
)


@dg.run_failure_sensor(minimum_interval_seconds=LOOK_SECONDS, default_status=SENSORS_AT_FIRST)
def lost_runs(context: dg.RunFailureSensorContext, workspace: Home) -> None:
    """What a run was to make that ended outside of any asset counts as failed, and is tried ever more rarely."""
    run, shards = context.dagster_run, list(context.instance.get_dynamic_partitions(SHARDS_NAME))
    record = context.instance.get_run_record_by_id(run.run_id)
    created = record.create_timestamp.timestamp() if record else 0.0
    message = " ".join(str(context.failure_event.message).split())
    for title in note_lost(workspace, run, shards, message, created):
        context.log.warning(f"{title} was left by the run {run.run_id}: {message}")


recurate_job = dg.define_asset_job("recurate", selection=dg.AssetSelection.assets(*map(asset_key, RULES)))


@dg.schedule(job=recurate_job, cron_schedule=NIGHTLY, default_status=SCHEDULE_AT_FIRST)
def recurate(context: dg.ScheduleEvaluationContext, workspace: Home) -> dg.RunRequest | dg.SkipReason:
    """The whole chain over all shards in one run, checksums included, and the proof as far as `proof.when` says; what
    is sound and fresh is reused."""
    shards = context.instance.get_dynamic_partitions(SHARDS_NAME)
    if not shards:
        return dg.SkipReason("no shard has landed")
    return dg.RunRequest(
        asset_selection=[asset_key(asset) for asset in wanted(workspace) if tonight(asset, workspace.knobs.proof)],
        tags={"dagster/asset_partition_range_start": shards[0], "dagster/asset_partition_range_end": shards[-1]},
    )
