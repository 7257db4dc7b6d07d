"""`sava gc` beside writers, and damage of what is stored: nothing is lost for good, and no look fails."""

import os
import shutil
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import fsspec
import pytest
from rich.console import Console
from typer.testing import CliRunner

from sava_assets.cli import runner
from sava_assets.cli.commands import app
from sava_assets.cli.runner import curate
from sava_assets.freshness import history
from sava_assets.freshness.drift import KEPT
from sava_assets.freshness.history import collect_garbage, record
from sava_assets.freshness.rules import RULES, wanted
from sava_assets.freshness.snapshots import snapshots
from sava_assets.freshness.sources import shards_of
from sava_assets.freshness.survey import Survey
from sava_assets.home.resources import Workspace
from sava_assets.home.store import BATCH_ROWS, Store
from tests.sava_assets.homes import copy_of, untrained_checkpoint, write_home

pytestmark = pytest.mark.long
QUIET = Console(quiet=True)
BOTH = ["first", "second"]


def results(workspace: Workspace) -> dict[str, tuple[str, str]]:
    """Key and data version of every current result."""
    found = {}
    for asset in wanted(workspace):
        for shard in BOTH if RULES[asset].sharded else [None]:
            result = workspace.store.require(asset, shard)
            workspace.store.check(result)
            found[f"{asset}/{shard}"] = (result.key, result.data_version)
    return found


def states(workspace: Workspace) -> dict[str, str]:
    """What is not fresh."""
    return {state.title: state.reason for state in Survey(workspace, BOTH).all() if state.status != "fresh"}


@pytest.fixture
def remote(tmp_path, monkeypatch) -> Workspace:
    """A home on an object store, where there are no locks; without a test set, so that nothing is trained."""
    local = tmp_path / "home"
    write_home(local, untrained_checkpoint(local))
    shutil.rmtree(local / "test")
    fsspec.filesystem("memory").put(f"{local}/", f"/{tmp_path.name}/", recursive=True)

    @contextmanager
    def instance(_: Path):
        with dg.DagsterInstance.ephemeral() as made:
            yield made

    monkeypatch.setattr(runner, "dagster_instance", instance)
    return Workspace(home=f"memory://{tmp_path.name}")


def test_gc_before_every_write_of_a_chain_changes_nothing(remote, monkeypatch, tmp_path):
    collected = []

    def before(name):
        write = getattr(Store, name)

        def written(self, *arguments, **named):
            if not busy.locked():
                with busy:
                    collected.append(collect_garbage(remote, list(shards_of(remote))))
            return write(self, *arguments, **named)

        return written

    busy = threading.Lock()
    with monkeypatch.context() as patched:
        for name in ("put", "_save_file", "set_current"):
            patched.setattr(Store, name, before(name))
        curate(remote, QUIET)
    assert len(collected) > 100
    assert set(collected) == {(0, 0)}
    assert states(remote) == {}
    clean = tmp_path / "clean"
    write_home(clean, untrained_checkpoint(clean))
    shutil.rmtree(clean / "test")
    curate(Workspace(home=str(clean)), QUIET)
    assert results(remote) == results(Workspace(home=str(clean)))


@pytest.mark.parametrize(
    "written",
    [
        pytest.param("results/embeddings/", marks=pytest.mark.slow),
        pytest.param("results/batch_rows/", marks=pytest.mark.slow),
        "results/batch_ot/",
    ],
)
def test_gc_without_grace_between_files_and_manifest_costs_one_computation(remote, monkeypatch, written):
    """Not even then does anything fail for ever."""
    put = Store.put

    def collecting(self, name, *arguments, **named):
        if name.startswith(written) and not collected:
            collected.append(collect_garbage(remote, BOTH, grace=0)[0])
        return put(self, name, *arguments, **named)

    collected: list[int] = []
    with monkeypatch.context() as patched:
        patched.setattr(Store, "put", collecting)
        curate(remote, QUIET)
    assert collected[0] > 0
    curate(remote, QUIET)
    assert states(remote) == {}
    results(remote)  # and every file is there


