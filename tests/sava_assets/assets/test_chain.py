import base64
import json
import shutil
from pathlib import Path

import dagster as dg
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console
from upath import UPath

from sava_assets.assets import embedding, features
from sava_assets.cli import runner
from sava_assets.cli.runner import curate, dagster_instance
from sava_assets.formats.demo_sets import Labelled
from sava_assets.formats.landing import read_images
from sava_assets.freshness.history import collect_garbage
from sava_assets.freshness.rules import RULES
from sava_assets.home.resources import Workspace
from sava_assets.home.result import DamagedResult, Output
from sava_assets.home.store import EMBEDDING_BLOCKS
from sava_ops import BadInput, ValuationConfig, value_points
from sava_ops.decisions.detection import auroc
from tests.pictures import png, scan
from tests.sava_assets.homes import (
    NAMES,
    SETTINGS,
    copy_of,
    materialize,
    pictures,
    untrained_checkpoint,
    write_folders,
    write_home,
    write_set,
)

pytestmark = pytest.mark.long
QUIET = Console(quiet=True)
PICTURES = {
    "reference_values": {"values", "suspicious"},
    "label_distances": {"distances", "confused labels", "classes that the features confuse"},
    "batch_ot": {"costs"},
    "batch_plan": {"plan"},
    "point_values": {"values", "highest values"},
    "pruned_dataset": {"evidence", "share of bad points"},
    "probe_accuracy": {"accuracy"},
    "classifier_accuracy": {"accuracy"},
}


def results(workspace: Workspace) -> dict[str, object]:
    found = {}
    for asset, rule in RULES.items():
        for shard in ("first", "second") if rule.sharded else (None,):
            found[asset if shard is None else f"{asset}[{shard}]"] = workspace.store.current(asset, shard)
    return found


def materializations(home: Path) -> dict[str, list[dict]]:
    """Metadata of every materialization in the home's Dagster database, oldest first."""
    found = {}
    with dagster_instance(home) as instance:
        for asset in RULES:
            records = instance.fetch_materializations(dg.AssetKey(asset), limit=100).records
            found[asset] = [
                {k: v.value for k, v in record.asset_materialization.metadata.items()} for record in reversed(records)
            ]
    return found


def test_every_asset_has_a_result_with_numbers_and_pictures(curated):
    home, _ = curated
    for name, result in results(Workspace(home=str(home))).items():
        assert result is not None, name
        assert result.numbers
        assert set(result.pictures) == PICTURES.get(name, set())
        for title, picture in result.pictures.items():
            if title in ("suspicious", "share of bad points"):
                assert picture.startswith("| ")
                continue
            if title in ("confused labels", "classes that the features confuse"):
                assert picture.startswith(("- ", "No"))
                continue
            data = base64.b64decode(picture.removeprefix("![](data:image/png;base64,").removesuffix(")"))
            assert data.startswith(b"\x89PNG")
            assert len(data) < 200_000


def test_values_find_the_wrong_labels_and_pruning_removes_them(curated):
    home, wrong = curated
    points = pq.read_table(home / "curated" / "points.parquet").to_pandas()
    assert points.columns.tolist() == [
        "id", "label", "batch", "shard", "value", "feature_value", "label_value", "confidence", "p_value",
        "clean_probability", "evidence", "image_evidence", "expected_bad", "suggested_label", "reason",
        "quality_evidence", "quality_reason", "keep", "action", "curated_label",
    ]  # fmt: skip
    np.testing.assert_allclose(
        points["value"], points["feature_value"] + np.maximum(points["label_value"], 0), rtol=1e-12
    )
    assert len(points) == 64
    bad = points["id"].isin(wrong).to_numpy()
    assert bad.sum() == len(wrong)
    assert auroc(points["value"].to_numpy(), bad) > 0.95
    assert (~points["keep"]).sum() == 16
    assert bad[points["keep"]].sum() < bad.sum() / 4


