"""The same valuation alone on the machine, beside one busy process, and beside two: `make neighbour`.

    python benchmarks/neighbour.py [training points] [reference points]

Each time is of a process of its own: the shorter of two valuations. The neighbours count, one thread each. Threads that
spin while they wait (OpenMP's way, where nothing says otherwise) wait for a neighbour's time slice at every operation;
`sava_assets` sets OMP_WAIT_POLICY=passive before torch is loaded. Writes benchmarks/neighbour.md if the machine was
quiet when it began.
"""

import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

PAGE = Path(__file__).with_name("neighbour.md")
SIZES = 20_000, 10_000
SETTINGS: dict[str, dict[str, str]] = {
    "threads that spin": {},
    "threads that sleep (as sava sets it)": {"OMP_WAIT_POLICY": "passive"},
    "one thread": {"OMP_NUM_THREADS": "1"},
}
NEIGHBOURS = {"quiet": 0, "beside one": 1, "beside two": 2}
BUSY = "import os; mine = os.getppid()\nwhile os.getppid() == mine: pass"
"""Until this process is gone."""
QUIET_LOAD = 0.3
"""Processes that wanted a processor over the last minute."""


def measured(train: int, reference: int) -> float:
    """Seconds, in this process."""
    from timing import clouds, seconds

    from sava_ops import value_points

    sides = [clouds(train, 1, 0.2), clouds(reference, 0, 0.0)]
    arrays = [array for side in sides for array in (side.features, side.labels)]
    return min(seconds(lambda: value_points(*arrays)) for _ in range(2))


@contextmanager
def busy(count: int) -> Iterator[None]:
    neighbours = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(count)]
    try:
        yield
    finally:
        for each in neighbours:
            each.kill()
            each.wait()


def table(sizes: Sequence[int]) -> list[str]:
    lines = [f"| seconds | {' | '.join(NEIGHBOURS)} |", "|---" * (len(NEIGHBOURS) + 1) + "|"]
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("OMP_")}
    for title, setting in SETTINGS.items():
        times = []
        for count in NEIGHBOURS.values():
            command = [sys.executable, __file__, "--here", *map(str, sizes)]
            with busy(count):
                told = subprocess.run(command, env=inherited | setting, capture_output=True, text=True, check=True)
            times.append(float(told.stdout))
            print(f"{title}, {count} beside it: {times[-1]:.1f} s", flush=True)
        lines.append(f"| {title} | {' | '.join(f'{each:.1f}' for each in times)} |")
    return lines


def main(sizes: Sequence[int]) -> None:
    load = os.getloadavg()[0]
    lines = table(sizes)
    head = f"{sizes[0]:,} × {sizes[1]:,} points on {os.cpu_count()} processors ({platform.machine()})"
    print("\n".join([head, *lines]))
    if load > QUIET_LOAD or tuple(sizes) != SIZES:
        print(f"no page is written: the load was {load:.1f} when this began, or the sizes are not {SIZES}")
        return
    PAGE.write_text("\n".join(["# Beside other processes", "", f"{head}; made by `make neighbour`.", "", *lines, ""]))


if __name__ == "__main__":
    *flag, train, reference = [*sys.argv[1:], *map(str, SIZES)][: 3 if "--here" in sys.argv else 2]
    if flag:
        print(measured(int(train), int(reference)))
    else:
        main([int(train), int(reference)])
