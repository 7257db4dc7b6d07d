"""One signal ends a server and all that it started, also what nobody waits for: a run, and what a run started."""

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import dagster as dg
import psutil
import pytest
from dagster._core.events import DagsterEvent, DagsterEventType
from dagster._core.storage.tags import GRPC_INFO_TAG
from dagster._core.test_utils import create_run_for_test

pytestmark = pytest.mark.long
OWN = "socket-of-the-child"
# In the place of `dagster dev`: it starts a process that starts another one, and ends without them.
PROGRAM = """
import subprocess, sys, time
from sava_assets.cli import server

CHILD = '''
import signal, subprocess, sys, time
signal.signal(signal.SIGINT, signal.SIG_IGN if sys.argv[1] == "deaf" else signal.default_int_handler)
run = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print("started", run.pid, flush=True)
try:
    time.sleep(600)
except KeyboardInterrupt:
    print("interrupted", flush=True)
'''

class Busy:
    def __del__(self):
        time.sleep(600)

def dev():
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    subprocess.Popen([sys.executable, "-c", CHILD, sys.argv[2], "socket-of-the-child"])
    try:
        if sys.argv[2] == "losing":
            Busy()
        time.sleep(600)
    except KeyboardInterrupt:
        sys.exit(1)

import signal
server.main = dev
server.PATIENCE_SECONDS = 1 if sys.argv[1] == "deaf" else 60
server.serve()
"""


@pytest.mark.parametrize(
    ("child", "number"),
    [("hearing", signal.SIGINT), ("hearing", signal.SIGTERM), ("losing", signal.SIGTERM), ("deaf", signal.SIGHUP)],
)
def test_what_is_at_work_is_interrupted_and_what_does_not_hear_is_killed(child, number, tmp_path):
    """The runs that its code server launched end as cancelled; what others work on is theirs."""
    (tmp_path / "dagster.yaml").write_text("telemetry: {enabled: false}")
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        runs = {where: begun(instance, where) for where in (OWN, "socket-of-another", "port")}
        runs["still starting"] = begun(instance, OWN, DagsterEventType.RUN_STARTING)
        _stopped(child, number, tmp_path)
        ended = {where: instance.get_run_by_id(run).status for where, run in runs.items()}
    assert ended.pop(OWN) == ended.pop("still starting") == dg.DagsterRunStatus.CANCELED
    assert set(ended.values()) == {dg.DagsterRunStatus.STARTED}


def begun(instance: dg.DagsterInstance, where: str, how: DagsterEventType = DagsterEventType.RUN_START) -> str:
    """A run in progress, launched there."""
    told = {"host": "localhost"} | ({"port": 4000} if where == "port" else {"socket": where})
    run = create_run_for_test(instance, tags={GRPC_INFO_TAG: json.dumps(told)})
    instance.report_dagster_event(DagsterEvent(how.value, run.job_name), run.run_id)
    return run.run_id


def _stopped(child: str, number: signal.Signals, dagster: Path) -> None:
    started = []
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", PROGRAM, child],
        stdout=subprocess.PIPE, text=True, start_new_session=True, cwd=Path(__file__).parents[3],
        env=os.environ | {"DAGSTER_HOME": str(dagster)},
    ) as server:  # fmt: skip
        try:
            assert server.stdout is not None
            assert server.stdout.readline().startswith("started")
            started = psutil.Process(server.pid).children(recursive=True)
            assert len(started) == 2
            os.kill(server.pid, number)
            assert server.wait(timeout=60) == 1
            gone, alive = psutil.wait_procs(started, timeout=10)
            assert (len(gone), alive) == (2, [])
            assert server.stdout.read() == ("" if child == "deaf" else "interrupted\n")
        finally:
            for process in (server, *started):
                with suppress(psutil.NoSuchProcess):
                    process.kill()
