"""Versions and the history on an object store, where there are no locks: one pointer put last, and rows put once."""

import json

import pytest

from sava_assets.freshness import history
from sava_assets.freshness.snapshots import Snapshot, snapshots
from sava_assets.home import publication as publications
from sava_assets.home import store as stores
from sava_assets.home.places import content
from sava_assets.home.publication import Publication
from sava_assets.home.store import Store
from sava_assets.home.tree import tree
from tests.sava_assets.home.test_publication import ONE, TWO, publish, write


@pytest.fixture
def published(object_store) -> Publication:
    """With one version."""
    made = Publication(object_store.bucket() / "curated")
    publish(made, ONE)
    return made


@pytest.fixture
def steps(published, monkeypatch) -> list[str]:
    """What whoever reads through the pointer has before and after each change that is made there."""
    seen: list[str] = []

    def watched(change):
        def changed(path, *rest, **named):
            seen.append(as_read(published))
            change(path, *rest, **named)
            seen.append(as_read(published))

        return changed

    monkeypatch.setattr(stores, "put_object", watched(stores.put_object))
    monkeypatch.setattr(publications, "remove", watched(publications.remove))
    return seen


def as_read(published: Publication) -> str:
    """The version that is read, after every file of it was."""
    folder = published.root / json.loads(content(published.root / "current.json"))["folder"]
    files = json.loads(content(folder / "version.json"))["files"]
    whole = {content(folder / name).decode().split()[1] for name in files}
    assert whole == {folder.name}
    return folder.name


def test_whoever_reads_while_a_version_is_published_has_a_whole_one(published, steps):
    publish(published, TWO)
    assert steps.index(TWO) % 2 == 1
    assert steps == [ONE] * steps.index(TWO) + [TWO] * (len(steps) - steps.index(TWO))
    assert (published.current, published.fault(TWO)) == (TWO, "")


def test_two_publications_at_once_leave_one_that_is_whole(published, monkeypatch):
    put, others = stores.put_object, Publication(published.root)

    def jittered(path, file, *, new=False):
        if path.name == "current.json" and json.loads(file.read_bytes())["version"] == TWO:
            monkeypatch.setattr(stores, "put_object", put)
            publish(others, ONE)
        put(path, file, new=new)

    monkeypatch.setattr(stores, "put_object", jittered)
    publish(published, TWO)
    assert as_read(published) == TWO
    assert published.fault(TWO) == ""


def test_what_was_replaced_is_deleted_when_nobody_can_be_reading_it_any_more(published, steps):
    publish(published, TWO)
    write(published, "3" * 32)
    steps.clear()
    assert published.remove_superseded(grace=60) == (0, 0)
    versions = {name.split("/")[0] for name in tree(published.root / "versions")}
    assert versions == {ONE, TWO, "3" * 32}
    count, size = published.remove_superseded(grace=-2)  # time stamps there are whole seconds
    assert count == 2
    assert size > 0
    assert {name.split("/")[0] for name in tree(published.root / "versions")} == {TWO}
    assert set(steps) == {TWO}


def test_a_row_of_the_history_is_put_once(object_store):
    store = Store(object_store.bucket() / "store")
    row = Snapshot(history._next_number(store), 1.0, {}, {}, {})
    history._put(store, row, new=True)
    with pytest.raises(FileExistsError):
        history._put(Store(store.root), Snapshot(1, 2.0, {}, {}, {}), new=True)
    assert snapshots(store) == [row]
    assert history._next_number(store) == 2
    history._put(store, Snapshot(1, 1.0, {}, {"probe_all": 0.5}, {}))
    assert [past.numbers for past in snapshots(store)] == [{"probe_all": 0.5}]
