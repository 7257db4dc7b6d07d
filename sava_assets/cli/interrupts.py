"""Ctrl-C, SIGTERM (service managers) and SIGHUP (a terminal that closes) end a command, and none of them is lost.

What a signal raises is lost where Python runs a callback or a destructor, and every import runs some: the traceback is
printed, and the program goes on. So Ctrl-C ends the process at once while there is nothing but imports, and a command
is interrupted once more.
"""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

STOPPED = "stopped; finished results are kept, the same command goes on from there"
STOPPED_CODE = 130
MOMENT = 0.05
"""Seconds after which what was lost is sent again; whatever lost it has ended by then."""


def end_at_once() -> bool:
    """Let Ctrl-C end this process from here on, in the middle of whatever it imports; whether that is ours to say."""
    if ours := signal.getsignal(signal.SIGINT) is signal.default_int_handler and _in_main_thread():
        signal.signal(signal.SIGINT, _end)
    return ours


@contextmanager
def ended_at_once() -> Iterator[None]:
    """The same for a while."""
    ours = end_at_once()
    try:
        yield
    finally:
        if ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def end_orderly() -> None:
    """Let all three raise KeyboardInterrupt from here on; Ctrl-C and SIGHUP not where they are ignored (`nohup`)."""
    if not _in_main_thread():
        return
    signal.signal(signal.SIGTERM, _interrupt)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, _interrupt)
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def lose_none() -> None:
    """Send this process SIGTERM where something lost what a signal raised."""
    sys.unraisablehook = _interrupt_again


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def _end(*_: Any) -> None:
    os.write(2, f"{STOPPED}\n".encode())
    os._exit(STOPPED_CODE)


def _interrupt(number: int, frame: Any) -> None:
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.default_int_handler(number, frame)
    signal.raise_signal(signal.SIGINT)


def _interrupt_again(lost: "UnraisableHookArgs") -> None:
    if issubclass(lost.exc_type, Exception):
        sys.__unraisablehook__(lost)
        return
    again = threading.Timer(MOMENT, os.kill, (os.getpid(), signal.SIGTERM))
    again.daemon = True
    again.start()
