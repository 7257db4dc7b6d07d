"""A training image that also stands in a clean set: the run goes on, without it, and everything says so."""

import json
from pathlib import Path

import dagster as dg
import numpy as np
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from sava_assets.assets.proof import _training_sets
from sava_assets.cli.runner import curate
from sava_assets.cli.runner import study as run_study
from sava_assets.freshness.snapshots import snapshots
from sava_assets.freshness.survey import Survey
from sava_assets.home.resources import Workspace
from sava_ops import BadInput
from tests.pictures import png, scan
from tests.sava_assets.assets.test_decisions import hashes_of, said, write
from tests.sava_assets.assets.test_report import sava
from tests.sava_assets.homes import NAMES, copy_of, materialize, pictures, write_set

pytestmark = pytest.mark.long
QUIET = Console(quiet=True)
LEAKED = {
    "second/east/000-copy.png": "also in the reference set (reference/north/001.png)",
    "second/west/late.png": "also in the test set (test/3)",
}
"""The first by name, so that every other image of the shard lies at another place than without it."""


def leak(workspace: Workspace) -> None:
    folder = Path(workspace.home) / "landing" / "second"
    (folder / "east" / "000-copy.png").write_bytes(png(scan(1, 2_001)))
    (folder / "west" / "late.png").write_bytes(png(scan(3, 3_003)))


def worked(tmp_path: Path) -> set[str]:
    log = tmp_path / "work.log"
    lines = log.read_text().split() if log.exists() else []
    log.unlink(missing_ok=True)
    return set(lines)


@pytest.fixture
def plain(curated, tmp_path, monkeypatch) -> Workspace:
    monkeypatch.setenv("SAVA_WORK_LOG", str(tmp_path / "work.log"))
    return copy_of(curated[0], tmp_path / "home")


@pytest.fixture(scope="module")
def leaked(curated, tmp_path_factory) -> Workspace:
    """Curated again after two such images arrived. Look at it; change only a copy."""
    workspace = copy_of(curated[0], tmp_path_factory.mktemp("leaked") / "home")
    leak(workspace)
    curate(workspace, QUIET)
    return workspace


def points_of(workspace: Workspace) -> dict[str, dict]:
    table = workspace.store.require("pruned_dataset").table("points.parquet")
    return {row["id"]: row for row in table.to_pylist()}


def test_it_influences_nothing_and_is_in_the_table_with_its_reason(curated, leaked):
    before, after = points_of(Workspace(home=str(curated[0]))), points_of(leaked)
    assert {name: row["reason"] for name, row in after.items() if row["action"] == "set_aside"} == LEAKED
    assert after.keys() - before.keys() == LEAKED.keys()
    for name in LEAKED:
        row = after.pop(name)
        assert not row["keep"]
        said = ("id", "label", "shard", "reason", "keep", "action")
        assert all(value is None for column, value in row.items() if column not in said)
        assert (row["label"], row["shard"]) == (name.split("/")[1], "second")
    for name, row in after.items():
        for column in ("value", "evidence", "p_value", "clean_probability"):
            assert row[column] == pytest.approx(before[name][column], rel=1e-4, abs=1e-6)
        assert (row["action"], row["batch"]) == (before[name]["action"], before[name]["batch"])
    numbers = leaked.store.require("pruned_dataset").numbers
    assert numbers["set_aside"] == {"second": 2}
    assert numbers["points"] == len(before) == numbers["kept"] + numbers["pruned"]
    assert "set_aside" not in Workspace(home=str(curated[0])).store.require("pruned_dataset").numbers
    sizes = leaked.store.require("batches", "second").numbers
    assert (sum(sizes["sizes"]), sizes["points"], sizes["set_aside"]) == (24, 24, 2)


def test_the_published_table_holds_it_and_the_published_images_do_not(leaked):
    home = Path(leaked.home) / "curated"
    table = pq.read_table(home / "points.parquet").to_pylist()
    assert {row["id"]: row["reason"] for row in table if row["action"] == "set_aside"} == LEAKED
    raw = leaked.store.require("raw_images", "second").table("points.parquet", ["id"])["id"].to_pylist()
    assert [row["id"] for row in table if row["shard"] == "second"] == raw
    kept = {row["id"] for row in table if row["keep"]}
    images = list((home / "images").rglob("*.parquet"))
    assert sum(pq.read_metadata(file).num_rows for file in images) == len(kept)
    assert not kept & LEAKED.keys()


def test_status_console_page_and_history_say_how_many_and_of_which_shard(leaked, tmp_path):
    code, told = sava("status", "--home", leaked.home)
    assert code == 0
    assert "2 training images are set aside, being in the reference or test set too: 2 of second" in told
    total = 40 + 24 + 2 + 48 + 12
    assert f"{total} files and rows: {total - 2} used + 2 set aside + 0 quarantined + 0 passed over" in told
    assert "also in the test set (test/3)" not in told
    copy = copy_of(Path(leaked.home), tmp_path / "home")
    code, told = sava("curate", "--home", copy.home)
    assert code == 0
    for name, reason in LEAKED.items():
        assert f"{name}: {reason}" in told
    page = (Path(leaked.home) / "report.html").read_text()
    assert '"set_aside":{"second":2}' in page
    assert json.loads(leaked.store.require("curation_report").read("summary.json"))["numbers"]["set_aside"]
    assert not any(name in page for name in LEAKED)
    last = snapshots(leaked.store)[-1]
    assert (last.numbers["points"], last.changes["new"], last.changes["gone"]) == (64, 0, 0)
    assert np.isfinite([last.numbers[f"value_q{q:g}"] for q in (0.1, 0.5, 0.9, 0.99)]).all()


