"""A home is made ready: its settings, and the Dagster instance that its UI shows."""

import logging
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import yaml
from pydantic import ValidationError
from upath import UPath

from sava_assets.home.failures import root_in_words
from sava_assets.home.ownership import LOCKS, owned
from sava_assets.home.places import as_pure, is_address, is_local, refuse_out_of_reach, refuse_unseen
from sava_assets.home.resources import KNOB_FILE, Knobs, Workspace
from sava_assets.home.settings_file import knob_problems
from sava_assets.home.store import put_file
from sava_ops.errors import BadInput

if TYPE_CHECKING:
    from dagster import DagsterInstance

FIRST_STUDIED = "corrupted_pool"
"""What `sava study` computes first beyond the chain, one result for each corruption."""
NO_HOME = re.compile(r"[?%\n\r\ud800-\udfff]")
"""Not in the path of a home: Dagster names its database by a URL, and what is no UTF-8 cannot be written down."""
FOLDERS = ("landing", "reference", "test", "clean_train")
WRITTEN = {"store": "the store", "curated": "the published data set"}
"""Settings of folders that are written, and what these are called."""
DAGSTER = ".dagster"
OWN = {DAGSTER: "Dagster's database", LOCKS: "the locks of the home"}
"""Other folders in a home that are written."""
NOT_WRITABLE = ("file", "local", "http", "https", "data", "github", "zip", "tar")
"""Protocols of what is no home: other names of this machine's folders, and places that nobody writes in."""
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


def prepare_home(home: str | Path, settings: dict) -> Workspace:
    """Create the home, with these settings in `sava.yaml`; refuse to change what an existing one says.

    Settings are written when all that can be checked without reading images holds.
    """
    workspace, asked = home_at(home), _asked(settings)
    _refuse_without_database(workspace)
    file = workspace.root / KNOB_FILE
    if not file.exists():
        _check(workspace, asked)
        with owned(workspace.root, "setup"):
            _write_first(file, settings)
    known = workspace.knobs
    for name in _leaves(settings):
        if not _same(workspace, name, known.value(name), asked.value(name)):
            raise BadInput(
                f"{file} says {name}: {known.value(name)}, not {asked.value(name)}: edit the file or "
                "choose another --home"
            )
    _check_folders(workspace, known)
    return workspace


def home_at(home: str | Path) -> Workspace:
    """The home at a path or an address, whether or not there is one yet. Raises BadInput where none can be, and for a
    place of it on an object store that cannot be reached."""
    workspace = _named(home)
    _in_reach(workspace)
    return workspace


def _in_reach(workspace: Workspace) -> Knobs:
    """The settings, read where they lie: a home out of reach says so here, and a place that they name."""
    knobs = workspace.knobs
    for name in WRITTEN:
        if is_address(place := knobs.value(name)):
            refuse_out_of_reach(workspace.folder(place))
    _refuse_files(workspace, knobs)
    return knobs


def _refuse_files(workspace: Workspace, knobs: Knobs) -> None:
    """Raise BadInput where a file lies in the place of a folder that we write."""
    places = {called: workspace.folder(knobs.value(name)) for name, called in WRITTEN.items()}
    places |= {called: workspace.root / name for name, called in OWN.items()}
    for called, place in places.items():
        if is_local(place) and Path(place.path).is_file():
            raise BadInput(f"{place}, the place of {called}, is a file: move it away")


def _named(home: str | Path) -> Workspace:
    if not is_address(str(home)):
        check_home(Path(home))
        return Workspace(home=str(Path(home)))
    protocol, _, where = str(home).partition("://")
    if protocol in NOT_WRITABLE:
        raise BadInput(
            f"the home {home} is a URL: choose a folder of this machine, or a place on an object store "
            "(s3://BUCKET/FOLDER), for --home"
        )
    if not where.strip("/"):
        raise BadInput(f"the home {home} names no bucket: write it as {protocol}://BUCKET/FOLDER")
    return Workspace(home=str(home).rstrip("/"))


def existing_home(home: str | Path) -> Workspace:
    """The home at a path or an address. Raises BadInput like `home_at`, and where there is none."""
    workspace = _named(home)
    if not _in_reach(workspace).model_fields_set and not workspace.root.is_dir():
        raise BadInput(f"the home folder {home} does not exist: run `sava demo` or `sava curate` first")
    return workspace


def local_path(name: str | Path, what: str) -> Path:
    """A path of this machine, for what is written or read there alone. Raises BadInput for one that cannot be looked
    at, and for an address, also for one that was taken for a path before (`s3:/bucket`)."""
    path = Path(name)
    refuse_unseen(path)
    if re.match(r"[a-z][a-z0-9+.-]*:/", str(name)) and not path.exists():
        raise BadInput(f"{what} {re.sub(':/+', '://', str(name), count=1)} is a URL: choose a path of this machine")
    return path


def check_home(home: Path) -> None:
    """Raise BadInput for a path where no home can be."""
    local_path(home, "the home")
    if home.exists() and not home.is_dir():
        raise BadInput(f"the home {home} is a file: choose a folder for --home")
    path = str(home.absolute())
    if found := NO_HOME.search(path):
        raise BadInput(
            f"the path of the home {path!a} holds {found[0]!a}, with which Dagster cannot name its database: choose "
            "another --home"
        )


