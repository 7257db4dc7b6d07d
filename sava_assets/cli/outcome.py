"""What a curation came to, on the console."""

import os
import shutil
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table
from upath import UPath

from sava_assets.cli.reviewing import page_in_home
from sava_assets.formats.names import shown
from sava_assets.freshness.limits import WAITS
from sava_assets.freshness.proof import ACCURACIES, SETS, is_of
from sava_assets.freshness.rules import has_test_set
from sava_assets.freshness.source_shift import far_from_reference, said_of_reference
from sava_assets.freshness.sources import Home
from sava_assets.freshness.survey import Survey
from sava_assets.home.publication import Publication
from sava_assets.home.resources import Workspace
from sava_assets.home.result import Result
from sava_ops.errors import BadInput

console = Console(stderr=False)
TRAININGS = {"probe_accuracy": "linear probes", "classifier_accuracy": "ResNet18"}


def say(line: str) -> None:
    """One line, whole; names in it cannot steer the terminal."""
    console.print(shown(line), soft_wrap=True, markup=False, highlight=False)


def print_found(workspace: Workspace, planted: set[str]) -> None:
    """How many of the labels that were made wrong the values found."""
    import numpy as np

    from sava_assets.freshness.overlap import valued
    from sava_ops.decisions.detection import auroc, found_in_top

    points = valued(workspace.store.require("pruned_dataset").table("points.parquet"))
    bad = np.array([name in planted for name in points["id"].to_pylist()])
    values, keep = points["evidence"].to_numpy(), points["keep"].to_numpy(zero_copy_only=False)
    pruned = int((~keep).sum())
    table = Table(title="planted wrong labels", title_justify="left")
    for column in ("", "found by evidence", "expected at random"):
        table.add_column(column, justify="left" if not column else "right")
    table.add_row("AUROC", f"{auroc(values, bad):.3f}", "0.500")
    top, chance = found_in_top(values, bad, count=int(bad.sum())), bad.sum() ** 2 / len(bad)
    table.add_row(f"in the {bad.sum():,} highest of {len(bad):,}", f"{top:,}", f"{chance:,.0f}")
    table.add_row(f"left after pruning {pruned:,}", f"{bad[keep].sum():,}", f"{bad.sum() * keep.mean():,.0f}")
    console.print(table)


def print_outcome(workspace: Workspace) -> None:
    """Accuracies, decisions, and where everything lies. Raises BadInput if what it would name is not there."""
    pruned, published = (workspace.store.require(name) for name in ("pruned_dataset", "curated_dataset"))
    _print_accuracy(workspace, pruned)
    numbers = pruned.numbers
    actions = ", ".join(f"{numbers[f'to_{name}']:,} to {name}" for name in ("drop", "relabel", "review"))
    bad, low, high = (numbers[name] for name in ("bad_share", "bad_share_low", "bad_share_high"))
    points = f"{numbers['points']:,} points valued, about {bad:.0%} of them bad ({low:.0%} to {high:.0%})"
    say(f"{points}; {numbers['kept']:,} kept, {actions}")
    told_apart = workspace.store.require("batch_ot").numbers["told_apart"]
    if far_from_reference(told_apart):
        say(said_of_reference(told_apart))
    for name, other in published.numbers.get("renamed", {}).items():
        say(f"the column {name!r} of the shards is published as {other!r}: the name is ours")
    places: dict[str, object] = {
        **_places(workspace, pruned, published.numbers.get("version")),
        "every flagged image": page_in_home(workspace),
        "every asset in the UI": f"{own_command()} ui --home {workspace.home}",
    }
    for what, where in places.items():
        say(f"{what:<22} {where}")


def _places(workspace: Workspace, pruned: Result, version: str | None) -> dict[str, UPath]:
    """Where the outcome lies; what is published is looked at before it is named."""
    curated = Publication(workspace.curated)
    if version is None:
        measured = workspace.store.require("curated_dataset").numbers.get(WAITS)
        why = f"{measured} of this curation is not there yet" if measured else "prune.dry_run is set"
        say(f"{why}: nothing is published, {curated.root} stays as it is")
        return {"values and decisions": pruned.files["points.parquet"].path}
    if fault := curated.fault(version):
        raise BadInput(f"{fault}: run the same command again")
    images = workspace.knobs.prune.export_images
    return {"values and decisions": curated.place("points.parquet")} | (
        {"kept images": curated.place("images")} if images else {}
    )


def _print_accuracy(workspace: Workspace, pruned: Result) -> None:
    if unproven := no_test_set(workspace):
        say(unproven)
        return
    found = {name: result for name in ACCURACIES if (result := workspace.store.current(name))}
    found = {name: result for name, result in found.items() if is_of(result, pruned)}
    if found:
        table = Table(title="test accuracy, by what is trained on", title_justify="left")
        table.add_column("")
        for name, result in found.items():
            table.add_column(f"{TRAININGS[name]}, {result.numbers['seeds']} seeds", justify="right")
        for each in SETS:
            means, stds = ([r.numbers[f"{each}_{what}"] for r in found.values()] for what in ("mean", "std"))
            table.add_row(each, *(f"{mean:.3f} ± {std:.3f}" for mean, std in zip(means, stds, strict=True)))
        console.print(table)
    survey = Survey.landed(workspace)
    for state in (survey.state(name) for name in ACCURACIES if name not in found):
        say(f"{state.title} is not measured on this curation: {state.reason}")


def no_test_set(home: Home) -> str:
    """What is said of a home without a test set; nothing of another."""
    if has_test_set(home):
        return ""
    folder = home.folder("test")
    return f"no test set, so accuracy is not measured: put images into {folder}, or set `test` in sava.yaml"


def own_command() -> str:
    """What to type for `sava` here: an environment that is not activated needs its path."""
    return "sava" if shutil.which("sava") else os.path.relpath(Path(sys.executable).with_name("sava"))
