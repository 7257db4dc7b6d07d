"""The study on a toy home: what is corrupted, what is found, what is due, and the page about it."""

import re
from pathlib import Path

import dagster as dg
import numpy as np
import pyarrow as pa
import pytest
import yaml
from rich.console import Console
from typer.testing import CliRunner

from sava_assets.cli.commands import app
from sava_assets.cli.runner import study as run_study
from sava_assets.formats.demo_sets import Labelled, read_set, study_settings, write_set, write_study
from sava_assets.freshness.history import collect_garbage
from sava_assets.home.resources import Knobs, Workspace
from sava_assets.study import figures, grid, report
from sava_assets.study.cells import STUDIES, is_due, partition_of, study_inputs
from sava_assets.study.corruptions import CORRUPTIONS, MAIN
from sava_assets.study.definitions import STUDY
from sava_assets.study.measures import PeakMemory
from sava_ops import BadInput
from sava_ops.baselines import METHODS
from sava_ops.baselines.method import Method
from sava_ops.decisions.detection import auroc
from tests.pictures import png
from tests.sava_assets.homes import SHORT, copy_of, pictures, untrained_checkpoint

pytestmark = pytest.mark.long
SMALL = {
    "seeds": 2,
    "pruned_shares": [0.25, 0.5],
    "sizes": [20, 40, 1_000],
    "batch_sizes": [20, 40],
    "last_layer_steps": 5,
    "training": SHORT | {"steps": 2},
}
FEW_METHODS = ("SAVA", "SAVA (label values)", "SAVA (paper)", "logistic regression")
FEW_CORRUPTIONS = (MAIN, "trojan square")
FIGURES = ("SAVA", "logistic regression")
POISON_FROGS = CORRUPTIONS["poison frogs"]


# One study for all of them, in one process.


@pytest.fixture(scope="module", autouse=True)
def few():
    """A corner of the grid of corruptions and methods, for the time of this module."""
    patch = pytest.MonkeyPatch()
    for whole, kept in ((METHODS, FEW_METHODS), (CORRUPTIONS, FEW_CORRUPTIONS)):
        for name in [name for name in whole if name not in kept]:
            patch.delitem(whole, name)
    for name, methods in (("HEADLINE", FIGURES), ("WHOLE", FIGURES), ("BY_SIZE", ("SAVA", "SAVA (paper)"))):
        patch.setattr(figures, name, methods)
    yield
    patch.undo()


@pytest.fixture(scope="module")
def studied(tmp_path_factory) -> Path:
    """A toy home after its whole (small) study."""
    home = tmp_path_factory.mktemp("study") / "home"
    settings = untrained_checkpoint(home) | {"study": SMALL}
    write_set(home / "landing" / "first.parquet", pictures(40, first=0))
    second, clean = pictures(40, first=1_000), pictures(40, first=2_000)
    also = Labelled([*second.images, clean.images[0]], np.append(second.labels, clean.labels[0]), second.names)
    write_set(home / "landing" / "second.parquet", also)
    write_set(home / "reference" / "clean.parquet", clean)
    write_set(home / "test" / "clean.parquet", pictures(12, first=3_000))
    (home / "sava.yaml").write_text(yaml.safe_dump(settings))
    run_study(Workspace(home=str(home)), Console(quiet=True))
    return home


def test_the_pool_is_corrupted_once_per_seed(studied):
    workspace = Workspace(home=str(studied))
    pool = workspace.store.require("corrupted_pool", MAIN)
    assert pool.numbers["points"] == 80
    assert pool.numbers["corrupted"] == 24
    seeds = [pool.table(f"points-{seed}.parquet") for seed in range(2)]
    for table in seeds:
        label, true, bad = (table[name].to_numpy(zero_copy_only=False) for name in ("label", "true_label", "corrupted"))
        np.testing.assert_array_equal(label != true, bad)
    assert seeds[0]["corrupted"] != seeds[1]["corrupted"]


