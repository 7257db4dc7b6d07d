"""`dagster dev` as `sava ui` and `sava serve` run it: SIGINT, SIGTERM and SIGHUP each end it, and all that it started.

`nohup` says by an ignored SIGHUP that this one is to be survived.
"""

import signal
import sys
from contextlib import suppress

import psutil
from dagster._cli import main

PATIENCE_SECONDS = 30
"""Until what was interrupted is killed."""


def serve() -> None:
    """Run `dagster dev` with the arguments of this process."""
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.default_int_handler)
    sys.argv = ["dagster", "dev", *sys.argv[1:]]
    try:
        main()
    finally:
        end_all()


def end_all() -> None:
    """End what `dagster dev` leaves behind: the runs that are in progress, and the code servers that wait for them,
    which may be hours. Runs are interrupted, as by Ctrl-C in a terminal."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    left = psutil.Process().children(recursive=True)
    for process in left:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGINT)
    for process in psutil.wait_procs(left, timeout=PATIENCE_SECONDS)[1]:
        with suppress(psutil.NoSuchProcess):
            process.kill()


if __name__ == "__main__":
    serve()
