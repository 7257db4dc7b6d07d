"""Decisions of people in the chain: they hold, they are counted, and only what depends on them runs."""

import csv
import json
from pathlib import Path

import dagster as dg
import pytest
from rich.console import Console
from typer.testing import CliRunner

from sava_assets.assets.decisions import DECISIONS, observed_decisions
from sava_assets.cli.commands import app
from sava_assets.cli.runner import curate
from sava_assets.home.resources import Workspace
from sava_ops import BadInput
from tests.sava_assets.homes import copy_of

pytestmark = pytest.mark.long
QUIET = Console(quiet=True)
BY_PERSON = {"decided_by", "decision_note", "algorithm_action", "algorithm_label"}


@pytest.fixture
def workspace(curated, tmp_path, monkeypatch) -> Workspace:
    monkeypatch.setenv("SAVA_WORK_LOG", str(tmp_path / "work.log"))
    return copy_of(curated[0], tmp_path / "home")


def points_of(workspace: Workspace) -> dict[str, dict]:
    table = workspace.store.require("pruned_dataset").table("points.parquet")
    return {row["id"]: row for row in table.to_pylist()}


def hashes_of(workspace: Workspace) -> dict[str, str]:
    tables = [workspace.store.require("raw_images", shard).table("points.parquet") for shard in ("first", "second")]
    return {row["id"]: row["pixel_hash"] for table in tables for row in table.to_pylist()}


def write(workspace: Workspace, rows: list[dict], name: str = "decided.json") -> None:
    folder = Path(workspace.home) / "decisions"
    folder.mkdir(exist_ok=True)
    if name.endswith(".csv"):
        with (folder / name).open("w", newline="") as stream:
            writer = csv.DictWriter(stream, ["pixel_hash", "decision", "label", "who", "when", "note"])
            writer.writeheader()
            writer.writerows(rows)
    else:
        (folder / name).write_text(json.dumps(rows))


def said(pixel_hash: str, decision: str, label: str = "", *, hour: int = 1, who: str = "ann", note: str = "") -> dict:
    when = f"2026-01-31T{hour:02}:00:00Z"
    return {
        "pixel_hash": pixel_hash, "decision": decision, "label": label, "who": who, "when": when, "note": note
    }  # fmt: skip


def other_label(row: dict) -> str:
    return next(name for name in ("east", "west", "south") if name not in (row["label"], row["suggested_label"]))


def test_a_person_is_obeyed_and_the_table_says_so(workspace, tmp_path):
    before, hashes = points_of(workspace), hashes_of(workspace)
    cut = [name for name, row in before.items() if not row["keep"]]
    kept = next(name for name, row in before.items() if row["keep"])
    other = other_label(before[cut[1]])
    write(
        workspace,
        [
            said(hashes[cut[0]], "keep", note="the label is right"),
            said(hashes[cut[1]], "relabel", other, who="bob"),
            said(hashes[kept], "drop"),
            said("0" * 64, "drop"),
            said("1" * 64, "keep"),
        ],
        "decided.csv",
    )
    curate(workspace, QUIET)
    after, numbers = points_of(workspace), workspace.store.require("pruned_dataset").numbers
    assert (after[cut[0]]["keep"], after[cut[0]]["curated_label"]) == (True, before[cut[0]]["label"])
    assert (after[cut[1]]["action"], after[cut[1]]["curated_label"]) == ("relabel", other)
    assert (after[kept]["keep"], after[kept]["action"], after[kept]["curated_label"]) == (False, "drop", None)
    assert [after[name]["decided_by"] for name in (cut[0], cut[1], kept, cut[2])] == ["ann", "bob", "ann", None]
    assert after[cut[0]]["decision_note"] == "the label is right"
    # What the algorithm alone would have said is kept, and of all other images nothing has changed.
    for name, row in after.items():
        assert (row["algorithm_action"], row["algorithm_label"]) == (
            before[name]["action"],
            before[name]["curated_label"],
        )
        if name not in (cut[0], cut[1], kept):
            assert {k: v for k, v in row.items() if k not in BY_PERSON} == before[name]
    assert numbers["kept"] == 48
    assert {name: numbers[name] for name in numbers if "decided" in name or "people" in name or "decision" in name} == {
        "decided_by_people": 3, "changed_by_people": 3, "decisions_not_in_pool": 2,
    }  # fmt: skip
    work = (tmp_path / "work.log").read_text().split()
    assert sorted(work) == ["curated_dataset", "curation_report", "probe_accuracy", "pruned_dataset"]


