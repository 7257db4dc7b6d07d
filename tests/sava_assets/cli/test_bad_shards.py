"""One bad shard stops no other, whatever it raises; what is still being written spoils no good run."""

import os
import re
import shutil
import time

import pyarrow.parquet as pq
import pytest
from rich.console import Console

from sava_assets.assets import ingest, plots
from sava_assets.cli.runner import curate
from sava_assets.formats import landing
from sava_assets.freshness.rules import inputs, key
from sava_assets.freshness.survey import Survey
from sava_assets.home.resources import Workspace
from sava_assets.home.result import Failure
from sava_ops import BadInput
from tests.pictures import png, scan
from tests.sava_assets.cli.test_cli import refused, sava
from tests.sava_assets.homes import copy_of, noisy, pictures, untrained_checkpoint, write_home, write_set

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def curated_once(tmp_path_factory):
    """A curated home that costs no training."""
    home = tmp_path_factory.mktemp("shards") / "home"
    write_home(home, untrained_checkpoint(home))
    curate(Workspace(home=str(home)), Console(quiet=True))
    return home


@pytest.fixture
def home(curated_once, tmp_path):
    return copy_of(curated_once, tmp_path / "home").root


def shards_in(home) -> set[str]:
    return set(pq.read_table(str(home / "curated" / "points.parquet"))["shard"].to_pylist())


def add_shard(home, name: str = "third") -> None:
    write_set(home / "landing" / f"{name}.parquet", noisy(pictures(16, first=6_000), seed=3)[0])


def damaged(home, name: str, harm: slice) -> None:
    file = home / "landing" / f"{name}.parquet"
    write_set(file, noisy(pictures(16, first=7_000), seed=3)[0])
    data = bytearray(file.read_bytes())
    data[harm] = b"\xff" * len(data[harm])
    file.write_bytes(data)


def test_damaged_files_are_set_aside_and_the_rest_goes_on(home):
    damaged(home, "pages", slice(40, 4_000))
    damaged(home, "footer", slice(-120, -10))
    add_shard(home)
    said = refused("curate", "--home", home)
    for name in ("raw_images[footer]: ", "raw_images[pages]: "):
        assert name in said
    assert shards_in(home) == {"first", "second", "third"}
    told = sava("status", "--home", home)[1]
    assert "failed raw_images[footer]: " in told
    assert "failed raw_images[pages]: " in told


def test_two_of_one_name_stop_no_other_and_their_shard_stays_as_it_was(home):
    add_shard(home)
    (home / "landing" / "first" / "cat").mkdir(parents=True)
    (home / "landing" / "first" / "cat" / "1.png").write_bytes(png(scan(1, seed=1)))
    why = "first and first.parquet in landing both name the shard 'first': rename one"
    said = refused("curate", "--home", home).replace(f"{home}/", "")
    assert why in said
    assert shards_in(home) == {"first", "second", "third"}
    told = sava("status", "--home", home)[1].replace(f"{home}/", "")
    assert why in told
    assert "first.parquet: first and first.parquet name the same shard: rename one" in told
    shutil.rmtree(home / "landing" / "first")
    assert sava("curate", "--home", home)[0] == 0


def test_a_shard_that_killed_two_processes_is_named_and_the_rest_goes_on(home, monkeypatch):
    add_shard(home, "bad")
    add_shard(home)
    workspace, read, at_work = Workspace(home=str(home)), ingest.read_images, []
    name = key(inputs("raw_images", workspace, ["bad"], "bad"))
    workspace.store.put_failure("raw_images", "bad", Failure(name, "it kills", 2, time.time(), 1, "gone 1 0.00"))

    def noticed(path, classes, **more):
        note = workspace.store.failure("raw_images", path.stem)
        at_work.append((path.stem, note is not None and note.in_progress))
        return read(path, classes, **more)

    monkeypatch.setattr(ingest, "read_images", noticed)
    assert refused("curate", "--home", home) == "raw_images[bad]: it kills"
    assert at_work == [("third", True)]
    assert shards_in(home) == {"first", "second", "third"}
    assert workspace.store.failure("raw_images", "third") is None


