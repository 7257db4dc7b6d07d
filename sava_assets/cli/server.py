"""`dagster dev` as `sava ui` and `sava serve` run it: SIGINT, SIGTERM and SIGHUP each end it, and all that it started.

`nohup` says by an ignored SIGHUP that this one is to be survived.
"""

import json
import signal
import sys
from collections.abc import Iterable
from contextlib import suppress

import psutil
from dagster import DagsterInstance, DagsterRun, DagsterRunStatus, RunsFilter
from dagster._cli import main
from dagster._core.storage.tags import GRPC_INFO_TAG

from sava_assets.cli.interrupts import lose_none

PATIENCE_SECONDS = 30
"""Until what was interrupted is killed."""


def serve() -> None:
    """Run `dagster dev` with the arguments of this process."""
    lose_none()
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.default_int_handler)
    sys.argv = ["dagster", "dev", *sys.argv[1:]]
    try:
        main()
    finally:
        end_all()


def end_all() -> None:
    """End what `dagster dev` leaves behind: the runs that are in progress, and the code servers that wait for them,
    which may be hours. Runs are cancelled, so that the next server goes on with them at once."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    left = psutil.Process().children(recursive=True)
    if not left:
        return
    with DagsterInstance.get() as instance:
        try:
            cancelled = runs_of(instance, _words(left))
            for run in cancelled:
                if run.status == DagsterRunStatus.STARTING:  # its process would take the request for a fault
                    instance.report_run_canceled(run)
                else:
                    instance.report_run_canceling(run)
        finally:
            _end(left)
        for run in cancelled:  # what was killed could not say so itself
            if (now := instance.get_run_by_id(run.run_id)) and not now.is_finished:
                instance.report_run_canceled(now)


def runs_of(instance: DagsterInstance, words: set[str]) -> list[DagsterRun]:
    """The runs in progress that were launched by code servers whose sockets are among these words of command lines:
    others may share the instance."""
    at_work = RunsFilter(statuses=[DagsterRunStatus.STARTING, DagsterRunStatus.STARTED])
    runs = instance.get_runs(at_work)
    return [run for run in runs if json.loads(run.tags.get(GRPC_INFO_TAG, "{}")).get("socket") in words]


def _words(processes: Iterable[psutil.Process]) -> set[str]:
    found: set[str] = set()
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            found |= set(process.cmdline())
    return found


def _end(left: list[psutil.Process]) -> None:
    """Interrupt them, as Ctrl-C in a terminal does; kill those that do not end."""
    for process in left:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGINT)
    for process in psutil.wait_procs(left, timeout=PATIENCE_SECONDS)[1]:
        with suppress(psutil.NoSuchProcess):
            process.kill()


if __name__ == "__main__":
    serve()
