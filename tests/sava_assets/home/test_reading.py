"""What kills two processes is read no more; what ends otherwise leaves no such note."""

import signal
import subprocess
import sys

import pytest
from upath import UPath

from sava_assets.home.reading import given_up, reading
from sava_assets.home.result import Output
from sava_assets.home.store import Store
from sava_ops import BadInput

KILLED = """
import os, signal, sys
from upath import UPath
from sava_assets.home.reading import reading
from sava_assets.home.store import Store
with reading(Store(UPath(sys.argv[1])), "raw_images", "bad", sys.argv[2]):
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(UPath(tmp_path / "store"))


def killed(store: Store, key: str = "k") -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, str(store.root), key], check=False)
    assert done.returncode == -signal.SIGKILL


def read(store: Store, key: str = "k", shard: str = "bad") -> None:
    with reading(store, "raw_images", shard, key):
        pass


def test_a_shard_that_killed_two_processes_is_read_no_more(store):
    killed(store)
    first = store.failure("raw_images", "bad")
    assert (first.killed, first.attempts, given_up(first)) == (1, 1, False)
    assert first.message == (
        "the process that read it was killed (out of memory, or by a fault in a decoder); it is read once more"
    )
    killed(store)
    assert given_up(store.failure("raw_images", "bad"))
    note = store.root / "failures" / "raw_images" / "bad.json"
    told = (
        "2 processes that read it were killed (out of memory, or by a fault in a decoder): take it away or split it, "
        f"or delete {note} to have it read again"
    )
    for _ in range(2):  # also after the refusal itself was noted
        with pytest.raises(BadInput) as refused:
            read(store)
        assert str(refused.value) == told
        store.set_failure("raw_images", "bad", "k", str(refused.value))
        assert given_up(store.failure("raw_images", "bad"))
    read(store, shard="other")
    note.unlink()
    read(store)


def test_other_content_is_read_and_counted_anew(store):
    killed(store, "k")
    killed(store, "new")
    assert store.failure("raw_images", "bad").killed == 1
    read(store, "newer")


def test_an_error_in_between_does_not_undo_the_count(store):
    killed(store)
    store.set_failure("raw_images", "bad", "k", "unreadable")
    assert store.failure("raw_images", "bad").killed == 1
    killed(store)
    assert given_up(store.failure("raw_images", "bad"))


@pytest.mark.parametrize("error", [BadInput("x"), KeyboardInterrupt(), MemoryError()])
@pytest.mark.parametrize("before", [None, "message"])
def test_a_reading_that_ends_by_an_error_leaves_what_was_noted_before(store, error, before):
    if before:
        store.set_failure("raw_images", "bad", "k", before)
    noted = store.failure("raw_images", "bad")
    seen = []

    def fail() -> None:
        with reading(store, "raw_images", "bad", "k"):
            seen.append(store.failure("raw_images", "bad"))
            raise error

    with pytest.raises(type(error)):
        fail()
    assert [(note.in_progress, note.killed) for note in seen] == [(True, 0)]
    assert store.failure("raw_images", "bad") == noted


def test_a_reading_that_ends_well_takes_the_note_away_with_its_result(store):
    with reading(store, "raw_images", "bad", "k"):
        result = store.save("raw_images", "k", Output(files={}))
    store.set_current(result, "bad")
    assert store.failure("raw_images", "bad") is None
