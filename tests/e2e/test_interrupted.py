"""Stopped in the middle, by Ctrl-C or by SIGKILL at random moments: nothing is lost, nothing half-written is read.

The same command goes on from there, and the end is that of a quiet run.
"""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sava_assets.freshness.rules import RULES
from sava_assets.freshness.survey import Survey
from sava_assets.home.resources import Workspace
from tests.sava_assets.homes import untrained_checkpoint, write_home

QUICK = {"steps": 2, "batch_size": 8, "learning_rate": 0.01}
LONGEST_SECONDS = 4.0
# The killed process is forked from one that has everything imported, so that the kills fall into the work itself; its
# number stays its own until it is asked for its end.
PROGRAM = """
import os, sys, time
import scipy.optimize, torchvision.models
from rich.console import Console
from sava_assets.home import reading
from sava_assets.home.resources import Workspace
from sava_assets.cli.runner import curate
reading.MOST_KILLED = 1_000  # these kills say nothing of the shards
while sys.stdin.readline():
    child = os.fork()
    if child == 0:
        curate(Workspace(home=sys.argv[1]), Console(quiet=True))
        os._exit(0)
    print(child, flush=True)
    sys.stdin.readline()
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


def artefacts(home: Path) -> dict[str, bytes]:
    """Everything that is the same whenever it was made."""
    kept = [home / "store" / "results", home / "store" / "current", home / "curated"]
    files = [path for folder in kept for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(home)): path.read_bytes() for path in files}


@pytest.mark.parametrize("kills", [6, pytest.param(20, marks=pytest.mark.slow)])
def test_kills_lose_nothing(tmp_path, kills):
    chance = random.Random(0)
    for name in ("killed", "quiet"):
        write_home(tmp_path / name, untrained_checkpoint(tmp_path / name))
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(tmp_path / "killed")],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2],
    ) as forker:  # fmt: skip

        def asked(what: str) -> int:
            print(what, file=forker.stdin, flush=True)
            return int(forker.stdout.readline())

        killed, finished = 0, 0
        while killed < kills:
            child = asked("start")
            time.sleep(chance.uniform(0.0, LONGEST_SECONDS) * 0.5 ** (killed % 3))
            os.kill(child, signal.SIGKILL)
            code = asked("end")
            killed += code == -signal.SIGKILL
            finished += code == 0
            if finished > 2:  # nothing left to interrupt: make work again
                (tmp_path / "killed" / "store" / "current" / "batch_ot.json").unlink()
                for path in (tmp_path / "killed" / "store" / "results" / "batch_ot").rglob("manifest.json"):
                    path.unlink()
                finished = 0
        asked("start")
        assert asked("end") == 0
        forker.stdin.close()
    assert all(
        s.status in ("fresh", "held")
        for s in Survey(Workspace(home=str(tmp_path / "killed")), ["first", "second"]).all()
    )
    subprocess.run(
        [sys.executable, "-m", "sava_assets.cli", "curate", "--home", str(tmp_path / "quiet")],
        check=True, capture_output=True,
    )  # fmt: skip
    after_kills, undisturbed = artefacts(tmp_path / "killed"), artefacts(tmp_path / "quiet")
    assert len(RULES) <= len([name for name in undisturbed if name.endswith("manifest.json")])
    # Killed writers may leave files that no manifest names; nothing else may differ.
    assert {name: after_kills.get(name) for name in undisturbed} == undisturbed
    extra = after_kills.keys() - undisturbed.keys()
    assert not [name for name in extra if name.endswith("manifest.json")]


def test_ctrl_c_stops_with_a_sentence_and_the_same_command_goes_on(tmp_path):
    home = tmp_path / "home"
    write_home(home, untrained_checkpoint(home) | {"classifier": {"seeds": 1, "training": QUICK | {"steps": 9_000}}})
    command = [sys.executable, "-m", "sava_assets.cli", "curate", "--prove", "--home", str(home)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    values = home / "store" / "current" / "pruned_dataset.json"
    while not values.exists() and process.poll() is None:
        time.sleep(0.2)
    time.sleep(1)
    os.kill(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert errors.strip() == "stopped; finished results are kept, the same command goes on from there"
    assert values.exists()
