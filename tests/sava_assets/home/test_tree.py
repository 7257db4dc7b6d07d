"""One listing of everything below a folder."""

import os
import time

import pytest
from upath import UPath

from sava_assets.home import tree as trees
from sava_assets.home.tree import tree


@pytest.fixture(params=["local", "memory"])
def root(request, tmp_path) -> UPath:
    return UPath(tmp_path / "root") if request.param == "local" else UPath(f"memory://{tmp_path.name}/root")


def put(path: UPath, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def test_every_file_is_there_with_its_size_and_time(root):
    assert tree(root) == {}
    put(root / "a.json", b"12")
    put(root / "x" / "y" / ".hidden", b"345")
    found = tree(root)
    assert {name: entry.size for name, entry in found.items()} == {"a.json": 2, "x/y/.hidden": 3}
    assert all(abs(time.time() - entry.written) < 60 for entry in found.values())
    assert tree(root) == found


def test_other_content_of_equal_size_has_another_identity(root):
    put(root / "a.json", b"12")
    before = tree(root)["a.json"].identity
    put(root / "partial", b"34")
    (root / "partial").rename(root / "a.json")
    assert tree(root)["a.json"].identity != before


def test_a_replaced_file_with_the_time_of_the_old_one_has_another_identity(tmp_path):
    (file := tmp_path / "a").write_bytes(b"12")
    os.utime(file, (1, 1))
    before = tree(UPath(tmp_path))["a"]
    (other := tmp_path / "b").write_bytes(b"34")
    os.utime(other, (1, 1))
    other.replace(file)
    assert tree(UPath(tmp_path))["a"].identity != before.identity
    assert before.written == 1


def test_what_is_deleted_during_the_listing_hides_nothing_else(tmp_path, monkeypatch):
    for name in ("a", "b", "c"):
        (tmp_path / name).write_bytes(b"1")
        put(UPath(tmp_path / f"folder {name}" / "file"), b"1")
    scan = os.scandir

    def meanwhile(folder):
        found = list(scan(folder))
        (tmp_path / "b").unlink(missing_ok=True)
        (tmp_path / "folder b" / "file").unlink(missing_ok=True)
        if (tmp_path / "folder b").exists():
            (tmp_path / "folder b").rmdir()
        return iter(found)

    monkeypatch.setattr(trees.os, "scandir", meanwhile)
    assert set(tree(UPath(tmp_path))) == {"a", "c", "folder a/file", "folder c/file"}


@pytest.mark.parametrize(
    ("told", "written"),
    [
        ({"mtime": 5.0}, 5.0),
        ({"mtime": None, "updated": "1970-01-01T00:00:07+00:00"}, 7.0),
        ({"LastModified": trees.datetime.fromisoformat("1970-01-01T00:00:08+00:00")}, 8.0),
    ],
)
def test_the_time_stamps_of_object_stores_are_understood(told, written):
    entry = trees._entry(UPath("memory://x"), {"name": "/x/a", "size": 1, "ETag": '"e"', **told})
    assert entry.written == written
    assert '"e"' in entry.identity