ANY_ERROR = {
    "bad-1": ZeroDivisionError("odd"),
    "bad-2": MemoryError(),
    "bad-3": OSError(5, "Input/output error", "disk"),
}


def test_whatever_a_shard_raises_the_others_go_on(home, monkeypatch):
    read = ingest.read_images

    def failing(path, classes, **more):
        if path.stem in ANY_ERROR:
            raise ANY_ERROR[path.stem]
        return read(path, classes, **more)

    monkeypatch.setattr(ingest, "read_images", failing)
    for name in ANY_ERROR:
        add_shard(home, name)
    write_set(home / "landing" / "third.parquet", noisy(pictures(16, first=8_000), seed=3)[0])
    said = refused("curate", "--home", home)
    for name, sentence in zip(ANY_ERROR, re.split(r"; (?=raw_images\[)", said), strict=True):
        kept = home / "store" / "failures" / "raw_images" / f"{name}.txt"
        assert sentence.startswith(f"raw_images[{name}]: ")
        assert sentence.endswith(f"(not foreseen; its traceback is in {kept})")
        assert "in failing" in kept.read_text()
    assert shards_in(home) == {"first", "second", "third"}


def test_a_shard_that_cannot_be_looked_at_is_one_of_the_failed(home, monkeypatch):
    look = landing._files

    def failing(path, *more):
        if path.name.startswith("third"):
            raise RuntimeError("no look")
        return look(path, *more)

    add_shard(home)
    monkeypatch.setattr(landing, "_files", failing)
    said = refused("curate", "--home", home)
    assert said.startswith("raw_images[third]: RuntimeError: no look (not foreseen; its traceback is in ")
    states = {state.title: state.status for state in Survey(Workspace(home=str(home)), ["first", "third"]).all()}
    assert states["raw_images[first]"] == "fresh"
    assert states["raw_images[third]"] == "failed"


def settle(home, seconds: float) -> None:
    file = home / "sava.yaml"
    file.write_text(file.read_text().replace("settle_seconds: 0", f"settle_seconds: {seconds}"))
    for path in (home / "landing" / "second").rglob("*"):
        os.utime(path, (time.time() - 9_000,) * 2)


def folder_shard(home, date: float) -> None:
    file = home / "landing" / "third" / "east" / "0.png"
    file.parent.mkdir(parents=True)
    file.write_bytes(png(scan(0, 9_000)))
    os.utime(file, (date, date))


@pytest.mark.parametrize("hours", [7, pytest.param(24 * 365 * 10, marks=pytest.mark.slow)])
def test_what_is_dated_in_the_future_is_taken_once_it_is_old_enough(home, hours):
    for name in ("reference", "landing/second"):
        for path in (home / name).rglob("*"):
            os.utime(path, (time.time() + 3_600 * hours,) * 2)
    settle(home, 1)
    folder_shard(home, time.time() + 3_600 * hours)
    assert sava("curate", "--home", home)[0] == 0
    assert "third" in shards_in(home)


def test_a_shard_that_is_written_all_the_time_is_left_alone_and_the_run_ends_well(home, monkeypatch):
    folder_shard(home, time.time())
    settle(home, 600)
    for path in [*(home / "reference").rglob("*")]:
        os.utime(path, (time.time() - 9_000,) * 2)
    shutil.copy(str(home / "landing" / "first.parquet"), str(home / "landing" / "zz.parquet.tmp"))
    monkeypatch.setattr("sava_assets.cli.runner.time.monotonic", iter(range(0, 10**6, 1_000)).__next__)
    code, said = sava("curate", "--home", home)
    assert code == 0, said
    assert "left alone: third is still being written" in said
    assert "values and decisions" in said


