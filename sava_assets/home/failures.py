"""What went wrong, in one sentence; the traceback of what nobody foresaw is kept in a file."""

import traceback

from sava_assets.home.places import causes, unreachable
from sava_assets.home.result import DamagedResult, bytes_file
from sava_assets.home.store import Store
from sava_ops.errors import BadInput

FORESEEN = BadInput, DamagedResult


def described(error: Exception, store: Store, title: str) -> str:
    """One sentence about an error at `title` (the `place` of a result, or a command).

    The traceback of an error that is no sentence by itself goes to `failures/<title>.txt` of the store.
    """
    if isinstance(error, FORESEEN):
        return str(error)
    if told := unreachable(error):
        return told
    file, text = f"failures/{title}.txt", "".join(traceback.format_exception(error))
    try:
        store.put(file, bytes_file(text.encode("utf-8", "backslashreplace")))
    except OSError as unwritten:
        return f"{in_words(error)} (its traceback could not be kept: {in_words(unwritten)})"
    return f"{in_words(error)} (not foreseen; its traceback is in {store.root / file})"


def root_in_words(error: BaseException) -> str:
    """The first cause of an error, as whoever met it told it."""
    *_, first = causes(error)
    return in_words(first)


def in_words(error: BaseException) -> str:
    """Kind and message, on one line."""
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename is not None else ""
        return f"{where}{error.strerror}"
    message = " ".join(str(error).split())
    return f"{type(error).__name__}: {message}" if message else type(error).__name__
