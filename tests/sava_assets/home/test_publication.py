"""Versions in `curated/`: whole, one of them published, and what is not ours left alone."""

import json
import os
import random
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from upath import UPath

from sava_assets.home import links
from sava_assets.home.ownership import owned
from sava_assets.home.publication import Publication
from sava_assets.home.result import DamagedResult, bytes_file, table_file
from sava_assets.home.store import Store

ONE, TWO = "1" * 32, "2" * 32


@pytest.fixture(params=["local", "memory"])
def published(request, tmp_path) -> Publication:
    root = tmp_path / "curated" if request.param == "local" else f"memory://{tmp_path.name}/curated"
    return Publication(UPath(root))


@pytest.fixture
def local(tmp_path) -> Publication:
    return Publication(UPath(tmp_path / "curated"))


def write(publication: Publication, version: str, shards: tuple[str, ...] = ("a", "b")) -> None:
    files = [("points.parquet", bytes_file(f"points {version}".encode()))]
    files += [(f"images/{shard}.parquet", bytes_file(f"{shard} {version}".encode())) for shard in shards]
    publication.write(version, files, {"kept": 2})


def publish(publication: Publication, version: str, shards: tuple[str, ...] = ("a", "b")) -> list[str]:
    write(publication, version, shards)
    return publication.release(version)


def test_a_version_is_nobodys_until_it_is_released(published):
    write(published, ONE)
    assert published.current is None
    assert published.fault(ONE) == f"{published.root / 'current.json'} does not name the version {ONE}"
    assert published.release(ONE) == []
    assert (published.current, published.fault(ONE)) == (ONE, "")
    assert published.about(ONE)["kept"] == 2
    write(published, TWO)
    assert (published.current, published.fault(ONE)) == (ONE, "")
    published.check(ONE)


def test_the_pointer_leads_to_every_file(published):
    publish(published, ONE)
    pointer = json.loads((published.root / "current.json").read_bytes())
    assert (published.root / pointer["folder"] / "points.parquet").read_bytes() == f"points {ONE}".encode()
    assert published.place("points.parquet").read_bytes() == f"points {ONE}".encode()
    assert {path.name for path in published.place("images").iterdir()} == {"a.parquet", "b.parquet"}


@pytest.mark.parametrize("name", ["points.parquet", "images/a.parquet", "images/b.parquet", "version.json"])
def test_what_is_missing_or_cut_short_is_named_at_a_look(published, name):
    publish(published, ONE)
    file = published.root / "versions" / ONE / name
    whole = file.read_bytes()
    file.write_bytes(whole[:3])
    size = f" has 3 bytes and was written with {len(whole)}"
    assert published.fault(ONE) == f"{file}{' is not there' if name == 'version.json' else size}"
    file.unlink()
    assert published.fault(ONE) == f"{file} is not there"
    with pytest.raises(DamagedResult, match="is not there"):
        published.check(ONE)
    publish(published, ONE)
    assert published.fault(ONE) == ""


@pytest.mark.parametrize("name", ["points.parquet", "images/b.parquet"])
def test_other_bytes_of_equal_number_are_found_by_a_check(published, name):
    publish(published, ONE)
    file = published.root / "versions" / ONE / name
    file.write_bytes(b"x" * len(file.read_bytes()))
    with pytest.raises(DamagedResult, match=r"is damaged \(checksum differs\)"):
        published.check(ONE)


@pytest.mark.parametrize("content", [None, b"", b"{}", b"[]"])
def test_a_pointer_that_is_gone_or_damaged_is_due(published, content):
    publish(published, ONE)
    pointer = published.root / "current.json"
    pointer.unlink() if content is None else pointer.write_bytes(content)
    assert published.current is None
    assert "current.json does not name the version" in published.fault(ONE)
    published.release(ONE)
    assert published.fault(ONE) == ""


@pytest.mark.parametrize("name", ["current", "images", "points.parquet"])
def test_a_link_that_is_gone_or_leads_elsewhere_is_due(local, name):
    publish(local, ONE)
    place = Path(local.root.path) / name
    for elsewhere in (None, "nowhere"):
        place.unlink()
        if elsewhere:
            place.symlink_to(elsewhere)
        assert f"{place} does not lead to " in local.fault(ONE)
        if elsewhere:  # by somebody else: it stays
            assert [line for line in local.release(ONE) if f"{place} was not written by SAVA" in line]
            assert str(place.readlink()) == elsewhere
        else:
            local.release(ONE)
        assert local.fault(ONE) == ""