def test_what_also_judges_is_set_aside_and_said(studied, tmp_path):
    workspace, page = Workspace(home=str(studied)), tmp_path / "study.md"
    pool = workspace.store.require("corrupted_pool", MAIN)
    shard = workspace.store.require("raw_images", "second").table("points.parquet")
    assert len(shard) == 41
    (left,) = {*shard["id"].to_pylist()} - {*pool.table("points-0.parquet")["id"].to_pylist()}
    assert left == shard["id"][40].as_py()
    assert pool.numbers["set_aside"] == 1
    (named,) = pool.table("set_aside.parquet").to_pylist()
    assert named["id"] == left
    assert named["reason"].startswith("also in the reference set (")
    made = CliRunner().invoke(app, ["study", "--home", str(studied), "--report", str(page)])
    assert "1 training image is set aside, being in the reference or test set too: 1 of second" in made.output
    assert (
        "80 training (1 set aside, being in the other sets, too), 40 reference and 12 test images" in page.read_text()
    )


def test_only_changed_images_have_other_features(studied):
    workspace = Workspace(home=str(studied))
    pools = {name: workspace.store.require("corrupted_pool", name) for name in FEW_CORRUPTIONS}
    features = {name: pool.tensors("features-0.safetensors")["features"] for name, pool in pools.items()}
    changed = (features["trojan square"] != features[MAIN]).any(1).nonzero().flatten()
    stored = pools["trojan square"].tensors("pixels-0.safetensors")
    np.testing.assert_array_equal(stored["rows"], changed)
    bad = pools["trojan square"].table("points-0.parquet")["corrupted"].to_numpy(zero_copy_only=False)
    np.testing.assert_array_equal(bad.nonzero()[0], changed)
    assert stored["pixels"].shape == (8, 3, 8, 8)


def test_scores_and_their_measures_agree(studied):
    workspace = Workspace(home=str(studied))
    for method in FEW_METHODS:
        scores = workspace.store.require("method_scores", f"{MAIN}/{method}")
        measured, values = scores.table("measured.parquet").to_pylist(), scores.table("scores.parquet")
        for row in measured:
            pool = workspace.store.require("corrupted_pool", MAIN).table(f"points-{row['seed']}.parquet")
            bad = pool["corrupted"].to_numpy(zero_copy_only=False)
            assert row["auroc"] == auroc(values[str(row["seed"])].to_numpy(), bad)
        table = workspace.store.require("detection").table("detection.parquet").to_pylist()
        (own,) = [row for row in table if (row["corruption"], row["method"]) == (MAIN, method)]
        assert own["auroc_mean"] == pytest.approx(np.mean([row["auroc"] for row in measured]))
        assert own["auroc_std"] == pytest.approx(np.std([row["auroc"] for row in measured]))


def test_every_method_prunes_the_same_nothing(studied):
    table = Workspace(home=str(studied)).store.require("pruning").table("pruning.parquet").to_pylist()
    for corruption in FEW_CORRUPTIONS:
        start = {row["accuracy_mean"] for row in table if row["corruption"] == corruption and not row["pruned_share"]}
        assert len(start) == 1
    assert {row["pruned_share"] for row in table} == {0.0, 0.25, 0.5}


def test_figures_have_the_sizes_that_were_asked_for(studied):
    workspace = Workspace(home=str(studied))
    sizes = workspace.store.require("detection_by_size").table("summary.parquet")
    assert set(sizes["points"].to_pylist()) == {20, 40}
    growing = workspace.store.require("incremental_learning").table("summary.parquet")
    assert sorted(set(growing["points"].to_pylist())) == [16, 32, 48, 64, 80]
    batches = workspace.store.require("sensitivity").table("summary.parquet")
    assert set(batches["batch_size"].to_pylist()) == {20, 40}
    assert len(workspace.store.require("transport_example").pictures) == 5


