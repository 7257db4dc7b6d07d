"""What a curation came to, on the console."""

import os
import shutil
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from sava_assets.formats.names import shown
from sava_assets.home.resources import Workspace

console = Console(stderr=False)


def say(line: str) -> None:
    """One line, whole; names in it cannot steer the terminal."""
    console.print(shown(line), soft_wrap=True, markup=False, highlight=False)


def print_found(workspace: Workspace, planted: set[str]) -> None:
    """How many of the labels that were made wrong the values found."""
    import numpy as np

    from sava_ops.decisions.detection import auroc, found_in_top

    points = workspace.store.require("pruned_dataset").table("points.parquet")
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
    """Accuracies, decisions, and where everything lies."""
    accuracy = workspace.store.require("classifier_accuracy").numbers
    pruned = workspace.store.require("pruned_dataset").numbers
    table = Table(title=f"test accuracy of ResNet18, {accuracy['seeds']} seeds, equal steps", title_justify="left")
    sets = ("all", "random", "pruned", "relabelled", "reweighted")
    for name in sets:
        table.add_column(name, justify="right")
    table.add_row(*(f"{accuracy[f'{n}_mean']:.3f} ± {accuracy[f'{n}_std']:.3f}" for n in sets))
    console.print(table)
    actions = ", ".join(f"{pruned[f'to_{name}']:,} to {name}" for name in ("drop", "relabel", "review"))
    points = f"{pruned['points']:,} points valued, about {pruned['bad_share']:.0%} of them bad"
    say(f"{points}; {pruned['kept']:,} kept, {actions}")
    home = Path(workspace.home)
    places = {
        "values and decisions": home / "curated" / "points.parquet",
        "kept images": home / "curated" / "images",
        "every flagged image": home / "report.html",
        "every asset in the UI": f"{own_command()} ui --home {home}",
    }
    for what, where in places.items():
        say(f"{what:<22} {where}")


def own_command() -> str:
    """What to type for `sava` here: an environment that is not activated needs its path."""
    return "sava" if shutil.which("sava") else os.path.relpath(Path(sys.executable).with_name("sava"))