def test_who_has_resolved_the_link_keeps_reading_one_version(local):
    publish(local, ONE)
    yesterday = (Path(local.root.path) / "current").resolve()
    with (yesterday / "images" / "a.parquet").open("rb") as reader:
        publish(local, TWO, ("b", "c"))
        assert reader.read() == f"a {ONE}".encode()
    assert {path.name: path.read_text() for path in (yesterday / "images").iterdir()} == {
        "a.parquet": f"a {ONE}", "b.parquet": f"b {ONE}"
    }  # fmt: skip
    assert (Path(local.root.path) / "points.parquet").read_text() == f"points {TWO}"


def test_a_file_of_the_user_stays_and_is_said(local):
    mine = Path(local.root.path) / "images" / "mine.parquet"
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"mine")
    for version in (ONE, TWO):
        (told,) = publish(local, version)
        assert "images was not written by SAVA and stays as it is: what is published lies in" in told
        assert mine.read_bytes() == b"mine"
        assert local.fault(version) == ""
        assert local.place("images") == local.root / "versions" / version / "images"
        assert local.place("points.parquet") == local.root / "points.parquet"
    note = Path(local.root.path) / "versions" / ONE / "note.txt"
    note.write_text("mine")
    assert local.remove_superseded(grace=-1)[0] == 1
    assert [path.name for path in note.parent.iterdir()] == ["note.txt"]


def test_a_copy_of_a_link_is_replaced_and_a_changed_copy_is_not(local, tmp_path):
    publish(local, ONE)
    shutil.copytree(str(local.root), tmp_path / "copied")  # follows the links
    copied = Publication(UPath(tmp_path / "copied"))
    assert copied.fault(ONE) == ""
    assert publish(copied, TWO) == []
    assert (tmp_path / "copied" / "images").is_symlink()
    shutil.copytree(str(local.root), tmp_path / "changed")
    (tmp_path / "changed" / "images" / "a.parquet").write_text(f"z {ONE}")
    (told,) = publish(Publication(UPath(tmp_path / "changed")), TWO)
    assert "images was not written by SAVA" in told
    assert (tmp_path / "changed" / "images" / "a.parquet").read_text() == f"z {ONE}"


def old_layout(root: Path) -> None:
    """As `curated/` was written before there were versions."""
    (root / "images").mkdir(parents=True)
    pq.write_table(pa.table({"shard": ["a", "gone"]}), root / "points.parquet")
    for shard in ("a", "gone"):
        (root / "images" / f"{shard}.parquet").write_bytes(b"old")
    (root / "version.json").write_text('{"points": "x", "images": true}')


@pytest.mark.parametrize("mine", [False, True])
def test_the_layout_before_versions_makes_place_but_for_the_users_files(local, mine):
    root = Path(local.root.path)
    old_layout(root)
    if mine:
        (root / "images" / "mine.parquet").write_bytes(b"mine")
    told = publish(local, ONE)
    assert (root / "points.parquet").read_text() == f"points {ONE}"
    assert not (root / "version.json").exists()
    if mine:
        assert len(told) == 1
        assert [path.name for path in (root / "images").iterdir()] == ["mine.parquet"]
    else:
        assert told == []
        assert (root / "images" / "a.parquet").read_text() == f"a {ONE}"


def test_an_old_layout_that_cannot_be_read_is_a_sentence(local):
    old_layout(Path(local.root.path))
    (Path(local.root.path) / "points.parquet").write_bytes(b"no table")
    with pytest.raises(DamagedResult, match=r"points.parquet cannot be read \(.*\): move it out of"):
        publish(local, ONE)


@pytest.mark.parametrize("old", [False, True])
def test_a_file_system_without_links_has_the_pointer(local, monkeypatch, old):
    def refuse(*_: object) -> None:
        raise OSError(1, "Operation not permitted")

    if old:
        old_layout(Path(local.root.path))
    monkeypatch.setattr(Path, "symlink_to", refuse)
    (told,) = publish(local, ONE)
    assert told == f"{local.root} can hold no links: its current.json says where the data set lies"
    assert local.fault(ONE) == ""
    assert local.place("points.parquet") == local.root / "versions" / ONE / "points.parquet"
    assert not (Path(local.root.path) / "points.parquet").exists()


