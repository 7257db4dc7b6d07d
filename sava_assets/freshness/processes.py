"""A Dagster instance that other processes and homes share: which runs belong to processes of this machine that live,
and whose the shards are."""

import os
import socket
from pathlib import Path

import dagster as dg
from upath import UPath

from sava_assets.freshness.rules import SHARDS_NAME
from sava_ops.errors import BadInput

PID, HOST = "sava/pid", "sava/host"


def own_tags() -> dict[str, str]:
    """Tags by which `bury_dead_runs` knows a run of this process."""
    return {PID: str(os.getpid()), HOST: socket.gethostname()}


def bury_dead_runs(instance: dg.DagsterInstance) -> None:
    """Mark the runs of killed processes of this machine as failed; else they would count as in progress for ever."""
    for run in instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.STARTING])):
        if run.tags.get(HOST) == socket.gethostname() and not _alive(int(run.tags[PID])):
            instance.report_run_failed(run, "its process is gone")


def claim_shards(instance: dg.DagsterInstance, home: UPath) -> None:
    """Note that the partitions of an instance are the shards of this home. Raises BadInput if they are another's: two
    homes would delete each other's."""
    if Path(instance.root_directory) == Path(home.path) / ".dagster":  # moves with its home
        return
    note = f"sava/{SHARDS_NAME}"
    owner = instance.daemon_cursor_storage.get_cursor_values({note}).get(note)
    if owner not in (None, str(home)):
        raise BadInput(
            f"the Dagster instance {instance.root_directory} keeps the shards of the home {owner} as {SHARDS_NAME!r}: "
            f"set SAVA_NAME to a name of its own for the home {home}"
        )
    instance.daemon_cursor_storage.set_cursor_values({note: str(home)})


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's
        return True
    return True
