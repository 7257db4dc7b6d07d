"""The commands of `sava`: what is asked for, checked, run, and said."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sava_assets.cli.exchanging import Tool
from sava_assets.cli.sentences import App, in_sentences

# What a command needs is imported by that command: torch and Dagster take seconds, `--help` must not.
if TYPE_CHECKING:
    from sava_assets.home.resources import Workspace

app = App(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Find the images that pull a noisy training set away from a small clean reference set, and prune them.",
)
HOME_HELP = "Folder for settings, results and the Dagster database; or a place on an object store (s3://BUCKET/FOLDER)."
OWN_HELP = "Folder for settings, results and the Dagster database."
Home = Annotated[str, typer.Option(help=HOME_HELP, envvar="SAVA_HOME")]
OwnHome = Annotated[str, typer.Option(help=OWN_HELP)]
"""Of commands that bring data of their own."""
HOME = "data"
Port = Annotated[int, typer.Option(min=1, max=65_535, help="Port on 127.0.0.1.")]


def _command(function: Callable[..., None]) -> Callable[..., None]:
    return app.command()(in_sentences(function))


@_command
def demo(home: OwnHome = "data/demo") -> None:
    """Try it: 1,000 handwritten digits with 25 % wrong labels, the whole chain, in about three minutes."""
    from sava_assets.cli.known_sets import run_digits

    run_digits(_here(home, "the home"))


@_command
def cifar10(
    source: Annotated[Path, typer.Argument(help="Folder that holds cifar10/ and cifar10_encoder/.")],
    home: OwnHome = "data/cifar10",
) -> None:
    """The same on 20,000 CIFAR-10 images with 30 % wrong labels."""
    from sava_assets.cli.known_sets import run_cifar10

    run_cifar10(_here(home, "the home"), _here(source, "the source"))


@_command
def study(
    source: Annotated[Path | None, typer.Argument(help="Folder that holds cifar10/ and cifar10_encoder/.")] = None,
    home: OwnHome = "data/study",
    full: Annotated[bool, typer.Option(help="All 20,000 images, five seeds, long trainings: for a GPU.")] = False,
    report: Annotated[Path | None, typer.Option(help="Markdown page to write; pictures go beside it.")] = None,
) -> None:
    """Compare every method on every corruption: on CIFAR-10, or on a home whose shards are clean."""
    from sava_assets.cli.known_sets import prepare_study
    from sava_assets.cli.outcome import console, own_command, say
    from sava_assets.cli.runner import study as run_study
    from sava_assets.study.report import write_report

    if source is not None:
        prepare_study(_here(home, "the home"), _here(source, "the source"), full=full)
    page = None if report is None else _here(report, "the report")
    workspace = _existing(home)
    run_study(workspace, console)
    if page is not None:
        write_report(workspace, page)
        say(f"the tables and pictures {page}")
    say(f"every asset in the UI {own_command()} ui --home {home}")


@_command
def clothing1m(
    source: Annotated[Path, typer.Argument(help="Folder that holds Clothing1M's text files and images/.")],
    home: OwnHome = "data/clothing1m",
) -> None:
    """Prepare a home for Clothing1M: a million noisy images in shards, the clean sets, the published training."""
    from sava_assets.cli.known_sets import prepare_clothing1m

    prepare_clothing1m(_here(source, "the source"), _here(home, "the home"))


@_command
def curate(
    landing: Annotated[str | None, typer.Option(help="Folder with one Parquet file or folder per shard.")] = None,
    reference: Annotated[str | None, typer.Option(help="Clean images that judge.")] = None,
    test: Annotated[
        str | None, typer.Option(help="Clean images on which accuracy is reported; without them it is not measured.")
    ] = None,
    encoder: Annotated[
        str | None, typer.Option(help="'imagenet', 'train' (on half of the reference), or a checkpoint's path or URL.")
    ] = None,
    image_size: Annotated[int | None, typer.Option(help="Pixels to which images are fitted.")] = None,
    prove: Annotated[
        bool,
        typer.Option("--prove", help="Measure accuracy whatever `proof.when` says, also by training whole networks."),
    ] = False,
    home: Home = HOME,
) -> None:
    """Curate your own images. Folders that are not given come from sava.yaml in the home folder.

    Every folder of images holds Parquet files in the Hugging Face layout, or one folder per class.
    """
    given = {"landing": landing, "reference": reference, "test": test}
    from sava_assets.cli.outcome import console, print_outcome
    from sava_assets.cli.preparation import prepare_home
    from sava_assets.cli.runner import curate as run_curation

    settings: dict[str, Any] = {name: _absolute(path) for name, path in given.items() if path is not None}
    source = encoder if encoder in (None, "imagenet", "train") else _absolute(encoder)
    made = {name: v for name, v in {"source": source, "image_size": image_size}.items() if v is not None}
    settings |= {"encoder": made} if made else {}
    workspace = prepare_home(home, settings)
    run_curation(workspace, console, prove=prove)
    print_outcome(workspace)


@_command
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
    from sava_assets.cli.outcome import say
    from sava_assets.cli.valuing import value_tables

    named = {"the training table": train, "the reference table": reference, "the output": output}
    files = [_here(path, what) for what, path in named.items()]
    for line in value_tables(*files, paper=paper, device=device):
        say(line)


@_command
def status(home: Home = HOME) -> None:
    """What is fresh, what is due, and why. Looks only; `sava curate` runs what is due."""
    from sava_assets.cli.overview import say_status

    say_status(_existing(home))


@_command
def report(home: Home = HOME) -> None:
    """Write the page of every flagged image, and say where it is and how many of them people found to be clean."""
    from sava_assets.cli.outcome import say
    from sava_assets.cli.reviewing import reported

    for line in reported(_existing(home)):
        say(line)


@_command
def review(
    home: Home = HOME,
    port: Annotated[int, typer.Option(min=0, max=65_535, help="Port on 127.0.0.1; 0 = a free one.")] = 0,
) -> None:
    """Serve that page to a browser of this machine alone; what is decided on it is saved into the home."""
    from sava_assets.cli.outcome import say
    from sava_assets.cli.reviewing import serve_review

    for line in serve_review(_existing(home), port):
        say(line)


@_command
def export(
    tool: Annotated[Tool, typer.Argument(help="Whose format.")],
    target: Annotated[Path, typer.Argument(help="Folder to write; for cleanlab a .csv or .parquet file.")],
    everything: Annotated[
        bool, typer.Option("--all", help="All images with a value, not only what is flagged.")
    ] = False,
    images_at: Annotated[str | None, typer.Option(help="Label Studio: URL before the names of the images.")] = None,
    home: Home = HOME,
) -> None:
    """Write the flagged images for another tool: Label Studio, FiftyOne, or a table as cleanlab makes it."""
    from sava_assets.cli.exchanging import exported
    from sava_assets.cli.outcome import say

    for line in exported(
        _existing(home), tool, _here(target, "the target"), everything=everything, images_at=images_at
    ):
        say(line)


@app.command("import")
@in_sentences
def import_(
    tool: Annotated[Tool, typer.Argument(help="Whose format.")],
    source: Annotated[Path, typer.Argument(help="What the tool exported.")],
    who: Annotated[str | None, typer.Option(help="Who decided, where the file does not say it.")] = None,
    home: Home = HOME,
) -> None:
    """Take what people decided in another tool into the home's decisions."""
    from sava_assets.cli.exchanging import imported
    from sava_assets.cli.outcome import say

    for line in imported(_existing(home), tool, _here(source, "the source"), who=who):
        say(line)


