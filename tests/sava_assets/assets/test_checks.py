"""Every check fails on a result that breaks what it promises, and passes on the sound one it was made from."""

from pathlib import Path
from types import SimpleNamespace

import dagster as dg
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import torch
from rich.console import Console

from sava_assets.assets import checks, judges
from sava_assets.cli.runner import curate
from sava_assets.freshness.survey import Survey
from sava_assets.home.resources import Workspace
from sava_assets.home.result import Output, table_file, tensor_file
from sava_ops.errors import BadInput
from tests.sava_assets.homes import copy_of, materialize

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def workspace(curated, tmp_path_factory) -> Workspace:
    return copy_of(curated[0], tmp_path_factory.mktemp("checks") / "home")


def evaluate(workspace: Workspace, check: str, shard: str | None) -> dg.AssetCheckResult:
    """Call the check; Dagster runs one of a sharded asset only together with the asset, which would mend the result."""
    function = getattr(checks, check).op.compute_fn.decorated_fn
    return function(workspace) if shard is None else function(SimpleNamespace(partition_keys=[shard]), workspace)


def replaced(workspace: Workspace, asset: str, shard: str | None, file: str, writer) -> None:
    """Make the current result of the asset one in which this file is another."""
    store = workspace.store
    old = store.current(asset, shard)
    files = {name: (lambda data: lambda path: path.write_bytes(data))(old.read(name)) for name in old.files}
    store.set_current(
        store.save(asset, f"{old.key}-broken", Output(files | {file: writer}, old.numbers), old.inputs), shard
    )


def one_nan(old):
    features = old.tensors("features.safetensors")["features"]
    features[3, 5] = torch.nan
    return tensor_file({"features": features})


def sorted_into_batches(old):
    points = old.table("points.parquet").sort_by("label")
    batch = np.arange(len(points)) * old.numbers["batches"] // len(points)
    return table_file(points.set_column(points.column_names.index("batch"), "batch", pa.array(batch, pa.int32())))


def one_pair_missed(old):
    pairs = old.tensors("pairs.safetensors")
    pairs["converged"][0, 0] = False
    return tensor_file(pairs)


def mass_created(old):
    plan = old.tensors("plan.safetensors")
    plan["plan"][0, 0] += 1e-6
    return tensor_file(plan)


def values_of_other_points(old):
    points = old.table("points.parquet")
    ids = points["id"].to_pylist()
    return table_file(points.set_column(0, "id", pa.array([ids[1], ids[0], *ids[2:]])))


def value_missing(old):
    points = old.table("points.parquet")
    values = points["value"].to_numpy().copy()
    values[0] = np.inf
    return table_file(points.set_column(points.column_names.index("value"), "value", pa.array(values)))


def shard_of_all_values(old):
    points = old.table("points.parquet")
    return table_file(points.filter(pc.field("shard") != "second"))


def kept_without_a_label(old):
    points = old.table("points.parquet")
    names = points["curated_label"].to_pylist()
    names[points["keep"].to_pylist().index(True)] = None
    place = points.column_names.index("curated_label")
    return table_file(points.set_column(place, "curated_label", pa.array(names, pa.string())))


def one_row_less(old):
    return table_file(old.table("points.parquet").slice(1))


def one_id_twice(old):
    points = old.table("points.parquet")
    ids = points["id"].to_pylist()
    return table_file(points.set_column(0, "id", pa.array([ids[1], *ids[1:]])))


CASES = [
    ("raw_images", "all_accounted", "first", "points.parquet", one_row_less, {"found": 40, "used": 39}),
    ("raw_images", "all_accounted", "second", "points.parquet", one_id_twice, {"found": 24, "ids_repeated": 1}),
    ("embeddings", "embeddings_finite", "first", "features.safetensors", one_nan, {"points_not_finite": 1}),
    ("batches", "class_shares_kept", "first", "points.parquet", sorted_into_batches, {}),
    ("batch_ot", "all_pairs_converged", None, "pairs.safetensors", one_pair_missed, {"not_converged": 1}),
    ("batch_plan", "plan_marginals", None, "plan.safetensors", mass_created, {}),
    ("point_values", "values_aligned", None, "points.parquet", values_of_other_points, {"shards_not_aligned": 1}),
    ("point_values", "values_aligned", None, "points.parquet", value_missing, {"values_not_finite": 1}),
    ("pruned_dataset", "all_decided", None, "points.parquet", one_row_less, {"shards_not_accounted": 1}),
    ("pruned_dataset", "all_decided", None, "points.parquet", values_of_other_points, {"shards_not_accounted": 1}),
    ("pruned_dataset", "all_decided", None, "points.parquet", shard_of_all_values, {"shards_not_accounted": 1}),
    ("pruned_dataset", "all_decided", None, "points.parquet", kept_without_a_label, {"kept_unlabelled": 1}),
]
BLOCKING = {"plan_marginals", "values_aligned", "all_decided"}


