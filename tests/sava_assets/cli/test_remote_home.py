"""A home, a store or published data on an object store, from the command line: what is refused, before anything is
written."""

import json

import pytest

from sava_assets.cli.preparation import existing_home, prepare_home
from sava_assets.formats.decision_files import read_decisions
from sava_assets.home.places import content, put_object
from sava_assets.home.store import put_file
from sava_assets.review.served import save_decisions
from sava_ops import BadInput
from tests.sava_assets.cli.test_cli import refused, sava

LOCAL = {
    "demo": ["--home"],
    "cifar10": ["source", "--home"],
    "clothing1m": ["source", "--home"],
    "study": ["source", "--home"],
}


@pytest.mark.parametrize("command", LOCAL)
def test_what_brings_its_own_data_wants_a_folder_here(tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    said = refused(command, *LOCAL[command], "s3://bucket/home")
    assert said == "the home s3://bucket/home is a URL: choose a path of this machine"
    assert not list(tmp_path.iterdir())


def test_tables_of_features_and_files_of_other_tools_are_files_here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    away, here = "s3://bucket/x.parquet", tmp_path / "x.parquet"
    for what, files in {
        "the training table": (away, here, here),
        "the reference table": (here, away, here),
        "the output": (here, here, away),
    }.items():
        train, reference, output = files
        assert refused("value", train, reference, "-o", output).startswith(f"{what} {away} is a URL: choose a path of")
    (tmp_path / "data").mkdir()
    assert refused("export", "cleanlab", away).startswith(f"the target {away} is a URL: ")
    assert refused("import", "cleanlab", away).startswith(f"the source {away} is a URL: ")
    assert refused("study", "--report", away).startswith(f"the report {away} is a URL: ")


@pytest.mark.usefixtures("object_store")
@pytest.mark.parametrize(
    "command", ["curate", "status", "history", "gc", "report", "review", "backfill", "ui", "serve"]
)
def test_a_bucket_that_is_not_there_is_a_sentence(tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    said = refused(command, "--home", "s3://nobody-made-this/home")
    assert said == "s3://nobody-made-this/home/sava.yaml: the bucket does not exist: create it, or correct the address"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", ["status", "history", "gc", "report", "ui"])
def test_a_place_where_nothing_is_has_no_home(object_store, command):
    home = object_store.bucket() / "home"
    assert f"the home folder {home} does not exist: run " in refused(command, "--home", home)


def test_a_home_without_a_place_for_the_database_is_refused_before_anything_is_written(object_store, monkeypatch):
    home = object_store.bucket() / "home"
    sentence = f"the home {home} cannot hold Dagster's database: set DAGSTER_HOME to a folder of this machine"
    assert refused("curate", "--home", home).startswith(sentence)
    assert not home.exists()
    put_file(home / "sava.yaml", b"landing: landing\n")
    for command in ("backfill", "ui", "serve"):
        assert refused(command, "--home", home).startswith(sentence)
    monkeypatch.setenv("DAGSTER_HOME", "nowhere")
    assert "DAGSTER_HOME is 'nowhere': name an existing folder" in refused("ui", "--home", home)


@pytest.mark.parametrize("name", ["store", "curated"])
def test_a_store_or_published_data_out_of_reach_is_told_at_once(object_store, tmp_path, name):
    (tmp_path / "sava.yaml").write_text(f"{name}: s3://nobody-made-this/x\n")
    object_store.requests.clear()
    said = refused("status", "--home", tmp_path)
    assert said.startswith("s3://nobody-made-this/x")
    assert said.endswith("the bucket does not exist: create it, or correct the address")
    assert len(object_store.requests) == 1


@pytest.fixture
def home(object_store, tmp_path, monkeypatch):
    """Where one may be, beside the sets of a home."""
    (tmp_path / "dagster").mkdir()
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "dagster"))
    bucket = object_store.bucket()
    for name in ("landing", "reference", "test"):
        put_file(bucket / "home" / name / "x", b"x")
    return bucket / "home"


