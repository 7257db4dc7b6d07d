"""Near copies in the pool: found by shard, named, evidence where their labels differ, one left where it is asked."""

from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from rich.console import Console

from sava_assets.assets import near_copies as module
from sava_assets.cli.runner import curate
from sava_assets.formats.demo_sets import Labelled, write_set
from sava_assets.freshness.copies import NOT_TOLD
from sava_assets.freshness.history import collect_garbage
from sava_assets.freshness.near import candidate_threshold, threshold
from sava_assets.freshness.survey import Survey
from sava_assets.home.resources import Workspace
from sava_assets.home.store import NEAR_PAIRS
from tests.pictures import encoded, noise, png
from tests.sava_assets.assets.test_copies import with_setting
from tests.sava_assets.assets.test_decisions import points_of
from tests.sava_assets.assets.test_report import sava
from tests.sava_assets.homes import NAMES, copy_of, untrained_checkpoint

pytestmark = pytest.mark.long
QUIET = Console(quiet=True)
SHARDS = ["first", "second"]


def photograph(seed: int) -> Image.Image:
    """Soft shapes: other ones for every seed."""
    return Image.fromarray(noise(8, 8, seed=seed)).resize((48, 40), Image.Resampling.BICUBIC)


def album(count: int, *, first: int) -> Labelled:
    labels = np.arange(count) % 4
    return Labelled([encoded(photograph(first + k)) for k in range(count)], labels, NAMES)


def plus(album: Labelled, images: dict[bytes, str]) -> Labelled:
    labels = [*album.labels, *(NAMES.index(label) for label in images.values())]
    return Labelled([*album.images, *images], np.array(labels), NAMES)


COPIES = {
    "smaller": png(np.asarray(photograph(1_000).resize((36, 30)))),
    "squeezed": encoded(photograph(1_001), "jpeg", quality=60),
    "mirrored": png(np.asarray(photograph(1_001))[:, ::-1]),
}
"""Of images 0 ("east") and 1 ("north") of the first shard."""


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Workspace:
    """Look at it; change only a copy."""
    home = tmp_path_factory.mktemp("near") / "home"
    settings = untrained_checkpoint(home) | {"prune": {"fraction": 0.02}, "test": None}
    write_set(home / "landing" / "first.parquet", album(24, first=1_000))
    second = {COPIES["smaller"]: "east", COPIES["squeezed"]: "north", COPIES["mirrored"]: "west"}
    second[encoded(photograph(3_002), "jpeg", quality=70)] = "south"
    write_set(home / "landing" / "second.parquet", plus(album(16, first=2_000), second))
    write_set(home / "reference" / "clean.parquet", album(60, first=3_000))
    (home / "sava.yaml").write_text(yaml.safe_dump(settings))
    workspace = Workspace(home=str(home))
    curate(workspace, QUIET)
    return workspace


GROUPS = [{"first/0", "second/16"}, {"first/1", "second/17", "second/18"}]


def test_the_planted_ones_are_found_and_no_others(made):
    result = made.store.require("near_copies")
    table = result.table("near.parquet").to_pylist()
    assert [{row["id"] for row in table if row["group"] == number} for number in (0, 1)] == GROUPS
    assert len(table) == 5
    numbers = result.numbers
    assert (numbers["hashed"], numbers["near_images"], numbers["near_groups"]) == (44, 5, 2)
    assert 10 < numbers["threshold_bits"] <= 32


def test_the_table_of_decisions_names_them_and_their_representative(made):
    points = points_of(made)
    sizes = {name: len(group) for group in GROUPS for name in group}
    assert {name: row["near_copies"] for name, row in points.items() if (row["near_copies"] or 1) > 1} == sizes
    assert "copies" not in points["first/0"]
    for group in GROUPS:
        (best,) = {points[name]["near_copy_of"] for name in group}
        kept = [name for name in group if points[name]["curated_label"]]
        assert points[best]["evidence"] == min(points[name]["evidence"] for name in kept)
    assert {row["near_copy_of"] for name, row in points.items() if name not in sizes} == {None}
    for name in GROUPS[1]:
        assert points[name]["near_copy_labels"] == ["north", "west"]
        assert points[name]["action"] != "keep"
        assert "nearly the same image is also labelled " in points[name]["reason"]
    assert all(points[name]["near_copy_labels"] is None for name in GROUPS[0])
    numbers = made.store.require("pruned_dataset").numbers
    counts = {name: numbers[name] for name in numbers if "copie" in name}
    assert counts == {
        "near_copied_images": 5, "near_copied_pictures": 2, "near_copies_under_two_labels": 3, "near_copies_left_out": 0
    }  # fmt: skip


def test_a_near_image_of_the_reference_set_is_set_aside_and_counted(made):
    row = points_of(made)["second/19"]
    reason = "nearly the same as an image of the reference set (reference/2)"
    assert (row["action"], row["keep"], row["value"], row["reason"]) == ("set_aside", False, None, reason)
    assert made.store.require("pruned_dataset").numbers["set_aside"] == {"second": 1}
    said = "1 training image is set aside, being in the reference or test set too (1 of them nearly): 1 of second"
    assert said in sava("status", "--home", made.home)[1]


def test_status_and_page_say_how_many_and_all_is_fresh(made):
    code, told = sava("status", "--home", made.home)
    assert code == 0
    assert NOT_TOLD not in told
    assert "near copies: 5 images of the pool look nearly alike, in 2 groups; 3 of them are also there under" in told
    assert '"near_copied_images":5' in (Path(made.home) / "report.html").read_text()
    assert {s.title for s in Survey(made, SHARDS).all() if s.status not in ("fresh", "held")} == set()


