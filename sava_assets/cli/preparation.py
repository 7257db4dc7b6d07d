"""A home folder is made ready: its settings, and the Dagster instance that its UI shows."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from sava_assets.home.resources import KNOB_FILE, Knobs, Workspace
from sava_ops.errors import BadInput

if TYPE_CHECKING:
    from dagster import DagsterInstance

FIRST_STUDIED = "test_embeddings"
"""What `sava study` computes first beyond the chain."""
DAGSTER_YAML = {
    "telemetry": {"enabled": False},
    "nux": {"enabled": False},
    # A run whose process died is run again; one that failed by itself is tried again later by the automation.
    "run_monitoring": {"enabled": True, "poll_interval_seconds": 30},
    "run_retries": {"enabled": True, "max_retries": 2, "retry_on_asset_or_op_failure": False},
    # Counted in the run queue, so that a killed process holds no place.
    "concurrency": {"pools": {"default_limit": 1, "granularity": "run"}, "runs": {"max_concurrent_runs": 4}},
}


def prepare_home(home: Path, settings: dict) -> Workspace:
    """Create the home folder, with these settings in `sava.yaml`; refuse to change what an existing one says."""
    file, workspace, asked = home / KNOB_FILE, Workspace(home=str(home)), Knobs.model_validate(settings)
    if file.exists():
        known = workspace.knobs
        for name in _leaves(settings):
            if known.value(name) != asked.value(name):
                raise BadInput(
                    f"{file} says {name}: {known.value(name)}, not {asked.value(name)}: edit the file or choose "
                    "another --home"
                )
        return workspace
    for name in ("landing", "reference", "test"):
        if not (folder := workspace.folder(asked.value(name))).exists():
            raise BadInput(f"the {name} folder {folder} does not exist: create it, or name another one")
    home.mkdir(parents=True, exist_ok=True)
    file.write_text(yaml.safe_dump(settings, sort_keys=False))
    return workspace


@contextmanager
def dagster_instance(home: Path) -> "Iterator[DagsterInstance]":
    """The Dagster instance of a home folder, which the UI of the same home shows."""
    from dagster import DagsterInstance

    folder = home.absolute() / ".dagster"
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "dagster.yaml").exists():
        (folder / "dagster.yaml").write_text(yaml.safe_dump(DAGSTER_YAML))
    os.environ["DAGSTER_HOME"] = str(folder)
    with DagsterInstance.get() as instance:
        yield instance


def study_prepared(workspace: Workspace) -> bool:
    """Whether `sava study` has to do with this home: its settings or its store speak of it."""
    return "study" in workspace.knobs.model_fields_set or workspace.store.current(FIRST_STUDIED) is not None


def _leaves(settings: dict, prefix: str = "") -> Iterator[str]:
    """Dotted names of all settings."""
    for name, value in settings.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name
