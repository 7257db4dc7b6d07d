import itertools
import os
import re
import shutil
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from rich.progress import Task, TaskID
from typer.testing import CliRunner
from upath import UPath

from sava_assets.cli.commands import app
from sava_assets.cli.progress import Pace
from sava_assets.formats import demo_sets as demos
from sava_assets.formats.demo_sets import Labelled, planted_errors, write_cifar10, write_set
from sava_assets.formats.landing import read_images
from sava_assets.home.result import Output
from sava_ops import BadInput, ValuationConfig, value_points
from tests.pictures import noise, png
from tests.sava_assets.homes import SETTINGS, copy_of, pictures, untrained_checkpoint, write_home
from tests.shared_data import SHARED
from tests.toy import clouds

pytestmark = pytest.mark.long
QUICK = {"steps": 2, "batch_size": 8, "learning_rate": 0.01}


def sava(*arguments: object) -> tuple[int, str]:
    """Exit code and everything printed, on one line."""
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, " ".join(result.output.split())


def refused(*arguments: object) -> str:
    code, output = sava(*arguments)
    assert code == 1
    return output[output.index("error: ") :].removeprefix("error: ")


# -- sava value ---------------------------------------------------------------------------------------------------


def features_file(path: Path, features, labels, **more) -> Path:
    pq.write_table(pa.table({"features": [list(map(float, f)) for f in features], "label": labels, **more}), path)
    return path


@pytest.fixture
def sides(tmp_path) -> tuple[Path, Path]:
    train, labels = clouds(40, seed=0, dtype=np.float32)
    reference, reference_labels = clouds(30, seed=1, dtype=np.float32)
    names = [f"image-{k}" for k in range(40)]
    return (
        features_file(tmp_path / "train.parquet", train, labels, name=names),
        features_file(tmp_path / "reference.parquet", reference, reference_labels),
    )


@pytest.mark.parametrize("paper", [False, True])
def test_value_writes_what_value_points_computes_beside_the_other_columns(sides, tmp_path, paper):
    code, output = sava("value", *sides, "-o", tmp_path / "values.parquet", *(["--paper"] if paper else []))
    assert code == 0
    assert output.startswith("40 values in ")
    table = pq.read_table(tmp_path / "values.parquet")
    findings = ["value", "feature_value", "label_value", "confidence", "p_value", "clean_probability"]
    assert table.column_names == [
        "label",
        "name",
        *findings,
        "evidence",
        "image_evidence",
        "expected_bad",
        "suggested_label",
    ]
    train, reference = clouds(40, seed=0, dtype=np.float32), clouds(30, seed=1, dtype=np.float32)
    config = ValuationConfig.paper() if paper else ValuationConfig()
    expected = value_points(*train, *reference, config=config)
    np.testing.assert_array_equal(table["value"].to_numpy(), expected.values)
    np.testing.assert_array_equal(table["suggested_label"].to_numpy(), expected.suggested_labels)


def test_value_takes_class_names_as_labels(sides, tmp_path):
    words = ["cat", "dog", "eel"]
    train, labels = clouds(40, seed=0, dtype=np.float32)
    named = features_file(tmp_path / "named.parquet", train, [words[label] for label in labels])
    reference, reference_labels = clouds(30, seed=1, dtype=np.float32)
    other = features_file(tmp_path / "other.parquet", reference, [words[label] for label in reference_labels])
    sava("value", *sides, "-o", tmp_path / "numbers.parquet")
    sava("value", named, other, "-o", tmp_path / "words.parquet")
    tables = [pq.read_table(tmp_path / f"{n}.parquet") for n in ("numbers", "words")]
    assert tables[0]["value"].to_pylist() == tables[1]["value"].to_pylist()
    suggested = [words[label] for label in tables[0]["suggested_label"].to_pylist()]
    assert tables[1]["suggested_label"].to_pylist() == suggested


