"""One Dagster instance for several homes."""

import os
import subprocess
import sys

import dagster as dg
import pytest
from upath import UPath

from sava_assets.freshness.processes import claim_shards
from sava_assets.freshness.rules import _own_name
from sava_assets.freshness.sensors import landing
from sava_assets.home.resources import Workspace
from sava_ops import BadInput

SHARED = r"keeps the shards of the home .*one as 'shards': set SAVA_NAME to a name of its own for the home .*two"


def looked(instance: dg.DagsterInstance, home) -> dg.SensorResult:
    context = dg.build_sensor_context(instance=instance, resources={"workspace": Workspace(home=str(home))})
    return landing(context)


def test_two_homes_on_one_instance_do_not_delete_each_others_shards(tmp_path):
    for home in ("one", "two"):
        (tmp_path / home / "landing" / f"shard of {home}" / "cat").mkdir(parents=True)
    with dg.instance_for_test(temp_dir=str(tmp_path)) as instance:
        (added,) = looked(instance, tmp_path / "one").dynamic_partitions_requests
        assert list(added.partition_keys) == ["shard of one"]
        instance.add_dynamic_partitions("shards", ["shard of one"])
        with pytest.raises(BadInput, match=SHARED):
            looked(instance, tmp_path / "two")
        with pytest.raises(BadInput, match=SHARED):
            claim_shards(instance, UPath(tmp_path / "two"))
        assert instance.get_dynamic_partitions("shards") == ["shard of one"]
        assert looked(instance, tmp_path / "one").dynamic_partitions_requests == []


def test_an_instance_inside_a_home_moves_with_it(tmp_path):
    for name in ("home", "moved"):
        (tmp_path / name / ".dagster").mkdir(parents=True)
        with dg.instance_for_test(temp_dir=str(tmp_path / name / ".dagster")) as instance:
            claim_shards(instance, UPath(tmp_path / name))
            assert instance.daemon_cursor_storage.get_cursor_values({"sava/shards"}) == {}


@pytest.mark.parametrize(("name", "partitions"), [(None, "shards"), ("", "shards"), ("birds-2", "birds-2/shards")])
def test_a_name_makes_the_partitions_the_homes_own(name, partitions):
    environment = {key: value for key, value in os.environ.items() if key != "SAVA_NAME"}
    environment |= {} if name is None else {"SAVA_NAME": name}
    asked = "from sava_assets.freshness.rules import SHARDS_NAME; print(SHARDS_NAME)"
    command = [sys.executable, "-c", asked]
    assert subprocess.run(command, env=environment, capture_output=True, text=True).stdout.strip() == partitions


@pytest.mark.parametrize("name", ["my birds", "a/b", "vögel", "x\n"])
def test_a_name_that_dagster_cannot_use_is_a_sentence(name, monkeypatch):
    monkeypatch.setenv("SAVA_NAME", name)
    with pytest.raises(BadInput, match=r"^SAVA_NAME is '.*': name the home by letters without accents, digits, - and"):
        _own_name()