def test_any_other_fault_of_a_link_is_raised(local, monkeypatch):
    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    with pytest.raises(OSError, match="No space left"):
        publish(local, ONE)
    assert links.NO_LINKS.isdisjoint({28})


def test_old_versions_go_after_their_grace_and_the_published_one_never(published):
    for version in (ONE, TWO):
        publish(published, version)
    assert published.remove_superseded(grace=60) == (0, 0)
    count, size = published.remove_superseded(grace=-1)
    assert count == 1
    assert size > 0
    assert (published.current, published.fault(TWO)) == (TWO, "")
    published.check(TWO)
    assert published.about(ONE) is None
    assert published.remove_superseded(grace=-1) == (0, 0)


def test_grace_counts_from_the_day_a_version_was_replaced(local):
    publish(local, ONE)
    for path in (Path(local.root.path) / "versions" / ONE).rglob("*"):
        os.utime(path, (0, 0))
    publish(local, TWO)
    assert local.remove_superseded(grace=60) == (0, 0)
    os.utime(Path(local.root.path) / "versions" / ONE / "superseded.json", (0, 0))
    assert local.remove_superseded(grace=60)[0] == 1


def test_what_a_killed_writer_left_goes_too(local):
    publish(local, ONE)
    (Path(local.root.path) / "versions" / TWO / "images").mkdir(parents=True)
    (Path(local.root.path) / "versions" / TWO / "images" / "a.parquet").write_bytes(b"half a version")
    (scratch := Path(local.root.path) / "partial" / "dead").mkdir(parents=True)
    os.utime(scratch, (0, 0))
    assert local.remove_superseded(grace=60) == (0, 0)
    assert local.remove_superseded(grace=-1) == (1, 14)
    assert not (Path(local.root.path) / "versions" / TWO).exists()
    assert not scratch.exists()


def test_a_version_that_is_published_again_is_not_old(published):
    for version in (ONE, TWO, ONE):
        publish(published, version)
    assert not (published.root / "versions" / ONE / "superseded.json").exists()
    assert (published.root / "versions" / TWO / "superseded.json").exists()


def test_columns_and_tables_of_large_files_are_hashed(local):
    table = pa.table({"x": list(range(1_000))})
    local.write(ONE, [("points.parquet", table_file(table))], {})
    local.check(ONE)


@pytest.mark.long
def test_two_publishers_at_once_leave_one_whole_version_and_readers_see_no_other(local, monkeypatch):
    """As two runs do it, every write late by a random time; nothing but the pointer may say which of them was last."""
    move, chance = Store._move, random.Random(0)

    def late(self, *arguments, **named):
        time.sleep(chance.random() * 0.001)
        move(self, *arguments, **named)

    def work(version: str, shards: tuple[str, ...]) -> None:
        write(local, version, shards)
        with owned(local.root, "publication"):
            local.release(version)

    def seen() -> str:
        version = json.loads((local.root / "current.json").read_bytes())["version"]
        whole = local.root / "versions" / version
        assert (whole / "points.parquet").read_bytes() == f"points {version}".encode()
        for shard in SHARDS[version]:
            assert (whole / "images" / f"{shard}.parquet").read_bytes() == f"{shard} {version}".encode()
        assert {path.stem for path in (whole / "images").iterdir()} == set(SHARDS[version])
        return version

    monkeypatch.setattr(Store, "_move", late)
    publish(local, ONE, SHARDS[ONE])
    last = set()
    with ThreadPoolExecutor(2) as publishers:
        for _ in range(200):
            both = [publishers.submit(work, version, shards) for version, shards in SHARDS.items()]
            while not all(each.done() for each in both):
                seen()
                time.sleep(0.001)
            for each in both:
                each.result()
            last.add(seen())
            assert local.fault(seen()) == ""
    assert last == {ONE, TWO}


SHARDS = {ONE: ("a", "b"), TWO: ("a",)}