def test_contradictions_are_named_and_the_later_one_holds(workspace):
    (name, pixel_hash), *_ = hashes_of(workspace).items()
    write(workspace, [said(pixel_hash, "drop", hour=5)], "a.json")
    write(workspace, [said(pixel_hash, "keep", hour=4, who="bob")], "b.csv")
    told = CliRunner().invoke(app, ["status", "--home", workspace.home]).output
    assert "due      pruned_dataset: decisions content changed" in told
    assert "decisions: on 1 image by ann" in told
    assert "contradictions: 1 image decided in more than one way, the latest holds" in told
    example = "bob: keep (2026-01-31 04:00, b.csv, row 1) gives way to ann: drop (2026-01-31 05:00, a.json, row 1)"
    assert example in told
    curate(workspace, QUIET)
    pruned = workspace.store.require("pruned_dataset")
    assert points_of(workspace)[name]["action"] == "drop"
    assert pruned.numbers["contradictions"] == 1
    assert "bob: keep" in pruned.pictures["contradictions"]
    assert "not in the pool" not in CliRunner().invoke(app, ["status", "--home", workspace.home]).output


def test_decisions_on_images_elsewhere_wait_for_them(workspace):
    (first, pixel_hash), *_ = hashes_of(workspace).items()
    shard, waiting = (workspace.root / "landing" / "first.parquet", workspace.root / "first.parquet")
    shard.rename(waiting)
    write(workspace, [said(pixel_hash, "drop")])
    curate(workspace, QUIET)
    assert workspace.store.require("pruned_dataset").numbers["decisions_not_in_pool"] == 1
    told = CliRunner().invoke(app, ["status", "--home", workspace.home]).output
    assert "decisions: on 1 image by ann; 1 of them were not in the pool of the last curation" in told
    waiting.rename(shard)
    curate(workspace, QUIET)
    assert points_of(workspace)[first]["decided_by"] == "ann"
    assert workspace.store.require("pruned_dataset").numbers["decisions_not_in_pool"] == 0


def test_a_bad_file_is_one_sentence_of_status_and_of_curate(workspace):
    write(workspace, [said("abc", "drop")])
    sentence = "decisions/decided.json, row 1: `pixel_hash` is 'abc': copy the 64 hexadecimal digits of the image"
    told = CliRunner().invoke(app, ["status", "--home", workspace.home])
    assert told.exit_code == 0
    assert f"failed   pruned_dataset: {sentence}" in told.output
    with pytest.raises(BadInput, match="row 1: `pixel_hash` is 'abc'"):
        curate(workspace, QUIET)


def test_a_misspelt_label_is_refused_and_yesterdays_curation_stays(workspace):
    before = points_of(workspace)
    (_, pixel_hash), *_ = hashes_of(workspace).items()
    write(workspace, [said(pixel_hash, "relabel", "Easst")])
    with pytest.raises(BadInput, match=r"decided.json, row 1: no class is called 'Easst' \(there are east, north"):
        curate(workspace, QUIET)
    assert points_of(workspace) == before


def test_an_empty_folder_is_as_none(workspace):
    (workspace.root / "decisions").mkdir()
    curate(workspace, QUIET)
    assert workspace.store.require("pruned_dataset").inputs["sources"] == {}


def test_people_show_in_what_the_classifier_is_trained_on(workspace):
    """A label that a person gave goes before the suggested one."""
    from sava_assets.assets.proof import _training_sets

    before, hashes = points_of(workspace), hashes_of(workspace)
    cut = next(name for name, row in before.items() if not row["keep"])
    write(workspace, [said(hashes[cut], "relabel", label := other_label(before[cut]))])
    curate(workspace, QUIET)
    table = workspace.store.require("pruned_dataset").table("points.parquet")
    classes = ["east", "north", "south", "west"]
    sets = _training_sets(table, classes)["relabelled"]
    place = sets.rows.tolist().index(table["id"].to_pylist().index(cut))
    assert classes[sets.labels[place]] == label


def test_the_folder_is_observed_in_dagster(workspace):
    def version() -> tuple[str, int]:
        with dg.DagsterInstance.ephemeral() as instance:
            job = dg.define_asset_job("look", selection=[DECISIONS.key])
            defs = dg.Definitions([observed_decisions], jobs=[job], resources={"workspace": workspace})
            assert defs.resolve_job_def("look").execute_in_process(instance=instance).success
            (event,) = instance.fetch_observations(DECISIONS.key, limit=5).records
            observation = event.asset_observation
            return observation.tags["dagster/data_version"], observation.metadata["images"].value

    assert version() == ("none", 0)
    write(workspace, [said("0" * 64, "drop")])
    one = version()
    write(workspace, [said("0" * 64, "keep")])
    assert one[1] == 1
    assert version()[0] not in (one[0], "none")