@contextmanager
def dagster_instance(home: str | Path) -> "Iterator[DagsterInstance]":
    """The Dagster instance of a home, which the UI of the same home shows: the one that DAGSTER_HOME names, else one in
    the home, if that is a folder. Raises BadInput for a DAGSTER_HOME that is no folder, or whose instance cannot be
    opened."""
    workspace = _named(home)
    _refuse_without_database(workspace)
    if named := os.environ.get("DAGSTER_HOME"):
        if not (folder := Path(named).expanduser()).is_dir() or not folder.is_absolute():
            raise BadInput(f"DAGSTER_HOME is {named!r}: name an existing folder by its whole path, or unset it")
        shared = _opened(folder, f"the Dagster instance of DAGSTER_HOME ({folder})")
        with shared as instance:
            yield instance
        return
    folder = Path(workspace.root.path) / DAGSTER
    called = f"the Dagster instance of the home ({folder})"
    advice = ": make room on the disk, or move that folder away; a new one is made, results stay"
    # Two processes that create the database at once would leave one that nobody can open.
    with owned(workspace.root, "setup"):
        if not folder.exists():
            # So would a process that is killed meanwhile.
            new = folder.with_name(f"{DAGSTER}.new")
            if new.exists():
                shutil.rmtree(new)
            new.mkdir(parents=True)
            _write_settings(new)
            with _opened(new, called, advice):
                pass
            new.rename(folder)
        _write_settings(folder)
        opened = _opened(folder, called, advice)
    with opened as instance:
        yield instance


def _write_settings(folder: Path) -> None:
    if not (folder / "dagster.yaml").exists():
        put_file(UPath(folder / "dagster.yaml"), _yaml(DAGSTER_YAML))


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


def _opened(folder: Path, called: str, advice: str = "") -> "DagsterInstance":
    """Raises BadInput for settings, packages that they name, and a database that are not as they must be."""
    from dagster import DagsterInstance

    logging.disable(logging.WARNING)  # each further try to connect is a paragraph
    try:
        return DagsterInstance.from_config(str(folder))
    except Exception as error:
        why = root_in_words(error).partition("Stack Trace:")[0].rpartition("PostProcessingError:")[2].strip()
        hint = f": {POSTGRES_EXTRA}" if "dagster_postgres" in why or "psycopg2" in why else ""
        raise BadInput(f"{called} cannot be opened ({why}){hint or advice}") from error
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


def _refuse_without_database(workspace: Workspace) -> None:
    """Raise BadInput for a home that cannot hold Dagster's database, where no other place is named for it."""
    if is_address(workspace.home) and not os.environ.get("DAGSTER_HOME"):
        raise BadInput(
            f"the home {workspace.home} cannot hold Dagster's database: set DAGSTER_HOME to a folder of this machine "
            "for it (`sava instance` prints a dagster.yaml for PostgreSQL)"
        )


def _write_first(file: UPath, settings: dict) -> None:
    """Unless another first command has written it meanwhile."""
    try:
        put_file(file, _yaml(settings), new=True)
    except FileExistsError:
        return


def _yaml(content: dict) -> bytes:
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True).encode()


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
    if not is_address(source) and not (path := workspace.folder(source)).is_file():
        raise BadInput(f"the checkpoint {path} does not exist: name a file, or 'imagenet' or 'train'")
    from sava_ops.images.encoder import load_encoder

    knobs = asked.encoder
    load_encoder(str(workspace.folder(source)), image_size=knobs.image_size, mean=knobs.mean, std=knobs.std)


def _check_folders(workspace: Workspace, knobs: Knobs) -> None:
    """Raise BadInput for folders that lie in each other, or a home that lies in a set: it would be read as images."""
    sets = {f"the {name} set": knobs.value(name) for name in FOLDERS if knobs.value(name)}
    written = {called: knobs.value(name) for name, called in WRITTEN.items()}
    places = {called: workspace.folder(path) for called, path in (sets | written).items()}
    if (landing := places["the landing set"]).is_file():
        raise BadInput(f"the landing folder {landing} is a file: name the folder that holds it")
    home, pure = as_pure(workspace.root), {called: as_pure(place) for called, place in places.items()}
    for called, place in pure.items():
        if home.is_relative_to(place):
            raise BadInput(f"the home {workspace.root} lies in {called} {places[called]}: choose another --home")
    for called, place in pure.items():
        for other, inside in pure.items():
            if called != other and inside.is_relative_to(place):
                raise BadInput(f"{other} {places[other]} lies in {called} {places[called]}: keep them apart")


def _same(workspace: Workspace, name: str, known: object, asked: object) -> bool:
    """Folders and files are the same however they are written."""
    paths = isinstance(known, str) and isinstance(asked, str) and name in (*FOLDERS, *WRITTEN, "encoder.source")
    if known == asked or not paths:
        return known == asked
    return as_pure(workspace.folder(str(known))) == as_pure(workspace.folder(str(asked)))


def _leaves(settings: dict, prefix: str = "") -> Iterator[str]:
    """Dotted names of all settings."""
    for name, value in settings.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name
