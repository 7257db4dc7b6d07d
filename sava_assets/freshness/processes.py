"""Which runs belong to processes of this machine that live, in a Dagster instance that other processes share."""

import os
import socket

import dagster as dg

PID, HOST = "sava/pid", "sava/host"


def own_tags() -> dict[str, str]:
    """Tags by which `bury_dead_runs` knows a run of this process."""
    return {PID: str(os.getpid()), HOST: socket.gethostname()}


def bury_dead_runs(instance: dg.DagsterInstance) -> None:
    """Mark the runs of killed processes of this machine as failed; else they would count as in progress for ever."""
    for run in instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.STARTING])):
        if run.tags.get(HOST) == socket.gethostname() and not _alive(int(run.tags[PID])):
            instance.report_run_failed(run, "its process is gone")


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's
        return True
    return True