def test_curated_images_are_the_kept_ones_in_a_layout_that_is_read_again(curated):
    home, _ = curated
    points = pq.read_table(home / "curated" / "points.parquet").to_pandas()
    kept = points[points["keep"]].set_index("id")["label"]
    found = {
        image.name: image for shard in ("first", "second")
        for image in read_images(UPath(home / "curated" / "images" / f"{shard}.parquet"))
    }  # fmt: skip
    assert {name: image.label for name, image in found.items()} == kept.to_dict()
    original = {f"first/{image.name}": image.data for image in read_images(UPath(home / "landing" / "first.parquet"))}
    assert all(found[name].data == data for name, data in original.items() if name in found)


def test_accuracy_is_reported_for_all_random_and_pruned_with_equal_seeds(curated):
    home, _ = curated
    numbers = Workspace(home=str(home)).store.current("classifier_accuracy").numbers
    assert {f"{s}_{n}" for s in ("all", "random", "pruned", "relabelled", "reweighted") for n in ("mean", "std")} < set(
        numbers
    )
    assert numbers["test_images"] == 12


def test_every_check_passed_and_results_say_they_were_computed(curated):
    home, _ = curated
    with dagster_instance(home) as instance:
        logs = [
            entry
            for run in instance.get_runs()
            for entry in instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION)
        ]
    evaluations = [entry.dagster_event.asset_check_evaluation_data for entry in logs]
    assert {e.check_name for e in evaluations} == {
        "images_disjoint", "embeddings_finite", "class_shares_kept", "all_pairs_converged", "plan_marginals",
        "values_aligned", "enough_reference_points", "reference_trusted", "all_accounted", "classes_apart",
        "features_tell_classes", "like_the_reference", "all_decided", "within_limits",
    }  # fmt: skip
    assert {e.check_name for e in evaluations if not e.passed} <= {"reference_trusted", "features_tell_classes"}
    assert not any(entry["reused"] for entries in materializations(home).values() for entry in entries)


def test_a_second_run_reuses_everything_and_changes_no_byte(curated, tmp_path):
    home, _ = curated
    workspace = copy_of(home, tmp_path / "home")

    def content() -> dict[str, bytes]:
        folders = [tmp_path / "home" / name for name in ("store", "curated")]
        files = [p for folder in folders for p in folder.rglob("*") if p.is_file()]
        return {str(p): p.read_bytes() for p in files if p.parent.name != "fingerprints"}

    before, runs = content(), materializations(tmp_path / "home")
    curate(workspace, QUIET)
    assert content() == before
    assert materializations(tmp_path / "home") == runs
    # Asked for all the same, by a click in the UI say, a result is reused and says so.
    unsharded = [asset for asset, rule in RULES.items() if not rule.sharded]
    with dagster_instance(tmp_path / "home") as instance:
        materialize(workspace, instance, *unsharded)
        for shard in ("first", "second"):
            materialize(workspace, instance, "raw_images", "embeddings", "batches", shard=shard)
    assert content() == before
    assert all(entries[-1]["reused"] for entries in materializations(tmp_path / "home").values())


def test_a_fresh_home_gives_the_same_bytes(curated, tmp_path):
    home, _ = curated
    write_home(tmp_path / "again")
    curate(Workspace(home=str(tmp_path / "again")), QUIET, prove=True)
    one, two = (results(Workspace(home=str(h))) for h in (home, tmp_path / "again"))
    assert {n: (r.key, r.data_version) for n, r in one.items()} == {n: (r.key, r.data_version) for n, r in two.items()}


