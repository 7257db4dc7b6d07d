"""The real Dagster webserver, daemon and code server, as `sava ui` and `sava serve` start them."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

WAIT_SECONDS = 480
ASSETS = "{ assetNodes { assetKey { path } latest: assetMaterializations(limit: 1) { partition } } }"


@dataclass(frozen=True)
class Server:
    process: subprocess.Popen
    port: int

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ask(self, query: str, **variables: object) -> dict:
        """Data of a GraphQL query."""
        request = urllib.request.Request(
            f"{self.address}/graphql",
            data=json.dumps({"query": query, "variables": variables}).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            content = json.load(answer)
        assert "errors" not in content, content["errors"]
        return content["data"]

    def assets(self) -> dict[str, list]:
        """Every asset of every code location, and its latest materialization."""
        return {node["assetKey"]["path"][0]: node["latest"] for node in self.ask(ASSETS)["assetNodes"]}

    def processes(self) -> list[int]:
        return [self.process.pid, *_children(self.process.pid)]


@contextmanager
def serving(
    command: str,
    home: Path,
    *,
    under: Collection[str] = (),
    ignored: Collection[signal.Signals] = (),
    answers: bool = True,
    **environment: str,
) -> Iterator[Server]:
    """`sava ui` or `sava serve` on a free port, stopped at the end by its own process group.

    `under` is the program that becomes it (`nohup`). It starts with these signals ignored, as the background of a
    script leaves them. Without `answers` it is given as soon as it runs.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = home.parent / f"{command}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*under, sys.executable, "-m", "sava_assets.cli", command, "--home", str(home), "--port", str(port)],
            stdout=output, stderr=output, start_new_session=True, env=os.environ | environment,
            preexec_fn=lambda: _ignore(ignored),
        )  # fmt: skip
    server = Server(process, port)
    try:
        if answers:
            wait_for(lambda: _answers(server), "the webserver's answer", server, log)
        yield server
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGINT)
        try:
            process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def wait_for(
    holds: Callable[[], object], what: str | Callable[[], str], server: Server, log: Path | None = None
) -> None:
    """`what` it waits for, in words; called, how it stands."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not holds():
        assert server.process.poll() is None, log.read_text()[-2_000:] if log else "the server ended"
        assert time.monotonic() < deadline, f"waited {WAIT_SECONDS} s for {what if isinstance(what, str) else what()}"
        time.sleep(0.5)


def wait_until_gone(pids: list[int], server: Server) -> None:
    """The server has ended, and every process that it started."""
    server.process.wait(timeout=WAIT_SECONDS)
    deadline = time.monotonic() + WAIT_SECONDS
    while running := [pid for pid in pids if Path(f"/proc/{pid}").exists()]:
        assert time.monotonic() < deadline, subprocess.run(["ps", "-fp", ",".join(map(str, running))]).stdout
        time.sleep(0.2)


def _ignore(signals: Collection[signal.Signals]) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN if number in signals else signal.SIG_DFL)


def _answers(server: Server) -> bool:
    try:
        return bool(server.ask("{ version }"))
    except OSError:
        return False


def _children(pid: int) -> list[int]:
    listed = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True).stdout.split()
    own = [int(child) for child in listed]
    return own + [grandchild for child in own for grandchild in _children(child)]