def test_what_is_young_stays_and_what_is_old_goes(curated, tmp_path):
    workspace = copy_of(curated[0], tmp_path / "home")
    (unused,) = [workspace.store.save(BATCH_ROWS, "unused", workspace_output())]
    files = list((tmp_path / "home" / "store" / "results" / BATCH_ROWS / "unused").iterdir())
    for hours, count in ((23, 0), (25, 1)):
        for file in files:
            os.utime(file, (dated := time.time() - hours * 3600, dated))
        assert collect_garbage(workspace, BOTH)[0] == count
    assert workspace.store.find(BATCH_ROWS, unused.key) is None
    assert "0 results deleted" in CliRunner().invoke(app, ["gc", "--grace", "0", "--home", workspace.home]).output


def workspace_output():
    from sava_assets.home.result import Output, bytes_file

    return Output({"a": bytes_file(b"a"), "b": bytes_file(b"b")})


def test_one_young_file_keeps_the_result(curated, tmp_path):
    workspace = copy_of(curated[0], tmp_path / "home")
    workspace.store.save(BATCH_ROWS, "being written", workspace_output())
    old, *_ = (tmp_path / "home" / "store" / "results" / BATCH_ROWS / "being written").iterdir()
    os.utime(old, (0, 0))
    assert collect_garbage(workspace, BOTH) == (0, 0)
    assert old.exists()


def test_the_pointer_of_a_shard_that_has_just_landed_stays(curated, tmp_path):
    """It may have landed after the landing folder was looked at."""
    workspace = copy_of(curated[0], tmp_path / "home")
    workspace.store.set_current(workspace.store.require("raw_images", "second"), "second")
    collect_garbage(workspace, ["first"])
    assert workspace.store.current("raw_images", "second") is not None
    collect_garbage(workspace, ["first"], grace=0)
    assert workspace.store.current("raw_images", "second") is None


def test_a_shard_with_a_long_name_keeps_its_pointers(curated, tmp_path):
    workspace = copy_of(curated[0], tmp_path / "home")
    name = "long " * 45
    workspace.store.set_current(workspace.store.require("raw_images", "second"), name)
    collect_garbage(workspace, [*BOTH, name], grace=0)
    assert workspace.store.current("raw_images", name) is not None


def file_of(workspace: Workspace, asset: str, name: str, shard: str | None = None) -> Path:
    return Path(workspace.store.require(asset, shard).files[name].path.path)


def a_row(workspace: Workspace, name: str) -> Path:
    row = workspace.store.require("batch_ot").table("rows.parquet")["row"][3].as_py()
    result = workspace.store.find(BATCH_ROWS, row)
    assert result is not None
    file = Path(result.files["tensors.safetensors"].path.path)
    return file if name != "manifest.json" else file.with_name(name)


LOST = [
    ("embeddings[first]", lambda w: file_of(w, "embeddings", "features.safetensors", "first")),
    ("raw_images[second]", lambda w: file_of(w, "raw_images", "images.parquet", "second")),
    ("batch_ot", lambda w: file_of(w, "batch_ot", "rows.parquet")),
    ("batch_ot", lambda w: a_row(w, "manifest.json")),
    ("encoder", lambda w: file_of(w, "encoder", "encoder.safetensors")),
]


@pytest.mark.parametrize(("due", "file"), LOST)
def test_what_lost_a_file_or_a_part_is_due_and_is_mended(curated, tmp_path, due, file):
    workspace = copy_of(curated[0], tmp_path / "home")
    before = results(workspace)
    file(workspace).unlink()
    said = CliRunner().invoke(app, ["status", "--home", workspace.home])
    assert said.exit_code == 0
    assert f"due      {due}: " in said.output
    assert "is missing" in " ".join(said.output.split())
    assert collect_garbage(workspace, BOTH, grace=0)[0] in (
        0,
        5,
    )  # the rows, if nothing tells any longer which they are
    curate(workspace, QUIET)
    assert states(workspace) == {}
    assert results(workspace) == before


