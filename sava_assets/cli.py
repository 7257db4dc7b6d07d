"""The command line: `sava`."""

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import typer
from dagster import DagsterExecutionInterruptedError
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from sava_assets import demo as demos
from sava_assets.clothing1m import home_settings, read_clothing1m, write_clothing1m
from sava_assets.drift import calibration_drift
from sava_assets.findings import with_numbers
from sava_assets.formats import find_shards
from sava_assets.history import collect_garbage, snapshots
from sava_assets.resources import KNOB_FILE, Workspace, default_home
from sava_assets.runner import backfill as run_backfill
from sava_assets.runner import curate as run_curation
from sava_assets.runner import current, dagster_instance, prepare_home
from sava_assets.runner import study as run_study
from sava_assets.sensors import AUTOMATION
from sava_assets.store import table_file
from sava_assets.study.report import write_report
from sava_assets.survey import Survey
from sava_ops import BadInput, ValuationConfig, value_points
from sava_ops.detection import auroc, found_in_top

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Find the images that pull a noisy training set away from a small clean reference set, and prune them.",
)
console = Console(stderr=False)
Home = Annotated[Path, typer.Option(help="Folder for settings, results and the Dagster database.")]
HOME = Path(default_home())
QUARANTINE_SHOWN = 10


@app.command()
def demo(home: Home = Path("data/demo")) -> None:
    """Try it: 1,000 handwritten digits with 25 % wrong labels, the whole chain, in about three minutes."""
    with _sentences():
        if not (home / KNOB_FILE).exists():
            demos.write_digits(home)
        _run_planted(home, demos.DIGITS_SETTINGS)


@app.command()
def cifar10(
    source: Annotated[Path, typer.Argument(help="Folder that holds cifar10/ and cifar10_encoder/.")],
    home: Home = Path("data/cifar10"),
) -> None:
    """The same on 20,000 CIFAR-10 images with 30 % wrong labels."""
    with _sentences():
        if not (home / KNOB_FILE).exists():
            demos.write_cifar10(home, source)
        _run_planted(home, demos.CIFAR10_SETTINGS)


@app.command()
def study(
    source: Annotated[Path | None, typer.Argument(help="Folder that holds cifar10/ and cifar10_encoder/.")] = None,
    home: Home = Path("data/study"),
    full: Annotated[bool, typer.Option(help="All 20,000 images, five seeds, long trainings: for a GPU.")] = False,
    report: Annotated[Path | None, typer.Option(help="Markdown page to write; pictures go beside it.")] = None,
) -> None:
    """Compare every method on every corruption: on CIFAR-10, or on a home whose shards are clean."""
    with _sentences():
        if source is not None:
            demos.write_study(home, source, full=full)
            prepare_home(home, demos.study_settings(full=full))
        workspace = _existing(home)
        run_study(workspace, console)
        if report is not None:
            write_report(workspace, report)
            _print(f"the tables and pictures {report}")
        _print(f"every asset in the UI {_own_command()} ui --home {home}")


@app.command()
def clothing1m(
    source: Annotated[Path, typer.Argument(help="Folder that holds Clothing1M's text files and images/.")],
    home: Home = Path("data/clothing1m"),
) -> None:
    """Prepare a home for Clothing1M: a million noisy images in shards, the clean sets, the published training."""
    with _sentences():
        _print(f"looking for every image that {source} lists")
        data = read_clothing1m(source)
        settings = home_settings(data)
        if (home / KNOB_FILE).exists():
            prepare_home(home, settings)  # refuses other settings before a night of copying
        for file, count in write_clothing1m(home, data):
            _print(f"{file}: {count:,} images")
        prepare_home(home, settings)
        _print(f"{home / KNOB_FILE}: the published training; docs/clothing1m.md says what time and memory it takes")
        _print(f"next: {_own_command()} backfill --home {home}, then {_own_command()} curate --home {home}")


