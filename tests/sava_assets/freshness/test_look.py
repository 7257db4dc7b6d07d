"""A look lists each place once, however many shards there are, and sees what others did since the last one."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from upath import UPath

from sava_assets.cli.accounts import accounts
from sava_assets.cli.outcome import no_test_set
from sava_assets.freshness import sources
from sava_assets.freshness.drift import calibration_drift
from sava_assets.freshness.rules import RULES, inputs, key, wanted
from sava_assets.freshness.survey import Survey
from sava_assets.home import look
from sava_assets.home.listed import listed
from sava_assets.home.publication import Publication
from sava_assets.home.resources import Workspace
from sava_assets.home.result import Output, bytes_file
from tests.sava_assets.freshness.stored_home import unpack
from tests.sava_assets.homes import copy_of

pytestmark = pytest.mark.long
VERSION = "5" * 32
EMBEDDED = ("embeddings", "reference_embeddings")
SETS = ("raw_images", "reference_images", "test_images")


@contextmanager
def requests() -> Iterator[Counter[str]]:
    """What is asked of the object store, by name: a listing of all that is below a place counts once, as on S3."""
    made: Counter[str] = Counter()
    inside = False

    def counted(name: str):
        ask = getattr(MemoryFileSystem, name)

        def asked(self, path, *arguments, **named):
            nonlocal inside
            if inside:
                return ask(self, path, *arguments, **named)
            made[f"{name} {path}"] += 1
            inside = True
            try:
                return ask(self, path, *arguments, **named)
            finally:
                inside = False

        patched.setattr(MemoryFileSystem, name, asked)

    with pytest.MonkeyPatch.context() as patched:
        for name in ("find", "ls", "info", "exists", "isdir", "isfile", "modified", "open", "cat_file", "put_file"):
            counted(name)
        yield made


YOUNGER = {"test_embeddings": "reference_embeddings", "probe_accuracy": "classifier_accuracy"}
"""Assets that the stored home is older than → those of alike numbers."""


def whole_home(folder: Path, shards: int) -> Workspace:
    """On an object store: results of so many equal shards, all fresh, with the numbers of a real curation."""
    unpack(folder)
    real = Workspace(home=str(folder)).store
    names = [f"s{number:03}" for number in range(shards)]
    files = fsspec.filesystem("memory")
    files.put(f"{folder}/", f"/{folder.name}/", recursive=True)
    files.rm(f"/{folder.name}/store", recursive=True)
    files.rm(f"/{folder.name}/landing/second", recursive=True)
    for name in names:
        files.cp_file(f"/{folder.name}/landing/first.parquet", f"/{folder.name}/landing/{name}.parquet")
    files.rm(f"/{folder.name}/landing/first.parquet")
    workspace = Workspace(home=f"memory://{folder.name}")
    publication = Publication(workspace.curated)
    publication.write(VERSION, [("points.parquet", bytes_file(b"points"))], {})
    publication.release(VERSION)
    for asset in wanted(workspace):
        sharded = RULES[asset].sharded
        like = real.require(YOUNGER.get(asset, asset), "first" if sharded else None)
        small = dict.fromkeys(EMBEDDED, "moments.safetensors") | dict.fromkeys(SETS, "points.parquet")
        kept = {small[asset]: bytes_file(like.read(small[asset]))} if asset in small else {}
        numbers = {**like.numbers} | ({"version": VERSION} if asset == "curated_dataset" else {})
        for shard in names if sharded else [None]:
            named = inputs(asset, workspace, names, shard)
            made = workspace.store.save(asset, key(named), Output(kept, numbers, data_version=key(named)), named)
            workspace.store.set_current(made, shard)
    return workspace


def whole_look(workspace: Workspace) -> tuple[int, list[str]]:
    """As `sava status` looks; number of requests, and what is not fresh."""
    with requests() as made:
        survey = Survey.landed(workspace)
        states = [f"{state.status} {state.title}: {state.reason}" for state in survey.all() if state.status != "fresh"]
        accounts(survey)
        assert no_test_set(survey.home) == ""
        assert "mean feature cost" in (calibration_drift(survey.home, survey.shards) or "")
    assert max(made.values()) <= 2, made.most_common(3)
    return sum(made.values()), states


@pytest.fixture(scope="module")
def homes(tmp_path_factory) -> dict[int, Workspace]:
    made = {}
    for shards in (4, 50):
        (folder := tmp_path_factory.mktemp("look") / f"home-{shards}").mkdir()
        made[shards] = whole_home(folder, shards)
        assert whole_look(made[shards])[1] == []
    return made


def test_a_look_with_nothing_due_takes_the_same_few_requests_for_4_and_50_shards(homes):
    found = {shards: whole_look(workspace) for shards, workspace in homes.items()}
    assert found[4] == found[50] == (found[4][0], [])
    assert found[4][0] <= 20


def test_the_first_look_of_a_process_takes_as_few(homes, monkeypatch):
    monkeypatch.setattr(look, "_read", {})
    found = {shards: whole_look(workspace) for shards, workspace in homes.items()}
    assert found[4] == found[50] == (found[4][0], [])
    assert found[4][0] <= 20


def test_a_tick_of_the_automation_takes_as_few(homes):
    found = {}
    for shards, workspace in homes.items():
        with requests() as made:
            survey = Survey.landed(workspace)
            assert [state for asset in RULES for state in survey.requestable(asset)] == []
        found[shards] = sum(made.values())
    assert found[4] == found[50] <= 20


def test_a_local_landing_folder_is_gone_through_once_a_look(curated, tmp_path, monkeypatch):
    workspace, landed, looks = copy_of(curated[0], tmp_path / "home"), sources.landed, []
    monkeypatch.setattr(sources, "landed", lambda *a, **k: looks.append(1) or landed(*a, **k))
    assert {state.status for state in Survey.landed(workspace).all()} == {"fresh"}
    assert looks == [1]


def test_what_somebody_else_put_replaced_or_took_away_is_in_the_next_look(homes):
    workspace, files = homes[4], fsspec.filesystem("memory", skip_instance_cache=True)
    landing = f"/{workspace.root.path.strip('/')}/landing"
    sound = files.cat_file(f"{landing}/s000.parquet")
    files.pipe_file(f"{landing}/new.parquet", sound)
    assert "due raw_images[new]: no result yet" in whole_look(workspace)[1]
    files.rm_file(f"{landing}/new.parquet")
    assert whole_look(workspace)[1] == []
    other = sound.replace(b"PNG", b"GNP", 1)
    assert len(other) == len(sound)
    assert other != sound
    files.pipe_file(f"{landing}/s001.parquet", other)
    assert "due raw_images[s001]: shard content changed" in whole_look(workspace)[1]
    files.pipe_file(f"{landing}/s001.parquet", sound)
    assert whole_look(workspace)[1] == []
    files.rm_file(f"{landing}/s003.parquet")
    assert any("shard s003 is gone" in line for line in whole_look(workspace)[1])
    files.pipe_file(f"{landing}/s003.parquet", sound)
    assert whole_look(workspace)[1] == []


def test_what_another_process_stored_is_in_the_next_look(homes):
    workspace = homes[4]
    fresh = workspace.store.require("raw_images", "s002")
    points = {"points.parquet": bytes_file(fresh.read("points.parquet"))}
    other = workspace.store.save("raw_images", "another", Output(points), {"code_version": "0"})
    workspace.store.set_current(other, "s002")
    assert f"due raw_images[s002]: code version 0 → {RULES['raw_images'].code_version}" in " ".join(
        whole_look(workspace)[1]
    )
    workspace.store.set_failure("raw_images", "s002", fresh.key, "no luck")
    assert "failed raw_images[s002]: no luck" in whole_look(workspace)[1]
    workspace.store.set_current(fresh, "s002")
    assert whole_look(workspace)[1] == []
    workspace.store.forget(fresh)
    assert "due raw_images[s002]: no result yet" in whole_look(workspace)[1]
    workspace.store.save(
        "raw_images", fresh.key, Output(points, fresh.numbers, data_version=fresh.data_version), fresh.inputs
    )
    assert whole_look(workspace)[1] == []


def test_a_file_that_lost_its_content_is_missing_and_one_that_had_none_is_not(tmp_path):
    files = {"a.txt": bytes_file(b"something"), "none.txt": bytes_file(b"")}
    result = Workspace(home=str(tmp_path)).store.save("raw_images", "k", Output(files))

    def missing() -> str:
        return look.LookStore(UPath(tmp_path / "store")).missing(result)

    assert missing() == ""
    file = Path(result.files["a.txt"].path.path)
    file.write_bytes(b"")
    assert missing() == f"{file} is empty"
    file.unlink()
    assert missing() == f"{file} is missing"


def test_no_place_of_a_home_is_listed_from_a_cache():
    workspace = Workspace(home="memory://cached")
    for place in (workspace.root, workspace.store.root, workspace.folder("landing"), workspace.folder("memory://b/x")):
        assert place.fs.dircache.use_listings_cache is False


def test_a_listed_folder_answers_as_the_folder_itself(tmp_path):
    there = Workspace(home=f"memory://{tmp_path.name}").folder("set")
    for name in ("a/1.png", "a/2.png", "b/c/3.png", "t.parquet"):
        (there / name).write_bytes(name.encode())
    seen = listed(there)
    assert str(seen) == str(there)
    with requests() as made:
        for name in ("", "a", "b", "b/c", "a/1.png", "t.parquet", "nowhere", "a/nowhere", "t"):
            one, other = there / name, seen / name
            assert (other.exists(), other.is_dir(), other.is_file()) == (one.exists(), one.is_dir(), one.is_file()), (
                name
            )
            if one.is_dir():
                assert sorted(path.name for path in other.iterdir()) == sorted(path.name for path in one.iterdir())
            if one.exists():
                assert (other.stat().st_size, other.stat().st_mtime) == (one.stat().st_size, one.stat().st_mtime)
        made.clear()
        assert sorted(path.name for path in seen.rglob("*.png")) == ["1.png", "2.png", "3.png"]
        assert made.total() == 0
        assert (seen / "a" / "1.png").read_bytes() == b"a/1.png"
        assert made.total() == 1
    (there / "a" / "4.png").write_bytes(b"4")
    assert not (seen / "a" / "4.png").exists()
    assert listed(seen / "a" / "4.png") is not None
    assert (listed(seen / "a", anew=True) / "4.png").exists()
    file = listed(there / "t.parquet")
    assert file.is_file()
    assert file.stat().st_size == len("t.parquet")
    with pytest.raises(FileNotFoundError):
        (seen / "nowhere").stat()
