"""A home folder is made ready: its settings, and the Dagster instance that its UI shows."""

import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import yaml
from pydantic import ValidationError

from sava_assets.home.failures import root_in_words
from sava_assets.home.ownership import owned
from sava_assets.home.resources import KNOB_FILE, Knobs, Workspace, knob_problems
from sava_ops.errors import BadInput

if TYPE_CHECKING:
    from dagster import DagsterInstance

FIRST_STUDIED = "corrupted_pool"
"""What `sava study` computes first beyond the chain, one result for each corruption."""
NO_HOME = re.compile(r"[?%\n\r\ud800-\udfff]")
"""Not in the path of a home: Dagster names its database by a URL, and what is no UTF-8 cannot be written down."""
FOLDERS = ("landing", "reference", "test", "clean_train")
POSTGRES_EXTRA = "pip install 'sava-assets[postgres]'"
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
    """Create the home folder, with these settings in `sava.yaml`; refuse to change what an existing one says.

    Settings are written when all that can be checked without reading images holds.
    """
    check_home(home)
    workspace, asked = Workspace(home=str(home)), _asked(settings)
    if not (home / KNOB_FILE).exists():
        _check(workspace, asked)
        home.mkdir(parents=True, exist_ok=True)
        with owned(workspace.root, "setup"):
            if not (home / KNOB_FILE).exists():  # another first command may have written it meanwhile
                _write(home / KNOB_FILE, settings)
    known = workspace.knobs
    for name in _leaves(settings):
        if not _same(workspace, name, known.value(name), asked.value(name)):
            raise BadInput(
                f"{home / KNOB_FILE} says {name}: {known.value(name)}, not {asked.value(name)}: edit the file or "
                "choose another --home"
            )
    _check_folders(workspace, known)
    return workspace


def check_home(home: Path) -> None:
    """Raise BadInput for a path where no home can be."""
    if re.match(r"[a-z][a-z0-9+.-]*:/", str(home)) and not home.exists():
        raise BadInput(f"the home {home} is a URL: choose a folder of this machine for --home")
    if home.exists() and not home.is_dir():
        raise BadInput(f"the home {home} is a file: choose a folder for --home")
    path = str(home.absolute())
    if found := NO_HOME.search(path):
        raise BadInput(
            f"the path of the home {path!a} holds {found[0]!a}, with which Dagster cannot name its database: choose "
            "another --home"
        )


@contextmanager
def dagster_instance(home: Path) -> "Iterator[DagsterInstance]":
    """The Dagster instance of a home folder, which the UI of the same home shows: the one that DAGSTER_HOME names, else
    one in the home. Raises BadInput for a DAGSTER_HOME that is no folder, or whose instance cannot be opened."""
    from dagster import DagsterInstance

    check_home(home)
    if named := os.environ.get("DAGSTER_HOME"):
        if not (folder := Path(named).expanduser()).is_dir() or not folder.is_absolute():
            raise BadInput(f"DAGSTER_HOME is {named!r}: name an existing folder by its whole path, or unset it")
        shared = _opened(folder)
        with shared as instance:
            yield instance
        return
    folder = home.absolute() / ".dagster"
    # Two processes that create the database at once would leave one that nobody can open.
    with owned(Workspace(home=str(home)).root, "setup"):
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "dagster.yaml").exists():
            _write(folder / "dagster.yaml", DAGSTER_YAML)
        opened = DagsterInstance.from_config(str(folder))
    with opened as instance:
        yield instance


def unlimited() -> str:
    """What is said of a shared instance that lets computations run side by side; nothing of another."""
    file = Path(os.environ.get("DAGSTER_HOME") or os.devnull, "dagster.yaml")
    try:
        settings = yaml.safe_load(file.read_text(encoding="utf-8")) if file.is_file() else {}
        limit = settings["concurrency"]["pools"]["default_limit"]
    except (KeyError, TypeError, ValueError, yaml.YAMLError):  # no such setting, or what Dagster will refuse
        limit = None
    if not os.environ.get("DAGSTER_HOME") or limit is not None:
        return ""
    return (
        f"the Dagster instance of DAGSTER_HOME has no limit in {file}, so computations run side by side and share "
        "memory and processors: write `concurrency: {pools: {default_limit: 1, granularity: run}}` there"
    )