def test_nothing_is_done_twice(studied, tmp_path):
    workspace = copy_of(studied, tmp_path / "home")
    shards = ["first", "second"]
    assert not any(is_due(name, workspace, shards, cell) for name, own in STUDIES.items() for cell in own.cells)
    settings = yaml.safe_load((tmp_path / "home" / "sava.yaml").read_text())
    settings["study"]["pruned_shares"] = [0.3]
    (tmp_path / "home" / "sava.yaml").write_text(yaml.safe_dump(settings))
    due = [name for name, own in STUDIES.items() if any(is_due(name, workspace, shards, c) for c in own.cells)]
    assert due == ["pruning_curves"]


def test_garbage_collection_leaves_the_study(studied, tmp_path):
    workspace = copy_of(studied, tmp_path / "home")
    collect_garbage(workspace, ["first", "second"])
    assert workspace.store.require("method_scores", f"{MAIN}/SAVA").table("scores.parquet").num_rows == 80


def test_the_page_shows_every_picture_and_says_where_we_lose(studied, tmp_path):
    page = tmp_path / "docs" / "study.md"
    made = CliRunner().invoke(app, ["study", "--home", str(studied), "--report", str(page)])
    assert made.exit_code == 0, made.output
    text = page.read_text()
    shown = re.findall(r"!\[[^]]*\]\(([^)]*)\)", text)
    assert len(shown) == len(set(shown)) >= 12
    for name in shown:
        assert (page.parent / name).read_bytes().startswith(b"\x89PNG")
    assert text.count("- **") == len(FEW_CORRUPTIONS)


def test_a_verdict_names_what_is_ahead():
    scores = {"SAVA": 0.9, "SAVA (label values)": 0.8, "SAVA (paper)": 0.7, "logistic regression": 0.95}
    rows = [
        {"corruption": corruption, "method": method, "auroc_mean": value, "found_at_budget_mean": 1 - value}
        for corruption in FEW_CORRUPTIONS
        for method, value in scores.items()
    ]
    first, _ = report._verdicts(pa.Table.from_pylist(rows, schema=grid._DETECTION))
    assert first == (
        f"- **{MAIN}**: AUROC 0.900 by SAVA, second, behind logistic regression (0.950) (as published: 0.700); "
        "found at the budget 0.200 by SAVA (label values), second, behind SAVA (paper) (0.300) (as published: 0.300)."
    )


def test_a_curve_may_lack_a_point():
    rows = [{"method": m, "points": n, "auroc_mean": 0.5, "auroc_std": 0.0} for m, n in (("a", 1), ("a", 2), ("b", 1))]
    *_, a, b = report._curves(pa.Table.from_pylist(rows), "method", "points", "auroc")
    assert a == "| a | 0.500 ± 0.000 | 0.500 ± 0.000 |"
    assert b == "| b | 0.500 ± 0.000 | – |"


def test_what_does_not_fit_is_said_in_the_table(studied, tmp_path, monkeypatch):
    workspace = copy_of(studied, tmp_path / "home")
    greedy = Method("SAVA", METHODS["SAVA"].score, lambda *_: 10**15, "O(N²)", "nothing")
    monkeypatch.setitem(METHODS, "SAVA", greedy)
    (tmp_path / "home" / "store" / "current" / "method_scores" / MAIN / "SAVA.json").unlink()
    for path in (tmp_path / "home" / "store" / "results" / "method_scores").glob("*/manifest.json"):
        path.unlink()
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("shards", ["first", "second"])
        done = dg.materialize(
            STUDY,
            selection=["method_scores"],
            instance=instance,
            partition_key=partition_of(f"{MAIN}/SAVA"),
            resources={"workspace": workspace},
        )
    assert done.success
    refused = workspace.store.require("method_scores", f"{MAIN}/SAVA").numbers["refused"]
    assert re.match(r"SAVA: out of memory at N = 80: it needs 1000000.0 GB and .* GB are free", refused)


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"mistakes": {"cow": "east"}}, "`study.mistakes` names cow, which is no class: use east, north, south, west"),
        ({"seeds": 0}, "`study.seeds` is 0: input should be greater than or equal to 1"),
        ({"pruned_shares": [1.5]}, "`study.pruned_shares.0` is 1.5: input should be less than 1"),
    ],
)
def test_what_cannot_be_studied(studied, tmp_path, knobs, message):
    workspace = copy_of(studied, tmp_path / "home")
    settings = yaml.safe_load((tmp_path / "home" / "sava.yaml").read_text())
    settings["study"] |= knobs
    (tmp_path / "home" / "sava.yaml").write_text(yaml.safe_dump(settings))
    with pytest.raises(BadInput, match=re.escape(message)):
        run_study(workspace, Console(quiet=True))


