"""A look at a home on an object store takes the same few requests however many shards there are."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import fsspec
import pytest
from upath import UPath

from sava_assets.cli.accounts import accounts
from sava_assets.freshness import sources
from sava_assets.freshness.drift import calibration_drift
from sava_assets.freshness.rules import RULES
from sava_assets.freshness.survey import Survey
from sava_assets.home import look
from sava_assets.home.places import content, remove
from sava_assets.home.resources import Workspace
from sava_assets.home.store import put_file
from tests.sava_assets.cli.test_cli import sava
from tests.sava_assets.freshness.test_look import VERSION, whole_home

pytestmark = pytest.mark.long
MOST = 20
SHARDS = 3, 9


@pytest.fixture(scope="module")
def homes(object_store, tmp_path_factory) -> dict[int, Workspace]:
    """Of few and of many shards, all fresh."""
    made = {}
    for shards in SHARDS:
        (folder := tmp_path_factory.mktemp("s3") / f"s3-home-{shards}").mkdir()
        files = fsspec.filesystem("memory")
        name = whole_home(folder, shards).root.path.strip("/")
        home = object_store.bucket() / "home"
        objects = {
            f"{home.path}/{path.strip('/').removeprefix(f'{name}/')}": data for path, data in all_of(files, name)
        }
        home.fs.pipe(objects)
        made[shards] = Workspace(home=str(home))
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(sources, "CHANGING_SECONDS", -2.0)  # what has just been put will not change
            assert states(made[shards]) == []
        assert states(made[shards]) == []
    return made


def all_of(files, folder: str) -> Iterator[tuple[str, bytes]]:
    return ((path, files.cat_file(path)) for path in files.find(f"/{folder}"))


def states(workspace: Workspace) -> list[str]:
    """What is not fresh, as `sava status` looks."""
    survey = Survey.landed(workspace)
    found = [f"{state.status} {state.title}: {state.reason}" for state in survey.all() if state.status != "fresh"]
    accounts(survey)
    assert calibration_drift(survey.home, survey.shards)
    return found


@pytest.fixture
def counted(object_store):
    @contextmanager
    def counting() -> Iterator[Counter[str]]:
        object_store.requests.clear()
        made: Counter[str] = Counter()
        yield made
        made.update(object_store.requests)

    return counting


@pytest.mark.parametrize("first", [False, True], ids=["later look", "first look of a process"])
def test_a_look_with_nothing_due_takes_the_same_few_requests(homes, counted, monkeypatch, first):
    found = {}
    for shards, workspace in homes.items():
        if first:
            monkeypatch.setattr(look, "_read", {})
        with counted() as made:
            assert states(workspace) == []
        found[shards] = made
    assert found[SHARDS[0]].total() == found[SHARDS[1]].total() <= MOST, found[SHARDS[1]]
    assert not [line for made in found.values() for line in made if line.startswith(("PUT", "POST", "DELETE"))]


def test_the_whole_command_takes_as_few(homes, counted):
    found = {}
    for shards, workspace in homes.items():
        with counted() as made:
            code, said = sava("status", "--home", workspace.home)
        assert code == 0
        assert "results are fresh" in said
        found[shards] = made
    assert found[SHARDS[0]].total() == found[SHARDS[1]].total() <= MOST, found[SHARDS[1]]


def test_a_tick_of_the_automation_takes_as_few(homes, counted):
    found = {}
    for shards, workspace in homes.items():
        with counted() as made:
            survey = Survey.landed(workspace)
            assert [state for asset in RULES for state in survey.requestable(asset)] == []
        found[shards] = made.total()
    assert found[SHARDS[0]] == found[SHARDS[1]] <= MOST


def test_what_somebody_else_put_replaced_or_took_away_is_in_the_next_look(homes):
    workspace = homes[SHARDS[0]]
    # Another process: it has a connection of its own, and no look at what this one has seen.
    others = UPath(f"{workspace.home}/landing", skip_instance_cache=True, use_listings_cache=True)
    files = others.fs
    sound = files.cat_file(f"{others.path}/s000.parquet")
    files.pipe_file(f"{others.path}/new.parquet", sound)
    assert "due raw_images[new]: no result yet" in states(workspace)
    files.rm_file(f"{others.path}/new.parquet")
    assert states(workspace) == []
    other = sound.replace(b"PNG", b"GNP", 1)
    assert len(other) == len(sound)
    files.pipe_file(f"{others.path}/s001.parquet", other)
    assert "due raw_images[s001]: shard content changed" in states(workspace)
    files.pipe_file(f"{others.path}/s001.parquet", sound)
    assert states(workspace) == []


@pytest.mark.parametrize(
    ("lost", "told"),
    [
        ("store/results/raw_images/{key}/{points}", "due raw_images[s002]: {place} is missing"),
        ("curated/current.json", "due curated_dataset: {place} does not name the version {version}"),
        ("curated/versions/{version}/points.parquet", "due curated_dataset: {place} is not there"),
    ],
)
def test_what_is_lost_of_the_store_or_of_what_is_published_is_named(homes, lost, told):
    workspace = homes[SHARDS[0]]
    result = workspace.store.require("raw_images", "s002")
    names = {"key": result.key, "points": result.files["points.parquet"].path.name, "version": VERSION}
    place = workspace.root / lost.format(**names)
    kept = content(place)
    remove(place)
    assert told.format(place=place, **names) in states(workspace)
    put_file(place, kept)
    assert states(workspace) == []