def test_settings_are_written_once(home):
    assert prepare_home(str(home), {"settle_seconds": 1}).knobs.settle_seconds == 1
    assert content(home / "sava.yaml") == b"settle_seconds: 1\n"
    assert prepare_home(f"{home}/", {"settle_seconds": 1}).home == str(home)
    with pytest.raises(BadInput, match=r"home/sava.yaml says settle_seconds: 1.0, not 2.0: edit the file"):
        prepare_home(str(home), {"settle_seconds": 2})
    assert existing_home(str(home)).knobs.settle_seconds == 1
    assert prepare_home(str(home), {"landing": f"{home}/landing/"}).knobs.landing == "landing"


def test_of_two_first_commands_one_writes_the_settings(home, monkeypatch):
    def meanwhile(path, file, *, new=False):
        monkeypatch.setattr("sava_assets.home.store.put_object", put_object)
        put_file(home / "sava.yaml", b"settle_seconds: 7\n")
        put_object(path, file, new=new)

    monkeypatch.setattr("sava_assets.home.store.put_object", meanwhile)
    with pytest.raises(BadInput, match=r"says settle_seconds: 7.0, not 1.0"):
        prepare_home(str(home), {"settle_seconds": 1})
    assert content(home / "sava.yaml") == b"settle_seconds: 7\n"


def test_folders_on_an_object_store_are_kept_apart_too(home):
    bucket = home.parent
    for settings, sentence in (
        ({"landing": str(bucket / "home")}, "the home .* lies in the landing set s3://.*home: choose another --home"),
        ({"reference": str(home / "landing" / "x")}, "the reference set .*/landing/x lies in the landing set "),
        ({"store": "landing/store"}, "the store .*/landing/store lies in the landing set .*: keep them apart"),
        ({"curated": f"{home}/reference/"}, "the reference set .* lies in the published data set .*|the published"),
        ({"curated": "store/curated"}, "the published data set .*/store/curated lies in the store .*/store: keep"),
        ({"landing": "sets.parquet", "x": 1}, "`x` is not a knob"),
    ):
        with pytest.raises(BadInput, match=sentence):
            prepare_home(str(home), settings)
    put_file(home / "sets.parquet", b"PAR1")
    with pytest.raises(BadInput, match=r"the landing folder s3://.*sets.parquet is a file: name the folder that holds"):
        prepare_home(str(home), {"landing": "sets.parquet"})
    assert not (home / "sava.yaml").exists()


def test_folders_that_are_not_there_are_named(home):
    with pytest.raises(BadInput, match=r"the landing folder s3://.*/nothing does not exist: create it"):
        prepare_home(str(home), {"landing": "nothing"})
    assert not (home / "sava.yaml").exists()


@pytest.mark.parametrize("command", ["ui", "serve"])
def test_dagster_is_told_the_address(home, monkeypatch, tmp_path, command):
    put_file(home / "sava.yaml", b"settle_seconds: 1\n")
    begun = {}
    monkeypatch.setattr("os.execve", lambda _, __, environment: begun.update(environment))
    monkeypatch.setattr("signal.signal", lambda *_: None)
    assert sava(command, "--home", home) == (0, "")
    assert begun["SAVA_HOME"] == str(home)
    assert begun["DAGSTER_HOME"] == str(tmp_path / "dagster")
    assert begun.get("SAVA_AUTOMATION") == {"ui": None, "serve": "1"}[command]


def test_what_people_decide_is_saved_there(home):
    decision = {"pixel_hash": "0" * 64, "decision": "drop", "when": "2026-01-31T18:05:00Z", "who": "me"}
    said = save_decisions(home / "decisions", json.dumps([decision]).encode())
    assert said.startswith("1 decision in decisions/review-")
    (found,) = read_decisions(home / "decisions")
    assert (found.pixel_hash, found.decision, found.who) == ("0" * 64, "drop", "me")
    table = f"pixel_hash,decision,when,who\n{'1' * 64},keep,2026-02-01T00:00:00Z,me\n"
    put_file(home / "decisions" / "table.csv", table.encode())
    assert [each.decision for each in read_decisions(home / "decisions")] == ["drop", "keep"]
