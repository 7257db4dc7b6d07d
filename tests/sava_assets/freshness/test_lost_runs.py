"""A launcher that raises, a killed process: what such runs were to make is backed off."""

import shutil
import time

import dagster as dg
import pytest

from sava_assets.definitions import defs
from sava_assets.freshness.sensors import lost_runs
from sava_assets.freshness.survey import RETRY_SECONDS, Survey
from sava_assets.home.resources import Workspace
from sava_assets.home.result import Failure
from tests.sava_assets.freshness.stored_home import unpack

BOTH = ["first", "second"]


@pytest.fixture
def workspace(tmp_path) -> Workspace:
    """One shard is due, and what is published."""
    unpack(tmp_path)
    shutil.copy(next((tmp_path / "landing/second/east").iterdir()), tmp_path / "landing/second/east/new.png")
    return Workspace(home=str(tmp_path))


@pytest.fixture
def instance():
    with dg.DagsterInstance.ephemeral() as made:
        made.add_dynamic_partitions("shards", BOTH)
        yield made


def lose(workspace: Workspace, instance: dg.DagsterInstance, asset: str, **tags: str) -> None:
    """A run is asked for, and its launcher raises."""
    run = instance.create_run_for_job(
        defs.resolve_implicit_global_asset_job_def(), asset_selection={dg.AssetKey(asset)}, tags=tags
    )
    event = instance.report_run_failed(run, "no such\nimage")
    context = dg.build_run_status_sensor_context(
        sensor_name="lost_runs", dagster_event=event, dagster_instance=instance, dagster_run=run
    )
    lost_runs(context.for_run_failure(), workspace=workspace)


def failure(workspace: Workspace, asset: str, shard: str | None = None) -> Failure:
    found = workspace.store.failure(asset, shard)
    assert found is not None
    return found


@pytest.mark.parametrize(("asset", "shard"), [("raw_images", "second"), ("curated_dataset", None)])
def test_a_launcher_that_raises_is_asked_once_in_five_looks(workspace, instance, asset, shard):
    if shard is None:  # else it waits for the shard
        (workspace.root / "landing" / "second" / "east" / "new.png").unlink()
    asked = 0
    for _ in range(5):
        if Survey(workspace, BOTH).requestable(asset):
            asked += 1
            lose(workspace, instance, asset, **({"dagster/partition": shard} if shard else {}))
    assert asked == 1
    state = Survey(workspace, BOTH).state(asset, shard)
    assert state.status == "failed"
    assert state.reason.endswith("ended outside of it (no such image)")
    later = time.time() + RETRY_SECONDS
    assert Survey(workspace, BOTH).requestable(asset, now=later + 60) == [state]
    assert Survey(workspace, BOTH).requestable(asset, now=later - 60) == []


def test_every_further_loss_waits_longer(workspace, instance):
    for attempt in (1, 2, 3):
        lose(workspace, instance, "raw_images", **{"dagster/partition": "second"})
        assert failure(workspace, "raw_images", "second").attempts == attempt


def test_what_failed_in_the_asset_itself_is_counted_once(workspace, instance, monkeypatch):
    lose(workspace, instance, "raw_images", **{"dagster/partition": "second"})
    key = failure(workspace, "raw_images", "second").key
    with monkeypatch.context() as patched:
        patched.setattr(time, "time", lambda now=time.time: now() + 60)  # during a run that was asked for before
        workspace.store.set_failure("raw_images", "second", key, "its own")
    lose(workspace, instance, "raw_images", **{"dagster/partition": "second"})
    assert failure(workspace, "raw_images", "second").message == "its own"
    assert failure(workspace, "raw_images", "second").attempts == 2


def test_what_is_fresh_or_not_of_the_run_is_left_alone(workspace, instance):
    lose(workspace, instance, "raw_images", **{"dagster/partition": "first"})
    lose(workspace, instance, "encoder")
    assert workspace.store.failure("raw_images", "first") is None
    assert workspace.store.failure("raw_images", "second") is None
    assert workspace.store.failure("encoder") is None


def test_a_run_over_a_range_of_shards_is_noted_for_each_that_is_due(workspace, instance):
    span = {"dagster/asset_partition_range_start": "first", "dagster/asset_partition_range_end": "second"}
    lose(workspace, instance, "raw_images", **span)
    assert workspace.store.failure("raw_images", "first") is None
    assert failure(workspace, "raw_images", "second").attempts == 1
