"""Copies inside the pool: named, evidence where their labels differ, and one left where that is asked."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest
from rich.console import Console

from sava_assets.cli.runner import curate
from sava_assets.freshness.copies import COUNTS, in_words
from sava_assets.freshness.survey import Survey
from sava_assets.home.resources import Workspace
from tests.pictures import png, scan
from tests.sava_assets.assets.test_decisions import hashes_of, points_of, said, write
from tests.sava_assets.assets.test_report import sava
from tests.sava_assets.homes import copy_of, untrained_checkpoint, write_home

pytestmark = pytest.mark.long
QUIET = Console(quiet=True)
TWO_LABELS = {"second/east/x.png": "east", "second/west/y.png": "west"}
ONE_LABEL = {"second/north/p.png", "second/north/q.png", "second/north/r.png"}
CHANGED = {"copies", "copy_labels"}


def copied(workspace: Workspace) -> None:
    """An image under two labels, and one three times under its own."""
    folder = Path(workspace.home) / "landing" / "second"
    for name in TWO_LABELS:
        (folder / name.removeprefix("second/")).write_bytes(png(scan(0, 5_000)))
    for name in ONE_LABEL:
        (folder / name.removeprefix("second/")).write_bytes(png(scan(1, 5_001)))


def with_setting(workspace: Workspace, old: str, new: str) -> None:
    file = workspace.root / "sava.yaml"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Workspace:
    """Look at it; change only a copy."""
    home = tmp_path_factory.mktemp("copies") / "home"
    settings = untrained_checkpoint(home)
    # The least cut, so that most copies are kept by the evidence.
    write_home(home, settings | {"prune": {"fraction": 0.02}, "test": None})
    workspace = Workspace(home=str(home))
    copied(workspace)
    curate(workspace, QUIET)
    return workspace


def test_copies_are_counted_and_their_labels_named(made):
    points = points_of(made)
    assert {name: row["copies"] for name, row in points.items() if row["copies"] != 1} == (
        dict.fromkeys(TWO_LABELS, 2) | dict.fromkeys(ONE_LABEL, 3)
    )
    assert {name: row["copy_labels"] for name, row in points.items() if row["copy_labels"]} == (
        {name: ["east", "west"] for name in TWO_LABELS}
    )
    numbers = made.store.require("pruned_dataset").numbers
    counts = {name: numbers[name] for name in numbers if name.startswith("cop")}
    assert counts == {
        "copied_images": 5, "copied_pictures": 2, "copies_under_two_labels": 2, "copies_left_out": 0
    }  # fmt: skip
    listed = made.store.require("pruned_dataset").pictures["copies"]
    assert listed.startswith("- 3 images: second/north/p\\.png \\(north\\), ")
    assert "2 images: second/east/x\\.png \\(east\\), second/west/y\\.png \\(west\\)" in listed


def test_an_image_under_two_labels_is_to_be_reviewed_under_either(made):
    points = points_of(made)
    for name, label in TWO_LABELS.items():
        (other,) = TWO_LABELS.keys() - {name}
        row = points[name]
        assert f"the same image is also labelled {TWO_LABELS[other]} ({other})" in row["reason"]
        assert row["action"] != "keep"
        assert (row["action"] == "review") <= row["keep"]
        assert row["label"] == label
    assert "review" in {points[name]["action"] for name in TWO_LABELS}
    assert not any("same image" in points[name]["reason"] for name in ONE_LABEL)


def test_copies_are_no_part_of_the_sample_that_measures_false_discoveries(made):
    shown = made.store.require("curation_report").table("shown.parquet").to_pylist()
    threshold = made.store.require("pruned_dataset").numbers["threshold"]
    kept_by_evidence = [row for row in shown if row["evidence"] < threshold]
    assert {row["id"] for row in kept_by_evidence} <= TWO_LABELS.keys()
    assert kept_by_evidence
    assert not any(row["sample"] for row in kept_by_evidence)
    assert all(row["sample"] for row in shown if row["evidence"] >= threshold)


@pytest.mark.parametrize(
    ("pictures", "told"),
    [
        (
            1,
            [
                "copies: 3 images of the pool show 1 picture",
                "near copies: 3 images of the pool look nearly alike, in 1 group",
            ],
        ),
        (
            2,
            [
                "copies: 3 images of the pool show 2 pictures",
                "near copies: 3 images of the pool look nearly alike, in 2 groups",
            ],
        ),
    ],
)
def test_one_is_one_and_two_are_several(pictures, told):
    counts = dict(zip(COUNTS, (3, pictures, 0, 0), strict=True))
    assert in_words(counts | {f"near_{name}": count for name, count in counts.items()}, {"threshold_bits": 4}) == told


def test_status_says_how_many_there_are(made):
    code, told = sava("status", "--home", made.home)
    assert code == 0
    assert (
        "copies: 5 images of the pool show 2 pictures; 2 of them are also there under another label, and to be reviewed"
    ) in told
    assert {
        state.title for state in Survey(made, ["first", "second"]).all() if state.status not in ("fresh", "held")
    } == set()


def test_one_of_each_is_kept_where_that_is_asked_and_a_person_brings_all_back(made, tmp_path):
    workspace = copy_of(Path(made.home), tmp_path / "home")
    with_setting(workspace, "prune:", "prune:\n  copies: one")
    assert Survey(workspace, ["first", "second"]).state("pruned_dataset").reason == "copies changed"
    before = points_of(workspace)
    curate(workspace, QUIET)
    points = points_of(workspace)
    kept = {name for name in ONE_LABEL if points[name]["keep"]}
    assert len(kept) == 1
    (best,) = kept
    assert before[best]["evidence"] == min(before[name]["evidence"] for name in ONE_LABEL)
    for name in ONE_LABEL - kept:
        assert (points[name]["action"], points[name]["curated_label"]) == ("drop", None)
        assert points[name]["reason"].endswith(f"the same image as {best}, which stands for it")
    assert sum(points[name]["keep"] for name in TWO_LABELS) <= 1
    alone = before.keys() - TWO_LABELS.keys() - ONE_LABEL
    assert all(points[name] == before[name] for name in alone)
    published = pq.read_table(Path(workspace.home) / "curated" / "points.parquet").to_pylist()
    assert {row["id"] for row in published if row["keep"]} == {name for name in points if points[name]["keep"]}
    code, told = sava("status", "--home", workspace.home)
    assert code == 0
    assert "are left out, as another one stands for them" in told
    write(workspace, [said(hashes_of(workspace)["second/north/p.png"], "keep")])
    curate(workspace, QUIET)
    assert all(points_of(workspace)[name]["keep"] for name in ONE_LABEL)


def test_without_copies_nothing_is_said_of_them_and_nothing_depends_on_the_setting(curated, tmp_path):
    workspace = copy_of(curated[0], tmp_path / "home")
    result = workspace.store.require("pruned_dataset")
    assert "copies" not in {*result.table("points.parquet").column_names, *result.numbers, *result.inputs}
    with_setting(workspace, "prune:", "prune:\n  copies: one")
    assert Survey(workspace, ["first", "second"]).state("pruned_dataset").status == "fresh"
    assert "copies:" not in sava("status", "--home", workspace.home)[1].replace("near copies:", "")
