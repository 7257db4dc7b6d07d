"""Who may work where: what must have one owner at a time in a home, though several processes work in it.

Locks are the operating system's (`flock` on files in `.locks/`), so whoever dies lets go. A home that is not on a local
disk has none.
"""

import fcntl
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Literal

from upath import UPath

from sava_assets.home.places import is_local
from sava_ops.errors import BadInput

LOCKS = ".locks"
Part = Literal["data", "setup", "results", "publication", "notices"]
"""What is owned: the data of a demo while it is written; settings and database; stored results (shared by those who add
some, whole for who deletes); `curated/` and the history; what people are told."""


@contextmanager
def owned(
    home: UPath,
    part: Part,
    *,
    shared: bool = False,
    wait: bool = True,
    say: Callable[[str], object] = lambda _: None,
) -> Iterator[None]:
    """Own a part of a home, or share it with others who share it. While somebody else owns it: wait, after `say` was
    told for whom, or raise BadInput with the same words."""
    if not is_local(home):
        yield
        return
    file = Path(home.path).absolute() / LOCKS / part
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a+") as stream:
        kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        try:
            fcntl.flock(stream, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = _owner(stream)
            if not wait:
                raise BadInput(f"{owner} works in {home}: try again when it has ended") from None
            say(f"waiting for {owner}, which works in {home}")
            fcntl.flock(stream, kind)
        stream.truncate(0)
        stream.write(f"process {os.getpid()} on {socket.gethostname()}")
        stream.flush()
        yield


def _owner(stream: IO[str]) -> str:
    """Who came last, in words; of those who share a part, one."""
    stream.seek(0)
    return stream.read() or "another process"
