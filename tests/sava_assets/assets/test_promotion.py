"""Confirmed images join the reference set and leave the pool; what people said of them is published."""

import json

import pytest
import yaml
from rich.console import Console

from sava_assets.cli.runner import curate
from sava_assets.freshness.rules import RULES
from sava_assets.freshness.survey import Survey
from sava_assets.home.resources import Workspace
from sava_ops.decisions.audit import is_audited
from tests.sava_assets.homes import copy_of

pytestmark = pytest.mark.long
QUIET = Console(quiet=True)


def keys(workspace: Workspace) -> dict[str, str]:
    return {
        f"{asset}[{shard}]": workspace.store.require(asset, shard).key
        for asset, rule in RULES.items()
        for shard in (("first", "second") if rule.sharded else (None,))
        if asset != "classifier_accuracy"
    }


def points(workspace: Workspace, asset: str, shard: str | None = None) -> dict[str, dict]:
    rows = workspace.store.require(asset, shard).table("points.parquet").to_pylist()
    return {row["id"]: row for row in rows}


def said(workspace: Workspace, decisions: dict[str, tuple[str, str | None]]) -> None:
    """By image: a word and a label."""
    images = points(workspace, "raw_images", "first") | points(workspace, "raw_images", "second")
    rows = [
        {"pixel_hash": images[name]["pixel_hash"], "decision": word, "label": label, "who": "ann", "when": "2026-01-01"}
        for name, (word, label) in decisions.items()
    ]
    (workspace.root / "decisions").mkdir(exist_ok=True)
    (workspace.root / "decisions" / "mine.json").write_text(json.dumps(rows))


def asked(workspace: Workspace, *, promote: bool) -> None:
    file = workspace.root / "sava.yaml"
    file.write_text(yaml.safe_dump(yaml.safe_load(file.read_text()) | {"review": {"promote": promote}}))


@pytest.fixture(scope="module")
def homes(curated, tmp_path_factory) -> dict:
    """A home with decisions, and the same when these may judge: tables and keys of both, and what was due."""
    workspace = copy_of(curated[0], tmp_path_factory.mktemp("promoted") / "home")
    rows = points(workspace, "pruned_dataset")
    images = points(workspace, "raw_images", "first") | points(workspace, "raw_images", "second")
    lots = {name: is_audited(row["pixel_hash"], seed=0) for name, row in images.items()}
    cut = sorted(name for name, row in rows.items() if row["action"] != "keep")
    flagged, audited = [name for name in cut if not lots[name]], next(name for name in cut if lots[name])
    other = {"east": "west", "west": "east", "north": "south", "south": "north"}
    kept, relabelled, dropped = flagged[0], flagged[1], flagged[2]
    new = other[rows[relabelled]["label"]]
    say = {kept: ("keep", None), relabelled: ("relabel", new), dropped: ("drop", None), audited: ("keep", None)}
    said(workspace, say)
    curate(workspace, QUIET)
    before = keys(workspace)
    asked(workspace, promote=True)
    due = {state.title: state.reason for state in Survey.landed(workspace).all() if state.status == "due"}
    curate(workspace, QUIET)
    found = {
        "audited": audited,
        "lots": lots,
        "workspace": workspace,
        "kept": kept,
        "relabelled": relabelled,
        "dropped": dropped,
        "new": new,
    }
    return found | {"rows": rows, "before": before, "due": due, "after": keys(workspace)}


def test_why_the_reference_is_due_is_said_and_nothing_else_is(homes):
    assert homes["due"] == {"reference_images": "promoted_images changed"}


