"""Exact copies inside the pool: findings beside the values, and what becomes of them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from sava_assets.assets.decisions import as_markdown, images_of
from sava_assets.formats.names import some
from sava_assets.freshness.computation import Run
from sava_ops.decisions.copies import ALONE, groups_of, representatives, under_two_labels

CLUSTERS, NAMED = 20, 6
"""Groups that are listed, and images of each."""


@dataclass(frozen=True)
class Copies:
    """The points with what is known of their copies, and what the algorithm does with them."""

    points: pa.Table
    actions: list[str]
    curated: list[str | None]
    numbers: dict[str, Any] = field(default_factory=dict)
    pictures: dict[str, str] = field(default_factory=dict)


def with_copies(run: Run, points: pa.Table, actions: Sequence[str], curated: Sequence[str | None]) -> Copies:
    """Columns `copies` (images of the pool with these pixels, 1 = no other) and `copy_labels` (theirs, where they
    differ). An image that is there under two labels is to be reviewed, unless more is said against it; under
    `prune.copies: one` every kept image but the best is dropped for the best. Without any copies, nothing changes.
    """
    actions, curated = list(actions), list(curated)
    if "copies" not in run.inputs:
        return Copies(points, actions, curated)
    images = images_of(run, points["id"])
    groups = groups_of(images["pixel_hash"].combine_chunks().dictionary_encode().indices.to_numpy().astype(np.int64))
    ids, labels = points["id"].to_pylist(), np.array(points["label"].to_pylist(), dtype=object)
    mixed, reasons = under_two_labels(groups, labels), points["reason"].to_pylist()
    rows_of = _rows_of(groups)
    copies: np.ndarray = np.ones(len(points), dtype=np.int32)
    copy_labels: list[list[str] | None] = [None] * len(points)
    for rows in rows_of:
        copies[rows] = len(rows)
    for k in mixed.nonzero()[0]:
        copy_labels[k] = names = sorted(set(labels[rows_of[groups[k]]]))
        other = next(row for row in rows_of[groups[k]] if labels[row] != labels[k])
        rest = [name for name in names if name != labels[k]]
        reasons[k] = _and(reasons[k], f"the same image is also labelled {some(rest)} ({ids[other]})")
        actions[k] = "review" if actions[k] == "keep" else actions[k]
    out = _outstood(run, points, groups, images, np.array([name is not None for name in curated]))
    for k, best in out.items():
        actions[k], curated[k] = "drop", None
        reasons[k] = _and(reasons[k], f"the same image as {ids[best]}, which stands for it")
    points = points.set_column(points.column_names.index("reason"), "reason", pa.array(reasons, pa.string()))
    points = points.append_column("copies", pa.array(copies))
    points = points.append_column("copy_labels", pa.array(copy_labels, pa.list_(pa.string())))
    numbers = {"copied_images": int((groups != ALONE).sum()), "copied_pictures": len(rows_of)}
    numbers |= {"copies_under_two_labels": int(mixed.sum()), "copies_left_out": len(out)}
    return Copies(points, actions, curated, numbers, {"copies": _listed(rows_of, ids, labels)} if rows_of else {})


def _outstood(run: Run, points: pa.Table, groups: np.ndarray, images: pa.Table, kept: np.ndarray) -> dict[int, int]:
    """Kept points that another one is to stand for, and which."""
    if run.knobs.prune.copies == "keep":
        return {}
    among = np.where(kept, groups, ALONE)
    pixels = images["width"].to_numpy().astype(np.int64) * images["height"].to_numpy()
    best = representatives(among, points["evidence"].to_numpy(), pixels)
    return {int(k): int(best[k]) for k in (best != np.arange(len(best))).nonzero()[0]}


def _rows_of(groups: np.ndarray) -> list[np.ndarray]:
    """Rows of each group."""
    order = np.argsort(groups, kind="stable")
    order = order[groups[order] != ALONE]
    return np.split(order, np.flatnonzero(np.diff(groups[order])) + 1) if len(order) else []


def _listed(rows_of: list[np.ndarray], ids: list[str], labels: np.ndarray) -> str:
    """The largest groups by the names of their images."""
    largest, lines = sorted(rows_of, key=len, reverse=True), []
    for rows in largest[:CLUSTERS]:
        names = ", ".join(f"{ids[row]} ({labels[row]})" for row in rows[:NAMED])
        more = f", and {len(rows) - NAMED:,} more" if len(rows) > NAMED else ""
        lines.append(f"- {len(rows):,} images: {as_markdown(names)}{more}")
    return "\n".join(lines + ([f"\n… and {len(largest) - CLUSTERS:,} more"] if len(largest) > CLUSTERS else []))


def _and(one: str, other: str) -> str:
    return f"{one}; {other}" if one else other