@pytest.mark.parametrize(("asset", "check", "shard", "file", "harm", "metadata"), CASES, ids=lambda v: str(v)[:20])
def test_check_fails_on_what_it_guards_against(workspace, asset, check, shard, file, harm, metadata):
    store, sound = workspace.store, workspace.store.current(asset, shard)
    assert evaluate(workspace, check, shard).passed
    replaced(workspace, asset, shard, file, harm(sound))
    try:
        evaluation = evaluate(workspace, check, shard)
        # What nothing may follow is taken away from whoever asks for it.
        assert (store.current(asset, shard) is None) == (check in BLOCKING)
        assert (store.failure(asset, shard) is not None) == (check in BLOCKING)
    finally:
        store.set_current(sound, shard)
    assert not evaluation.passed
    assert {name: evaluation.metadata[name].value for name in metadata} == metadata


def test_what_was_replaced_meanwhile_is_no_fault_of_what_was_made_of_it(workspace):
    store, sound = workspace.store, workspace.store.current("raw_images", "first")
    replaced(workspace, "raw_images", "first", "points.parquet", one_row_less(sound))
    try:
        assert evaluate(workspace, "values_aligned", None).passed
        assert evaluate(workspace, "all_decided", None).passed
    finally:
        store.set_current(sound, "first")


def test_what_fails_a_blocking_check_is_followed_by_nothing_until_it_is_mended(curated, tmp_path, monkeypatch):
    copy, quiet = copy_of(curated[0], tmp_path / "home"), Console(quiet=True)
    copy.store.forget(copy.store.require("point_values"))
    monkeypatch.setenv("SAVA_WORK_LOG", str(tmp_path / "work"))
    monkeypatch.setattr(checks, "set_aside", lambda *_: {"first/0": "said so"})
    with pytest.raises(BadInput, match=r"^point_values: values are not those of the images that lie in the shards fi"):
        curate(copy, quiet)
    assert (tmp_path / "work").read_text().split() == ["point_values"]
    states = {state.title: state.status for state in Survey.landed(copy).all() if state.status != "fresh"}
    assert states.pop("point_values") == "failed"
    assert set(states.values()) == {"blocked"}
    monkeypatch.undo()
    curate(copy, quiet)
    assert all(state.status in ("fresh", "held") for state in Survey.landed(copy).all())


def test_too_few_reference_points_are_named_with_what_to_do(workspace):
    sound = workspace.store.current("reference_embeddings")
    points = sound.table("points.parquet")
    assert evaluate(workspace, "enough_reference_points", None).passed
    east = pc.field("label") == "east"
    few = pa.concat_tables([points.filter(~east), points.filter(east)[:3]])
    replaced(workspace, "reference_embeddings", None, "points.parquet", table_file(few))
    evaluation = evaluate(workspace, "enough_reference_points", None)
    workspace.store.set_current(sound)
    assert not evaluation.passed
    assert evaluation.metadata["points of east"].value == 3
    assert evaluation.metadata["wanted_per_class"].value == judges.FEW
    assert "fewer than 5 judge, east (3): add images of them" in evaluation.description


@pytest.mark.parametrize(("told", "passed"), [(0.12, False), (0.9, True)])
def test_features_that_tell_no_classes_are_named(workspace, told, passed):
    store, sound = workspace.store, workspace.store.current("label_distances")
    changed = Output({}, sound.numbers | {"reference_labels_told": told})
    store.set_current(store.save("label_distances", f"{sound.key}-{told}", changed))
    evaluation = evaluate(workspace, "features_tell_classes", None)
    assert evaluation.passed == passed
    assert evaluation.description.startswith(f"these features tell the class of {told:.0%} of the reference images")
    assert ("values will mean little" in evaluation.description) != passed
    store.set_current(sound)


