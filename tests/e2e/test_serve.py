"""The main events again, with the real webserver, daemon and code server: the same exact lists of work."""

import contextlib
import json
import os
import shutil
import signal
import time

import pytest
import yaml

from sava_assets.freshness.rules import RULES
from sava_assets.study.cells import STUDIES
from tests.e2e.server import serving, wait_for, wait_until_gone
from tests.sava_assets.freshness.test_automation import FROM_POOL, PROBED, TRAININGS, filled, shard_work
from tests.sava_assets.homes import noisy, pictures, write_set
from tests.sava_assets.review.test_sending import server as webhook

__all__ = ["filled"]
LOOK_SECONDS = 3
IN_PROGRESS = "{ runsOrError(filter: {statuses: [QUEUED, NOT_STARTED, STARTING, STARTED]}) { ... on Runs { count } } }"
STARTED = """
{ runsOrError(filter: {statuses: [STARTED]}) { ... on Runs { results { assetSelection { path } } } } }
"""
RUNS = "{ runsOrError { ... on Runs { results { runId parentRunId status } } } }"
TICKS = """
query ($sensor: SensorSelector!) {
  sensorOrError(sensorSelector: $sensor) {
    ... on Sensor { sensorState { ticks(limit: 20) { status skipReason error { message } } } }
  }
}
"""
SENSOR = {"repositoryName": "__repository__", "repositoryLocationName": "sava_assets.definitions"}


@pytest.fixture(scope="module")
def told():
    """A webhook on loopback: its address, and what it was sent."""
    with webhook() as (address, got):
        yield address, got


@pytest.fixture(scope="module")
def served(filled, told, tmp_path_factory):
    """A filled home under `sava serve`, and the log of real work."""
    home = tmp_path_factory.mktemp("serve") / "home"
    shutil.copytree(filled[0], home, symlinks=True)
    settings = yaml.safe_load((home / "sava.yaml").read_text())
    (home / "sava.yaml").write_text(yaml.safe_dump(settings | {"study": {"seeds": 1}, "notify": {"webhook": told[0]}}))
    log = home.parent / "work.log"
    log.touch()
    with serving("serve", home, SAVA_WORK_LOG=str(log), SAVA_LOOK_SECONDS=str(LOOK_SECONDS)) as server:
        yield home, server, log


def ticks(server, sensor: str) -> list[dict]:
    answer = server.ask(TICKS, sensor=SENSOR | {"sensorName": sensor})
    return answer["sensorOrError"]["sensorState"]["ticks"]


def work(served, expected: list[str]) -> list[str]:
    """The real work, once as much as expected is done and three more looks requested nothing."""
    _, server, log = served
    wait_for(lambda: len(log.read_text().split()) >= len(expected), f"{expected}, has {log.read_text()}", server)
    quiet_looks = 0
    while quiet_looks < 3:
        busy = server.ask(IN_PROGRESS)["runsOrError"]["count"]
        quiet_looks = 0 if busy else quiet_looks + 1
        time.sleep(LOOK_SECONDS)
    done = sorted(log.read_text().split())
    log.write_text("")
    return done


def test_a_prepared_study_is_a_second_code_location(served):
    assert served[1].assets().keys() == RULES.keys() | STUDIES.keys() | {"decisions"}
    locations = served[1].ask("{ repositoriesOrError { ... on RepositoryConnection { nodes { location { name } } } } }")
    names = {node["location"]["name"] for node in locations["repositoriesOrError"]["nodes"]}
    assert names == {"sava_assets.definitions", "sava_assets.study.definitions"}


def test_nothing_changed(served):
    wait_for(lambda: len(ticks(served[1], "automation")) >= 2, "two looks", served[1])
    assert work(served, []) == []


def test_touched_time_stamp(served):
    (served[0] / "landing" / "first.parquet").touch()
    assert work(served, []) == []


