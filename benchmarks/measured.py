"""One asset in a process of its own: the peak of its memory, and its seconds.

A process inherits the peak of the one that started it, so a small one must start it.
"""

import json
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from sava_assets.home.resources import Workspace


def measured(
    home: Path, asset: str, shard: str | None, shards: Sequence[str], *, every: int = 1
) -> tuple[float, float]:
    """Peak memory in GB and seconds of the process that materializes an asset of a home, or a shard of it. Networks see
    every `every`-th pixel: less work, on images that are decoded, held and drawn as ever."""
    arguments = [str(home), asset, shard or "", str(every), *shards]
    done = subprocess.run([sys.executable, __file__, *arguments], check=True, stdout=subprocess.PIPE, text=True)
    peak, seconds = json.loads(done.stdout.splitlines()[-1])
    print(f"{asset if shard is None else f'{asset}[{shard}]'}: {peak:.2f} GB, {seconds:.0f} s", flush=True)
    return peak, seconds


def main(home: str, asset: str, shard: str, every: int, shards: Sequence[str]) -> None:
    import dagster as dg
    from stored_points import run

    from sava_ops.images.classifier import PixelResNet18

    whole = PixelResNet18.forward
    PixelResNet18.forward = lambda self, images: whole(self, images[:, :, ::every, ::every])
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("shards", list(shards))
        started = time.monotonic()
        run(Workspace(home=home), instance, asset, shard=shard or None)
        seconds = time.monotonic() - started
    print(json.dumps([resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9, seconds]))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), sys.argv[5:])
