"""Image quality in the chain: evidence beside the other, a sentence in the reason, counts, and nothing else."""

from dataclasses import replace

import dagster as dg
import numpy as np
import pyarrow as pa
import pytest
import yaml
from rich.console import Console

from sava_assets.assets import quality
from sava_assets.assets.quality import in_words, quality_numbers, with_quality
from sava_assets.cli.runner import curate
from sava_assets.freshness.quality import in_words as counts_in_words
from sava_assets.home.resources import Workspace
from sava_ops.decisions.quality import ODDITIES, QualityEvidence
from sava_ops.errors import BadInput
from tests.pictures import png
from tests.sava_assets.assets.test_decisions import points_of
from tests.sava_assets.assets.test_report import sava
from tests.sava_assets.homes import copy_of, materialize, untrained_checkpoint, write_home

pytestmark = pytest.mark.long
NAMES = [oddity.name for oddity in ODDITIES]
FOUND = QualityEvidence(
    pool=np.array([0.0, 5.0, 5.0, 0.8, 5.0]),
    trusted=np.zeros(3),
    oddity=np.array([0, NAMES.index("blurred"), NAMES.index("dark"), NAMES.index("small"), NAMES.index("wide")]),
    share=np.array([0.3, 0.9985, 1.0, 0.5, 0.0]),
    of_class=np.array([True, True, False, True, False]),
    surprises=(np.zeros((5, 8)), np.zeros((3, 8))),
)
REASONS = ["label disagrees", "unlike anything in the reference set", "", "label disagrees", ""]
FLAT = [f"second/{name}" for name in ("east/000.png", "north/001.png", "south/002.png", "west/003.png")]


def test_the_sentence_says_how_odd_and_beside_which_images():
    assert [in_words(FOUND, row) for row in range(1, 5)] == [
        "blurrier than 99.8 % of the trusted images of its class",
        "darker than all trusted images",
        "with fewer pixels than 50 % of the trusted images of its class",
        "wider than 0 % of the trusted images",
    ]


def test_quality_explains_what_is_foreign_and_stands_beside_other_reasons():
    table = with_quality(pa.table({"id": list("abcde"), "reason": REASONS}), FOUND)
    assert table["reason"].to_pylist() == [
        "label disagrees",
        "blurrier than 99.8 % of the trusted images of its class",
        "darker than all trusted images",
        "label disagrees; with fewer pixels than 50 % of the trusted images of its class",
        "wider than 0 % of the trusted images",
    ]
    assert table["quality_reason"].to_pylist() == [None, "blurred", "dark", "small", "wide"]
    assert table["quality_evidence"].to_pylist() == FOUND.pool.tolist()
    flagged = np.array([True, True, True, False, False])
    assert quality_numbers(table, flagged) == {"quality": {"dark": 1, "blurred": 1}}
    assert quality_numbers(table, flagged & (FOUND.pool == 0)) == {}


def test_what_is_foreign_is_explained_by_what_is_rare_and_by_nothing_less():
    calm = replace(FOUND, pool=np.zeros(5))
    said = with_quality(pa.table({"id": list("abcde"), "reason": REASONS}), calm)
    assert said["reason"].to_pylist() == REASONS
    rare = np.zeros((5, 8))
    rare[1:3] = 4.7
    said = with_quality(pa.table({"id": list("abcde"), "reason": REASONS}), replace(calm, surprises=(rare, rare[:3])))
    assert said["reason"].to_pylist() == [REASONS[0], in_words(FOUND, 1), *REASONS[2:]]
    assert said["quality_reason"].to_pylist() == [None, "blurred", None, None, None]
    assert not any(said["quality_evidence"].to_pylist())


def test_counts_are_said_in_words():
    told = counts_in_words({"quality": {"dark": 1_200, "blurred": 3}})
    assert told == "quality: 1,203 flagged images are odd beside the reference images: 1,200 dark, 3 blurred"
    assert counts_in_words({"points": 7}) == ""


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Workspace:
    """A home of which one shard holds flat images."""
    home = tmp_path_factory.mktemp("quality") / "home"
    settings = untrained_checkpoint(home)
    write_home(home, settings | {"test": None})
    for k, name in enumerate(FLAT):
        (home / "landing" / name).write_bytes(png(np.full((8, 8, 3), 66 + k, dtype=np.uint8)))
    workspace = Workspace(home=str(home))
    curate(workspace, Console(quiet=True))
    return workspace


def test_flat_images_are_flagged_and_the_table_the_page_and_the_status_say_why(made):
    points = points_of(made)
    speaks = {name for name, row in points.items() if row["quality_reason"] is not None}
    assert set(FLAT) <= speaks
    for name in FLAT:
        row = points[name]
        assert row["quality_reason"] == "without information"
        assert "with less information than all trusted images" in row["reason"]
        assert row["quality_evidence"] > 1
        assert row["image_evidence"] >= row["quality_evidence"]
        assert row["action"] != "keep"
    flagged = {name for name in speaks if points[name]["action"] != "keep"}
    assert made.store.require("pruned_dataset").numbers["quality"]["without information"] >= len(FLAT)
    _, status = sava("status", "--home", made.home)
    assert f"quality: {len(flagged)} flagged images are odd beside the reference images: " in status
    assert "with less information than all trusted images" in (made.root / "report.html").read_text()


def test_where_quality_says_nothing_evidence_is_what_it_was(curated):
    """All pictures of this home are made alike."""
    points = points_of(Workspace(home=str(curated[0])))
    assert {row["quality_evidence"] for row in points.values()} == {0.0}
    assert not any(row["quality_reason"] for row in points.values() if row["action"] == "keep")


def refused(workspace: Workspace, *, match: str) -> None:
    """A run of `point_values` alone."""
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("shards", ["first", "second"])
        with pytest.raises(BadInput, match=match):
            materialize(workspace, instance, "point_values")


def test_values_are_not_joined_with_the_quality_of_other_reference_images(curated, tmp_path):
    workspace = copy_of(curated[0], tmp_path / "home")
    workspace.store.forget(workspace.store.require("point_values"))
    file = workspace.root / "sava.yaml"
    settings = yaml.safe_load(file.read_text())
    settings["valuation"]["held_out_sample"] = 5
    file.write_text(yaml.safe_dump(settings))
    refused(workspace, match="batch_ot is of other reference batches or settings: materialize batch_ot first")


def test_images_that_were_read_before_quality_was_measured_are_read_first(curated, tmp_path, monkeypatch):
    workspace = copy_of(curated[0], tmp_path / "home")
    workspace.store.forget(workspace.store.require("point_values"))
    monkeypatch.setattr(quality, "MEASURED", [*quality.MEASURED, "colour"])
    refused(workspace, match="raw_images is older than the measures of quality: materialize raw_images first")
