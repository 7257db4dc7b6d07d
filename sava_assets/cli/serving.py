"""`sava ui` and `sava serve`: Dagster in the place of this process."""

import os
import signal
import sys
from collections.abc import Mapping
from typing import NoReturn

from sava_assets.cli.preparation import dagster_instance, study_prepared
from sava_assets.home.resources import Workspace


def become_dagster(
    workspace: Workspace, port: int, extra: Mapping[str, str] | None = None, *, with_study: bool = False
) -> NoReturn:
    """Run `dagster dev`, so that whatever stops this process stops Dagster. `extra`: environment variables."""
    with dagster_instance(workspace.home) as instance:
        places = {"SAVA_HOME": str(workspace.root), "DAGSTER_HOME": instance.root_directory}
    locations = ["sava_assets.definitions"]
    if with_study or study_prepared(workspace):
        locations.append("sava_assets.study.definitions")
    command = [sys.executable, "-m", "sava_assets.cli.server", *(part for name in locations for part in ("-m", name))]
    # A script's background job ignores Ctrl-C, and what is started here would inherit that, and ignore SIGTERM with it.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    environment = {**os.environ, **places, **(extra or {})}
    os.execve(sys.executable, [*command, "-h", "127.0.0.1", "-p", str(port)], environment)
