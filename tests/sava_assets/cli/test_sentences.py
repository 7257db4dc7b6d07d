"""Commands as processes: what a terminal sees when it has few letters, or when somebody is impatient."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import typer

from sava_assets.cli.sentences import in_sentences
from tests.sava_assets.cli.test_cli import refused, sava

pytestmark = pytest.mark.long
ROOT = Path(__file__).parents[3]
STOPPED = "stopped; finished results are kept, the same command goes on from there"


def test_what_nobody_foresaw_is_one_sentence_and_the_home_keeps_its_traceback(tmp_path, monkeypatch):
    def fail(*_: object, **__: object) -> None:
        raise KeyError("odd")

    (tmp_path / "sava.yaml").write_text("landing: .\n")
    monkeypatch.setattr("sava_assets.freshness.sources.landed", fail)
    kept = tmp_path / "store" / "failures" / "sava-status.txt"
    assert refused("status", "--home", tmp_path) == f"KeyError: 'odd' (not foreseen; its traceback is in {kept})"
    assert "raise KeyError" in kept.read_text()


def test_a_command_without_a_home_keeps_its_traceback_too(tmp_path, monkeypatch):
    monkeypatch.setattr("sava_assets.cli.valuing.value_tables", lambda *_, **__: 1 / 0)
    said = refused("value", "a", "b", "-o", tmp_path / "o")
    assert said.startswith("ZeroDivisionError: division by zero (not foreseen; its traceback is in ")
    assert "value_tables" in Path(said.split()[-1].rstrip(")")).read_text()


def test_a_home_that_no_file_system_takes_is_one_sentence():
    home = "x" * 3_000
    told = f"{home[:200]}… cannot be looked at (File name too long): allow it, or name another place"
    for command in ("curate", "status", "report", "review", "history", "gc", "ui", "serve", "demo"):
        assert refused(command, "--home", home) == told


def test_a_ctrl_c_that_an_import_made_an_error_of_is_a_ctrl_c(tmp_path, monkeypatch):
    def fail(*_: object) -> None:
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt as stopped:
            raise ImportError("numpy failed to import") from stopped

    monkeypatch.setattr("sava_assets.cli.preparation.check_home", fail)
    assert sava("status", "--home", tmp_path) == (130, STOPPED)


@pytest.fixture
def handlers():
    """Those of the test process, put back at the end."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("handlers")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("ctrl_c", [signal.default_int_handler, signal.SIG_IGN], ids=["heard", "ignored"])
def test_other_signals_end_a_command_as_ctrl_c_does(number, ctrl_c, capsys):
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    signal.signal(signal.SIGINT, ctrl_c)
    with pytest.raises(typer.Exit) as ended:
        in_sentences(lambda: signal.raise_signal(number))()
    assert ended.value.exit_code == 130
    assert capsys.readouterr().err == f"{STOPPED}\n"


@pytest.mark.usefixtures("handlers")
def test_a_terminal_that_closes_is_survived_where_that_was_asked_for():
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    in_sentences(lambda: signal.raise_signal(signal.SIGHUP))()


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_every_letter_is_written_somehow(encoding):
    program = "import sys; from sava_assets.cli import app; sys.argv = ['sava', '--help']\n"
    program += "try: app()\nexcept SystemExit: pass\nprint('1 ± 2 → 3 × 猫 caf\\udce9')"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, check=True,
        env=os.environ | {"PYTHONIOENCODING": encoding},
    )  # fmt: skip
    shown = {
        "ascii": "1 +- 2 -> 3 x \\u732b caf\\udce9",
        "latin-1": "1 ± 2 -> 3 × \\u732b caf\\udce9",
        "utf-8": "1 ± 2 → 3 × 猫 caf\\udce9",
    }
    assert done.stdout.decode(encoding).splitlines()[-1] == shown[encoding]


@pytest.mark.parametrize("size", [{"COLUMNS": "0"}, {"COLUMNS": "0", "LINES": "0"}])
def test_a_terminal_without_columns_is_told_everything(tmp_path, size):
    (tmp_path / "landing").mkdir()
    program = "from sava_assets.cli import app; app()"
    done = subprocess.run(
        [sys.executable, "-c", program, "status", "--home", str(tmp_path)], cwd=ROOT, capture_output=True,
        env=os.environ | size, check=False,
    )  # fmt: skip
    assert b"0 files and rows: 0 used" in done.stdout


LOSES_ONE = """
import signal, time
from sava_assets.cli import app
from sava_assets.cli.sentences import in_sentences

class Lost:
    def __del__(self):
        signal.raise_signal(signal.{name})

class Kept:
    def __del__(self):
        raise ValueError('of its own')

@app.command()
@in_sentences
def wait():
    Kept()
    Lost()
    print('goes on', flush=True)
    time.sleep(60)

app(['wait'])
"""


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_that_a_destructor_loses_ends_the_command_all_the_same(name):
    done = subprocess.run(
        [sys.executable, "-c", LOSES_ONE.format(name=name)], cwd=ROOT, capture_output=True, text=True, check=False,
        timeout=50, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (130, "goes on\n")
    assert "ValueError: of its own" in done.stderr  # what is no signal is said as Python says it
    assert done.stderr.endswith(f"\n{STOPPED}\n")
    assert "KeyboardInterrupt" not in done.stderr


def test_ctrl_c_while_the_commands_are_imported_is_a_sentence():
    program = "import signal, sys\nclass Now:\n def find_spec(self, name, *_):\n"
    program += "  if name == 'sava_assets.cli.commands':\n   try: signal.raise_signal(signal.SIGINT)\n"
    program += "   except KeyboardInterrupt: pass\nsys.meta_path.insert(0, Now())\n"
    program += "from sava_assets.cli import app; app()"
    done = subprocess.run(
        [sys.executable, "-c", program, "--help"], cwd=ROOT, capture_output=True, text=True, check=False,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (130, "", f"{STOPPED}\n")


def test_an_import_of_the_commands_leaves_the_handlers_as_they_were():
    program = "import signal; import sava_assets.cli; print(signal.getsignal(signal.SIGINT).__name__)"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    assert done.stdout == "default_int_handler\n"


def test_ctrl_c_is_a_sentence_from_the_first_import_on(tmp_path):
    """At twelve moments of a start that takes seconds, once Python itself is up."""
    (tmp_path / "landing").mkdir()
    program = "print('up', flush=True); from sava_assets.cli import app; app()"
    ended = []
    for step in range(12):
        process = subprocess.Popen(
            [sys.executable, "-c", program, "curate", "--home", str(tmp_path)],
            cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )  # fmt: skip
        assert process.stdout.readline() == b"up\n"
        time.sleep(0.05 + 0.2 * step)
        process.send_signal(signal.SIGINT)
        errors = process.communicate(timeout=60)[1].decode()
        ended.append(process.returncode)
        assert errors.startswith("error: the reference folder" if process.returncode == 1 else "stopped; "), errors
    assert set(ended) <= {1, 130}
    assert 130 in ended
