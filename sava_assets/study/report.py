"""The page about a study: tables, pictures and verdicts from the results in the store."""

import base64
import platform
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from sava_assets.home.resources import Workspace
from sava_assets.study.corruptions import CORRUPTIONS, MAIN
from sava_assets.study.measures import grouped, table_of
from sava_ops.baselines import METHODS
from sava_ops.images.encoder import FEATURES

OURS = ("SAVA", "SAVA (label values)")
KIN = ("SAVA (no label cache)",)
"""Ours too: the default at another price."""
MEASURES = {"auroc": "AUROC", "found_at_budget": "found at the budget"}
PICTURE = re.compile(r"!\[\]\(data:image/png;base64,([^)]*)\)")


def write_report(workspace: Workspace, page: Path) -> None:
    """Write the page, and its pictures into a folder of the same name beside it."""
    folder = page.with_suffix("")
    folder.mkdir(parents=True, exist_ok=True)
    found = workspace.store.require("detection").table("detection.parquet")
    lines = [*_head(workspace), "## Verdicts", "", *_verdicts(found), ""]
    lines += ["## What is found", "", 'AUROC of "is this point corrupted":', "", table_of(found, "auroc"), ""]
    lines += ["Share of the corrupted points among as many highest scores:", "", table_of(found, "found_at_budget"), ""]
    lines += [*_costs(workspace, found), "", *_pictures(workspace, "detection", folder), ""]
    lines += ["## What pruning brings", "", *_pruned(workspace), "", *_pictures(workspace, "pruning", folder), ""]
    lines += [
        f"A whole ResNet18, trained from scratch for {workspace.knobs.study.training.steps:,} steps on {MAIN}, after "
        "as many points are pruned as are wrong:", "",
        *_whole(workspace), "", *_pictures(workspace, "whole_network", folder), "",
    ]  # fmt: skip
    for asset, title, line, x, y in (
        ("detection_by_size", f"Training points ({MAIN}: found at the budget)", "method", "points", "found_at_budget"),
        (
            "incremental_learning",
            f"A growing pool ({MAIN}: accuracy of the last layer)",
            "method",
            "points",
            "accuracy",
        ),
        ("sensitivity", f"Batches ({MAIN}: found at the budget)", "setting", "batch_size", "found_at_budget"),
    ):
        summary = workspace.store.require(asset).table("summary.parquet")
        lines += [f"## {title}", "", *_curves(summary, line, x, y), ""]
        if "seconds_mean" in summary.column_names:
            lines += ["Seconds:", "", *_curves(summary, line, x, "seconds"), ""]
        lines += [*_pictures(workspace, asset, folder), ""]
    lines += [f"## The transport itself ({MAIN})", "", *_pictures(workspace, "transport_example", folder)]
    page.write_text("\n".join(lines).rstrip() + "\n")


def _head(workspace: Workspace) -> list[str]:
    pool = workspace.store.require("corrupted_pool", MAIN).numbers
    points, aside = pool["points"], pool["set_aside"]
    apart = f" ({aside:,} set aside, being in the other sets, too)" if aside else ""
    reference, test = (
        workspace.store.require(f"{name}_embeddings").numbers["points"] for name in ("reference", "test")
    )
    device = torch.cuda.get_device_name() if workspace.device != "cpu" else "not measured on a GPU"
    return [
        "# Every method, every corruption",
        "",
        "Written by `make study`; [`sava_assets/study/`](../sava_assets/study/__init__.py) says what is compared. The "
        "encoder has not seen the labels of the valued images; the test images choose nothing. All methods see the "
        "same unit-norm features: what the paper trains on pixels (TracInCP, influence functions, EL2N) is the "
        "network's last layer here.",
        "",
        f"{points:,} training{apart}, {reference:,} reference and {test:,} test images, "
        f"{workspace.knobs.study.seeds} seeds, mean ± standard deviation. "
        f"Python {platform.python_version()}, torch {torch.__version__}, "
        f"{torch.get_num_threads()} CPU threads; {device}.",
        "",
    ]


def _verdicts(found: pa.Table) -> list[str]:
    """Of each corruption: where our better column stands among the methods, and what is ahead of it."""
    lines = []
    for corruption in CORRUPTIONS:
        rows = [r for r in found.to_pylist() if r["corruption"] == corruption and r["refused"] is None]
        stands = [f"{words} {_place(rows, f'{measure}_mean')}" for measure, words in MEASURES.items()]
        lines.append(f"- **{corruption}**: {'; '.join(stands)}.")
    return lines


