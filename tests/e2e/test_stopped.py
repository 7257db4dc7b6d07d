"""`sava serve` and `sava ui` end at one signal however they were started, and leave no process."""

import os
import signal
import time

import pytest

from tests.e2e.server import serving, wait_until_gone
from tests.sava_assets.homes import untrained_checkpoint, write_home


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stopped") / "home"
    write_home(folder, untrained_checkpoint(folder))
    return folder


SCRIPT = (signal.SIGINT,)
"""What a script's background job ignores from the start."""


@pytest.mark.parametrize(
    ("command", "under", "ignored", "survived", "sent"),
    [
        ("serve", ["nohup"], SCRIPT, [], signal.SIGTERM),
        ("ui", ["nohup"], SCRIPT, [signal.SIGHUP], signal.SIGTERM),
        pytest.param("ui", [], SCRIPT, [], signal.SIGINT, marks=pytest.mark.slow),
        pytest.param("serve", [], (), [], signal.SIGHUP, marks=pytest.mark.slow),  # a terminal that closes
    ],
)
def test_one_signal_to_the_one_process_that_is_known_leaves_nothing_running(
    home, command, under, ignored, survived, sent
):
    with serving(command, home, under=under, ignored=ignored) as server:
        started = server.processes()
        assert len(started) > 2
        for signal_number in survived:
            os.kill(server.process.pid, signal_number)
            time.sleep(3)
            assert server.ask("{ version }")
        os.kill(server.process.pid, sent)
        wait_until_gone(started, server)


@pytest.mark.parametrize("seconds", [0.1, 4.0, 8.0])
def test_stopped_while_it_starts(home, seconds):
    """Whatever it is doing then: nothing that it has started is left."""
    with serving("serve", home, under=["nohup"], ignored=SCRIPT, answers=False) as server:
        time.sleep(seconds)
        started = server.processes()
        os.kill(server.process.pid, signal.SIGTERM)
        wait_until_gone(started, server)