@app.command()
def curate(
    landing: Annotated[str | None, typer.Option(help="Folder with one Parquet file or folder per shard.")] = None,
    reference: Annotated[str | None, typer.Option(help="Clean images that judge.")] = None,
    test: Annotated[str | None, typer.Option(help="Clean images on which accuracy is reported.")] = None,
    encoder: Annotated[
        str | None, typer.Option(help="'imagenet', 'train' (on half of the reference), or a checkpoint's path or URL.")
    ] = None,
    image_size: Annotated[int | None, typer.Option(help="Pixels to which images are fitted.")] = None,
    home: Home = HOME,
) -> None:
    """Curate your own images. Folders that are not given come from sava.yaml in the home folder.

    Every folder of images holds Parquet files in the Hugging Face layout, or one folder per class.
    """
    given = {"landing": landing, "reference": reference, "test": test}
    with _sentences():
        settings: dict[str, Any] = {name: _absolute(path) for name, path in given.items() if path is not None}
        source = encoder if encoder in (None, "imagenet", "train") else _absolute(encoder)
        made = {name: v for name, v in {"source": source, "image_size": image_size}.items() if v is not None}
        settings |= {"encoder": made} if made else {}
        workspace = prepare_home(home, settings)
        _print_outcome(workspace, run_curation(workspace, console))


@app.command()
def value(
    train: Annotated[Path, typer.Argument(help="Parquet with columns `features` (lists of numbers) and `label`.")],
    reference: Annotated[Path, typer.Argument(help="The same for the clean reference points.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Parquet to write: the other columns and the findings.")
    ],
    paper: Annotated[bool, typer.Option(help="The published method instead of the default.")] = False,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
) -> None:
    """Value points you have embedded yourself: features in, values out. High value = prune first."""
    with _sentences():
        if not output.absolute().parent.is_dir():
            raise BadInput(f"the folder {output.parent} does not exist: create it")
        sides = [_read_features(path) for path in (train, reference)]
        names = sorted({label for _, labels, _ in sides for label in labels}, key=str)
        number = {name: i for i, name in enumerate(names)}
        (x, y, table), (rx, ry, _) = sides
        config = ValuationConfig.paper() if paper else ValuationConfig()
        labels, reference_labels = (np.array([number[label] for label in side], dtype=np.int64) for side in (y, ry))
        result = value_points(x, labels, rx, reference_labels, config=config, device=device)
        partial = output.with_name(f".{output.name}.partial")
        suggested = pa.array([names[label] for label in result.suggested_labels], table["label"].type)
        table_file(with_numbers(table, result).append_column("suggested_label", suggested))(partial)
        partial.replace(output)
        missed = int((~result.converged).sum())
        console.print(
            f"{len(table):,} values in {output}" + (f"; {missed} batch pairs not converged" if missed else "")
        )


@app.command()
def status(home: Home = HOME) -> None:
    """What is fresh, what is due, and why. Looks only; `sava curate` runs what is due."""
    with _sentences():
        workspace = _existing(home)
        shards = list(find_shards(workspace.folder(workspace.knobs.landing)))
        states = list(Survey(workspace, shards).all())
        for state in states:
            if state.status != "fresh":
                _print(f"{state.status:<8} {state.title}: {state.reason}")
        fresh = sum(state.status == "fresh" for state in states)
        _print(f"{fresh:,} of {len(states):,} results are fresh")
        if drift := calibration_drift(workspace, shards):
            _print(drift)


@app.command()
def backfill(
    shards: Annotated[list[str] | None, typer.Argument(help="Shards; all that have landed without it.")] = None,
    home: Home = HOME,
) -> None:
    """Ingest, embed and batch many shards in one process, without valuing them yet."""
    with _sentences():
        workspace = _existing(home)
        done = run_backfill(workspace, console, shards)
        _print(f"{len(done):,} shards are embedded; `sava curate` values them")


