"""People are told of every curation and failure once, and again only where the notice did not arrive."""

import json
import time
from pathlib import Path

import dagster as dg
import pytest
import yaml

from sava_assets.definitions import defs
from sava_assets.freshness.sensors import lost_runs
from sava_assets.freshness.snapshots import SNAPSHOTS, Snapshot
from sava_assets.home.resources import Workspace
from sava_assets.review.notice_sensors import notices, notices_of_failures
from sava_assets.review.telling import LAST, tell, untold
from tests.sava_assets.cli.test_cli import refused, sava
from tests.sava_assets.freshness.stored_home import unpack
from tests.sava_assets.review.test_sending import server


@pytest.fixture
def workspace(tmp_path) -> Workspace:
    return Workspace(home=str(tmp_path / "home"))


def set_notify(workspace: Workspace, **settings) -> None:
    Path(workspace.home).mkdir(exist_ok=True)
    file = Path(workspace.home) / "sava.yaml"
    kept = yaml.safe_load(file.read_text()) if file.exists() else {}
    file.write_text(yaml.safe_dump(kept | {"notify": settings}))


def add_row(workspace: Workspace, number: int, held_back: str = "") -> None:
    numbers = {"shards": ["a"], "points": 10, "pruned": 1}
    changes = {"new": 10, "gone": 0, "dropped": 0, "rescued": 0}
    row = Snapshot(number, time.time(), {"pruned_dataset": str(number)}, numbers, changes, held_back)
    workspace.store.put_json(f"{SNAPSHOTS}/{number:06}.json", vars(row))


def test_who_wants_no_notice_gets_none(workspace):
    add_row(workspace, 1)
    assert tell(workspace, {"raw_images[a]": "broken"}) == []
    assert not (workspace.store.root / LAST).exists()


def test_each_curation_and_failure_is_told_once(workspace):
    with server() as (address, got):
        set_notify(workspace, webhook=address)
        assert tell(workspace, {}) == []
        assert got == []
        for _ in range(2):
            add_row(workspace, 1)
            tell(workspace, {})
        assert [sent["curation"] for *_, sent in got] == [1]
        for reason in ("broken", "broken, said in other words"):
            tell(workspace, {"raw_images[b]": reason})
        tell(workspace, {})
        assert [(sent["curation"], sent["failed"]) for *_, sent in got[1:]] == [
            (None, {"raw_images[b]": "broken"}), (None, {})
        ]  # fmt: skip
        add_row(workspace, 2, held_back="held back: too much")
        tell(workspace, {"curated_dataset": "held back: too much"})
        add_row(workspace, 2)
        tell(workspace, {})
        assert [(sent["curation"], sent["held_back"]) for *_, sent in got[3:]] == [(2, "held back: too much"), (2, "")]
    assert [sent["lines"][0].split(":")[0] for *_, sent in got] == ["home"] * 5
    assert got[0][-1]["lines"][-1] == f"page: {workspace.root / 'report.html'}"
    assert address not in (workspace.store.root / LAST).read_text()


def test_what_did_not_arrive_is_sent_again_and_only_there(workspace, tmp_path, monkeypatch):
    monkeypatch.setenv("SAVA_TEST_HOOK", "http://127.0.0.1:1/secret")
    log = tmp_path / "log"
    set_notify(workspace, webhook={"env": "SAVA_TEST_HOOK"}, command=["sh", "-c", f"cat >> {log}"])
    add_row(workspace, 1)
    fault = "the notice was not sent: the webhook cannot be reached (Connection refused)"
    assert tell(workspace, {}) == [fault] == untold(workspace)
    assert tell(workspace, {}) == [fault]
    with server() as (address, got):
        monkeypatch.setenv("SAVA_TEST_HOOK", address)
        assert tell(workspace, {}) == [] == untold(workspace)
        assert tell(workspace, {}) == []
    assert len(got) == 1
    assert len(log.read_text().splitlines()) == 5


def test_a_home_where_nothing_can_be_noted_is_told_of_nevertheless(workspace, monkeypatch):
    add_row(workspace, 1)

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("sava_assets.home.store.Store.put_json", full)
    with server() as (address, got):
        set_notify(workspace, webhook=address)
        (told,) = tell(workspace, {})
    assert told == "that a notice was sent could not be noted (No space left on device): it may come twice"
    assert len(got) == 1


def test_a_notice_that_fails_does_not_fail_the_command_and_a_command_that_fails_is_told(workspace):
    home = Path(workspace.home)
    (home / "landing").mkdir(parents=True)
    (home / "reference").mkdir()
    set_notify(workspace, webhook="http://127.0.0.1:1/secret")
    code, output = sava("curate", "--home", home)
    assert code == 1
    assert "the notice was not sent: the webhook cannot be reached (Connection refused)" in output
    assert "error: no shard has landed in " in output
    assert "the notice was not sent: " in sava("status", "--home", home)[1]
    with server() as (address, got):
        set_notify(workspace, webhook=address)
        assert refused("curate", "--home", home).startswith("no shard has landed in ")
    ((_, _, sent),) = got
    assert sent["lines"][0] == "home: nothing has been curated yet"
    assert sent["lines"][3].startswith("failed: sava curate: no shard has landed in ")
    assert sent["failed"].keys() == {"sava curate"}


@pytest.fixture
def served(workspace):
    """A home of which nothing but the publication is due, and an instance."""
    home = Path(workspace.home)
    home.mkdir()
    unpack(home)
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("shards", ["first", "second"])
        yield workspace, instance


def context_of(instance: dg.DagsterInstance, asset: str, sensor: str, **tags: str):
    run = instance.create_run_for_job(
        defs.resolve_implicit_global_asset_job_def(), asset_selection={dg.AssetKey(asset)}, tags=tags
    )
    event = instance.report_run_failed(run, "no such image")
    return dg.build_run_status_sensor_context(
        sensor_name=sensor, dagster_event=event, dagster_instance=instance, dagster_run=run
    )


def test_the_sensors_tell_when_nothing_is_left_to_run(served):
    workspace, instance = served
    with server() as (address, got):
        notices(context_of(instance, "raw_images", "notices"), workspace=workspace)
        set_notify(workspace, webhook=address)
        notices(context_of(instance, "raw_images", "notices"), workspace=workspace)
        assert got == []
        for _ in range(2):
            context = context_of(instance, "curated_dataset", "notices_of_failures").for_run_failure()
            notices_of_failures(context, workspace=workspace)
            lost_runs(context, workspace=workspace)
    ((_, _, sent),) = got
    failure = workspace.store.failure("curated_dataset")
    assert failure is not None
    assert sent["failed"].keys() == {"curated_dataset"}
    assert failure.attempts == 2
    assert sent["lines"][3].endswith("(no such image)")


def test_a_webhook_that_is_down_is_said_in_the_log_of_the_sensor(served):
    workspace, instance = served
    set_notify(workspace, webhook="http://127.0.0.1:1/secret")
    context = context_of(instance, "curated_dataset", "notices_of_failures").for_run_failure()
    notices_of_failures(context, workspace=workspace)
    kept = json.loads((workspace.store.root / LAST).read_text())
    assert kept["faults"] == {"webhook": "the notice was not sent: the webhook cannot be reached (Connection refused)"}
    assert "secret" not in json.dumps(kept)
