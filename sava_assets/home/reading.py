"""A file that kills whoever reads it must not do so at every run.

Before a shard is read, that is noted as a failure in advance; the note goes when the reading ends, however it ends. A
note whose process is gone tells of one that was killed: by a lack of memory, a fault in a decoder, a power cut. After a
second one the shard is read no more until its content or the settings change, or somebody deletes the note.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from sava_assets.home.places import remove
from sava_assets.home.processes import this_process
from sava_assets.home.result import Failure
from sava_assets.home.store import Store
from sava_ops.errors import BadInput

MOST_KILLED = 2


@contextmanager
def reading(store: Store, asset: str, shard: str, key: str) -> Iterator[None]:
    """While a shard is read. Raises BadInput where too many processes were killed at it."""
    before = store.failure(asset, shard)
    tried = before if before and before.key == key else None
    killed = tried.killed if tried else 0
    if tried and killed >= MOST_KILLED:
        raise BadInput(tried.message)
    note = Failure(
        key,
        _told(killed + 1, store.failure_file(asset, shard)),
        tried.attempts + 1 if tried else 1,
        time.time(),
        killed,
        this_process(),
    )
    store.put_failure(asset, shard, note)
    try:
        yield
    except BaseException:  # it did not kill: what else it was, is noted by whoever asked
        if before:
            store.put_failure(asset, shard, before)
        else:
            remove(store.failure_file(asset, shard))
        raise


def given_up(failure: Failure) -> bool:
    """Whether it is not tried again."""
    return failure.killed >= MOST_KILLED


def _told(killed: int, note: object) -> str:
    cause = "out of memory, or by a fault in a decoder"
    if killed < MOST_KILLED:
        return f"the process that read it was killed ({cause}); it is read once more"
    return (
        f"{killed} processes that read it were killed ({cause}): take it away or split it, or delete {note} to have it "
        "read again"
    )