@_command
def backfill(
    shards: Annotated[list[str] | None, typer.Argument(help="Shards; all that have landed without it.")] = None,
    home: Home = HOME,
) -> None:
    """Ingest, embed and batch many shards in one process, without valuing them yet."""
    from sava_assets.cli.outcome import console, say
    from sava_assets.cli.runner import backfill as run_backfill
    from sava_assets.formats.names import counted

    workspace = _existing(home)
    done = run_backfill(workspace, console, shards)
    say(f"{counted(len(done), 'shard')} embedded; `sava curate` values them")


@_command
def history(home: Home = HOME) -> None:
    """Every curation so far: what went in, what came out, what changed since the one before, what it was proved to be
    worth."""
    from sava_assets.cli.overview import say_history

    say_history(_existing(home))


@_command
def gc(
    keep: Annotated[int | None, typer.Option(min=0, help="Forget all but the last so many curations first.")] = None,
    grace: Annotated[
        float, typer.Option(min=0, help="Hours: what was written, or replaced, later than that stays.")
    ] = 24,
    home: Home = HOME,
) -> None:
    """Delete stored results that no curation in the history uses, and versions that were replaced long enough ago."""
    from sava_assets.cli.outcome import say
    from sava_assets.formats.names import counted
    from sava_assets.freshness.history import collect_garbage, collect_versions
    from sava_assets.freshness.sources import shards_of

    workspace = _existing(home)
    shards = list(shards_of(workspace))
    count, size = collect_garbage(workspace, shards, keep=keep, grace=grace * 3600)
    say(f"{counted(count, 'result')} deleted, {size / 1e6:,.1f} MB")
    count, size = collect_versions(workspace, grace=grace * 3600)
    if count:
        say(f"{counted(count, 'old version')} in {workspace.curated} deleted, {size / 1e6:,.1f} MB")


@_command
def instance(
    postgres: Annotated[str, typer.Option(help="postgresql://USER@HOST:5432/DATABASE; the password from PGPASSWORD.")],
    check: Annotated[bool, typer.Option(help="Connect to the database before.")] = True,
) -> None:
    """Print the dagster.yaml of an instance on PostgreSQL, which several processes, machines and homes can share."""
    from sava_assets.cli.instances import check_driver, check_reachable, database, instance_yaml

    found = database(postgres, os.environ)
    if check:
        check_driver()
        check_reachable(found)
    typer.echo(instance_yaml(found), nl=False)


@_command
def ui(
    home: Home = HOME,
    port: Port = 3000,
    study: Annotated[
        bool, typer.Option("--study", help="With the assets of `sava study`, also where none was prepared.")
    ] = False,
) -> None:
    """Open the Dagster UI of a home folder on this machine; nothing runs unless you start it there."""
    from sava_assets.cli.serving import become_dagster

    become_dagster(_existing(home), port, with_study=study)


@_command
def serve(home: Home = HOME, port: Port = 3000) -> None:
    """The UI, and the automation: new shards are curated as they arrive, and all is looked at again every night."""
    from sava_assets.cli.serving import become_dagster
    from sava_assets.freshness.sensors import AUTOMATION

    become_dagster(_existing(home), port, {AUTOMATION: "1"})


def _existing(home: str) -> "Workspace":
    from sava_assets.cli.preparation import existing_home

    return existing_home(home)


def _here(path: str | Path, what: str) -> Path:
    from sava_assets.cli.preparation import local_path

    return local_path(path, what)


def _absolute(path: str) -> str:
    return path if "://" in path else os.path.abspath(path)  # noqa: PTH100 (`..` goes, links stay)
