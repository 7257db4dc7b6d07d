"""The real Dagster webserver and daemon, as `sava ui` starts them."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from sava_assets.freshness import RULES

QUERY = "{ assetNodes { assetKey { path } groupName latest: assetMaterializations(limit: 1) { partition } } }"
WAIT = 120


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def ask(port: int, query: str) -> dict:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/graphql",
        data=json.dumps({"query": query}).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)["data"]


def children(pid: int) -> list[int]:
    listed = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True).stdout.split()
    own = [int(child) for child in listed]
    return own + [grandchild for child in own for grandchild in children(child)]


@pytest.fixture
def ui(curated):
    port = free_port()
    command = [sys.executable, "-m", "sava_assets.cli", "ui", "--home", str(curated[0]), "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True)
    deadline = time.monotonic() + WAIT
    while True:
        assert process.poll() is None, process.stderr.read().decode()
        assert time.monotonic() < deadline, "the webserver did not answer"
        try:
            ask(port, "{ version }")
            break
        except OSError:
            time.sleep(0.5)
    yield port, process
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.stderr.close()
    process.wait()


def test_ui_shows_every_asset_of_the_home_and_stops_on_ctrl_c(ui):
    port, process = ui
    nodes = ask(port, QUERY)["assetNodes"]
    assert {node["assetKey"]["path"][0] for node in nodes} == set(RULES)
    assert all(node["latest"] for node in nodes)
    started = [process.pid, *children(process.pid)]
    assert len(started) > 2
    # A terminal's Ctrl-C reaches the whole group.
    os.killpg(process.pid, signal.SIGINT)
    process.wait(timeout=WAIT)
    deadline = time.monotonic() + WAIT
    while running := [pid for pid in started if Path(f"/proc/{pid}").exists()]:
        assert time.monotonic() < deadline, f"still running: {running}"
        time.sleep(0.2)


def test_ui_listens_on_loopback_alone(ui):
    port, _ = ui
    others = {info[4][0] for info in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)} - {"127.0.0.1"}
    for address in others:
        with pytest.raises(OSError, match=r"refused|unreachable|timed out"):
            socket.create_connection((address, port), timeout=2)
    assert ask(port, "{ version }")["version"]
