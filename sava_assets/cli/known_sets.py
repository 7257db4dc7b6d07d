"""Data that `sava` knows itself: the demo's digits, CIFAR-10, the study, Clothing1M."""

from pathlib import Path
from typing import Any

from sava_assets.cli.outcome import console, own_command, print_found, print_outcome, say
from sava_assets.cli.preparation import check_home, prepare_home
from sava_assets.formats import demo_sets as demos
from sava_assets.formats.clothing1m import home_settings, read_clothing1m, write_clothing1m
from sava_assets.formats.names import counted
from sava_assets.home.ownership import owned
from sava_assets.home.resources import KNOB_FILE, Workspace


def run_digits(home: Path) -> None:
    check_home(home)
    with owned(Workspace(home=str(home)).root, "data"):
        if not (home / KNOB_FILE).exists():
            demos.write_digits(home)
    _run_planted(home, demos.DIGITS_SETTINGS)


def run_cifar10(home: Path, source: Path) -> None:
    if not (home / KNOB_FILE).exists():
        demos.write_cifar10(home, source)
    _run_planted(home, demos.CIFAR10_SETTINGS)


def prepare_study(home: Path, source: Path, *, full: bool) -> None:
    demos.write_study(home, source, full=full)
    prepare_home(home, demos.study_settings(full=full))


def prepare_clothing1m(source: Path, home: Path) -> None:
    say(f"looking for every image that {source} lists")
    data = read_clothing1m(source)
    settings = home_settings(data)
    if (home / KNOB_FILE).exists():
        prepare_home(home, settings)  # refuses other settings before a night of copying
    for file, count in write_clothing1m(home, data):
        say(f"{file}: {counted(count, 'image')}")
    prepare_home(home, settings)
    say(f"{home / KNOB_FILE}: the published training; docs/clothing1m.md says what time and memory it takes")
    say(f"next: {own_command()} backfill --home {home}, then {own_command()} curate --prove --home {home}")


def _run_planted(home: Path, settings: dict[str, Any]) -> None:
    """With labels made wrong on purpose, and how many of them were found."""
    from sava_assets.cli.runner import curate

    workspace = prepare_home(home, settings)
    curate(workspace, console, prove=True)
    print_found(workspace, demos.planted_errors(home))
    print_outcome(workspace)
