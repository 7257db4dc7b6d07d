"""What a curation came to, on the console."""

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from sava_assets.home.resources import Workspace

console = Console(stderr=False)
QUARANTINE_SHOWN = 10


def say(line: str) -> None:
    """One line, whole, as it is."""
    console.print(line, soft_wrap=True, markup=False, highlight=False)


def print_found(workspace: Workspace, planted: set[str]) -> None:
    """How many of the labels that were made wrong the values found."""
    import numpy as np

    from sava_ops.decisions.detection import auroc, found_in_top

    points = workspace.store.require("pruned_dataset").table("points.parquet")
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


def print_outcome(workspace: Workspace, shards: Sequence[str]) -> None:
    """Accuracies, decisions, what was set aside, and where everything lies."""
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
    _print_quarantine(workspace, shards)
    home = Path(workspace.home)
    places = {
        "values and decisions": home / "curated" / "points.parquet",
        "kept images": home / "curated" / "images",
        "every asset in the UI": f"{own_command()} ui --home {home}",
    }
    for what, where in places.items():
        say(f"{what:<22} {where}")


def _print_quarantine(workspace: Workspace, shards: Sequence[str]) -> None:
    """Which images were set aside, and why."""
    import pyarrow as pa

    sets = [("raw_images", shard) for shard in shards] + [("reference_images", None), ("test_images", None)]
    # A shard that was left alone has no result.
    found = [result for asset, shard in sets if (result := workspace.store.current(asset, shard))]
    aside = pa.concat_tables([result.table("quarantine.parquet") for result in found]).to_pylist()
    if aside:
        console.print(f"{len(aside):,} images quarantined:")
    for row in aside[:QUARANTINE_SHOWN]:
        say(f"  {row['id']}: {row['reason']}")
    if len(aside) > QUARANTINE_SHOWN:
        console.print(f"  … and {len(aside) - QUARANTINE_SHOWN:,} more, in quarantine.parquet of each set's result")


def own_command() -> str:
    """What to type for `sava` here: an environment that is not activated needs its path."""
    return "sava" if shutil.which("sava") else os.path.relpath(Path(sys.executable).with_name("sava"))