def test_one_of_each_is_kept_where_that_is_asked(made, tmp_path):
    workspace = copy_of(Path(made.home), tmp_path / "home")
    before = points_of(workspace)
    with_setting(workspace, "prune:", "prune:\n  copies: one_of_near")
    assert Survey(workspace, SHARDS).state("pruned_dataset").reason == "copies changed"
    curate(workspace, QUIET)
    points = points_of(workspace)
    for group in GROUPS:
        kept = {name for name in group if before[name]["keep"]}
        assert kept
        (left,) = {name for name in group if points[name]["keep"]}
        assert left == points[left]["near_copy_of"]
        for name in kept - {left}:
            assert points[name]["reason"].endswith(f"nearly the same image as {left}, which stands for it")
    alone = before.keys() - GROUPS[0] - GROUPS[1]
    assert all(points[name] == before[name] for name in alone)
    with_setting(workspace, "copies: one_of_near", "copies: one")
    curate(workspace, QUIET)
    assert points_of(workspace) == before


def test_a_new_shard_costs_its_own_pairs_only_and_what_is_gone_is_compared_again(made, tmp_path, monkeypatch):
    workspace = copy_of(Path(made.home), tmp_path / "home")
    monkeypatch.setenv("SAVA_WORK_LOG", str(tmp_path / "work.log"))
    third = plus(album(8, first=4_000), {encoded(photograph(4_003), "jpeg", quality=70): "west"})
    write_set(Path(workspace.home) / "landing" / "between.parquet", third)
    curate(workspace, QUIET)
    log = tmp_path / "work.log"
    done = [line for line in log.read_text().splitlines() if line.startswith("near_pairs")]
    assert done == ["near_pairs[between,between]", "near_pairs[between,first]", "near_pairs[between,second]"]
    result = workspace.store.require("near_copies")
    assert len(result.parts) == 6
    assert {row["id"] for row in result.table("near.parquet").to_pylist()} == {"between/3", "between/8"} | {
        name for group in GROUPS for name in group
    }
    collect_garbage(workspace, ["between", *SHARDS], grace=0)
    assert {s.status for s in Survey(workspace, ["between", *SHARDS]).of("near_copies")} == {"fresh"}
    lost = workspace.store.find(NEAR_PAIRS, result.parts[2][1])
    assert lost
    workspace.store.forget(lost)
    assert "is missing" in Survey(workspace, ["between", *SHARDS]).state("near_copies").reason
    log.unlink()
    curate(workspace, QUIET)
    assert log.read_text().splitlines() == ["near_pairs[between,second]", "near_copies"]
    log.unlink()
    (Path(workspace.home) / "landing" / "between.parquet").unlink()
    write_set(Path(workspace.home) / "reference" / "more.parquet", album(4, first=5_000))
    curate(workspace, QUIET)
    done = log.read_text().splitlines()
    assert (done.count("near_copies"), done.count("pruned_dataset")) == (1, 1)
    assert not [line for line in done if line.startswith("near_pairs")]
    assert workspace.store.require("near_copies").table("near.parquet")["id"].to_pylist() == sorted(
        set().union(*GROUPS)
    )


def test_how_far_apart_candidates_are_is_said_by_the_reference_set_and_how_many_are_near_by_the_pool_too(
    made, tmp_path, monkeypatch
):
    workspace = copy_of(Path(made.home), tmp_path / "home")
    store, reference = workspace.store, workspace.store.require("reference_images")
    bits = [threshold(store, reference, among=among) for among in (1, 40, 400, 4_000)]
    assert bits == sorted(bits, reverse=True)
    assert bits[0] == candidate_threshold(store, reference) > bits[-1]
    before = store.require("near_copies")
    # What is near in a pool of this size follows from the pairs that are stored, whatever it is.
    monkeypatch.setattr(module, "threshold", lambda *_, **__: 0)
    store.forget(before)
    monkeypatch.setenv("SAVA_WORK_LOG", str(tmp_path / "work.log"))
    curate(workspace, QUIET)
    assert (tmp_path / "work.log").read_text().splitlines()[0] == "near_copies"
    after = store.require("near_copies")
    assert (after.parts, after.numbers["threshold_bits"]) == (before.parts, 0)
    # The mirrored one is no bit away from the one it was made of.
    assert after.numbers["near_images"] < before.numbers["near_images"]


def test_where_no_near_copy_can_be_told_none_is_marked_and_that_is_said(curated, tmp_path):
    workspace = copy_of(curated[0], tmp_path / "home")
    pruned = workspace.store.require("pruned_dataset")
    assert not [name for name in (*pruned.numbers, *pruned.inputs) if "near" in name]
    assert "near_copies" not in pruned.table("points.parquet").column_names
    near = workspace.store.require("near_copies")
    # Its images have 8 × 8 pixels.
    assert (near.numbers["hashed"], near.numbers["not_hashed"]) == (0, 64)
    assert (near.numbers["near_images"], near.numbers["threshold_bits"], near.parts) == (0, -1, ())
    with_setting(workspace, "prune:", "prune:\n  copies: one_of_near")
    assert Survey(workspace, SHARDS).state("pruned_dataset").status == "fresh"
    assert sava("status", "--home", workspace.home)[1].count(NOT_TOLD) == 1
