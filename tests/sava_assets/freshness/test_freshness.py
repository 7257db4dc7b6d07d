"""Which results a change makes stale: exactly those, and their names say so."""

import pytest
import yaml
from typer.testing import CliRunner

from sava_assets.cli import app
from sava_assets.freshness.rules import RULES, inputs, key
from sava_assets.freshness.survey import Survey
from sava_assets.home.resources import Workspace
from tests.pictures import png, scan
from tests.sava_assets.freshness.stored_home import unpack
from tests.sava_assets.homes import copy_of

SHARDS = ["first", "second"]


def stale(workspace: Workspace) -> set[str]:
    """Assets whose current result no longer has the name their inputs ask for."""
    found = set()
    for asset, rule in RULES.items():
        for shard in SHARDS if rule.sharded else [None]:
            wanted = key(inputs(asset, workspace, SHARDS, shard))
            if workspace.store.current(asset, shard).key != wanted:
                found.add(asset if shard is None else f"{asset}[{shard}]")
    return found


def with_knob(workspace: Workspace, dotted: str, value: object) -> None:
    file = workspace.root / "sava.yaml"
    settings = yaml.safe_load(file.read_text())
    *path, last = dotted.split(".")
    inner = settings
    for name in path:
        inner = inner.setdefault(name, {})
    inner[last] = value
    file.write_text(yaml.safe_dump(settings))


def test_nothing_is_stale_after_a_run(curated):
    assert stale(Workspace(home=str(curated[0]))) == set()


SPLIT = {"batches[first]", "batches[second]", "reference_batches"}


@pytest.mark.parametrize(
    ("knob", "value", "expected"),
    [
        ("prune.fraction", 0.5, {"pruned_dataset", "curation_report"}),
        ("prune.false_discovery_rate", 0.1, {"pruned_dataset", "curation_report"}),
        ("prune.class_floor", 0.2, {"pruned_dataset"}),
        ("prune.cap", 0.2, {"pruned_dataset"}),
        ("prune.relabel_confidence", 0.2, {"pruned_dataset"}),
        ("prune.relabel", True, {"pruned_dataset"}),
        # Switching it off must bring `curated/` up to date.
        ("prune.dry_run", True, {"pruned_dataset", "curated_dataset"}),
        ("prune.export_images", False, {"curated_dataset"}),
        ("review.sample", 5, {"curation_report"}),
        ("classifier.seeds", 2, {"classifier_accuracy"}),
        ("classifier.training.steps", 3, {"classifier_accuracy"}),
        ("encoder.seed", 5, {"encoder", "reference_images"}),
        ("encoder.training.steps", 3, {"encoder"}),
        ("encoder.image_size", 16, {"encoder", "classifier_accuracy"}),
        ("valuation.batch_size", 8, SPLIT),
        ("valuation.batching", "random", SPLIT),
        ("valuation.seed", 1, SPLIT | {"label_distances"}),
        ("valuation.unit_norm", False, {"label_distances", "batch_ot", "curation_report"}),
        ("valuation.label_metric", "published", {"label_distances"}),
        ("valuation.class_sample", 10, {"label_distances"}),
        ("valuation.calibration_sample", 10, {"label_distances"}),
        ("valuation.label_weight", 2.0, {"batch_ot"}),
        ("valuation.classifier_weight", 0.2, {"batch_ot"}),
        ("valuation.shift_weight", 0.0, {"batch_ot"}),
        ("valuation.class_shares", "reference", {"batch_ot"}),
        ("valuation.held_out_sample", 5, {"batch_ot"}),
        ("valuation.epsilon", 0.2, {"batch_ot"}),
        ("valuation.rho", 1.0, {"batch_ot", "batch_plan"}),
        ("valuation.tolerance", 0.1, {"batch_ot"}),
        ("valuation.max_sweeps", 10, {"batch_ot"}),
        ("valuation.plan_epsilon", 0.1, {"batch_plan"}),
        ("valuation.batch_weights", "uniform", {"batch_plan"}),
        ("valuation.hierarchical", True, {"batch_plan"}),
        ("valuation.gradient", "calibrated", {"point_values"}),
    ],
)
def test_a_knob_makes_stale_what_reads_it(curated, tmp_path, knob, value, expected):
    """Directly: what lies downstream follows when the new results are there."""
    # The reference set is valued against itself with the same knobs.
    expected = expected | {"reference_values"} if knob.startswith("valuation.") else expected
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "sava.yaml").write_text((curated[0] / "sava.yaml").read_text())
    for name in ("store", "landing", "reference", "test"):
        (tmp_path / "home" / name).symlink_to(curated[0] / name)
    workspace = Workspace(home=str(tmp_path / "home"))
    with_knob(workspace, knob, value)
    assert stale(workspace) == expected


def test_new_content_of_a_shard_makes_only_that_shard_stale(curated, tmp_path):
    workspace = copy_of(curated[0], tmp_path / "home")
    (tmp_path / "home" / "landing" / "second" / "east" / "new.png").write_bytes(png(scan(0, 8_888)))
    assert stale(workspace) == {"raw_images[second]"}


def test_new_reference_content_makes_the_reference_set_stale(curated, tmp_path):
    workspace = copy_of(curated[0], tmp_path / "home")
    (tmp_path / "home" / "reference" / "east" / "new.png").write_bytes(png(scan(0, 8_888)))
    assert stale(workspace) == {"reference_images"}
    (tmp_path / "home" / "test" / "clean.parquet").touch()
    assert stale(workspace) == {"reference_images"}


def test_label_distances_are_pinned_against_new_embeddings(curated, tmp_path):
    workspace = copy_of(curated[0], tmp_path / "home")
    store = workspace.store
    other = store.current("embeddings", "first")
    store.set_current(other, "second")
    assert "label_distances" not in stale(workspace)
    assert {"batches[second]", "batch_ot"} <= stale(workspace)


def test_a_home_that_was_written_before_the_code_moved_is_fresh(tmp_path):
    """What names a result is not the place of the code that makes it, and changes only on purpose."""
    unpack(tmp_path)
    states = list(Survey(Workspace(home=str(tmp_path)), ["first", "second"]).all())
    assert len(states) == 23
    # The archive holds nothing of `curated/`, and is older than the probes.
    pending = {state.title for state in states if state.status != "fresh"}
    assert pending == {"curated_dataset", "test_embeddings", "probe_accuracy"}
    # The last line is the drift of the calibration, which reads what `embeddings` keeps beside the features.
    *_, fresh, drift = CliRunner().invoke(app, ["status", "--home", str(tmp_path)]).output.splitlines()
    assert fresh == "20 of 23 results are fresh"
    assert drift.endswith("mean feature cost +0.0%")