def _opened(folder: Path) -> "DagsterInstance":
    """Raises BadInput for settings, packages that they name, and a database that are not as they must be."""
    from dagster import DagsterInstance

    logging.disable(logging.WARNING)  # each further try to connect is a paragraph
    try:
        return DagsterInstance.from_config(str(folder))
    except Exception as error:
        why = root_in_words(error).partition("Stack Trace:")[0].rpartition("PostProcessingError:")[2].strip()
        hint = f": {POSTGRES_EXTRA}" if "dagster_postgres" in why or "psycopg2" in why else ""
        raise BadInput(f"the Dagster instance of DAGSTER_HOME ({folder}) cannot be opened ({why}){hint}") from error
    finally:
        logging.disable(logging.NOTSET)


def study_prepared(workspace: Workspace) -> bool:
    """Whether `sava study` has to do with this home: its settings or its store speak of it."""
    return "study" in workspace.knobs.model_fields_set or (workspace.store.root / "current" / FIRST_STUDIED).exists()


def _asked(settings: dict) -> Knobs:
    try:
        return Knobs.model_validate(settings)
    except ValidationError as error:
        raise BadInput(knob_problems(error)) from error


def _write(file: Path, content: dict) -> None:
    """In one step: whoever reads meanwhile sees all of it or nothing."""
    partial = file.with_name(f".{file.name}.partial")
    partial.write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True), encoding="utf-8")
    partial.replace(file)


def _check(workspace: Workspace, asked: Knobs) -> None:
    """Raise BadInput for settings with which no curation can begin."""
    sets = ["landing", "reference", *(["test"] if asked.test and "test" in asked.model_fields_set else [])]
    for name in sets:
        if not (folder := workspace.folder(asked.value(name))).exists():
            raise BadInput(f"the {name} folder {folder} does not exist: create it, or name another one")
    _check_folders(workspace, asked)
    workspace.checked_device(asked.device)
    source = asked.encoder.source
    if source in ("imagenet", "train"):
        return
    if "://" not in source and not (path := workspace.folder(source)).is_file():
        raise BadInput(f"the checkpoint {path} does not exist: name a file, or 'imagenet' or 'train'")
    from sava_ops.images.encoder import load_encoder

    knobs = asked.encoder
    load_encoder(str(workspace.folder(source)), image_size=knobs.image_size, mean=knobs.mean, std=knobs.std)


def _check_folders(workspace: Workspace, knobs: Knobs) -> None:
    """Raise BadInput for sets that lie in each other, or a home that lies in a set: it would be read as images."""
    named = {name: knobs.value(name) for name in FOLDERS if knobs.value(name)}
    places = {name: _resolved(workspace, path) for name, path in named.items() if "://" not in path}
    if (landing := places.get("landing")) and landing.exists() and not landing.is_dir():
        raise BadInput(f"the landing folder {landing} is a file: name the folder that holds it")
    home = Path(workspace.home).resolve()
    for name, place in places.items():
        if home.is_relative_to(place):
            raise BadInput(f"the home {home} lies in the {name} set {place}: choose another --home")
    for name, place in places.items():
        for other, inside in places.items():
            if name != other and inside.is_relative_to(place):
                raise BadInput(f"the {other} set {inside} lies in the {name} set {place}: keep them apart")


def _same(workspace: Workspace, name: str, known: object, asked: object) -> bool:
    """Folders and files are the same however they are written."""
    paths = isinstance(known, str) and isinstance(asked, str) and name in (*FOLDERS, "encoder.source")
    if known == asked or not paths or "://" in f"{known}{asked}":
        return known == asked
    return _resolved(workspace, str(known)) == _resolved(workspace, str(asked))


def _resolved(workspace: Workspace, path: str) -> Path:
    return Path(workspace.folder(path).path).resolve()


def _leaves(settings: dict, prefix: str = "") -> Iterator[str]:
    """Dotted names of all settings."""
    for name, value in settings.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name