@app.command()
def history(home: Home = HOME) -> None:
    """Every curation so far: what went in, what came out, what changed since the one before."""
    with _sentences():
        table = Table()
        for column in ("", "when", "shards", "points", "pruned", "new", "gone", "dropped", "rescued", "accuracy"):
            table.add_column(column, justify="right", no_wrap=True)
        for past in snapshots(_existing(home).store):
            numbers, changes = past.numbers, past.changes
            when = datetime.fromtimestamp(past.time).strftime("%Y-%m-%d %H:%M")
            counts = [len(numbers["shards"]), numbers["points"], numbers["pruned"]]
            counts += [changes[name] for name in ("new", "gone", "dropped", "rescued")]
            accuracy = f"{numbers['accuracy_pruned']:.3f} (all: {numbers['accuracy_all']:.3f})"
            table.add_row(str(past.number), when, *(f"{count:,}" for count in counts), accuracy)
        console.print(table)


@app.command()
def gc(
    keep: Annotated[int | None, typer.Option(min=0, help="Forget all but the last so many curations first.")] = None,
    home: Home = HOME,
) -> None:
    """Delete stored results that no curation in the history uses."""
    with _sentences():
        workspace = _existing(home)
        shards = list(find_shards(workspace.folder(workspace.knobs.landing)))
        count, size = collect_garbage(workspace, shards, keep=keep)
        _print(f"{count:,} results deleted, {size / 1e6:,.1f} MB")


@app.command()
def ui(home: Home = HOME, port: Annotated[int, typer.Option(help="Port on 127.0.0.1.")] = 3000) -> None:
    """Open the Dagster UI of a home folder on this machine; nothing runs unless you start it there."""
    with _sentences():
        _become_dagster(home, port, {})


@app.command()
def serve(home: Home = HOME, port: Annotated[int, typer.Option(help="Port on 127.0.0.1.")] = 3000) -> None:
    """The UI, and the automation: new shards are curated as they arrive, and all is looked at again every night."""
    with _sentences():
        _become_dagster(home, port, {AUTOMATION: "1"})


def _become_dagster(home: Path, port: int, extra: dict[str, str]) -> None:
    """Run `dagster dev` in place of this process, so that whatever stops this one stops Dagster."""
    _existing(home)
    with dagster_instance(home):
        environment = os.environ | {"SAVA_HOME": str(home.absolute())} | extra
    command = [sys.executable, "-m", "dagster", "dev", "-m", "sava_assets.definitions"]
    os.execve(sys.executable, [*command, "-h", "127.0.0.1", "-p", str(port)], environment)


def _existing(home: Path) -> Workspace:
    if not home.is_dir():
        raise BadInput(f"the home folder {home} does not exist: run `sava demo` or `sava curate` first")
    return Workspace(home=str(home))


def _print(line: str) -> None:
    """One line, whole, as it is."""
    console.print(line, soft_wrap=True, markup=False, highlight=False)


@contextmanager
def _sentences() -> Iterator[None]:
    """What the user can mend is one sentence and exit code 1, not a stack trace."""
    try:
        yield
    except BadInput as problem:
        Console(stderr=True, soft_wrap=True).print(f"[red]error:[/red] {escape(str(problem))}", highlight=False)
        raise typer.Exit(1) from None
    except (KeyboardInterrupt, DagsterExecutionInterruptedError):
        Console(stderr=True).print("stopped; finished results are kept, the same command goes on from there")
        raise typer.Exit(130) from None


def _run_planted(home: Path, settings: dict) -> None:
    workspace = prepare_home(home, settings)
    shards = run_curation(workspace, console)
    planted = demos.planted_errors(home)
    points = current(workspace, "pruned_dataset").table("points.parquet")
    bad = np.array([name in planted for name in points["id"].to_pylist()])
    values, keep = points["value"].to_numpy(), points["keep"].to_numpy(zero_copy_only=False)
    pruned = int((~keep).sum())
    table = Table(title="planted wrong labels", title_justify="left")
    for column in ("", "found by value", "expected at random"):
        table.add_column(column, justify="left" if not column else "right")
    table.add_row("AUROC", f"{auroc(values, bad):.3f}", "0.500")
    top, chance = found_in_top(values, bad, count=int(bad.sum())), bad.sum() ** 2 / len(bad)
    table.add_row(f"in the {bad.sum():,} highest of {len(bad):,} values", f"{top:,}", f"{chance:,.0f}")
    table.add_row(f"left after pruning {pruned:,}", f"{bad[keep].sum():,}", f"{bad.sum() * keep.mean():,.0f}")
    console.print(table)
    _print_outcome(workspace, shards)