def test_value_refuses_bad_input_in_one_sentence_and_writes_nothing(sides, tmp_path):
    train, labels = clouds(40, seed=0, dtype=np.float32)
    out = tmp_path / "out" / "values.parquet"
    out.parent.mkdir()

    def message(path: Path, reference: Path = sides[1]) -> str:
        text = refused("value", path, reference, "-o", out)
        assert list(out.parent.iterdir()) == []
        return text

    broken = train.copy()
    broken[7] = np.nan
    made = tmp_path / "made.parquet"
    assert "1 of 40 training points have NaN or infinite features (first: row 7)" in message(
        features_file(made, broken, labels)
    )
    assert "training features have 4 columns and reference features 5" in message(
        features_file(made, train[:, :4], labels)
    )
    assert "has 1 values below 0 (first: -1 at row 0): number the classes from 0, or name" in message(
        features_file(made, train, [-1, *labels[1:]])
    )
    assert "`features` of" in message(features_file(made, [[1.0], [1.0, 2.0]], [0, 1]))
    assert "has rows of different width ([1, 2]): embed all alike" in message(made)
    pq.write_table(pa.table({"features": [[1.0], None], "label": [0, 1]}), made)
    assert "is empty at row 1: fill it or drop the row" in message(made)
    assert "`label` of" in message(features_file(made, train[:2], [None, 1]))
    assert "is empty at row 0: fill it or drop the row" in message(made)
    assert "the training set is empty" in message(features_file(made, [], pa.array([], pa.int64())))
    empty = features_file(tmp_path / "empty.parquet", [], pa.array([], pa.int64()))
    assert "the reference set is empty: pass at least one point" in message(sides[0], empty)
    pq.write_table(pa.table({"x": [1]}), made)
    assert "has no `features` column (it has x): add one" in message(made)
    made.write_bytes(b"no table")
    assert "made.parquet is no Parquet file: write its features and labels as Parquet" in message(made)
    assert "absent.parquet does not exist: name a Parquet file" in message(tmp_path / "absent.parquet")


def test_value_refuses_a_folder_that_is_not_there(sides, tmp_path):
    assert "the folder" in refused("value", *sides, "-o", tmp_path / "no" / "values.parquet")


# -- sava curate --------------------------------------------------------------------------------------------------


def folders(tmp_path: Path) -> list[object]:
    write_home(tmp_path / "sets")
    sets = tmp_path / "sets"
    return ["--landing", sets / "landing", "--reference", sets / "reference", "--test", sets / "test"]


def test_curate_runs_on_any_folders_and_says_where_things_are(tmp_path):
    home = tmp_path / "home"
    arguments = folders(tmp_path)
    (tmp_path / "sets" / "landing" / "second" / "east" / "bad.png").write_bytes(b"no image")
    (tmp_path / "sets" / "landing" / "third.zip").write_bytes(b"PK")
    for name in ("reference/Thumbs.db", "test/\x1b[2Jnotes.csv"):
        (tmp_path / "sets" / name).write_bytes(b"x")
    home.mkdir()
    (home / "sava.yaml").write_text(
        (tmp_path / "sets" / "sava.yaml").read_text()
        + "".join(f"{a[2:]}: {p}\n" for a, p in zip(arguments[::2], arguments[1::2], strict=True))
    )
    code, output = sava("curate", *arguments, "--home", home)
    assert code == 0
    assert "64 points valued, about " in output
    assert re.search(r"about \d+% of them bad \(\d+% to \d+%\); 48 kept, ", output)
    assert "1 image quarantined: second/east/bad.png: not an image" in output
    line = "128 files and rows: 124 used + 1 quarantined + 3 passed over (1 by rule, being no data by name)"
    passed = "passed over: third.zip: an archive: unpack it test/\\x1b[2Jnotes.csv: not inside a class folder"
    assert line in output
    assert passed in output
    assert "linear probes, 3 seeds" in output
    later = "no result yet; `proof.when` is nightly: `sava curate --prove` measures it"
    assert f"classifier_accuracy is not measured on this curation: {later}" in output
    status = sava("status", "--home", home)[1]
    assert f"held classifier_accuracy: {later}" in status
    assert line in status
    assert f"{passed} 22 of 22 results are fresh" in status
    assert str(home / "curated" / "points.parquet") in output
    command = output[output.index("every asset in the UI") :].split()[5]
    assert output.endswith(f"{command} ui --home {home}")
    assert shutil.which(command)
    assert (home / "curated" / "points.parquet").exists()


