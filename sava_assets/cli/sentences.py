"""Whatever ends a command is one sentence and an exit code, not a stack trace, on any terminal."""

import codecs
import functools
import os
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, ParamSpec, TypeVar

import typer
from click.exceptions import ClickException, Exit

from sava_assets.cli.interrupts import STOPPED, STOPPED_CODE, end_at_once, end_orderly, lose_none
from sava_ops.errors import BadInput

if TYPE_CHECKING:
    from sava_assets.home.store import Store

P = ParamSpec("P")
R = TypeVar("R")
PLAIN = {"±": "+-", "×": "x", "→": "->", "…": "...", "─": "-", "━": "=", "ε": "epsilon", "ρ": "rho"}
"""Letters of ours for a terminal that has no others than those of ASCII."""


class App(typer.Typer):
    """The command line as a process of its own."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        codecs.register_error("plain", _plain)
        for stream in (sys.stdout, sys.stderr):
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="plain")  # pyright: ignore[reportAttributeAccessIssue]
        for size in ("COLUMNS", "LINES"):  # of a terminal that does not know its own; nothing fits into 0 columns
            if os.environ.get(size) == "0":
                del os.environ[size]
        end_at_once()  # until a command begins
        lose_none()
        return super().__call__(*args, **kwargs)


def in_sentences(command: Callable[P, R]) -> Callable[P, R]:
    """The same command, which ends in a sentence whatever goes wrong."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        end_orderly()
        try:
            return command(*args, **kwargs)
        except (Exit, ClickException, BrokenPipeError):
            raise
        except KeyboardInterrupt:
            _stop()
        except Exception as error:
            if _interrupted(error):
                _stop()
            home = kwargs.get("home")
            sentence = _sentence(error, command.__name__, home if isinstance(home, str) else None)
            _complain("[red]error:[/red] ", sentence)
            raise typer.Exit(1) from None

    return run


def _stop() -> NoReturn:
    _complain("", STOPPED)
    # Python remembers a Ctrl-C that came while it ran a string, as `dataclass` does, and would end by SIGINT; the next
    # string that it runs makes it forget.
    exec("")
    raise typer.Exit(STOPPED_CODE) from None


def _sentence(error: Exception, command: str, home: str | None) -> str:
    if isinstance(error, BadInput):
        return str(error)
    from sava_assets.home.failures import described

    return described(error, _store_for_tracebacks(home), f"sava-{command}")


def _store_for_tracebacks(home: str | None) -> "Store":
    """That of a home in a folder; a folder of this machine for others, and where the settings cannot be read."""
    from upath import UPath

    from sava_assets.home.resources import Workspace
    from sava_assets.home.store import Store

    with suppress(BadInput, OSError):
        if home is not None and Path(home).is_dir():
            return Workspace(home=home).store
    return Store(UPath(tempfile.mkdtemp(prefix="sava-")))


def _complain(mark: str, sentence: str) -> None:
    from rich.console import Console
    from rich.markup import escape

    from sava_assets.formats.names import shown

    line = shown(" ".join(sentence.splitlines()))
    Console(stderr=True, soft_wrap=True).print(f"{mark}{escape(line)}", highlight=False)


def _interrupted(error: BaseException) -> bool:
    """Whether an error is what an import made of a Ctrl-C."""
    causes: list[BaseException] = []
    while (cause := error.__cause__ or error.__context__) and cause not in causes:
        causes.append(error := cause)
    return any(isinstance(cause, KeyboardInterrupt) for cause in causes)


def _plain(error: UnicodeError) -> tuple[str, int]:
    """What a stream writes for letters that it has not."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    letters = error.object[error.start : error.end]
    return "".join(PLAIN.get(c) or c.encode("ascii", "backslashreplace").decode() for c in letters), error.end
