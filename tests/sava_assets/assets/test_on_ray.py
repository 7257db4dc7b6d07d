"""The large assets by the workers of a real Ray cluster: two of them, on this machine."""

import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml

from sava_assets.assets import features, inspection, transport
from sava_assets.freshness.workers import OnRay
from sava_assets.home.result import DamagedResult, Result
from sava_assets.home.store import BATCH_ROWS, EMBEDDING_BLOCKS, STARTING_POTENTIALS, TRAININGS
from sava_assets.home.worker_knobs import WorkerKnobs
from sava_ops import BadInput
from tests.sava_assets.homes import SETTINGS, copy_of, materialize
from tests.sava_assets.on_workers import Shared, beating, deadly, deadly_inspection, own_gpu, refusing, threads

pytestmark = pytest.mark.long
ray: Any = pytest.importorskip("ray", reason="Ray is not installed")
INGESTED = ("raw_images", "reference_images")
COMPUTED = (*INGESTED, "embeddings", "batch_ot", "classifier_accuracy", BATCH_ROWS, STARTING_POTENTIALS, TRAININGS)


@pytest.fixture(scope="module", autouse=True)
def cluster(tmp_path_factory) -> Iterator[None]:
    """Two processors, and two GPUs that there are not."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(tmp_path_factory.mktemp("ray")))  # Ray keeps a token there
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        ray.init(
            address="local",
            num_cpus=2,
            num_gpus=2,
            object_store_memory=10**8,
            include_dashboard=False,
            log_to_driver=False,
            _node_ip_address="127.0.0.1",
        )
        yield
        ray.shutdown()


def on_ray(**knobs) -> OnRay:
    return OnRay(WorkerKnobs(backend="ray", **knobs))


def content(home: Path) -> dict[str, bytes]:
    results = home / "store" / "results"
    files = [file for name in COMPUTED for file in (results / name).rglob("*") if file.is_file()]
    return {str(file.relative_to(results)): file.read_bytes() for file in files}


def test_workers_store_the_bytes_of_a_run_without_them_though_one_is_killed(curated, tmp_path, monkeypatch):
    home, marker, ingest_marker = tmp_path / "home", tmp_path / "killed", tmp_path / "killed at ingest"
    workspace = copy_of(curated[0], home)
    expected = content(home)
    assert {name.split("/")[0] for name in expected} == set(COMPUTED)
    for name in COMPUTED:
        shutil.rmtree(home / "store" / "results" / name)
    (home / "sava.yaml").write_text(yaml.safe_dump(SETTINGS | {"workers": {"backend": "ray"}}))
    monkeypatch.setattr(inspection, "BYTES_SENT", 2_000)
    monkeypatch.setattr(inspection, "inspect", partial(deadly_inspection, ingest_marker))
    monkeypatch.setattr(features, "IMAGES_AT_ONCE", 16)
    monkeypatch.setattr(transport, "solved", partial(deadly, marker))
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("shards", ["first", "second"])
        materialize(workspace, instance, "reference_images")
        for shard in ("first", "second"):
            materialize(workspace, instance, "raw_images", shard=shard)
            materialize(workspace, instance, "embeddings", shard=shard)
        materialize(workspace, instance, "batch_ot", "classifier_accuracy")
    assert marker.exists()
    assert ingest_marker.exists()
    assert content(home) == expected
    assert len([*(home / "store" / "results" / EMBEDDING_BLOCKS).iterdir()]) == 5


def test_what_is_raised_in_a_worker_comes_back_as_itself():
    made = on_ray().map(refusing, None, range(9))
    assert next(made) == 0
    with pytest.raises(BadInput) as caught:
        next(made)
    assert type(caught.value) is BadInput
    assert str(caught.value) == "1 is too much"
    assert caught.value.__cause__ is caught.value.__context__ is None
    assert "in refusing" in caught.value.__notes__[0]
    result = Result("raw_images", "key", "version", {}, {}, {}, {})
    with pytest.raises(DamagedResult, match="1 is damaged") as damaged:
        [*on_ray().map(refusing, result, range(9))]
    assert damaged.value.result == result


@pytest.mark.parametrize("cpus", [1, 2])
def test_what_is_shared_is_unpacked_once_by_each_worker_which_has_as_many_threads_as_processors(tmp_path, cpus):
    found = [*on_ray(cpus=cpus).map(threads, Shared(tmp_path), range(20))]
    assert found == [(k, cpus) for k in range(20)]
    unpacked = [file.read_text() for file in tmp_path.iterdir()]
    assert unpacked
    assert set(unpacked) == {"."}


@pytest.mark.cluster
def test_every_worker_sees_its_own_gpu_and_asks_itself_what_device_it_has(tmp_path):
    """The GPUs are stated: torch finds none."""
    found = [*on_ray(gpus=1).map(own_gpu, tmp_path, range(4))]
    assert {gpu for gpu, _ in found} == {"0", "1"}
    assert {told for _, told in found} == {"`device` is 'cuda' and there is no CUDA device: set it to 'auto' or 'cpu'"}


@pytest.mark.cluster
def test_ctrl_c_stops_the_workers(tmp_path):
    def interrupt() -> None:
        while len([*tmp_path.iterdir()]) < 2:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        [*on_ray().map(beating, tmp_path, range(8))]
    assert [*on_ray().map(refusing, None, [2, 3])] == [2, 3]  # they are free again
    before = {file.name: file.read_text() for file in tmp_path.iterdir()}
    time.sleep(0.2)
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == before
    assert len(before) == 2
