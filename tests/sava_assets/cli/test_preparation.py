"""Settings are written when they hold, and every odd path works or gets a sentence."""

import os
import shutil
import threading
from pathlib import Path

import pytest
import yaml
from dagster._core.storage.event_log import SqliteEventLogStorage

from sava_assets.cli.preparation import dagster_instance, prepare_home, unlimited
from sava_assets.home.resources import Workspace
from sava_ops import BadInput
from tests.sava_assets.cli.test_cli import refused, sava


@pytest.fixture
def sets(tmp_path):
    folders = {name: tmp_path / name for name in ("landing", "reference", "test")}
    for folder in folders.values():
        folder.mkdir()
    return {name: str(folder) for name, folder in folders.items()}


def settings(sets: dict, **encoder: object) -> dict:
    return sets | {"encoder": {"source": "train"} | encoder}


@pytest.mark.parametrize(
    ("encoder", "message"),
    [
        ({"source": "ImageNet"}, "the checkpoint .*ImageNet does not exist: name a file, or 'imagenet' or 'train'"),
        ({"source": "file:///nowhere/x.pt"}, "the checkpoint file:///nowhere/x.pt cannot be read"),
        ({"source": "odd://x.pt"}, "odd://x.pt cannot be read .*: name a folder or file"),
        ({"image_size": 4}, "^`encoder.image_size` is 4: input should be greater than or equal to 8$"),
        ({"image_size": 5_000}, "^`encoder.image_size` is 5000: input should be less than or equal to 1024$"),
    ],
)
def test_a_mistake_is_not_remembered(sets, tmp_path, encoder, message):
    with pytest.raises(BadInput, match=message):
        prepare_home(tmp_path / "home", settings(sets, **encoder))
    assert not (tmp_path / "home").exists()
    prepare_home(tmp_path / "home", settings(sets))
    assert yaml.safe_load((tmp_path / "home" / "sava.yaml").read_text()) == settings(sets)


def test_a_file_that_is_no_checkpoint_is_not_remembered(sets, tmp_path):
    (tmp_path / "x.pt").write_bytes(b"no weights")
    with pytest.raises(BadInput, match="is damaged or holds more than weights"):
        prepare_home(tmp_path / "home", settings(sets, source=str(tmp_path / "x.pt"), image_size=8))
    assert not (tmp_path / "home").exists()


def test_the_same_folder_written_otherwise_is_the_same(sets, tmp_path):
    home = tmp_path / "home"
    prepare_home(home, settings(sets))
    (tmp_path / "link").symlink_to(tmp_path / "landing")
    for other in (f"{tmp_path}/home/../landing", f"{tmp_path}//landing/", str(tmp_path / "link"), "../landing"):
        prepare_home(home, {"landing": other})
    with pytest.raises(BadInput, match=r"sava.yaml says landing: .*, not .*test: edit the file or choose another"):
        prepare_home(home, {"landing": sets["test"]})


@pytest.mark.parametrize(
    ("home", "message"),
    [
        ("landing", "the home .*landing lies in the landing set .*landing: choose another --home"),
        ("landing/home", "the home .*home lies in the landing set"),
        ("reference/x", "the home .*x lies in the reference set"),
    ],
)
def test_a_home_in_a_set_is_refused(sets, tmp_path, home, message):
    with pytest.raises(BadInput, match=message):
        prepare_home(tmp_path / home, settings(sets))
    assert not list((tmp_path / home.split("/")[0]).iterdir())


def test_sets_in_each_other_are_refused(sets, tmp_path):
    (tmp_path / "landing" / "clean").mkdir()
    with pytest.raises(BadInput, match=r"the reference set .*clean lies in the landing set .*: keep them apart"):
        prepare_home(tmp_path / "home", settings(sets | {"reference": str(tmp_path / "landing" / "clean")}))
    with pytest.raises(BadInput, match=r"the test set .*reference lies in the reference set"):
        prepare_home(tmp_path / "home", settings(sets | {"test": sets["reference"]}))
    (tmp_path / "one.parquet").write_bytes(b"")
    with pytest.raises(BadInput, match=r"the landing folder .*one.parquet is a file: name the folder that holds it"):
        prepare_home(tmp_path / "home", settings(sets | {"landing": str(tmp_path / "one.parquet")}))