def test_the_pipeline_computes_what_value_points_computes(tmp_path):
    home = tmp_path / "home"
    settings = untrained_checkpoint(home)
    write_home(home, settings)
    (home / "landing" / "first.parquet").unlink()
    workspace = Workspace(home=str(home))
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("shards", ["second"])
        materialize(workspace, instance, "reference_images", "encoder", "reference_embeddings", "reference_batches")
        materialize(workspace, instance, "raw_images", "embeddings", "batches", shard="second")
        materialize(workspace, instance, "label_distances", "batch_ot", "batch_plan", "point_values")

    def side(asset: str, shard: str | None = None):
        result = workspace.store.current(asset, shard)
        names = result.table("points.parquet")["label"].to_pylist()
        return result.tensors("features.safetensors")["features"], np.array([NAMES.index(name) for name in names])

    expected = value_points(
        *side("embeddings", "second"), *side("reference_embeddings"), config=ValuationConfig(batch_size=16)
    )
    points = workspace.store.current("point_values").table("points.parquet")
    np.testing.assert_array_equal(points["value"].to_numpy(), expected.values)


def test_an_unreadable_image_is_quarantined_counted_and_the_run_goes_on(tmp_path):
    home = tmp_path / "home"
    write_home(home)
    (home / "landing" / "second" / "east" / "bad.png").write_bytes(png(scan(0, 9_999))[:-40])
    (home / "landing" / "second" / "east" / "note.txt").write_text("no picture")
    workspace = Workspace(home=str(home))
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("shards", ["second"])
        done = materialize(workspace, instance, "raw_images", shard="second")
    result = workspace.store.current("raw_images", "second")
    assert result.table("quarantine.parquet").to_pydict() == {
        "id": ["second/east/bad.png", "second/east/note.txt"],
        "reason": ["truncated or damaged", "not an image"],
    }
    assert result.numbers["quarantined"] == 2
    assert result.numbers["images"] == 24
    metadata = done.asset_materializations_for_node("raw_images")[0].metadata
    assert metadata["quarantined"].value == 2


@pytest.mark.parametrize("name", ["two\nlines", "\x1b[2J", "\r\x9bforged"])
def test_no_name_steers_a_terminal_from_the_log(tmp_path, name):
    home = tmp_path / "home"
    write_home(home)
    (home / "landing" / "second" / "east" / f"{name}.png").write_bytes(b"no image")
    (home / "landing" / "second").rename(home / "landing" / name)
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("shards", [name])
        done = materialize(Workspace(home=str(home)), instance, "raw_images", shard=name)
        lines = [entry.message for entry in instance.all_logs(done.run_id) if "quarantined " in entry.message]
    assert len(lines) == 1
    assert lines[0].isprintable()


def test_a_missing_label_is_quarantined(tmp_path):
    home = tmp_path / "home"
    write_home(home)
    table = pq.read_table(home / "landing" / "first.parquet")
    labels = table["label"].to_pylist()
    labels[3] = None
    changed = table.set_column(1, table.schema.field("label"), pa.array(labels, pa.int64()))
    pq.write_table(changed, home / "landing" / "first.parquet")
    workspace = Workspace(home=str(home))
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("shards", ["first"])
        materialize(workspace, instance, "raw_images", shard="first")
    quarantine = workspace.store.current("raw_images", "first").table("quarantine.parquet")
    assert quarantine.to_pydict() == {"id": ["first/3"], "reason": ["no label"]}


def test_classes_that_only_one_side_has_are_no_obstacle(tmp_path):
    """A training class that the reference set lacks, and one that training lacks."""
    home = tmp_path / "home"
    write_home(home, untrained_checkpoint(home))
    for path in (home / "reference" / "west").iterdir():
        path.unlink()
    (home / "reference" / "up").mkdir()
    for k in range(6):
        (home / "reference" / "up" / f"{k}.png").write_bytes(png(scan(k % 4, 5_000 + k)))
    workspace = Workspace(home=str(home))
    curate(workspace, QUIET)
    points = workspace.store.current("point_values").table("points.parquet").to_pandas()
    assert np.isfinite(points["value"]).all()
    assert workspace.store.current("label_distances").numbers["classes"] == ["east", "north", "south", "up", "west"]
    # Nothing in the reference set is like them, so they are the farthest.
    means = points.groupby("label")["value"].mean()
    assert means.idxmax() == "west"