def _place(rows: Sequence[Mapping[str, Any]], measure: str) -> str:
    scores = {row["method"]: row[measure] for row in rows}
    best = max(OURS, key=lambda name: scores[name])
    ahead = sorted((n for n in scores if n not in (*OURS, *KIN) and scores[n] > scores[best]), key=lambda n: -scores[n])
    behind = ", ".join(f"{name} ({scores[name]:.3f})" for name in ahead)
    place = f"{_ordinal(len(ahead) + 1)}, behind {behind}" if ahead else "first"
    return f"{scores[best]:.3f} by {best}, {place} (as published: {scores['SAVA (paper)']:.3f})"


def _ordinal(place: int) -> str:
    return {2: "second", 3: "third"}.get(place, f"{place}th")


def _costs(workspace: Workspace, found: pa.Table) -> list[str]:
    """Seconds, memory, cost and needs of every method."""
    points, names = (workspace.store.require("corrupted_pool", MAIN).numbers[name] for name in ("points", "names"))
    reference = workspace.store.require("reference_embeddings").numbers["points"]
    rows = found.to_pylist()
    lines = ["| | seconds | memory at most, GB | cost | needs |", "|---|---:|---:|---|---|"]
    for name, method in METHODS.items():
        seconds = [row["seconds_mean"] for row in rows if row["method"] == name and row["refused"] is None]
        shown = f"{np.median(seconds):.1f}" if seconds else "–"
        memory = method.memory(points, reference, FEATURES, len(names)) / 1e9
        lines.append(f"| {name} | {shown} | {memory:.2f} | {method.cost} | {method.needs} |")
    return ["What it costs (seconds: median of the corruptions; memory: what the method asks for):", "", *lines]


def _pruned(workspace: Workspace) -> list[str]:
    table = workspace.store.require("pruning").table("pruning.parquet").to_pylist()
    shares = list(dict.fromkeys(row["pruned_share"] for row in table))
    lines = []
    for corruption in CORRUPTIONS:
        own = [row for row in table if row["corruption"] == corruption]
        lines += [f"Test accuracy of the last layer, {corruption}, by the share that is pruned:", ""]
        lines += _table(own, "method", "pruned_share", "accuracy", [f"{share:.0%}" for share in shares])
        lines.append("")
    return lines


def _whole(workspace: Workspace) -> list[str]:
    rows = grouped(workspace.store.require("whole_network").table("accuracies.parquet"), ["set"])
    cells = [f"{row['accuracy_mean']:.3f} ± {row['accuracy_std']:.3f}" for row in rows]
    return [f"| {' | '.join(r['set'] for r in rows)} |", f"|{'---:|' * len(rows)}", f"| {' | '.join(cells)} |"]


def _curves(summary: pa.Table, line: str, x: str, y: str) -> list[str]:
    rows = summary.to_pylist()
    return _table(rows, line, x, y, [f"{value:,}" for value in dict.fromkeys(row[x] for row in rows)])


def _table(rows: Sequence[Mapping[str, Any]], line: str, x: str, y: str, titles: Sequence[str]) -> list[str]:
    cells = {(row[line], row[x]): f"{row[f'{y}_mean']:.3f} ± {row[f'{y}_std']:.3f}" for row in rows}
    across = list(dict.fromkeys(row[x] for row in rows))
    lines = [f"| | {' | '.join(titles)} |", f"|---|{'---:|' * len(titles)}"]
    for name in dict.fromkeys(row[line] for row in rows):
        lines.append(f"| {name} | {' | '.join(cells.get((name, value), '–') for value in across)} |")
    return lines


def _pictures(workspace: Workspace, asset: str, folder: Path) -> list[str]:
    """The asset's pictures as files, and the lines that show them."""
    lines = []
    for title, text in workspace.store.require(asset).pictures.items():
        if drawn := PICTURE.search(text):
            name = f"{asset}-{title}".replace(" ", "-")
            (folder / f"{name}.png").write_bytes(base64.b64decode(drawn.group(1)))
            lines += [f"{title}:", "", f"![{title}]({folder.name}/{name}.png)", ""]
    return lines
