"""`dagster dev` as `sava ui` and `sava serve` run it: SIGINT, SIGTERM and SIGHUP each end it, and all that it started.

`nohup` says by an ignored SIGHUP that this one is to be survived.
"""

import signal
import sys

from dagster._cli import main


def serve() -> None:
    """Run `dagster dev` with the arguments of this process."""
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.default_int_handler)
    sys.argv = ["dagster", "dev", *sys.argv[1:]]
    main()


if __name__ == "__main__":
    serve()