def _print_outcome(workspace: Workspace, shards: list[str]) -> None:
    accuracy = current(workspace, "classifier_accuracy").numbers
    pruned = current(workspace, "pruned_dataset").numbers
    table = Table(title=f"test accuracy of ResNet18, {accuracy['seeds']} seeds, equal steps", title_justify="left")
    sets = ("all", "random", "pruned", "relabelled", "reweighted")
    for name in sets:
        table.add_column(name, justify="right")
    table.add_row(*(f"{accuracy[f'{n}_mean']:.3f} ± {accuracy[f'{n}_std']:.3f}" for n in sets))
    console.print(table)
    actions = ", ".join(f"{pruned[f'to_{name}']:,} to {name}" for name in ("drop", "relabel", "review"))
    points = f"{pruned['points']:,} points valued, about {pruned['bad_share']:.0%} of them bad"
    _print(f"{points}; {pruned['kept']:,} kept, {actions}")
    _print_quarantine(workspace, shards)
    home = Path(workspace.home)
    places = {
        "values and decisions": home / "curated" / "points.parquet",
        "kept images": home / "curated" / "images",
        "every asset in the UI": f"{_own_command()} ui --home {home}",
    }
    for what, where in places.items():
        _print(f"{what:<22} {where}")


def _own_command() -> str:
    """What to type for `sava` here: an environment that is not activated needs its path."""
    return "sava" if shutil.which("sava") else os.path.relpath(Path(sys.executable).with_name("sava"))


def _print_quarantine(workspace: Workspace, shards: list[str]) -> None:
    """Which images were set aside, and why."""
    sets = [("raw_images", shard) for shard in shards] + [("reference_images", None), ("test_images", None)]
    tables = [current(workspace, asset, shard).table("quarantine.parquet") for asset, shard in sets]
    aside = pa.concat_tables(tables).to_pylist()
    if aside:
        console.print(f"{len(aside):,} images quarantined:")
    for row in aside[:QUARANTINE_SHOWN]:
        _print(f"  {row['id']}: {row['reason']}")
    if len(aside) > QUARANTINE_SHOWN:
        console.print(f"  … and {len(aside) - QUARANTINE_SHOWN:,} more, in quarantine.parquet of each set's result")


def _read_features(path: Path) -> tuple[np.ndarray, list, pa.Table]:
    """Features, labels and the other columns of a Parquet file."""
    if not path.is_file():
        raise BadInput(f"{path} does not exist: name a Parquet file")
    try:
        table = pq.read_table(path)
    except pa.ArrowInvalid as error:
        raise BadInput(f"{path} is not a readable Parquet file ({error}): write it again") from error
    for column in ("features", "label"):
        if column not in table.column_names:
            raise BadInput(f"{path} has no `{column}` column (it has {', '.join(table.column_names)}): add one")
    lists = table["features"].to_pylist()
    if None in lists:
        raise BadInput(f"`features` of {path} is empty at row {lists.index(None)}: fill it or drop the row")
    widths = sorted({len(row) for row in lists})
    if len(widths) > 1:
        raise BadInput(f"`features` of {path} has rows of different width ({widths}): embed all alike")
    labels = table["label"].to_pylist()
    if None in labels:
        raise BadInput(f"`label` of {path} is empty at row {labels.index(None)}: fill it or drop the row")
    negative = [row for row, label in enumerate(labels) if isinstance(label, int) and label < 0]
    if negative:
        raise BadInput(
            f"`label` of {path} has {len(negative)} values below 0 (first: {labels[negative[0]]} at row "
            f"{negative[0]}): number the classes from 0, or name them"
        )
    features = np.array(lists, dtype=np.float32).reshape(len(lists), *(widths or [0]))
    return features, labels, table.drop_columns(["features"])


def _absolute(path: str) -> str:
    return path if "://" in path else str(Path(path).absolute())


if __name__ == "__main__":
    app()
