"""The page as an asset: what it shows, where it lies, and that it follows the history."""

from pathlib import Path

import dagster as dg
import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from sava_assets.assets import report
from sava_assets.cli.commands import app
from sava_assets.cli.preparation import dagster_instance
from sava_assets.cli.runner import curate
from sava_assets.home.resources import Workspace
from sava_assets.home.result import digest
from sava_ops import BadInput
from sava_ops.images.decode import decode
from tests.sava_assets.homes import copy_of, materialize

pytestmark = pytest.mark.long
QUIET = Console(quiet=True)


@pytest.fixture
def workspace(curated, tmp_path) -> Workspace:
    return copy_of(curated[0], tmp_path / "home")


def sava(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    return result.exit_code, " ".join(result.output.split())


def test_every_flagged_image_is_shown_with_its_own_picture_and_hash(workspace):
    shown = workspace.store.require("curation_report").table("shown.parquet").to_pylist()
    points = workspace.store.require("pruned_dataset").table("points.parquet").to_pylist()
    assert {row["id"] for row in shown} == {row["id"] for row in points if row["action"] != "keep"}
    assert [row["evidence"] for row in shown] == sorted((row["evidence"] for row in shown), reverse=True)
    originals = {}
    for shard in ("first", "second"):
        raw = workspace.store.require("raw_images", shard)
        images = raw.table("images.parquet").to_pylist()
        hashes = raw.table("points.parquet")["pixel_hash"].to_pylist()
        originals |= {row["id"]: (row["image"], own) for row, own in zip(images, hashes, strict=True)}
    for row in shown:
        image, pixel_hash = originals[row["id"]]
        assert row["pixel_hash"] == pixel_hash
        difference = decode(row["thumbnail"]).astype(float).mean() - decode(image).astype(float).mean()
        assert abs(difference) < 12  # WebP at this quality


def test_the_neighbours_are_trusted_images_of_both_labels(workspace):
    result = workspace.store.require("curation_report")
    references = result.table("references.parquet").to_pylist()
    reference = workspace.store.require("reference_embeddings")
    names = reference.table("points.parquet")["id"].to_pylist()
    judges = reference.arrays("features.safetensors")["features"].astype(np.float32)
    judges /= np.linalg.norm(judges, axis=1, keepdims=True)
    own = {}
    for shard in ("first", "second"):
        embedded = workspace.store.require("embeddings", shard)
        ids = embedded.table("points.parquet")["id"].to_pylist()
        own |= dict(zip(ids, embedded.arrays("features.safetensors")["features"].astype(np.float32), strict=True))
    for row in result.table("shown.parquet").to_pylist():
        for column in ("label", "suggested_label"):
            near = [references[place] for place in row[f"nearest_of_{column}"]]
            assert len(near) == 3
            assert {each["label"] for each in near} == {row[column]}
            feature = own[row["id"]] / np.linalg.norm(own[row["id"]])
            away = [np.linalg.norm(feature - judges[names.index(each["id"])]) for each in near]
            assert away == sorted(away)


def test_the_page_lies_in_the_home_and_is_written_again_when_it_is_gone(workspace):
    page = Path(workspace.home) / "report.html"
    content = page.read_bytes()
    page.unlink()
    page.mkdir()
    code, told = sava("report", "--home", workspace.home)
    wanted = f"the page {page} cannot be written (Is a directory): make room, allow it, or move away what is there"
    assert (code, told.removeprefix("error: ")) == (1, wanted)
    page.rmdir()
    code, told = sava("report", "--home", workspace.home)
    assert (code, page.read_bytes()) == (0, content)
    assert told.startswith(f"{page} 16 images flagged false discoveries: a fixed share is cut; of the sample of 16")
    assert not [path for path in page.parent.iterdir() if path.name.startswith(".report")]
    with dagster_instance(Path(workspace.home)) as instance:
        records = instance.fetch_materializations(dg.AssetKey("curation_report"), limit=1).records
    metadata = records[0].asset_materialization.metadata
    assert metadata["page"].value.endswith("report.html")
    assert (metadata["flagged"].value, metadata["sample"].value) == (16, 16)


def test_a_curation_that_comes_again_shows_the_history_as_it_is_then(workspace):
    file, page = workspace.root / "sava.yaml", Path(workspace.home) / "report.html"
    first = page.read_text()
    settings = file.read_text()
    assert '"changes":null' in first
    file.write_text(settings.replace("fraction: 0.25", "fraction: 0.5"))
    curate(workspace, QUIET)
    assert '"newly flagged":16' in page.read_text()
    file.write_text(settings)
    curate(workspace, QUIET)
    # Its result is reused, and the page is another one: it comes after one with more flagged images.
    again = page.read_text()
    assert '"no longer flagged":16' in again
    assert '"number":2' in again


def test_the_sample_is_drawn_of_the_flagged_ones_and_its_size_is_a_knob(workspace):
    file = workspace.root / "sava.yaml"
    file.write_text(f"{file.read_text()}review: {{sample: 5, thumbnail: 8, neighbours: 0}}\n")
    curate(workspace, QUIET)
    result = workspace.store.require("curation_report")
    assert result.table("shown.parquet")["sample"].to_pylist().count(True) == 5
    assert len(result.table("references.parquet")) == 0


def test_nothing_flagged_is_a_page_too(workspace):
    file = workspace.root / "sava.yaml"
    file.write_text(file.read_text().replace("fraction: 0.25", "fraction: 0.0"))
    curate(workspace, QUIET)
    assert workspace.store.require("curation_report").numbers["shown"] == 0
    assert "0 images flagged" in sava("report", "--home", workspace.home)[1]


def test_a_page_that_is_due_is_not_shown(workspace):
    (workspace.root / "store" / "current" / "curation_report.json").unlink()
    for command in ("report", "review"):
        code, told = sava(command, "--home", workspace.home)
        assert code == 1
        assert told == f"error: the page of {workspace.home} is due: run `sava curate` first"


def test_a_port_that_is_taken_is_a_sentence(workspace):
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, told = sava("review", "--home", workspace.home, "--port", port)
    assert code == 1
    assert told.startswith(f"error: port {port} cannot be used (Address already in use): choose another --port, or 0")


def test_pruned_data_older_than_the_shards_are_refused(workspace):
    store = workspace.store
    raw = store.require("raw_images", "second")
    other = report.Output({}, raw.numbers, data_version="other")
    store.set_current(store.save("raw_images", digest("other"), other), "second")
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("shards", ["first", "second"])
        with pytest.raises(BadInput, match="pruned_dataset is older than the shards: materialize pruned_dataset first"):
            materialize(workspace, instance, "curation_report")
