"""`sava serve` and `sava ui` end at one signal however they were started, and leave no process."""

import os
import signal

import pytest

from tests.e2e.server import serving, wait_until_gone
from tests.sava_assets.homes import untrained_checkpoint, write_home

pytestmark = pytest.mark.xdist_group("serve")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stopped") / "home"
    write_home(folder, untrained_checkpoint(folder))
    return folder


@pytest.mark.parametrize(
    ("command", "ignored", "sent"),
    [
        ("serve", (signal.SIGINT, signal.SIGHUP), signal.SIGTERM),  # nohup, in a script's background
        ("ui", (signal.SIGINT,), signal.SIGINT),  # a script's background
        ("serve", (), signal.SIGHUP),  # a terminal that closes
    ],
)
def test_one_signal_to_the_one_process_that_is_known_leaves_nothing_running(home, command, ignored, sent):
    with serving(command, home, ignored=ignored) as server:
        started = server.processes()
        assert len(started) > 2
        os.kill(server.process.pid, sent)
        wait_until_gone(started, server)