@pytest.mark.parametrize(("worst", "far"), [(0.6, []), (0.9, ["b"])])
def test_shards_that_are_told_from_the_reference_are_named(workspace, worst, far):
    store, sound = workspace.store, workspace.store.current("batch_ot")
    changed = Output({}, sound.numbers | {"told_apart": {"a": 0.5, "b": worst}})
    store.set_current(store.save("batch_ot", f"{sound.key}-{worst}", changed))
    evaluation = evaluate(workspace, "like_the_reference", None)
    store.set_current(sound)
    assert evaluation.passed == (not far)
    assert evaluation.description.startswith(f"images of b are told from reference images in {worst:.0%} of the pairs")
    assert ("no false-discovery rate is promised" in evaluation.description) == bool(far)
    assert evaluation.metadata["far_apart"].value == ", ".join(far)


@pytest.mark.parametrize(
    ("classes", "told"), [(["east", "west"], ""), (["East", "east", "0", "00"], "0, 00; East, east")]
)
def test_classes_of_the_reference_set_that_are_nearly_alike_are_named(workspace, classes, told):
    store, sound = workspace.store, workspace.store.current("reference_images")
    changed = Output({}, sound.numbers | {"classes": classes})
    store.set_current(store.save("reference_images", f"{sound.key}-{len(classes)}", changed))
    evaluation = evaluate(workspace, "classes_apart", None)
    store.set_current(sound)
    assert evaluation.passed == (not told)
    assert evaluation.metadata["nearly_alike"].value == told
    assert (evaluation.description or "").count(told or "nearly alike") == bool(told)


@pytest.mark.parametrize(("suspicious", "passed"), [(0, True), (12, False)])
def test_reference_trusted_fails_when_many_points_are_suspicious(workspace, suspicious, passed):
    store, sound = workspace.store, workspace.store.current("reference_values")
    changed = Output({}, sound.numbers | {"suspicious": suspicious})
    store.set_current(store.save("reference_values", f"{sound.key}-{suspicious}", changed))
    evaluation = evaluate(workspace, "reference_trusted", None)
    store.set_current(sound)
    assert evaluation.passed == passed
    assert evaluation.description.startswith(f"{suspicious} of 24 reference images look as if they should not judge")
    assert ("remove or relabel" in evaluation.description) != passed


@pytest.mark.parametrize("setting", ["refuse", "set_aside"])
def test_images_disjoint_names_a_training_image_of_the_reference_set_and_fails_where_that_is_refused(
    curated, tmp_path, setting
):
    workspace = copy_of(curated[0], tmp_path / "home")
    with (workspace.root / "sava.yaml").open("a") as file:
        file.write(f"overlap: {setting}\n")
    training, reference = workspace.store.current("raw_images", "first"), workspace.store.current("reference_images")
    assert evaluate(workspace, "images_disjoint", "first").passed
    points, own = reference.table("points.parquet"), training.table("points.parquet")
    hashes = [own["pixel_hash"][2].as_py(), *points["pixel_hash"].to_pylist()[1:]]
    column = points.column_names.index("pixel_hash")
    replaced(
        workspace, "reference_images", None, "points.parquet",
        table_file(points.set_column(column, "pixel_hash", pa.array(hashes))),
    )  # fmt: skip
    evaluation = evaluate(workspace, "images_disjoint", "first")
    assert evaluation.passed == (setting == "set_aside")
    assert evaluation.metadata["shared"].value == 1
    assert evaluation.metadata["first"].value == f"{own['id'][2].as_py()} is {points['id'][0].as_py()}"


def test_what_is_set_aside_and_what_is_passed_over_are_counted(workspace, tmp_path):
    copy = copy_of(Path(workspace.home), tmp_path / "home")
    folder = tmp_path / "home" / "landing" / "second"
    for name in ("Thumbs.db", "more.zip", "east/broken.png"):
        (folder / name).write_bytes(b"x")
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("shards", ["second"])
        materialize(copy, instance, "raw_images", shard="second")
    evaluation = evaluate(copy, "all_accounted", "second")
    assert evaluation.passed
    assert {name: value.value for name, value in evaluation.metadata.items()} == {
        "found": 27, "used": 24, "quarantined": 1, "passed_over": 2, "ids_repeated": 0,
    }  # fmt: skip
    (folder / "east" / "late.png").write_bytes(b"x")
    assert not evaluate(copy, "all_accounted", "second").passed