@pytest.mark.parametrize("command", ["curate", "status", "gc", "ui", "history", "backfill", "demo"])
def test_a_home_that_is_a_file_or_below_one_is_a_sentence(tmp_path, command):
    (tmp_path / "file").write_text("x")
    assert "file is a file: choose a folder for --home" in refused(command, "--home", tmp_path / "file")
    code, output = sava(command, "--home", tmp_path / "file" / "deep")
    assert code == 1
    assert "Not a directory" in output or "does not exist" in output


@pytest.mark.parametrize("name", ["what?", "100%", "two\nlines", "caf\udce9"])
def test_a_home_that_dagster_cannot_name_is_refused_and_leaves_nothing_beside_it(tmp_path, name):
    (tmp_path / name).mkdir()
    text = refused("curate", "--home", tmp_path / name)
    assert "with which Dagster cannot name its database: choose another --home" in text
    assert len(list(tmp_path.iterdir())) == 1
    assert not list((tmp_path / name).iterdir())


def test_a_home_that_is_a_url_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for home in ("file:///somewhere/home", "http://somewhere/home"):
        assert f"the home {home} is a URL: choose a folder of this machine, or a" in refused("curate", "--home", home)
    # As a path library writes it.
    assert "the home s3://bucket/home is a URL: choose a path of this" in refused("status", "--home", "s3:/bucket/home")
    assert "the home s3:/// names no bucket: write it as s3://BUCKET/FOLDER" in refused("status", "--home", "s3:///")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["my:data", "a::b", "a#b", "[1]*", "ünï 🐈"])
def test_any_other_name_works_relative_too(sets, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).mkdir()
    workspace = prepare_home((tmp_path / name).relative_to(tmp_path), settings(sets))
    assert str(workspace.root) == str(tmp_path / name)
    with dagster_instance(tmp_path / name) as instance:
        assert instance.get_dynamic_partitions("shards") == []
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([name, *sets])


def test_two_first_commands_agree_on_one_database(tmp_path):
    errors = []
    together = threading.Barrier(4)

    def first() -> None:
        try:
            together.wait()
            with dagster_instance(tmp_path / "home") as instance:
                instance.get_dynamic_partitions("shards")
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=first) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    with dagster_instance(tmp_path / "home") as instance:
        instance.add_dynamic_partitions("shards", ["a"])
        assert instance.get_dynamic_partitions("shards") == ["a"]


def test_a_command_that_ends_while_it_creates_the_database_leaves_nothing_in_the_way(tmp_path, monkeypatch):
    def half_created(storage, _engine, **_):
        Path(storage.path_for_shard("index")).touch()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(SqliteEventLogStorage, "_initdb", half_created)
        with pytest.raises(KeyboardInterrupt), dagster_instance(tmp_path):
            pass
    assert not (tmp_path / ".dagster").exists()
    for _ in range(2):
        with dagster_instance(tmp_path) as instance:
            instance.add_dynamic_partitions("shards", ["first"])
            assert instance.get_dynamic_partitions("shards") == ["first"]
    assert not (tmp_path / ".dagster.new").exists()


@pytest.mark.parametrize("name", ["store", "curated", ".locks", ".dagster"])
@pytest.mark.parametrize("command", ["curate", "status"])
def test_a_file_in_the_place_of_a_folder_of_ours_is_a_sentence(sets, tmp_path, command, name):
    prepare_home(tmp_path / "home", settings(sets))
    shutil.rmtree(tmp_path / "home" / name, ignore_errors=True)
    (tmp_path / "home" / name).write_text("x")
    said = refused(command, "--home", tmp_path / "home")
    assert f"home/{name}, the place of " in said
    assert said.endswith(", is a file: move it away")


