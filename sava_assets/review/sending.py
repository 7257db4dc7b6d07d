"""A notice is posted to a webhook, or handed to a command. That it cannot be sent is said, and fails nothing.

Nothing that is said names the webhook's address: who knows it, can write to the channel.
"""

import json
import os
import signal
import subprocess
from collections.abc import Callable
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import HTTPRedirectHandler, Request, build_opener

from sava_assets.home.failures import in_words
from sava_assets.home.outgoing import WEBHOOK_WANTED, NotifyKnobs, is_web_address
from sava_assets.review.notices import Notice
from sava_ops.errors import BadInput

SECONDS = 10.0
"""That a webhook has to answer."""
COMMAND_SECONDS = 60.0
"""That a command has to end."""


def body(notice: Notice, form: str) -> dict[str, Any]:
    """What is posted."""
    text = "\n".join(notice.lines)
    if form == "slack":  # of which these letters are the markup: a name must not call the whole channel
        return {"text": text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")}
    return {"text": text, "lines": notice.lines, **notice.facts}


class _NoRedirect(HTTPRedirectHandler):
    """What is sent on would arrive as a GET, without the lines."""

    def redirect_request(self, *_: Any) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        return None


def _post(notice: Notice, knobs: NotifyKnobs) -> None:
    data = json.dumps(body(notice, knobs.format)).encode()
    request = Request(_address(knobs), data, {"Content-Type": "application/json", "User-Agent": "sava"})
    try:
        with build_opener(_NoRedirect).open(request, timeout=SECONDS):
            pass
    except HTTPError as error:
        error.close()
        raise BadInput(f"the webhook answered {error.code}: look at what `notify.webhook` and `format` say") from None
    except (OSError, HTTPException, ValueError) as error:  # without its text, which may hold the address
        reason = error.reason if isinstance(error, URLError) else error
        why = f"no answer within {SECONDS:g} s" if isinstance(reason, TimeoutError) else _why(reason)
        raise BadInput(f"the webhook cannot be reached ({why})") from None


def _why(reason: Any) -> str:
    return (isinstance(reason, OSError) and reason.strerror) or type(reason).__name__


def _address(knobs: NotifyKnobs) -> str:
    if not isinstance(knobs.webhook, dict):
        return knobs.webhook or ""
    name = knobs.webhook["env"]
    if not (found := os.environ.get(name, "").strip()):
        raise BadInput(f"the environment variable {name}, which `notify.webhook` names, is not set")
    if not is_web_address(found):
        raise BadInput(f"of the environment variable {name}, which `notify.webhook` names, {WEBHOOK_WANTED}")
    return found


def _run(notice: Notice, knobs: NotifyKnobs) -> None:
    command = knobs.command or []
    lines = "".join(f"{line}\n" for line in notice.lines).encode("utf-8", "backslashreplace")
    quiet = subprocess.DEVNULL
    try:  # a session of its own: what it starts ends with it
        running = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=quiet, stderr=quiet, start_new_session=True)
    except OSError as error:
        raise BadInput(f"the command {command[0]!r} of `notify.command` cannot be run ({in_words(error)})") from None
    try:
        running.communicate(lines, timeout=COMMAND_SECONDS)
    except subprocess.TimeoutExpired:
        told = f"the command {command[0]!r} of `notify.command` took longer than {COMMAND_SECONDS:g} s"
        raise BadInput(told) from None
    finally:
        if running.poll() is None:
            os.killpg(running.pid, signal.SIGKILL)
            running.wait()
    if running.returncode:
        raise BadInput(f"the command {command[0]!r} of `notify.command` ended with {running.returncode}")


def _said(send: Callable[[Notice, NotifyKnobs], None]) -> Callable[[Notice, NotifyKnobs], str]:
    def sent(notice: Notice, knobs: NotifyKnobs) -> str:
        try:
            send(notice, knobs)
        except BadInput as fault:
            return f"the notice was not sent: {fault}"
        return ""

    return sent


CHANNELS = {"webhook": _said(_post), "command": _said(_run)}
"""By setting: sends a notice, and returns why it could not."""