def test_clean_train_trains_the_encoder_and_judges_nothing(tmp_path):
    home = tmp_path / "home"
    write_home(home, untrained_checkpoint(home) | {"clean_train": "clean_train"})
    write_folders(home / "clean_train", pictures(8, first=7_000))
    workspace = Workspace(home=str(home))
    with dg.DagsterInstance.ephemeral() as instance:
        materialize(workspace, instance, "reference_images", "encoder", "reference_embeddings")
    points = workspace.store.current("reference_images").table("points.parquet").to_pandas()
    assert points.groupby("role")["id"].count().to_dict() == {"encoder": 8, "valuation": 48}
    assert points["id"].str.startswith("clean_train/").equals(points["role"].eq("encoder"))
    judged = workspace.store.current("reference_embeddings").table("points.parquet")["id"].to_pylist()
    assert not any(name.startswith("clean_train/") for name in judged)


def test_without_clean_train_half_of_the_reference_trains_the_encoder(curated):
    home, _ = curated
    points = Workspace(home=str(home)).store.current("reference_images").table("points.parquet").to_pandas()
    assert points.groupby(["role", "label"])["id"].count().to_dict() == {
        (role, name): 6 for role in ("encoder", "valuation") for name in NAMES
    }


def refused(home: Path, message: str, *, curated: bool = False) -> None:
    with pytest.raises(BadInput, match=message):
        curate(Workspace(home=str(home)), QUIET)
    assert (home / "curated").exists() == curated


def test_an_image_in_two_sets_is_refused_whatever_its_file_where_that_is_asked(tmp_path):
    shared = png(scan(1, 2_001))  # the second reference image
    home = tmp_path / "training"
    write_home(home, SETTINGS | {"overlap": "refuse"})
    (home / "landing" / "second" / "east" / "copy.png").write_bytes(shared)
    refused(
        home,
        r"second shares 1 image with the reference set \(first: second/east/copy.png is reference/north/001.png\): "
        "remove them from one side",
    )
    home = tmp_path / "test"
    write_home(home)  # two clean sets must not share an image in any home
    write_set(home / "test" / "clean.parquet", pictures(4, first=2_000))
    refused(home, r"the reference set shares 4 images with the test set \(first: reference/east/000.png is test/0\)")


def test_an_empty_landing_folder_is_refused(tmp_path):
    home = tmp_path / "home"
    write_home(home)
    (home / "landing" / "first.parquet").unlink()
    (home / "landing" / "second").rename(home / "elsewhere")
    refused(home, "no shard has landed in .*landing: put a Parquet file or a folder of class folders there")


@pytest.mark.parametrize(
    ("count", "message"),
    [
        (0, "reference2 holds no usable image, 0 quarantined: put images there"),
        (1, "the reference set has one image, and the encoder is to be trained on half of it: add images"),
    ],
)
def test_an_empty_reference_set_and_one_that_cannot_be_halved_are_refused(tmp_path, count, message):
    home = tmp_path / "home"
    write_home(home)
    write_set(home / "reference2" / "few.parquet", pictures(count, first=0))
    (home / "sava.yaml").write_text("{reference: reference2, encoder: {source: train}, settle_seconds: 0}")
    refused(home, message)


def test_a_set_of_broken_images_names_the_first_reason(tmp_path):
    home = tmp_path / "home"
    write_home(home, untrained_checkpoint(home))
    for path in (home / "test").iterdir():
        path.unlink()
    (home / "test" / "east").mkdir()
    (home / "test" / "east" / "x.png").write_bytes(b"")
    # Accuracy cannot be reported, but the data are curated.
    refused(home, r"test holds no usable image, 1 quarantined \(first: empty file\): put images there", curated=True)


def test_sets_without_a_common_class_are_refused(tmp_path):
    home = tmp_path / "home"
    write_home(home, untrained_checkpoint(home))
    for name in NAMES:
        (home / "reference" / name).rename(home / "reference" / f"x{name}")
    refused(
        home,
        r"the shard first and the reference set have no class in common \(the shard first: east, north, south, west; "
        r"reference: xeast, xnorth, xsouth, xwest\): name the classes alike, or list them as `classes` in sava.yaml; "
        "embeddings.second.: the shard second and the reference",
    )