def test_all_is_fresh_afterwards(leaked):
    assert {
        state.title for state in Survey(leaked, ["first", "second"]).all() if state.status not in ("fresh", "held")
    } == set()


def test_another_test_set_sets_aside_without_reading_an_image_of_a_shard_again(plain, tmp_path):
    """And what it lets go comes back."""
    before = points_of(plain)
    table = Path(plain.home) / "test" / "clean.parquet"
    old = table.read_bytes()
    write_set(table, pictures(13, first=988))  # the last one is the first of the second shard
    survey = Survey(plain, ["first", "second"])
    assert survey.state("batches", "second").reason == "waits for test_images"
    curate(plain, QUIET)
    done = worked(tmp_path)
    assert "batches[second]" in done
    assert not done & {"raw_images[first]", "raw_images[second]", "embeddings[first]", "embeddings[second]"}
    assert not done & {"batches[first]", "label_distances", "batch_row[first]", "encoder", "reference_embeddings"}
    aside = [row for row in points_of(plain).values() if row["action"] == "set_aside"]
    assert [row["reason"] for row in aside] == ["also in the test set (test/12)"]
    assert snapshots(plain.store)[-1].changes["gone"] == 1
    table.write_bytes(old)

    with dg.DagsterInstance.ephemeral() as instance:
        materialize(plain, instance, "test_images")
    assert Survey(plain, ["first", "second"]).state("batches", "second").reason == "set_aside changed"
    curate(plain, QUIET)
    assert points_of(plain) == before


def test_a_shard_of_nothing_else_does_not_stop_the_others_and_a_pool_of_nothing_else_is_refused(plain):
    landing = Path(plain.home) / "landing"
    write_set(landing / "first.parquet", pictures(20, first=2_000))
    curate(plain, QUIET)
    points = points_of(plain)
    assert {row["action"] for row in points.values() if row["shard"] == "first"} == {"set_aside"}
    assert plain.store.require("pruned_dataset").numbers["set_aside"] == {"first": 20}
    assert plain.store.require("pruned_dataset").numbers["points"] == 24
    for file in (landing / "second").rglob("*.png"):
        file.unlink()
    for k in range(24):
        (landing / "second" / NAMES[k % 4] / f"{k:03}.png").write_bytes(png(scan(k % 4, 2_000 + k)))
    with pytest.raises(BadInput, match="every training image is also in the reference or test set: put other images"):
        curate(plain, QUIET)


def test_a_persons_decision_does_not_bring_it_into_the_training_data(leaked, tmp_path):
    workspace = copy_of(Path(leaked.home), tmp_path / "home")
    hashes = hashes_of(workspace)
    write(
        workspace,
        [said(hashes["second/east/000-copy.png"], "keep"), said(hashes["second/west/late.png"], "relabel", "east")],
    )
    curate(workspace, QUIET)
    points, numbers = points_of(workspace), workspace.store.require("pruned_dataset").numbers
    assert {points[name]["action"] for name in LEAKED} == {"set_aside"}
    assert (numbers["decided_by_people"], numbers["decisions_not_in_pool"]) == (0, 2)


def test_no_classifier_is_trained_on_it(leaked):
    points = leaked.store.require("pruned_dataset").table("points.parquet")
    out = {row for row, name in enumerate(points["id"].to_pylist()) if name in LEAKED}
    sets = _training_sets(points, NAMES)
    assert not any(out & set(made.rows.tolist()) for made in sets.values())
    weights = sets["reweighted"].weights
    assert weights is not None
    assert len(sets["all"].rows) == len(weights) == len(points) - 2
    assert len(sets["random"].rows) == len(sets["pruned"].rows)
    assert np.isfinite(weights.numpy()).all()


@pytest.mark.parametrize("command", [curate, run_study])
def test_refused_where_that_is_asked(leaked, tmp_path, command):
    workspace = copy_of(Path(leaked.home), tmp_path / "home")
    file = workspace.root / "sava.yaml"
    text = file.read_text()
    file.write_text(text + "overlap: refuse\n")
    assert Survey(workspace, ["first", "second"]).state("batches", "second").reason == "set_aside changed"
    message = (
        r"second shares 1 image with the reference set \(first: second/east/000-copy.png is reference/north/001.png\)"
    )
    with pytest.raises(BadInput, match=message):
        command(workspace, QUIET)
    file.write_text(text + "overlap: ignore\n")
    with pytest.raises(BadInput, match="`overlap` is 'ignore': input should be 'set_aside' or 'refuse'"):
        command(workspace, QUIET)
