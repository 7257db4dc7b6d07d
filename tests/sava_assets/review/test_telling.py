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
from sava_assets.freshness.survey import RETRY_SECONDS
from sava_assets.home.resources import Workspace
from sava_assets.review.notice_sensors import notices
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


def fail(served, asset: str) -> None:
    """A run that ends outside of the asset it was to make."""
    workspace, instance = served
    job = defs.resolve_implicit_global_asset_job_def()
    run = instance.create_run_for_job(job, asset_selection={dg.AssetKey(asset)})
    event = instance.report_run_failed(run, "no such image")
    context = dg.build_run_status_sensor_context("lost_runs", event, instance, run)
    lost_runs(context.for_run_failure(), workspace=workspace)


def look(served, cursor: str | None) -> tuple[str | None, str | None]:
    """What one look of the sensor says, and where the next begins."""
    workspace, instance = served
    result = notices(dg.build_sensor_context(instance, cursor), workspace=workspace)
    assert isinstance(result, dg.SensorResult)
    assert isinstance(result.skip_reason, dg.SkipReason)
    return result.skip_reason.skip_message, result.cursor


QUIET = "no run since the last notice"
STILL = "curated_dataset is still to come: "


def test_people_are_told_when_nothing_is_left_to_run(served):
    workspace, _ = served
    assert look(served, None) == ("`notify` in sava.yaml names nobody", None)
    with server() as (address, got):
        set_notify(workspace, webhook=address)
        said, cursor = look(served, None)
        assert said == QUIET
        assert look(served, cursor) == (QUIET, cursor)  # what was before is no news
        fail(served, "raw_images")
        for _ in range(2):  # until it is there
            said, cursor = look(served, cursor)
            assert said is not None
            assert said.startswith(STILL)
        assert got == []
        fail(served, "curated_dataset")
        said, cursor = look(served, cursor)
        assert said == "people know how it stands"
        assert look(served, cursor) == (QUIET, cursor)
    ((_, _, sent),) = got
    assert sent["failed"].keys() == {"curated_dataset"}
    assert sent["lines"][3].endswith("(no such image)")


def test_a_webhook_that_is_down_is_said_by_the_sensor_and_asked_again_later(served, monkeypatch):
    workspace, _ = served
    monkeypatch.setenv("SAVA_TEST_HOOK", "http://127.0.0.1:1/secret")
    set_notify(workspace, webhook={"env": "SAVA_TEST_HOOK"})
    cursor = look(served, None)[1]
    fail(served, "curated_dataset")
    fault = "the notice was not sent: the webhook cannot be reached (Connection refused)"
    said, cursor = look(served, cursor)
    assert said == fault
    kept = json.loads((workspace.store.root / LAST).read_text())
    assert kept["faults"] == {"webhook": fault}
    assert "secret" not in json.dumps(kept)
    with server() as (address, got):
        monkeypatch.setenv("SAVA_TEST_HOOK", address)
        assert look(served, cursor) == (QUIET, cursor)
        assert got == []
        known = json.loads(cursor)
        assert time.time() < known["retry"] <= time.time() + RETRY_SECONDS
        assert look(served, json.dumps(known | {"retry": time.time()}))[0] == "people know how it stands"
        assert len(got) == 1