def test_new_shard(served):
    write_set(served[0] / "landing" / "third.parquet", noisy(pictures(16, first=6_000), seed=3)[0])
    expected = sorted([*shard_work("third", 1), *FROM_POOL])
    assert work(served, expected) == expected


def prune(served, fraction: float, **settings: dict) -> list[str]:
    """Change the fraction; what has to be done then."""
    file = served[0] / "sava.yaml"
    file.write_text(yaml.safe_dump(yaml.safe_load(file.read_text()) | {"prune": {"fraction": fraction}} | settings))
    return ["curated_dataset", "curation_report", "pruned_dataset"]


def in_work(server) -> list[dict]:
    """Assets of the runs that have started."""
    return [asset for run in server.ask(STARTED)["runsOrError"]["results"] for asset in run["assetSelection"]]


def test_killed_run_is_run_again(served):
    """The daemon's monitor finds a run whose process is gone, and its retries run the rest."""
    _, server, _ = served
    idle = set(server.processes())
    expected = sorted([*prune(served, 0.4, proof={"when": "changed"}), *PROBED, "classifier_accuracy", *TRAININGS])
    wait_for(lambda: {"path": ["classifier_accuracy"]} in in_work(server), "the run that trains", server)
    for process in set(server.processes()) - idle:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
    assert work(served, expected) == expected
    runs = server.ask(RUNS)["runsOrError"]["results"]
    again = [run for run in runs if run["parentRunId"]]
    assert [run["status"] for run in again] == ["SUCCESS"]
    assert {run["runId"]: run["status"] for run in runs}[again[0]["parentRunId"]] == "FAILURE"


def test_people_are_told_of_each_curation_once_and_at_most_of_the_killed_run(served, told):
    """Of the killed run they are told if a look at the notices comes before it is run again."""

    def notices() -> list[dict]:
        return [sent for *_, sent in told[1]]

    def curations() -> list[int]:
        return [sent["curation"] for sent in notices() if sent["curation"]]

    def all_told() -> bool:
        return len(curations()) >= 2 and not notices()[-1]["failed"]

    wait_for(all_told, lambda: f"two curations: {ticks(served[1], 'notices')}", served[1])
    first = notices()[0]
    assert (first["curation"], first["held_back"], first["failed"]) == (2, "", {})
    assert "1 new shard (third), 16 new images" in first["text"]
    assert curations() == [2, 3]
    assert {sent["held_back"] for sent in notices()} == {""}
    reasons = [reason for sent in notices() for reason in sent["failed"].values()]
    assert all("ended outside of it" in reason for reason in reasons)


def test_people_are_told_of_a_curation_that_is_held_back(served, told):
    home, server, _ = served
    pointer, file = home / "curated" / "current.json", home / "sava.yaml"
    published = pointer.read_text()
    file.write_text(yaml.safe_dump(yaml.safe_load(file.read_text()) | {"gates": {"class_images": 500}}))
    expected = prune(served, 0.45, proof={"when": "nightly"})
    assert work(served, expected) == expected
    wait_for(lambda: told[1] and told[1][-1][-1]["held_back"], "the notice", server)
    sent = told[1][-1][-1]
    assert sent["held_back"].startswith("held back, and what is published stays as it is: ")
    assert sent["failed"] == {"curated_dataset": sent["held_back"]}
    assert pointer.read_text() == published


def test_no_look_failed(served):
    for sensor in ("landing", "automation", "lost_runs", "notices"):
        failed = [tick for tick in ticks(served[1], sensor) if tick["status"] == "FAILURE"]
        assert not failed, json.dumps(failed[:1])


def test_a_supervisors_sigterm_leaves_nothing_running(served):
    """The last of these tests: it ends the server. A supervisor's SIGTERM reaches the one process it knows."""
    started = served[1].processes()
    assert len(started) > 2
    os.kill(served[1].process.pid, signal.SIGTERM)
    wait_until_gone(started, served[1])