def test_a_corruption_that_comes_off_nowhere(studied, tmp_path, monkeypatch):
    """As poisons do where an untrained encoder tells nothing apart."""
    workspace = copy_of(studied, tmp_path / "home")
    settings = yaml.safe_load((tmp_path / "home" / "sava.yaml").read_text())
    settings["study"] |= {"seeds": 1}
    (tmp_path / "home" / "sava.yaml").write_text(yaml.safe_dump(settings))
    monkeypatch.setitem(CORRUPTIONS, MAIN, POISON_FROGS)
    message = (
        f"no image became bad by {MAIN} (80 images, seed 0), and a study measures how bad ones are found: use more "
        "images, or an encoder that tells them apart"
    )
    with pytest.raises(BadInput, match=re.escape(message)):
        run_study(workspace, Console(quiet=True))
    assert workspace.store.require("corrupted_pool", MAIN).numbers["corrupted"] == 24


def test_an_asset_says_what_is_missing(tmp_path):
    home = tmp_path / "home"
    (home / "landing").mkdir(parents=True)
    with pytest.raises(BadInput, match=re.escape(f"detection needs method_scores[{MAIN}/SAVA], which has no result")):
        study_inputs("detection", Workspace(home=str(home)), ["first"], None)


def test_peak_memory_sees_what_is_held_meanwhile():
    with PeakMemory() as memory:
        held = np.ones(25_000_000)
    assert 0.19 < memory.gigabytes < 0.6
    assert held.sum() == 25_000_000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the home folder {home} does not exist"),
        (["{source}"], "{source} does not hold cifar10/ and cifar10_encoder/"),
    ],
)
def test_the_command_says_what_it_lacks(tmp_path, arguments, message):
    places = {"home": tmp_path / "home", "source": tmp_path / "empty"}
    given = [word.format(**places) for word in arguments]
    made = CliRunner().invoke(app, ["study", *given, "--home", str(places["home"])])
    assert made.exit_code == 1
    assert message.format(**places) in made.output.replace("\n", "")
    assert not places["home"].exists()


def test_a_study_of_cifar10_starts_from_clean_halves(tmp_path):
    generator, classes = np.random.default_rng(0), ["airplane", "automobile"]
    source, count = tmp_path / "source", 12
    for name in ("test-00000-of-00001", "train-00003-of-00005", "train-00004-of-00005"):
        images = [png(generator.integers(0, 256, (8, 8, 3), dtype=np.uint8)) for _ in range(count)]
        write_set(source / "cifar10" / f"{name}.parquet", Labelled(images, np.arange(count) % 2, classes))
    (source / "cifar10_encoder").mkdir()
    (source / "cifar10_encoder" / "resnet18_cifar10_first30k.safetensors").write_bytes(b"weights")
    home = tmp_path / "home"
    write_study(home, source, full=True)
    sets = {name: read_set(home / name / "cifar10.parquet") for name in ("reference", "test")}
    whole = read_set(source / "cifar10" / "test-00000-of-00001.parquet")
    assert [*sets["reference"].images, *sets["test"].images] == whole.images
    assert len(sets["reference"].labels) == 6
    assert {path.name for path in (home / "landing").iterdir()} == {"train-3.parquet", "train-4.parquet"}
    assert read_set(home / "landing" / "train-3.parquet").labels.tolist() == [0, 1] * 6
    assert Knobs.model_validate(study_settings(full=True)).study.seeds == 5
    assert Knobs.model_validate(study_settings(full=False)).study.mistakes["cat"] == "dog"