@pytest.mark.parametrize(("speed", "shown"), [(1_234.4, "1,234/s"), (2.51, "2.5/s"), (None, "")])
def test_progress_shows_how_much_is_done_a_second(speed, shown):
    task = Task(TaskID(0), "embeddings", total=100, completed=100, _get_time=time.monotonic, finished_speed=speed)
    assert str(Pace().render(task)) == shown


def test_curate_refuses_other_folders_than_the_home_has(tmp_path):
    arguments = folders(tmp_path)
    home = tmp_path / "home"
    home.mkdir()
    (home / "sava.yaml").write_text("landing: elsewhere")
    text = refused("curate", *arguments, "--home", home)
    assert "sava.yaml says landing: elsewhere, not" in text
    assert text.endswith("edit the file or choose another --home")


def test_curate_makes_no_home_for_folders_that_are_not_there(tmp_path):
    arguments = folders(tmp_path)
    arguments[3] = tmp_path / "nowhere"
    text = refused("curate", *arguments, "--home", tmp_path / "home")
    assert text.startswith(f"the reference folder {tmp_path / 'nowhere'} does not exist: create it, or name another")
    assert not (tmp_path / "home").exists()


def test_curate_refuses_a_shard_without_labels_and_labels_out_of_range(tmp_path):
    home = tmp_path / "home"
    write_home(home, untrained_checkpoint(home))
    shutil.rmtree(home / "test")
    shard = home / "landing" / "first.parquet"
    images = [png(noise(seed=k)) for k in range(3)]
    write_set(shard, Labelled(images, np.array([0, 9, 1]), ["a", "b"]))
    assert "has 1 values outside 0..1 (first: 9 at row 1): mend the column" in refused("curate", "--home", home)
    pq.write_table(pa.table({"image": images}), shard)
    text = refused("curate", "--home", home)
    assert "raw_images[first]: " in text
    assert "first.parquet has no `label` column (it has image): add one" in text
    assert text.count("first") == 2  # the cause, and not what follows from it
    # The other shard is curated nevertheless.
    assert set(pq.read_table(home / "curated" / "points.parquet")["shard"].to_pylist()) == {"second"}


def test_curate_names_a_bad_knob(tmp_path):
    write_home(tmp_path / "home", SETTINGS | {"prune": {"fraction": 2}})
    assert "`prune.fraction` is 2: input should be less than 1" in refused("curate", "--home", tmp_path / "home")


def test_curate_takes_the_encoder_as_an_option(tmp_path):
    arguments = [*folders(tmp_path), "--encoder", tmp_path / "absent.pt", "--image-size", 8]
    (tmp_path / "home").mkdir()
    settings = {arguments[k][2:].replace("-", "_"): str(arguments[k + 1]) for k in (0, 2, 4)}
    encoder = {"source": str(arguments[7]), "image_size": 8}
    text = yaml.safe_dump(settings | {"encoder": encoder, "settle_seconds": 0})
    (tmp_path / "home" / "sava.yaml").write_text(text)
    text = refused("curate", *arguments, "--home", tmp_path / "home")
    assert text.startswith(f"encoder: the checkpoint {tmp_path / 'absent.pt'} does not exist: correct `encoder.source`")


# -- sava demo, sava cifar10 --------------------------------------------------------------------------------------


def test_demo_writes_every_digit_once_with_the_promised_errors(tmp_path):
    demos.write_digits(tmp_path)
    sets = {
        path.relative_to(tmp_path).as_posix(): list(read_images(UPath(path)))
        for path in tmp_path.rglob("digits*.parquet")
    }
    assert {name: len(images) for name, images in sets.items()} == {
        "reference/digits.parquet": 400,
        "test/digits.parquet": 397,
        **{f"landing/digits-{k}.parquet": 250 for k in (1, 2, 3, 4)},
    }
    assert len(planted_errors(tmp_path)) == 4 * 62
    demos.write_digits(tmp_path / "again")
    first, second = (f / "landing" / "digits-1.parquet" for f in (tmp_path, tmp_path / "again"))
    assert first.read_bytes() == second.read_bytes()


