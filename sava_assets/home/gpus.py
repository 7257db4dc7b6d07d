"""Which GPU a process takes where it sees several: one that no other process of this machine has taken.

A GPU is taken by a lock (`flock`) on a file of the machine's temporary folder, for as long as the process lives, so
whoever dies lets go. The file holds nothing.
"""

import fcntl
import os
import tempfile
from pathlib import Path

from sava_ops.errors import BadInput

READ = os.O_RDONLY | os.O_NOFOLLOW
_taken: dict[str, int] = {}
"""By this process: the device, and the lock's file, which stays open."""


def free_gpu() -> str:
    """What torch calls it: the same one whenever this process asks. The first one where others have taken all. Raises
    BadInput for a lock that cannot be opened."""
    import torch

    if (count := torch.cuda.device_count()) < 2:
        return "cuda"
    for device in (f"cuda:{k}" for k in range(count)) if not _taken else ():
        # Numbers are those that this process sees; the name is the GPU's own.
        if (lock := _lock(f"sava-gpu-{torch.cuda.get_device_properties(device).uuid}")) is not None:
            _taken[device] = lock
            break
    return next(iter(_taken), "cuda:0")


def _lock(name: str) -> int | None:
    """An open file that others cannot lock, if nobody has locked it."""
    opened = _opened(Path(tempfile.gettempdir(), name))
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(opened)
        return None
    return opened


def _opened(file: Path) -> int:
    try:
        try:
            return os.open(file, READ)
        except FileNotFoundError:
            made = os.open(file, READ | os.O_CREAT, 0o644)
            os.fchmod(made, 0o644)  # for other users, too
            return made
    except OSError as error:
        raise BadInput(
            f"{file}, which says whether a GPU is taken, cannot be opened ({error.strerror}): remove it, or set "
            "`device` to the GPU that is to be used"
        ) from error
