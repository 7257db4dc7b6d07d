"""Faults of a home's disk: whatever a process opens, renames, lists or removes there fails now and then.

Python runs this file at the start of every process that has its folder in PYTHONPATH. The file that `SOAK_FAULTS` names
says in JSON how often (`share`), below which `folders`, and after how many seconds what failed is tried again
(`retry_seconds`), lest a soak waits for hours. It may be changed at any time.
"""

import builtins
import errno
import functools
import importlib.abc
import importlib.machinery
import importlib.util
import io
import json
import os
import random
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

SURVEY = "sava_assets.freshness.survey"
FAULTS = (errno.EIO, errno.ENOSPC, errno.ESTALE, errno.EACCES)
HITS = ".hits"
"""Suffix of the file that names every call that failed, beside the settings."""
_open = io.open
_chance = random.Random()


class Disk:
    """The settings, read again when they changed."""

    def __init__(self, file: str) -> None:
        self.file, self.read_at, self.settings = Path(file), 0, {}

    def may_fail(self, path: Any) -> None:
        """Raises OSError now and then."""
        if (changed := self.file.stat().st_mtime_ns) != self.read_at:
            with _open(self.file) as stream:
                self.settings, self.read_at = json.load(stream), changed
        if isinstance(path, int) or not os.fsdecode(path).startswith(tuple(self.settings["folders"])):
            return
        if _chance.random() < self.settings["share"]:
            number = _chance.choice(FAULTS)
            with _open(self.file.with_suffix(HITS), "a") as log:
                log.write(f"{errno.errorcode[number]} {os.fsdecode(path)}\n")
            raise OSError(number, f"{os.strerror(number)} (injected)", os.fsdecode(path))


def install(file: str) -> Callable[[], None]:
    """Let calls fail in this process; returns what ends it."""
    disk = Disk(file)
    patched = [(io, "open"), (builtins, "open"), *((os, name) for name in ("replace", "unlink", "listdir", "scandir"))]
    sound = [(module, name, getattr(module, name)) for module, name in patched]
    for module, name, call in sound:
        setattr(module, name, _failing(call, disk))

    def end() -> None:
        for module, name, call in sound:
            setattr(module, name, call)

    return end


def _failing(call: Callable[..., Any], disk: Disk) -> Callable[..., Any]:
    @functools.wraps(call)
    def may_fail(path: Any = ".", *args: Any, **kwargs: Any) -> Any:
        disk.may_fail(path)
        return call(path, *args, **kwargs)

    return may_fail


class _Impatient(importlib.abc.MetaPathFinder):
    """Sets the seconds after which what failed is tried again, as soon as the module is there that has them."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name != SURVEY:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            run = spec.loader.exec_module

            def exec_module(module: ModuleType) -> None:
                run(module)
                module.RETRY_SECONDS = module.LONGEST_RETRY_SECONDS = self.seconds  # pyright: ignore

            spec.loader.exec_module = exec_module  # pyright: ignore
        return spec


if settings_file := os.environ.get("SOAK_FAULTS"):
    with _open(settings_file) as stream:
        sys.meta_path.insert(0, _Impatient(json.load(stream)["retry_seconds"]))
    install(settings_file)