def test_a_shard_whose_classes_are_written_otherwise_is_refused_and_does_not_stop_the_others(tmp_path):
    home = tmp_path / "home"
    write_home(home, untrained_checkpoint(home))
    workspace, shard = Workspace(home=str(home)), home / "landing" / "second"

    def curated() -> tuple[set[str], set[str]]:
        points = pq.read_table(home / "curated" / "points.parquet")
        return set(points["shard"].to_pylist()), {file.stem for file in (home / "curated" / "images").iterdir()}

    (shard / "east").rename(shard / "East")
    message = r"^embeddings\[second\]: the shard second writes classes otherwise than the reference set \('East' for "
    refused(home, message, curated=True)
    assert curated() == ({"first"}, {"first"})
    # Blanks around a name are no part of it.
    (shard / "East").rename(shard / "east ")
    curate(workspace, QUIET)
    assert curated() == ({"first", "second"}, {"first", "second"})
    assert set(workspace.store.require("point_values").table("points.parquet")["label"].to_pylist()) == set(NAMES)
    # What was embedded before is not used either.
    for number, name in enumerate(["east ", *NAMES[1:]]):
        (shard / name).rename(shard / str(number))
    refused(
        home, r"second and the reference set have no class in common .* as if its class names were lost", curated=True
    )
    assert curated() == ({"first"}, {"first"})


def test_a_test_set_whose_classes_are_written_otherwise_gives_no_accuracy(tmp_path):
    home = tmp_path / "home"
    write_home(home, untrained_checkpoint(home))
    found = pictures(12, first=3_000)
    write_set(home / "test" / "clean.parquet", Labelled(found.images, found.labels, ["e", "n", "s", "w"]))
    refused(home, "test_embeddings: the test set and the reference set have no class in common", curated=True)


def test_an_asset_asked_for_too_early_says_what_it_needs(tmp_path):
    write_home(tmp_path / "home")
    workspace = Workspace(home=str(tmp_path / "home"))
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("shards", ["first"])
        with pytest.raises(BadInput, match="batch_plan needs batch_ot, which has no result yet: materialize batch_ot"):
            materialize(workspace, instance, "batch_plan")
        with pytest.raises(BadInput, match=r"embeddings needs raw_images\[first\], which has no result yet"):
            materialize(workspace, instance, "embeddings", shard="first")
        instance.add_dynamic_partitions("shards", ["gone"])
        with pytest.raises(BadInput, match=r"the shard 'gone' is not in .*landing: put it there, or delete its part"):
            materialize(workspace, instance, "raw_images", shard="gone")
        (tmp_path / "home" / "sava.yaml").write_text("test: nowhere")
        with pytest.raises(BadInput, match=r"the test set .*nowhere does not exist: create it, or set `test` in"):
            materialize(workspace, instance, "test_images")


def test_results_that_do_not_belong_together_are_not_combined(curated, tmp_path):
    workspace = copy_of(curated[0], tmp_path / "home")
    store, file = workspace.store, tmp_path / "home" / "sava.yaml"
    with dagster_instance(tmp_path / "home") as instance:
        for asset, reader, message in (
            ("embeddings", "batch_ot", r"batches\[first\] are older than embeddings\[first\]: materialize batches"),
            ("raw_images", "classifier_accuracy", "pruned_dataset is older than the shards: materialize pruned_data"),
        ):
            sound = store.current(asset, "first")
            store.set_current(store.current(asset, "second"), "first")
            with pytest.raises(BadInput, match=message):
                materialize(workspace, instance, reader)
            store.set_current(sound, "first")
        for manifest in (tmp_path / "home" / "store" / "results" / "batch_rows").rglob("manifest.json"):
            manifest.unlink()
        file.write_text(file.read_text().replace("valuation:\n", "valuation:\n  gradient: calibrated\n"))
        with pytest.raises(
            DamagedResult, match=r"a row of batch_ot is gone from the store \(\w+\): materialize batch_ot again"
        ):
            materialize(workspace, instance, "point_values")