DAMAGED = [
    ("  batch_size: 16\n", "  batch_size: 8\n", lambda w: file_of(w, "embeddings", "points.parquet", "first")),
    ("valuation:", "valuation:\n  gradient: calibrated", lambda w: a_row(w, "tensors.safetensors")),
    ("valuation:", "valuation:\n  gradient: calibrated", lambda w: file_of(w, "batch_plan", "plan.safetensors")),
    ("fraction: 0.25", "fraction: 0.5", lambda w: file_of(w, "point_values", "points.parquet")),
]


@pytest.mark.parametrize(("before", "after", "file"), DAMAGED)
def test_damage_that_a_reader_meets_is_mended_by_the_same_command(curated, tmp_path, before, after, file):
    workspace = copy_of(curated[0], tmp_path / "home")
    shutil.rmtree(tmp_path / "home" / "test")
    (knobs := workspace.root / "sava.yaml").write_text(knobs.read_text().replace(before, after))
    (harmed := file(workspace)).write_bytes(harmed.read_bytes()[:-1] + b"?")
    curate(workspace, QUIET)
    assert states(workspace) == {}
    results(workspace)


def test_drift_that_cannot_be_told_is_said(curated, tmp_path):
    workspace = copy_of(curated[0], tmp_path / "home")
    file_of(workspace, "embeddings", "moments.safetensors", "first").write_bytes(b"?")
    (workspace.store.root / KEPT).unlink(missing_ok=True)  # what an earlier look remembers is right
    said = CliRunner().invoke(app, ["status", "--home", workspace.home])
    assert said.exit_code == 0
    assert "label_distances: how far the data moved since cannot be told (" in " ".join(said.output.split())


def test_a_snapshot_replaces_no_other(curated, tmp_path, monkeypatch):
    workspace = copy_of(curated[0], tmp_path / "home")
    (known,) = snapshots(workspace.store)
    other = vars(known) | {"number": 2, "results": {**known.results, "pruned_dataset": "another"}}
    (knobs := workspace.root / "sava.yaml").write_text(knobs.read_text().replace("fraction: 0.25", "fraction: 0.5"))
    changes = history._changes

    def meanwhile(*arguments):
        if len(snapshots(workspace.store)) == 1:
            workspace.store.put_json("snapshots/000002.json", other)
        return changes(*arguments)

    monkeypatch.setattr(history, "_changes", meanwhile)
    workspace.store.set_current(workspace.store.require("pruned_dataset"))
    curate(workspace, QUIET)
    assert [past.number for past in snapshots(workspace.store)] == [1, 2, 3]
    assert snapshots(workspace.store)[1].results["pruned_dataset"] == "another"
    assert record(workspace, BOTH).number == 3


def test_a_snapshot_that_cannot_be_read_is_not_replaced_either(curated, tmp_path):
    workspace = copy_of(curated[0], tmp_path / "home")
    damaged = workspace.root / "store" / "snapshots" / "000001.json"
    damaged.write_bytes(b"")
    assert record(workspace, BOTH).number == 2
    assert record(workspace, BOTH).number == 2
    assert damaged.read_bytes() == b""


def test_what_is_no_result_stays_where_it_is(curated, tmp_path):
    workspace = copy_of(curated[0], tmp_path / "home")
    strays = [workspace.root / "store" / "results" / name for name in ("note.txt", "raw_images/note.txt")]
    for stray in strays:
        stray.write_text("mine")
    assert collect_garbage(workspace, BOTH, grace=0) == (0, 0)
    assert all(stray.read_text() == "mine" for stray in strays)
