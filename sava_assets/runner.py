"""Curate a home folder from the command line: the same assets as in the UI, run in this process, with progress."""

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import yaml
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from sava_assets.computation import SHARDS_NAME, reporting
from sava_assets.definitions import ASSETS, CHECKS
from sava_assets.formats import find_shards
from sava_assets.ingest import refuse_shared_images
from sava_assets.resources import KNOB_FILE, Knobs, Workspace
from sava_assets.store import Result
from sava_ops.errors import BadInput

CLEAN_SETS = ["reference_images", "test_images"]
REFERENCE = ["encoder", "reference_embeddings", "reference_batches"]
SHARD = ["embeddings", "batches"]
VALUATION = ["label_distances", "batch_ot", "batch_plan", "point_values", "pruned_dataset", "classifier_accuracy"]
DAGSTER_YAML = {"telemetry": {"enabled": False}, "nux": {"enabled": False}}
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


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
def dagster_instance(home: Path) -> Iterator[dg.DagsterInstance]:
    """The Dagster instance of a home folder, which the UI of the same home shows."""
    folder = home.absolute() / ".dagster"
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "dagster.yaml").exists():
        (folder / "dagster.yaml").write_text(yaml.safe_dump(DAGSTER_YAML))
    os.environ["DAGSTER_HOME"] = str(folder)
    with dg.DagsterInstance.get() as instance:
        yield instance


def curate(workspace: Workspace, console: Console) -> list[str]:
    """Bring every asset of the home up to date; returns the shards. Raises BadInput."""
    knobs = workspace.knobs
    landing = workspace.folder(knobs.landing)
    shards = list(find_shards(landing))
    if not shards:
        raise BadInput(f"no shard has landed in {landing}: put a Parquet file or a folder of class folders there")
    logging.getLogger("dagster").setLevel(logging.CRITICAL)
    with dagster_instance(Path(workspace.home)) as instance, _bars(console):
        _register(instance, shards)

        def run(assets: list[str], shard: str | None = None) -> None:
            for failure in _materialize(instance, workspace, assets, shard):
                console.print(f"[yellow]check failed:[/yellow] {escape(failure)}", highlight=False)

        run(CLEAN_SETS)
        for shard in shards:
            run(["raw_images"], shard)
        refuse_overlap(workspace, shards)
        run(REFERENCE)
        for shard in shards:
            run(SHARD, shard)
        run(VALUATION)
    return shards


def current(workspace: Workspace, asset: str, shard: str | None = None) -> Result:
    """The last result of an asset that has been materialized."""
    result = workspace.store.current(asset, shard)
    assert result is not None, f"{asset} has no result"
    return result


def refuse_overlap(workspace: Workspace, shards: Sequence[str]) -> None:
    """Raise BadInput if two of training, reference and test set share an image, before any work is spent on them."""
    training = {shard: current(workspace, "raw_images", shard) for shard in shards}
    reference, test = current(workspace, "reference_images"), current(workspace, "test_images")
    refuse_shared_images(training, "reference", reference)
    refuse_shared_images(training | {"the reference set": reference}, "test", test)


def _register(instance: dg.DagsterInstance, shards: Sequence[str]) -> None:
    """Make the partitions those that are in the landing folder."""
    known = set(instance.get_dynamic_partitions(SHARDS_NAME))
    instance.add_dynamic_partitions(SHARDS_NAME, [shard for shard in shards if shard not in known])
    for gone in known - set(shards):
        instance.delete_dynamic_partition(SHARDS_NAME, gone)


def _materialize(instance: dg.DagsterInstance, workspace: Workspace, assets: list[str], shard: str | None) -> list[str]:
    """Run these assets and their checks; what did not hold, in words."""
    done = dg.materialize(
        [*ASSETS, *CHECKS],
        selection=dg.AssetSelection.assets(*assets),
        instance=instance,
        partition_key=shard,
        resources={"workspace": workspace},
        run_config=QUIET,
    )
    return [
        f"{check.asset_key.to_user_string()} {check.check_name}: "
        + ", ".join(f"{name} {value.value}" for name, value in check.metadata.items())
        for check in done.get_asset_check_evaluations()
        if not check.passed
    ]


def _leaves(settings: dict, prefix: str = "") -> Iterator[str]:
    """Dotted names of all settings."""
    for name, value in settings.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name


@contextmanager
def _bars(console: Console) -> Iterator[None]:
    """One bar for each computation that reports progress."""
    columns = [
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    ]
    with Progress(*columns, console=console) as bars:
        tasks: dict[str, int] = {}

        def report(title: str, done: int, total: int) -> None:
            if title not in tasks:
                tasks[title] = bars.add_task(title, total=total)
            bars.update(tasks[title], completed=done, total=total)  # pyright: ignore[reportArgumentType]

        with reporting(report):
            yield