def test_an_encoder_that_gives_no_numbers_is_refused(tmp_path):
    home = tmp_path / "home"
    write_home(home, untrained_checkpoint(home, scale=float("nan")))
    workspace = Workspace(home=str(home))
    with dg.DagsterInstance.ephemeral() as instance:
        materialize(workspace, instance, "reference_images", "encoder")
        with pytest.raises(
            BadInput, match=r"reference_embeddings: the encoder gives NaN or infinite features for 48 im"
        ):
            materialize(workspace, instance, "reference_embeddings")


def test_curated_follows_the_knobs(curated, tmp_path):
    home, _ = curated
    copy_of(home, tmp_path / "home")
    copied = tmp_path / "home"
    stamp = json.loads((copied / "curated" / "current.json").read_text())
    text = (copied / "sava.yaml").read_text().replace("fraction: 0.25", "fraction: 0.5\n  export_images: false")
    (copied / "sava.yaml").write_text(text)
    workspace = Workspace(home=str(copied))
    with dagster_instance(copied) as instance:
        materialize(workspace, instance, "pruned_dataset", "curated_dataset")
    assert pq.read_table(copied / "curated" / "points.parquet")["keep"].to_pylist().count(True) == 32
    assert not list((copied / "curated" / "images").iterdir())
    assert json.loads((copied / "curated" / "current.json").read_text()) != stamp


def test_a_dry_run_decides_and_leaves_curated_alone(curated, tmp_path):
    workspace = copy_of(curated[0], tmp_path / "home")
    home = tmp_path / "home"
    before = {path: path.read_bytes() for path in (home / "curated").rglob("*") if path.is_file()}
    text = (home / "sava.yaml").read_text().replace("fraction: 0.25", "fraction: 0.5\n  dry_run: true")
    (home / "sava.yaml").write_text(text)
    with dagster_instance(home) as instance:
        materialize(workspace, instance, "pruned_dataset", "curated_dataset")
    assert workspace.store.current("pruned_dataset").numbers["kept"] == 32
    assert {path: path.read_bytes() for path in (home / "curated").rglob("*") if path.is_file()} == before


def test_relabelled_images_are_exported_under_their_suggested_label_if_asked(curated, tmp_path):
    workspace = copy_of(curated[0], tmp_path / "home")
    home = tmp_path / "home"
    text = (home / "sava.yaml").read_text()
    (home / "sava.yaml").write_text(
        text.replace("fraction: 0.25", "fraction: 0.25\n  relabel: true\n  relabel_confidence: 0.0")
    )
    with dagster_instance(home) as instance:
        materialize(workspace, instance, "pruned_dataset", "curated_dataset")
    points = pq.read_table(home / "curated" / "points.parquet").to_pandas()
    relabelled = points[points["action"] == "relabel"]
    assert len(relabelled)
    assert (relabelled["curated_label"] == relabelled["suggested_label"]).all()
    assert not relabelled["keep"].any()
    exported = {
        image.name: image.label for shard in ("first", "second")
        for image in read_images(UPath(home / "curated" / "images" / f"{shard}.parquet"))
    }  # fmt: skip
    assert exported == points[points["curated_label"].notna()].set_index("id")["curated_label"].to_dict()
    assert points[points["action"] == "drop"]["curated_label"].isna().all()


def test_reasons_are_plain_words(curated):
    for row in pq.read_table(curated[0] / "curated" / "points.parquet").to_pylist():
        if row["p_value"] > 0.05:
            assert row["reason"] == ""
        elif row["quality_reason"]:
            assert row["reason"].endswith((" than all trusted images", " of the trusted images of its class"))
        elif row["reason"] != "unlike anything in the reference set":
            assert row["reason"] == f"label disagrees with its neighbours: {row['label']} → {row['suggested_label']}"
            assert row["label"] != row["suggested_label"]