def test_demo_ends_with_a_table_that_says_what_was_found(tmp_path, monkeypatch):
    settings = demos.DIGITS_SETTINGS | {"classifier": {"seeds": 1, "training": QUICK}}
    settings["encoder"] = settings["encoder"] | {"training": QUICK}
    monkeypatch.setattr(demos, "DIGITS_SETTINGS", settings)
    code, output = sava("demo", "--home", tmp_path / "demo")
    assert code == 0
    for words in ("AUROC", "in the 248 highest of 1,000", "left after pruning ", "1,000 points valued, about "):
        assert words in output
    again, repeated = sava("demo", "--home", tmp_path / "demo")
    assert again == 0
    assert repeated[repeated.index("planted") :] == output[output.index("planted") :]


def test_cifar10_refuses_a_folder_without_the_data(tmp_path):
    text = refused("cifar10", tmp_path, "--home", tmp_path / "home")
    assert "does not hold cifar10/ and cifar10_encoder/resnet18_cifar10_first30k.safetensors" in text
    assert not (tmp_path / "home").exists()


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the CIFAR-10 shards in ../shared/data")
def test_cifar10_writes_two_noisy_shards_and_disjoint_clean_sets(tmp_path):
    write_cifar10(tmp_path, SHARED)
    rows = {path.name: pq.read_metadata(path).num_rows for path in tmp_path.rglob("*.parquet")}
    assert rows == {
        "train-3.parquet": 10_000,
        "train-4.parquet": 10_000,
        "planted.parquet": 6_000,
        "cifar10.parquet": 5_000,
    }
    halves = [
        {image["bytes"] for image in pq.read_table(tmp_path / name / "cifar10.parquet")["image"].to_pylist()}
        for name in ("reference", "test")
    ]
    assert not halves[0] & halves[1]


# -- the rest -----------------------------------------------------------------------------------------------------


def test_ui_refuses_a_home_that_is_not_there(tmp_path):
    assert "does not exist: run `sava demo` or `sava curate` first" in refused("ui", "--home", tmp_path / "no")


def locations(monkeypatch, *arguments: object) -> list[str]:
    """Code locations with which a command would start Dagster."""
    started: list[list[str]] = []
    monkeypatch.setattr(os, "execve", lambda _, command, environment: started.append(command))  # noqa: ARG005
    assert sava(*arguments)[0] == 0
    (command,) = started
    return [name for flag, name in itertools.pairwise(command) if flag == "-m" and name != "sava_assets.cli.server"]


def test_the_study_is_loaded_where_one_was_prepared_or_asked_for(curated, tmp_path, monkeypatch):
    chain, study = "sava_assets.definitions", "sava_assets.study.definitions"
    workspace = copy_of(curated[0], tmp_path / "home")
    home = workspace.root
    assert locations(monkeypatch, "ui", "--home", home) == [chain]
    assert locations(monkeypatch, "serve", "--home", home) == [chain]
    assert locations(monkeypatch, "ui", "--study", "--home", home) == [chain, study]
    workspace.store.set_current(workspace.store.save("corrupted_pool", "k", Output({})), "noise")
    assert locations(monkeypatch, "ui", "--home", home) == [chain, study]
    shutil.rmtree(home / "store" / "current" / "corrupted_pool")
    (home / "sava.yaml").write_text((home / "sava.yaml").read_text() + "study: {seeds: 1}\n")
    assert locations(monkeypatch, "serve", "--home", home) == [chain, study]


@pytest.mark.parametrize("command", ["demo", "cifar10", "study", "clothing1m", "curate", "value", "ui"])
def test_every_command_explains_itself(command):
    code, output = sava(command, "--help")
    assert code == 0
    assert "--home" in output or command == "value"
    assert command in sava()[1]


def test_a_wrong_argument_is_said_by_name():
    code, output = sava("curate", "--landign", "x")
    assert code == 2
    assert "No such option" in output


def test_errors_with_brackets_are_printed_whole(monkeypatch, tmp_path):
    def fail(*_: object) -> None:
        raise BadInput("embeddings[first] is odd")

    monkeypatch.setattr("sava_assets.cli.preparation.prepare_home", fail)
    assert refused("curate", "--home", tmp_path) == "embeddings[first] is odd"


def test_pictures_of_the_tests_are_all_different():
    """The toy sets must not share an image, or every run on them would be refused."""
    sets = [pictures(40, first=0), pictures(24, first=1_000), pictures(48, first=2_000), pictures(12, first=3_000)]
    images = [image for s in sets for image in s.images]
    assert len(set(images)) == len(images)
