"""A short soak, without servers: looks and runs in this process, whose disk fails now and then."""

import contextlib
import functools
import os
import random

import dagster as dg
import pytest
from rich.console import Console

from sava_assets.cli.runner import curate
from sava_assets.freshness import survey
from sava_assets.home.resources import Workspace
from tests.sava_assets.freshness.test_automation import Deployment
from tests.sava_assets.homes import untrained_checkpoint, write_home
from tests.soak.__main__ import UNASKED, Disk
from tests.soak.faults import sitecustomize
from tests.soak.states import clean_copy, differences, state, unfinished
from tests.soak.weather import Landing

pytestmark = pytest.mark.long
SHARDS = 4
EVENTS = 5
MOST_LOOKS = 60


@pytest.fixture
def home(tmp_path, monkeypatch):
    folder = tmp_path / "home"
    write_home(folder, untrained_checkpoint(folder) | UNASKED)
    monkeypatch.setenv("SAVA_HOME", str(folder))
    for name in ("RETRY_SECONDS", "LONGEST_RETRY_SECONDS"):
        monkeypatch.setattr(survey, name, 0.01)
    return folder


@pytest.mark.slow
def test_the_end_is_that_of_a_clean_run(home, tmp_path, monkeypatch):
    disk, landing = Disk(home), Landing(home / "landing", SHARDS, seed=3)
    monkeypatch.setattr(sitecustomize, "_chance", random.Random(0))
    end = sitecustomize.install(str(disk.file))
    try:
        with dg.DagsterInstance.ephemeral() as instance:
            deployment = Deployment(home, instance, tmp_path / "work.log")
            for number in range(EVENTS):
                disk.fails(0.02 if number % 2 else 0.002)
                landing.happens()
                with contextlib.suppress(Exception):
                    _look(deployment)
            assert disk.hits
            landing.clears_up()
            disk.fails(0.0)
            for _ in range(MOST_LOOKS):
                if not unfinished(home):
                    break
                _look(deployment)
    finally:
        end()
    assert not unfinished(home)
    clean_copy(home, tmp_path / "clean")
    curate(Workspace(home=str(tmp_path / "clean")), Console(quiet=True))
    assert differences(state(home), state(tmp_path / "clean")) == []


def _look(deployment: Deployment) -> None:
    """One look, and a run of whatever it requested."""
    for asset, shard in deployment.tick():
        with contextlib.suppress(Exception):
            deployment.run(asset, shard)


def test_faults_hit_every_way_to_the_disk_and_nothing_else(tmp_path):
    home, other = tmp_path / "home", tmp_path / "other"
    for folder in (home / "store", other):
        folder.mkdir(parents=True)
        (folder / "file").write_text("x")
    disk = Disk(home)
    disk.fails(1.0)
    end = sitecustomize.install(str(disk.file))
    try:
        file = home / "store" / "file"
        moved, listed = functools.partial(file.replace, other / "file"), functools.partial(os.scandir, file.parent)
        for call in (file.read_bytes, file.open, file.unlink, moved, listed, lambda: list(file.parent.iterdir())):
            with pytest.raises(OSError, match="injected") as fault:
                call()
            assert fault.value.errno in sitecustomize.FAULTS
        assert (other / "file").read_text() == "x"
    finally:
        end()
    assert file.read_text() == "x"
    assert len(disk.hits) == 6


def test_what_differs_is_named():
    assert differences({"a": 1, "b": 2}, {"b": 3, "c": 4}) == ["a", "b", "c"]
    assert differences({"a": 1}, {"a": 1}) == []