def test_without_a_settled_reference_there_is_a_sentence(tmp_path, monkeypatch):
    home = tmp_path / "home"
    write_home(home, untrained_checkpoint(home) | {"settle_seconds": 600})
    for path in (home / "landing").rglob("*"):
        os.utime(path, (time.time() - 9_000,) * 2)
    monkeypatch.setattr("sava_assets.cli.runner.time.monotonic", iter(range(0, 10**6, 1_000)).__next__)
    assert "reference is still being written (changed " in refused("curate", "--home", home).split("error: ")[-1]


def test_what_changes_while_it_is_read_is_not_stored_under_the_old_name(home, monkeypatch):
    read, shard = ingest.read_images, home / "landing" / "second"

    def replaced(path, classes, **more):
        if path.name == "second":  # another folder takes its place, and the old one comes back later
            (shard / "west").rename(home / "away")
            shutil.copytree(str(shard / "east"), str(shard / "west"))
        return read(path, classes, **more)

    (shard / "east" / "new.png").write_bytes(png(scan(0, 9_500)))
    with monkeypatch.context() as during:
        during.setattr(ingest, "read_images", replaced)
        said = refused("curate", "--home", home)
    assert "raw_images[second] changed while it was read: run it again when its writer has finished" in said
    shutil.rmtree(str(shard / "west"))
    (home / "away").rename(shard / "west")
    assert sava("curate", "--home", home)[0] == 0
    stored = Workspace(home=str(home)).store.require("raw_images", "second").table("images.parquet").to_pylist()
    assert all(row["image"] == (home / "landing" / row["id"]).read_bytes() for row in stored)


def test_a_file_that_goes_while_the_shard_is_read_is_a_sentence(home, monkeypatch):
    read = ingest.read_images

    def vanishing(path, classes, **more):
        found = read(path, classes, **more)
        if path.name == "second":
            yield next(found)
            (path / "west").rename(home / "away")
        yield from found

    (home / "landing" / "second" / "east" / "new.png").write_bytes(png(scan(0, 9_500)))
    monkeypatch.setattr(ingest, "read_images", vanishing)
    assert "raw_images[second] changed while it was read" in refused("curate", "--home", home)


def test_a_shard_whose_content_changes_at_every_look_ends_the_run(home, monkeypatch):
    add_shard(home)
    counter = iter(range(10**6))
    seen = landing.fingerprint
    monkeypatch.setattr("sava_assets.freshness.sources.CHANGING_SECONDS", float("inf"))
    monkeypatch.setattr(
        "sava_assets.freshness.sources.fingerprint",
        lambda path, **more: f"{next(counter)}" if path.name.startswith("third") else seen(path, **more),
    )
    said = refused("curate", "--home", home)
    assert "raw_images[third]: still due after 3 runs: what it reads changes all the time" in said


def test_same_size_and_same_time_is_seen(home):
    file = home / "landing" / "third.parquet"
    dated = (1_700_000_000,) * 2
    digests = set()
    for seed in (0, 9):
        clean = pictures(16, first=6_000)
        write_set(file, type(clean)(clean.images, (clean.labels + seed) % 4, clean.names))
        os.utime(file, dated)
        digests.add(landing.listing(file).digest)
    assert len(digests) == 2
    assert landing.listing(file).newest == dated[0]


def test_a_picture_that_cannot_be_drawn_fails_no_result(home, monkeypatch):
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("no canvas")

    monkeypatch.setattr(plots, "_drawn", fail)
    monkeypatch.setattr(plots, "_markdown", fail)
    add_shard(home)
    assert sava("curate", "--home", home)[0] == 0
    pictures_of = Workspace(home=str(home)).store.require("point_values").pictures
    assert pictures_of["values"] == "This picture could not be drawn: RuntimeError: no canvas"
    assert pictures_of["highest values"] == "This picture could not be drawn: RuntimeError: no canvas"


def test_nobody_collects_garbage_where_somebody_computes(home):
    from sava_assets.home.ownership import owned

    with owned(home, "results", shared=True):
        assert "works in " in refused("gc", "--home", home)
    assert sava("gc", "--home", home)[0] == 0
    with pytest.raises(BadInput, match="no result yet"):
        Workspace(home=str(home)).store.require("raw_images", "third")
