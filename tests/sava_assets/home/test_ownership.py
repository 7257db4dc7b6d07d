import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from upath import UPath

from sava_assets.home.ownership import owned
from sava_ops import BadInput

ROOT = Path(__file__).parents[3]
OWNER = """
import sys, time
from upath import UPath
from sava_assets.home.ownership import owned
with owned(UPath(sys.argv[1]), "results"):
    print("mine", flush=True)
    time.sleep(600)
"""


def test_the_second_waits_for_the_first_and_says_for_whom(tmp_path):
    order, told = [], []
    first_is_in, first_may_go = threading.Event(), threading.Event()

    def first() -> None:
        with owned(UPath(tmp_path), "setup"):
            first_is_in.set()
            first_may_go.wait()
            order.append("first")

    def second_waits(sentence: str) -> None:
        told.append(sentence)
        first_may_go.set()

    other = threading.Thread(target=first)
    other.start()
    first_is_in.wait()
    with owned(UPath(tmp_path), "setup", say=second_waits):
        order.append("second")
    other.join()
    assert order == ["first", "second"]
    assert len(told) == 1
    assert told[0].startswith(f"waiting for process {os.getpid()} on ")
    assert told[0].endswith(f", which works in {tmp_path}")


def test_who_does_not_wait_is_told_who_works_there(tmp_path):
    with (
        owned(UPath(tmp_path), "results", shared=True),
        pytest.raises(BadInput, match=rf"^process {os.getpid()} on .* works in .*: try again when it has ended$"),
        owned(UPath(tmp_path), "results", wait=False),
    ):
        pytest.fail("both own it")


def test_those_who_share_do_not_wait_and_other_parts_are_free(tmp_path):
    home = UPath(tmp_path)
    with (
        owned(home, "results", shared=True, wait=False),
        owned(home, "results", shared=True, wait=False),
        owned(home, "publication", wait=False),
    ):
        assert sorted(path.name for path in (tmp_path / ".locks").iterdir()) == ["publication", "results"]


def test_whoever_is_killed_lets_go(tmp_path):
    with subprocess.Popen([sys.executable, "-c", OWNER, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE) as owner:
        assert owner.stdout.readline() == b"mine\n"
        with pytest.raises(BadInput, match=f"^process {owner.pid} on "), owned(UPath(tmp_path), "results", wait=False):
            pytest.fail("both own it")
        os.kill(owner.pid, signal.SIGKILL)
        owner.wait()
        with owned(UPath(tmp_path), "results", wait=False):
            pass


def test_a_remote_home_has_no_locks():
    home = UPath("memory://locks/home")
    with owned(home, "results", wait=False), owned(home, "results", wait=False):
        assert not home.exists()