def test_an_interrupted_embedding_goes_on_from_its_last_block(curated, tmp_path, monkeypatch):
    workspace = copy_of(curated[0], tmp_path / "home")
    undisturbed = workspace.store.current("embeddings", "first")
    shutil.rmtree(str(workspace.store.root / "results" / "embeddings" / undisturbed.key))
    embedded: list[int] = []
    embed = embedding.embed

    def failing(encoder, images, *, device):
        if len(embedded) == 2:
            embedded.append(0)
            raise RuntimeError("power cut")
        embedded.append(len(images))
        return embed(encoder, images, device=device)

    monkeypatch.setattr(features, "IMAGES_AT_ONCE", 16)
    monkeypatch.setattr(embedding, "embed", failing)
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("shards", ["first", "second"])
        with pytest.raises(RuntimeError, match="power cut"):
            materialize(workspace, instance, "embeddings", shard="first")
        assert embedded == [16, 16, 0]
        materialize(workspace, instance, "embeddings", shard="first")
    assert embedded == [16, 16, 0, 8]
    again = workspace.store.current("embeddings", "first")
    assert again.data_version == undisturbed.data_version
    assert len([*(workspace.store.root / "results" / EMBEDDING_BLOCKS).iterdir()]) == 3
    collect_garbage(workspace, ["first", "second"], grace=0)
    assert not [*(workspace.store.root / "results" / EMBEDDING_BLOCKS).iterdir()]


def test_a_large_batch_matrix_is_announced(curated, tmp_path, monkeypatch):
    workspace = copy_of(curated[0], tmp_path / "home")
    matrix = tmp_path / "home" / "store" / "current" / "batch_ot.json"
    kept = matrix.read_bytes()
    matrix.unlink()
    assert runner._forecast(workspace, ["first", "second"]) is None
    monkeypatch.setattr(runner, "WORTH_TELLING", 1)
    told = runner._forecast(workspace, ["first", "second"])
    assert told == "batch_ot: 64 × 24 points, about 0 minutes and 0.0 GB of memory on cpu"
    # What the present matrix has is not computed again.
    matrix.write_bytes(kept)
    assert runner._forecast(workspace, ["first", "second"]) is None


def test_only_new_batches_are_announced(curated, tmp_path):
    workspace = copy_of(curated[0], tmp_path / "home")
    store = workspace.store
    before = runner._sizes_to_compute(workspace, ["first", "second"])
    assert before == []
    matrix = store.current("batch_ot")
    inputs = matrix.inputs | {"batches": {"first": matrix.inputs["batches"]["first"]}}
    store.set_current(store.save("batch_ot", "without-second", Output({}, matrix.numbers), inputs))
    assert runner._sizes_to_compute(workspace, ["first", "second"]) == [12, 12]
    other = inputs | {"label_distances": {"": "another"}}
    store.set_current(store.save("batch_ot", "other-calibration", Output({}, matrix.numbers), other))
    assert sum(runner._sizes_to_compute(workspace, ["first", "second"])) == 64


@pytest.mark.parametrize("again", ["copied", "linked", "renamed"])
def test_the_same_images_in_another_shard_have_that_shards_ids(tmp_path, again):
    """Nothing tells a copied folder from its original but the name of the shard."""
    home = tmp_path / "home"
    write_home(home)
    landing, workspace = home / "landing", Workspace(home=str(home))
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("shards", ["second", "third"])
        materialize(workspace, instance, "raw_images", shard="second")
        if again == "copied":
            shutil.copytree(landing / "second", landing / "third")
        elif again == "linked":
            (landing / "third").symlink_to(landing / "second")
        else:
            (landing / "second").rename(landing / "third")
        materialize(workspace, instance, "raw_images", shard="third")
    for shard in ("second", "third"):
        points = workspace.store.current("raw_images", shard).table("points.parquet")
        assert {name.split("/")[0] for name in points["id"].to_pylist()} == {shard}
