"""PostgreSQL, an object store and a Ray cluster of two nodes together come to the same as one process with a folder.

One shard, then five; a worker is killed in the middle. Minutes of two processors: `make cluster` runs it.
"""

import os
import shutil
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from upath import UPath

from sava_assets.assets import features, inspection, transport
from sava_assets.cli.instances import database, instance_yaml
from sava_assets.cli.preparation import dagster_instance
from sava_assets.formats.demo_sets import write_set
from sava_assets.freshness.rules import SHARDS_NAME
from sava_assets.home.tree import tree
from tests.postgres import needs_postgres
from tests.postgres import running as postgres
from tests.sava_assets.cli.test_cli import sava
from tests.sava_assets.homes import noisy, pictures, untrained_checkpoint
from tests.sava_assets.on_workers import deadly

cluster_utils: Any = pytest.importorskip("ray.cluster_utils", reason="Ray is not installed")
ray: Any = pytest.importorskip("ray")
services: Any = pytest.importorskip("ray._private.services")
PASSWORD = "tests"
SHARDS = ("first", "second", "third", "fourth", "fifth")
IMAGES = 20
"""Of a shard: two batches and two blocks of embeddings each."""
AT_ONCE = 16


@pytest.fixture
def cluster(tmp_path, monkeypatch) -> Iterator[str]:
    """The address of one of two nodes, with a processor each."""
    monkeypatch.setenv("HOME", str(tmp_path))  # Ray keeps a token there
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setattr(services, "get_node_ip_address", lambda *_: "127.0.0.1")  # or it listens on that of the machine
    node: dict[str, Any] = {"node_ip_address": "127.0.0.1", "num_cpus": 1, "object_store_memory": 10**8}
    started = cluster_utils.Cluster(initialize_head=True, head_node_args=node | {"include_dashboard": False})
    try:
        started.add_node(**node)
        yield started.address
    finally:
        ray.shutdown()
        started.shutdown()


@pytest.fixture
def instance(tmp_path, monkeypatch) -> Iterator[None]:
    """DAGSTER_HOME names one on PostgreSQL."""
    with postgres(PASSWORD) as server:
        monkeypatch.setenv("PGPASSWORD", PASSWORD)
        (tmp_path / "dagster").mkdir()
        text = instance_yaml(database(f"postgresql://me@{server}/postgres", os.environ))
        (tmp_path / "dagster" / "dagster.yaml").write_text(text)
        monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "dagster"))
        yield


def put(file: Path, target: UPath) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(file.read_bytes())


def put_shard(home: UPath, scratch: Path, number: int) -> None:
    file = scratch / f"{SHARDS[number]}.parquet"
    write_set(file, noisy(pictures(IMAGES, first=100 * number), seed=number)[0])
    put(file, home / "landing" / file.name)


def curated_twice(home: UPath, scratch: Path, settings: dict) -> None:
    """With the first shard, then with all and a proof."""
    written = untrained_checkpoint(scratch / "home") | settings
    (scratch / "home" / "sava.yaml").write_text(yaml.safe_dump(written))
    write_set(scratch / "home" / "reference" / "clean.parquet", pictures(24, first=2_000))
    write_set(scratch / "home" / "test" / "clean.parquet", pictures(12, first=3_000))
    for file in (scratch / "home").rglob("*"):
        if file.is_file():
            put(file, home / file.relative_to(scratch / "home").as_posix())
    put_shard(home, scratch, 0)
    code, said = sava("curate", "--home", home)
    assert code == 0, said
    for number in range(1, len(SHARDS)):
        put_shard(home, scratch, number)
    code, said = sava("curate", "--prove", "--home", home)
    assert code == 0, said


def content_below(folder: UPath) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in sorted(tree(folder))}


@needs_postgres
@pytest.mark.cluster
@pytest.mark.usefixtures("instance")
@pytest.mark.filterwarnings("ignore")  # of the driver
def test_database_store_and_workers_of_their_own_come_to_what_one_process_comes_to(
    cluster, object_store, tmp_path, monkeypatch
):
    monkeypatch.setattr(inspection, "BYTES_SENT", AT_ONCE * 100)  # or a shard would be a single piece
    monkeypatch.setattr(features, "IMAGES_AT_ONCE", AT_ONCE)
    there, marker = object_store.bucket() / "home", tmp_path / "killed"
    with monkeypatch.context() as patched:
        patched.setattr(transport, "solved", partial(deadly, marker))
        curated_twice(there, tmp_path / "there", {"workers": {"backend": "ray", "address": cluster}})
    assert marker.exists()
    with dagster_instance(str(there)) as shared:
        assert type(shared.run_storage).__module__.startswith("dagster_postgres")
        assert set(shared.get_dynamic_partitions(SHARDS_NAME)) == set(SHARDS)
        assert Counter(run.status for run in shared.get_runs()).keys() == {dg.DagsterRunStatus.SUCCESS}
    assert not list((tmp_path / "dagster").rglob("*.db"))
    monkeypatch.delenv("DAGSTER_HOME")
    here = UPath(tmp_path / "home")
    curated_twice(here, tmp_path / "here", {})
    for part in ("store/results", "store/current", "curated/versions"):
        assert content_below(there / part) == content_below(here / part), part
    shutil.rmtree(tmp_path / "there")
