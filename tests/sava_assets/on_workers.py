"""What the tests let workers do; imports no more than that needs, as every worker waits for it."""

import os
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from sava_assets.home.resources import Workspace
from sava_assets.home.result import DamagedResult, Result
from sava_ops.errors import BadInput

PATIENCE = 120
"""Seconds until another worker is there."""


def deadly(marker: Path, shared: Any, item: Any) -> Any:
    """A row of the batch matrix; kills the first worker that comes by."""
    from sava_assets.assets.rows import solved

    with suppress(FileExistsError):
        marker.touch(exist_ok=False)
        os.kill(os.getpid(), signal.SIGKILL)
    return solved(shared, item)


def refusing(result: Result | None, item: int) -> int:
    if item == 1 and result is None:
        raise BadInput("1 is too much")
    if item == 1:
        raise DamagedResult("1 is damaged", result)
    return item


class Shared:
    """Notes where it is unpacked."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __setstate__(self, state: dict) -> None:
        self.__dict__ = state
        with (self.folder / str(os.getpid())).open("a") as file:
            file.write(".")


def threads(_: Shared, item: int) -> tuple[int, int]:
    time.sleep(0.02)
    return item, torch.get_num_threads()


def own_gpu(folder: Path, _: int) -> tuple[str, str]:
    """Which GPU is seen, and what torch says of it, when another worker sees another one."""
    gpu = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    (folder / f"{gpu}-{os.getpid()}").touch()
    deadline = time.monotonic() + PATIENCE
    while len([*folder.iterdir()]) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    try:
        return gpu, Workspace.checked_device("cuda")
    except BadInput as refused:
        return gpu, str(refused)


def beating(folder: Path, item: int) -> None:
    for _ in range(100 * PATIENCE):
        (folder / str(item)).write_text(str(time.monotonic()))
        time.sleep(0.01)
