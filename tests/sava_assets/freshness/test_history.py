"""Snapshots, garbage collection, drift, and what the command line says of them."""

import os
import shutil

import pytest
from rich.console import Console
from typer.testing import CliRunner

from sava_assets.cli.commands import app
from sava_assets.cli.runner import curate
from sava_assets.freshness.drift import calibration_drift
from sava_assets.freshness.history import collect_garbage
from sava_assets.freshness.snapshots import snapshots
from sava_assets.freshness.survey import Survey
from sava_assets.home.resources import Workspace
from tests.sava_assets.homes import copy_of, noisy, pictures, write_set

pytestmark = pytest.mark.long
QUIET = Console(quiet=True)
BOTH = ["first", "second"]
HELD = {"classifier_accuracy": "held"}
"""Trained once, and not again unasked."""


@pytest.fixture
def workspace(curated, tmp_path) -> Workspace:
    return copy_of(curated[0], tmp_path / "home")


def sava(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exit_code == 0, result.output
    return result.output


def set_fraction(workspace: Workspace, before: float, after: float) -> None:
    file = workspace.root / "sava.yaml"
    file.write_text(file.read_text().replace(f"fraction: {before}", f"fraction: {after}"))


def test_a_curation_is_one_snapshot_with_its_numbers(workspace):
    (only,) = snapshots(workspace.store)
    assert only.number == 1
    assert only.numbers["shards"] == BOTH
    assert (only.numbers["points"], only.numbers["pruned"]) == (64, 16)
    assert only.changes == {"new": 64, "gone": 0, "dropped": 0, "rescued": 0}
    assert only.numbers["value_q0.1"] <= only.numbers["value_q0.5"] <= only.numbers["value_q0.99"]
    curate(workspace, QUIET)
    assert snapshots(workspace.store) == [only]


def test_changes_are_counted_point_by_point(workspace):
    set_fraction(workspace, 0.25, 0.5)
    curate(workspace, QUIET)
    set_fraction(workspace, 0.5, 0.125)
    curate(workspace, QUIET)
    (workspace.root / "landing" / "second").rename(workspace.root / "second")
    curate(workspace, QUIET)
    changes = [snapshot.changes for snapshot in snapshots(workspace.store)]
    assert changes[1] == {"new": 0, "gone": 0, "dropped": 16, "rescued": 0}
    assert changes[2] == {"new": 0, "gone": 0, "dropped": 0, "rescued": 24}
    assert (changes[3]["new"], changes[3]["gone"]) == (0, 24)
    table = sava("history", "--home", workspace.home)
    assert len([line for line in table.splitlines() if "→" in line]) == 5


def test_gc_deletes_what_no_snapshot_uses_and_nothing_else(workspace):
    assert collect_garbage(workspace, BOTH, grace=0) == (0, 0)
    set_fraction(workspace, 0.25, 0.5)
    curate(workspace, QUIET)
    # Both curations are in the history; a page can be made again.
    assert collect_garbage(workspace, BOTH, grace=0)[0] == 1
    count, size = collect_garbage(workspace, BOTH, keep=1, grace=0)
    # The old curated_dataset and probe_accuracy: the old pruned_dataset is what whole networks were trained on last.
    assert count == 2
    assert size > 0
    assert [snapshot.number for snapshot in snapshots(workspace.store)] == [2]
    assert {s.title: s.status for s in Survey(workspace, BOTH).all() if s.status != "fresh"} == HELD
    curate(workspace, QUIET, prove=True)
    # And now that, classifier_accuracy, and its trainings on what is kept and what is relabelled.
    assert collect_garbage(workspace, BOTH, keep=1, grace=0)[0] == 4
    for result in (workspace.store.current("pruned_dataset"), workspace.store.current("embeddings", "first")):
        result.check()


@pytest.mark.parametrize(("keep", "left"), [(0, []), (2, [2, 3]), (3, [1, 2, 3]), (4, [1, 2, 3]), (9, [1, 2, 3])])
def test_gc_keeps_the_last_snapshots_and_all_if_there_are_fewer(workspace, keep, left):
    store = workspace.store
    first = store.read_json("snapshots/000001.json")
    for number in (2, 3):
        store.put_json(f"snapshots/{number:06}.json", first | {"number": number})
    collect_garbage(workspace, BOTH, keep=keep)
    assert [snapshot.number for snapshot in snapshots(store)] == left


def test_gc_forgets_a_removed_shard_with_its_rows_and_dead_scratch(workspace):
    (workspace.root / "landing" / "second").rename(workspace.root / "second")
    curate(workspace, QUIET)
    scratch = workspace.root / "store" / "partial" / "dead"
    scratch.mkdir(parents=True)
    os.utime(scratch, (0, 0))
    rows = len(list((workspace.root / "store" / "results" / "batch_rows").iterdir()))
    assert "results deleted" in sava("gc", "--keep", 1, "--grace", 0, "--home", workspace.home)
    assert len(list((workspace.root / "store" / "results" / "batch_rows").iterdir())) == rows - 2
    assert workspace.store.current("raw_images", "second") is None
    assert not scratch.exists()
    assert {s.title: s.status for s in Survey(workspace, ["first"]).all() if s.status != "fresh"} == HELD


def test_status_says_what_is_due_and_why_and_changes_nothing(workspace):
    assert "23 of 23 results are fresh" in sava("status", "--home", workspace.home)
    shutil.copytree(workspace.root / "landing" / "second" / "east", workspace.root / "landing" / "second" / "up")
    write_set(workspace.root / "landing" / "third.parquet", noisy(pictures(16, first=6_000), seed=3)[0])
    text = sava("status", "--home", workspace.home)
    assert "due      raw_images[second]: shard content changed" in text
    assert "due      raw_images[third]: no result yet" in text
    assert "waiting  embeddings[third]: waits for raw_images[third]" in text
    assert text == sava("status", "--home", workspace.home)
    assert workspace.store.current("raw_images", "third") is None


def test_backfill_brings_shards_as_far_as_batches(workspace):
    write_set(workspace.root / "landing" / "third.parquet", noisy(pictures(16, first=6_000), seed=3)[0])
    write_set(workspace.root / "landing" / "fourth.parquet", noisy(pictures(16, first=7_000), seed=3)[0])
    assert "1 shard embedded" in sava("backfill", "third", "--home", workspace.home)
    assert workspace.store.current("batches", "third") is not None
    assert workspace.store.current("raw_images", "fourth") is None
    assert "4 shards embedded" in sava("backfill", "--home", workspace.home)
    assert workspace.store.current("batches", "fourth") is not None
    assert len(snapshots(workspace.store)) == 1
    result = CliRunner().invoke(app, ["backfill", "nowhere", "--home", workspace.home])
    assert result.exit_code == 1
    assert "nowhere has not landed: name shards of first, fourth, second, third" in " ".join(result.output.split())


def test_drift_is_nothing_for_the_sample_itself_and_tells_of_new_shards(workspace):
    sentence = calibration_drift(workspace, BOTH)
    assert "0% of the points are from shards that arrived or changed since; mean feature cost +0.0%" in sentence
    write_set(workspace.root / "landing" / "third.parquet", noisy(pictures(64, first=6_000), seed=3)[0])
    sava("backfill", "--home", workspace.home)
    assert "label_distances: 0.0 days old; 50% of the points" in calibration_drift(workspace, [*BOTH, "third"])
    assert calibration_drift(Workspace(home=str(workspace.root / "nowhere")), []) is None