def test_the_reference_has_exactly_the_confirmed_images_more(homes):
    workspace, kept, relabelled = homes["workspace"], homes["kept"], homes["relabelled"]
    reference = points(workspace, "reference_images")
    joined = {name: row for name, row in reference.items() if row["role"] == "promoted"}
    assert {name: row["label"] for name, row in joined.items()} == {
        f"promoted/{kept}": homes["rows"][kept]["label"],
        f"promoted/{relabelled}": homes["new"],
    }
    assert (len(reference), workspace.store.require("reference_images").numbers["promoted"]) == (50, 2)
    assert workspace.store.require("reference_embeddings").numbers["points"] == 26
    assert list(points(workspace, "reference_embeddings"))[-2:] == list(joined)
    # No image is embedded by another encoder because of them.
    unchanged = ("encoder[None]", "raw_images[first]", "embeddings[first]", "embeddings[second]", "test_images[None]")
    assert {name: homes["after"][name] for name in unchanged} == {name: homes["before"][name] for name in unchanged}
    assert homes["after"]["batch_ot[None]"] != homes["before"]["batch_ot[None]"]


def test_who_judges_is_not_judged_and_is_published_as_the_person_said(homes):
    workspace, kept, relabelled = homes["workspace"], homes["kept"], homes["relabelled"]
    rows = points(workspace, "pruned_dataset")
    assert rows.keys() == homes["rows"].keys()
    assert not {kept, relabelled} & points(workspace, "point_values").keys()
    said = {
        name: [rows[name][column] for column in ("action", "keep", "curated_label", "decided_by", "p_value")]
        for name in (kept, relabelled)
    }
    assert said == {
        kept: ["promoted", True, rows[kept]["label"], "ann", None],
        relabelled: ["promoted", False, homes["new"], "ann", None],
    }
    assert (rows[homes["dropped"]]["action"], rows[homes["dropped"]]["curated_label"]) == ("drop", None)
    numbers = workspace.store.require("pruned_dataset").numbers
    assert (numbers["promoted"], numbers["points"], numbers["decisions_not_in_pool"]) == (2, 62, 0)
    assert "set_aside" not in numbers
    published = points(workspace, "pruned_dataset")
    assert published[relabelled]["clean_probability"] == 0
    assert published[kept]["clean_probability"] == 1


def test_the_sample_is_of_those_that_are_never_promoted(homes):
    workspace, lots = homes["workspace"], homes["lots"]
    report = workspace.store.require("curation_report")
    sample = [row["id"] for row in report.table("shown.parquet").to_pylist() if row["sample"]]
    assert sample
    assert all(lots[name] for name in sample)
    rows = points(workspace, "pruned_dataset")
    assert (rows[homes["audited"]]["action"], rows[homes["audited"]]["decided_by"]) == ("keep", "ann")
    numbers = report.numbers
    assert (numbers["sample_decided"], numbers["sample_clean"]) == (homes["audited"] in sample,) * 2


def test_p_values_are_of_the_given_reference_alone(homes):
    store = homes["workspace"].store
    (row, *_) = store.require("batch_ot").table("rows.parquet")["row"].to_pylist()
    assert int(store.find("batch_rows", row).tensors("tensors.safetensors")["reference_points"]) == 24


def test_where_all_that_was_decided_is_promoted_the_table_and_the_page_are_whole(homes, tmp_path):
    workspace = copy_of(homes["workspace"].root, tmp_path / "home")
    said(workspace, {homes["kept"]: ("keep", None)})
    curate(workspace, QUIET)
    rows = points(workspace, "pruned_dataset")
    assert [name for name, row in rows.items() if row["decided_by"]] == [homes["kept"]]
    assert (rows[homes["kept"]]["action"], rows[homes["kept"]]["algorithm_action"]) == ("promoted", None)
    assert rows[homes["relabelled"]]["algorithm_action"] == rows[homes["relabelled"]]["action"]
    assert homes["kept"] not in workspace.store.require("curation_report").table("shown.parquet")["id"].to_pylist()


def test_turned_off_everything_is_as_it_was(homes, tmp_path):
    workspace = copy_of(homes["workspace"].root, tmp_path / "home")
    asked(workspace, promote=False)
    curate(workspace, QUIET)
    assert keys(workspace) == homes["before"]
