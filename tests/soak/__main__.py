"""The long soak: `python -m tests.soak 50`, so many shards under the real daemon, as `sava serve` starts it.

Shards arrive, change and vanish while the disk of the store fails now and then. Then both stop, the daemon goes on
until all is fresh, and what it has is held against a clean `sava curate` of a new home.
"""

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.e2e.server import Server, serving, wait_for
from tests.sava_assets.homes import untrained_checkpoint, write_home
from tests.soak.faults.sitecustomize import HITS
from tests.soak.states import clean_copy, differences, state, unfinished
from tests.soak.weather import Landing

EVENTS_PER_SHARD = 3
PAUSE_SECONDS = 0.0, 12.0
"""Between two events, at least and at most."""
SHARES = 0.0, 0.002, 0.01, 0.05
"""Of the calls on the disk that fail, by turns."""
FAULTS_PER_SHARD = 5
"""At least, before the disk is sound again."""
RETRY_SECONDS = 5.0
REST_SECONDS = 3_600.0
"""After which a daemon that is not done counts as stuck."""
LOOK_SECONDS = 3
UNASKED = {"proof": {"when": "changed", "share": 0.0}}
"""Nobody waits for the night here."""


class Disk:
    """Faults of a home's disk, for the processes that are started in `environment`."""

    def __init__(self, home: Path) -> None:
        self.file, self.home = home.parent / "faults.json", home
        self.fails(0.0)

    def fails(self, share: float) -> None:
        folders = [str(self.home / name) for name in ("store", "curated")]
        text = json.dumps({"share": share, "folders": folders, "retry_seconds": RETRY_SECONDS})
        partial = self.file.with_suffix(".partial")
        partial.write_text(text)
        partial.replace(self.file)

    @property
    def hits(self) -> list[str]:
        """Calls that failed."""
        file = self.file.with_suffix(HITS)
        return file.read_text().splitlines() if file.exists() else []

    @property
    def environment(self) -> dict[str, str]:
        folders = [str(Path(__file__).parent / "faults"), os.environ.get("PYTHONPATH", "")]
        return {"SOAK_FAULTS": str(self.file), "PYTHONPATH": os.pathsep.join(filter(None, folders))}


def main(shards: int, seed: int) -> int:
    print(f"{shards} shards, seed {seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="soak-") as folder, _kept_if_it_fails(Path(folder)):
        home, clean = Path(folder) / "home", Path(folder) / "clean"
        write_home(home, untrained_checkpoint(home) | UNASKED)
        disk = Disk(home)
        with serving("serve", home, SAVA_LOOK_SECONDS=str(LOOK_SECONDS), **disk.environment) as server:
            _storm(server, disk, Landing(home / "landing", shards, seed=seed), random.Random(seed))
            print(f"{len(disk.hits):,} calls failed", flush=True)
            _rest(server, home)
        clean_copy(home, clean)
        subprocess.run([sys.executable, "-m", "sava_assets.cli", "curate", "--home", str(clean)], check=True)
        soaked, expected = state(home), state(clean)
        differ = differences(soaked, expected)
        print(f"{len(expected):,} results and files, {len(differ)} differ {differ[:5]}", flush=True)
        assert not differ
    return 0


def _storm(server: Server, disk: Disk, landing: Landing, chance: random.Random) -> None:
    events = EVENTS_PER_SHARD * len(landing.names)
    for number in range(1, events + 1):
        share = chance.choice(SHARES)
        disk.fails(share)
        print(f"{number}/{events}: {landing.happens()}; {share:.2%} of calls fail", flush=True)
        time.sleep(chance.uniform(*PAUSE_SECONDS))
        assert server.process.poll() is None, "the daemon ended"
    landing.clears_up()
    disk.fails(SHARES[2])
    wait_for(lambda: len(disk.hits) >= FAULTS_PER_SHARD * len(landing.names), "faults of the disk", server)
    disk.fails(0.0)


def _rest(server: Server, home: Path) -> None:
    """Until the daemon has nothing left to do."""
    started, told = time.monotonic(), 0.0
    while left := unfinished(home):
        assert server.process.poll() is None, "the daemon ended"
        waited = time.monotonic() - started
        assert waited < REST_SECONDS, f"still not fresh: {left}"
        if waited > told:
            print(f"{waited:.0f} s at rest, {len(left)} not fresh, first {next(iter(left.items()))}", flush=True)
            told = waited + 30
        time.sleep(LOOK_SECONDS)
    print(f"all fresh after {time.monotonic() - started:.0f} s", flush=True)


@contextmanager
def _kept_if_it_fails(folder: Path) -> Iterator[None]:
    try:
        yield
    except BaseException:
        kept = Path("data") / "soak" / folder.name
        kept.parent.mkdir(parents=True, exist_ok=True)
        folder.rename(kept)
        folder.mkdir()
        print(f"kept in {kept}", flush=True)
        raise


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2]) if sys.argv[2:] else random.SystemRandom().randrange(2**16)))