@pytest.mark.parametrize(
    ("file", "content", "told"),
    [
        ("dagster.yaml", b"a: [", "while parsing a flow node"),
        ("history/runs.db", b"x" * 5_000, "file is not a database"),
    ],
)
def test_a_damaged_instance_of_the_home_is_a_sentence(tmp_path, file, content, told):
    with dagster_instance(tmp_path):
        pass
    (tmp_path / ".dagster" / file).write_bytes(content)
    with pytest.raises(
        BadInput, match=rf"^the Dagster instance of the home \(.*\) cannot be opened \(.*{told}"
    ) as error:
        dagster_instance(tmp_path).__enter__()
    assert str(error.value).endswith(
        ": make room on the disk, or move that folder away; a new one is made, results stay"
    )


def test_garbage_of_a_new_home_is_nothing(sets, tmp_path):
    prepare_home(tmp_path / "home", settings(sets))
    assert sava("gc", "--home", tmp_path / "home") == (0, "0 results deleted, 0.0 MB")
    assert Workspace(home=str(tmp_path / "home")).knobs.landing == sets["landing"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("landing: stra\u00dfe\n".encode("latin-1"), "is not UTF-8 (byte 13): save it as UTF-8"),
        ("landing: x\n".encode("utf-16"), "is not UTF-8 (byte 0): save it as UTF-8"),
        (b"prune: {cap: 0}\nprune: {cap: 1}\n", "is not valid YAML: `prune` is there twice"),
        (b"prune: {cap: 0, cap: 1}\n", "`cap` is there twice"),
        (b"settle_seconds: .inf\n", "`settle_seconds` is inf: input should be a finite number"),
        (b"device: gpu\n", "`device`: `device` is 'gpu': it must be 'auto', 'cpu', 'cuda' or 'cuda:' and a number"),
        (b"device: cuda:x\n", "`device` is 'cuda:x'"),
        (b"a: " * 1, "`a` is not a knob"),
    ],
)
def test_a_settings_file_that_cannot_be_is_a_sentence(tmp_path, content, message):
    (tmp_path / "sava.yaml").write_bytes(content)
    assert message in refused("status", "--home", tmp_path)


def test_a_folder_of_that_name_is_a_sentence(tmp_path):
    (tmp_path / "sava.yaml").mkdir()
    assert "sava.yaml is a folder: write the settings into a file of that name" in refused("status", "--home", tmp_path)


def test_a_dagster_home_that_is_set_is_the_instance(tmp_path, monkeypatch):
    (tmp_path / "shared").mkdir()
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "shared"))
    with dagster_instance(tmp_path / "home") as instance:
        assert instance.root_directory == str(tmp_path / "shared")
        instance.add_dynamic_partitions("shards", ["a"])
    assert not (tmp_path / "home").exists()
    assert not (tmp_path / "shared" / "dagster.yaml").exists()
    monkeypatch.delenv("DAGSTER_HOME")
    with dagster_instance(tmp_path / "home") as instance:
        assert instance.get_dynamic_partitions("shards") == []
        assert instance.root_directory == str(tmp_path / "home" / ".dagster")
    assert "DAGSTER_HOME" not in os.environ


@pytest.mark.parametrize("named", ["nowhere", "/nowhere/at/all", "."])
def test_a_dagster_home_that_is_no_folder_is_refused(tmp_path, monkeypatch, named):
    monkeypatch.setenv("DAGSTER_HOME", named)
    with pytest.raises(BadInput, match=r"DAGSTER_HOME is '.*': name an existing folder by its whole path, or unset it"):
        dagster_instance(tmp_path / "home").__enter__()


@pytest.mark.parametrize(
    ("content", "limited"),
    [
        (None, False),
        ("", False),
        ("telemetry: {enabled: false}", False),
        ("concurrency: {pools: {granularity: run}}", False),
        ("concurrency: [", False),
        ("concurrency: {pools: {default_limit: 2}}", True),
    ],
)
def test_a_shared_instance_without_a_limit_is_said(tmp_path, monkeypatch, content, limited):
    assert unlimited() == ""
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    if content is not None:
        (tmp_path / "dagster.yaml").write_text(content)
    told = "" if limited else f"the Dagster instance of DAGSTER_HOME has no limit in {tmp_path / 'dagster.yaml'}, so "
    assert unlimited().startswith(told)
    assert bool(unlimited()) != limited
    for name in ("landing", "reference"):
        (tmp_path / "home" / name).mkdir(parents=True)
    assert (told in sava("status", "--home", tmp_path / "home")[1]) or limited
