"""One asset in a process of its own: the peak of its memory, and its seconds, on the clock and of processors.

A process inherits the peak of the one that started it, so a small one must start it.
"""

import json
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from sava_assets.home.resources import Workspace


class Measured(NamedTuple):
    """Of the process that materialized an asset, or a shard of it."""

    peak: float
    """GB of memory."""
    seconds: float
    busy: float
    """Seconds of all processors, its children's too: what else the machine does adds little to them."""


def measured(home: Path, asset: str, shard: str | None, shards: Sequence[str], *, every: int = 1) -> Measured:
    """Networks see every `every`-th pixel: less work, on images that are decoded, held and drawn as ever."""
    arguments = [str(home), asset, shard or "", str(every), *shards]
    done = subprocess.run([sys.executable, __file__, *arguments], check=True, stdout=subprocess.PIPE, text=True)
    found = Measured(*json.loads(done.stdout.splitlines()[-1]))
    unit = asset if shard is None else f"{asset}[{shard}]"
    print(f"{unit}: {found.peak:.2f} GB, {found.seconds:.0f} s, processors {found.busy:.0f} s", flush=True)
    return found


def main(home: str, asset: str, shard: str, every: int, shards: Sequence[str]) -> None:
    import dagster as dg
    from stored_points import run

    from sava_ops.images.classifier import PixelResNet18

    whole = PixelResNet18.forward
    PixelResNet18.forward = lambda self, images: whole(self, images[:, :, ::every, ::every])
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("shards", list(shards))
        started, busy = time.monotonic(), _busy()
        run(Workspace(home=home), instance, asset, shard=shard or None)
        seconds, busy = time.monotonic() - started, _busy() - busy
    print(json.dumps([resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9, seconds, busy]))


def _busy() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(own.ru_utime + own.ru_stime for own in used)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), sys.argv[5:])
