"""Notices over loopback and through a command; what does not answer, and what does not end."""

import json
import os
import socket
import sys
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from sava_assets.home.outgoing import NotifyKnobs
from sava_assets.review import sending
from sava_assets.review.notices import Notice
from sava_assets.review.sending import CHANNELS, body

LINES = ["a <!channel> & co", "cut", "moved", "failed", "page"]
SAID = Notice(LINES, {"home": "a", "curation": 3, "held_back": "", "failed": {}, "page": "p"})
SECRET = "T0K3N"


@contextmanager
def server(code=200, **headers):
    """A webhook on loopback that answers with this code, and what it was sent."""
    got = []

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self):
            data = self.rfile.read(int(self.headers["Content-Length"]))
            got.append((self.path, self.headers["Content-Type"], json.loads(data)))
            self.send_response(code)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()

        do_GET = do_POST

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Hook) as made:
        threading.Thread(target=made.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{made.server_port}/{SECRET}", got
        finally:
            made.shutdown()


def post(webhook, form="json") -> str:
    return CHANNELS["webhook"](SAID, NotifyKnobs(webhook=webhook, format=form))


def run(*command: str) -> str:
    return CHANNELS["command"](SAID, NotifyKnobs(command=list(command)))


def python(program: str) -> str:
    return run(sys.executable, "-c", program)


def test_a_webhook_gets_the_lines_and_the_facts():
    with server() as (address, got):
        assert post(address) == ""
    assert got == [(f"/{SECRET}", "application/json", {"text": "\n".join(LINES), "lines": LINES, **SAID.facts})]


def test_slack_gets_its_own_format_and_no_name_can_call_a_channel():
    with server() as (address, got):
        assert post(address, "slack") == ""
    assert got[0][2] == {"text": "a &lt;!channel&gt; &amp; co\ncut\nmoved\nfailed\npage"} == body(SAID, "slack")


def test_the_address_may_be_that_of_an_environment_variable(monkeypatch):
    with server() as (address, got):
        monkeypatch.setenv("SAVA_TEST_HOOK", f" {address}\n")
        assert post({"env": "SAVA_TEST_HOOK"}) == ""
    assert len(got) == 1
    for value, why in (("", "is not set"), (f"file:///{SECRET}", "it must be an http:// or https:// address")):
        monkeypatch.setenv("SAVA_TEST_HOOK", value)
        told = post({"env": "SAVA_TEST_HOOK"})
        assert told.startswith("the notice was not sent: ")
        assert f"SAVA_TEST_HOOK, which `notify.webhook` names, {why}" in told
        assert SECRET not in told


@pytest.mark.parametrize(("code", "more"), [(404, {}), (500, {}), (302, {"Location": f"/{SECRET}/other"})])
def test_a_webhook_that_refuses_is_said(code, more):
    with server(code, **more) as (address, got):
        told = post(address)
    assert (
        told == f"the notice was not sent: the webhook answered {code}: look at what `notify.webhook` and `format` say"
    )
    assert len(got) == 1


def test_a_webhook_that_is_down_or_nowhere_is_said():
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    told = post(f"http://127.0.0.1:{port}/{SECRET}")
    assert told == "the notice was not sent: the webhook cannot be reached (Connection refused)"
    for address in (f"http://no-such-host.invalid/{SECRET}", f"http://{'a' * 70}.é/{SECRET}"):
        assert (told := post(address)).startswith("the notice was not sent: the webhook cannot be reached (")
        assert SECRET not in told


@pytest.mark.parametrize("answer", [b"", b"nonsense\r\n\r\n"])
def test_a_webhook_that_does_not_answer_or_not_in_http_is_said(monkeypatch, answer):
    monkeypatch.setattr(sending, "SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:

        def accept():
            connection, _ = silent.accept()
            connection.sendall(answer)
            time.sleep(1)
            connection.close()

        threading.Thread(target=accept, daemon=True).start()
        told = post(f"http://127.0.0.1:{silent.getsockname()[1]}/{SECRET}")
    why = "BadStatusLine" if answer else "no answer within 0.3 s"
    assert told == f"the notice was not sent: the webhook cannot be reached ({why})"


def test_a_command_reads_the_lines_and_no_shell_reads_its_arguments(tmp_path):
    target = tmp_path / "$(echo x); y"
    program = "import sys; open(sys.argv[1], 'w').write(sys.stdin.read())"
    assert run(sys.executable, "-c", program, str(target)) == ""
    assert target.read_text() == "".join(f"{line}\n" for line in LINES)


@pytest.mark.parametrize(
    ("command", "told"),
    [
        (
            ["/no/such/program", SECRET],
            "'/no/such/program' of `notify.command` cannot be run (/no/such/program: No such",
        ),
        ([os.sep, SECRET], f"{os.sep!r} of `notify.command` cannot be run (/: Permission denied)"),
        ([sys.executable, "-c", "import sys; sys.exit(3)", SECRET], "of `notify.command` ended with 3"),
        ([sys.executable, "-c", "import os; os.abort()"], "of `notify.command` ended with -6"),
    ],
)
def test_a_command_that_fails_is_said_without_its_arguments(command, told):
    found = run(*command)
    assert found.startswith("the notice was not sent: the command ")
    assert told in found
    assert SECRET not in found


def test_a_command_may_leave_its_input_unread():
    assert python("pass") == ""


def test_a_command_that_does_not_end_is_ended_with_all_that_it_started(monkeypatch, tmp_path):
    monkeypatch.setattr(sending, "COMMAND_SECONDS", 1.0)
    note = tmp_path / "pid"
    program = (
        "import subprocess, time; child = subprocess.Popen(['sleep', '99'])\n"
        f"open({str(note)!r}, 'w').write(str(child.pid)); time.sleep(99)"
    )
    assert python(program).endswith("of `notify.command` took longer than 1 s")
    child = int(note.read_text())
    deadline = time.monotonic() + 10
    while _lives(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _lives(child)


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except FileNotFoundError:
        return False
