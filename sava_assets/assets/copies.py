"""Exact and near copies inside the pool: findings beside the values, and what becomes of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from sava_assets.assets.decisions import as_markdown, images_of
from sava_assets.formats.columns import places_of
from sava_assets.formats.names import some
from sava_assets.freshness.computation import Run
from sava_assets.freshness.near import LOOKS
from sava_ops.decisions.copies import ALONE, groups_of, of_several, representatives, under_two_labels
from sava_ops.decisions.near_copies import as_hashes, leaders

CLUSTERS, NAMED = 20, 6
"""Groups that are listed, and images of each."""
Standing = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Of groups and rows, the best first: the row that stands for each."""


@dataclass(frozen=True)
class Copies:
    """The points with what is known of their copies, and what the algorithm does with them."""

    points: pa.Table
    actions: list[str]
    curated: list[str | None]
    numbers: dict[str, Any] = field(default_factory=dict)
    pictures: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Kind:
    """Of copies: in what words, under which names, and of which setting on only the best one of each is kept."""

    alike: str
    prefix: str
    one: tuple[str, ...]


EXACT = _Kind("the same image", "", ("one", "one_of_near"))
NEAR = _Kind("nearly the same image", "near_", ("one_of_near",))


def with_copies(run: Run, points: pa.Table, actions: Sequence[str], curated: Sequence[str | None]) -> Copies:
    """Columns `copies` (images of the pool with these pixels, 1 = no other) and `copy_labels` (theirs, where they
    differ). An image that is there under two labels is to be reviewed, unless more is said against it; under
    `prune.copies: one` every kept image but the best is dropped for the best. The same of images that look nearly alike
    (`near_copies`, `near_copy_labels`, and in `near_copy_of` the image that stands for them) under `one_of_near`.
    Without any copies, nothing changes.
    """
    found = Copies(points, list(actions), list(curated))
    if "copies" not in run.inputs:
        return found
    images = images_of(run, points["id"])
    if ((groups := groups_of(_codes(images))) != ALONE).any():
        found = _with(run, EXACT, found, images, groups, representatives)
    if "near_copies" in run.inputs:
        found = _with_near(run, found, images)
    return found


def _with_near(run: Run, found: Copies, images: pa.Table) -> Copies:
    near = run.read("near_copies")
    table, within = near.table("near.parquet"), near.numbers["threshold_bits"]
    # What is set aside is in the pool and among no points.
    places = places_of(found.points["id"], table["id"].combine_chunks())
    groups = groups_of(np.where(places >= 0, table["group"].to_numpy()[places], -1 - np.arange(len(places))))
    groups = of_several(groups, _codes(images))
    hashes = as_hashes(table[LOOKS].to_pylist())[places]

    def standing(groups: np.ndarray, order: np.ndarray) -> np.ndarray:
        return leaders(groups, order, hashes, within=within)

    return _with(run, NEAR, found, images, groups, standing)


def _with(run: Run, kind: _Kind, found: Copies, images: pa.Table, groups: np.ndarray, standing: Standing) -> Copies:
    points, actions, curated = found.points, list(found.actions), list(found.curated)
    ids, labels = points["id"].to_pylist(), np.array(points["label"].to_pylist(), dtype=object)
    mixed, reasons = under_two_labels(groups, labels), points["reason"].to_pylist()
    rows_of, codes = _rows_of(groups), _codes(images)
    copies: np.ndarray = np.ones(len(points), dtype=np.int32)
    copy_labels: list[list[str] | None] = [None] * len(points)
    for rows in rows_of:
        copies[rows] = len(rows)
    for k in mixed.nonzero()[0]:
        copy_labels[k] = names = sorted(set(labels[rows_of[groups[k]]]))
        others = (row for row in rows_of[groups[k]] if labels[row] != labels[k])
        other = next((row for row in others if (codes[row] == codes[k]) == (kind is EXACT)), None)
        if other is None:  # said of exact copies already
            continue
        rest = [name for name in names if name != labels[k]]
        reasons[k] = _and(reasons[k], f"{kind.alike} is also labelled {some(rest)} ({ids[other]})")
        actions[k] = "review" if actions[k] == "keep" else actions[k]
    kept = np.array([name is not None for name in curated])
    best = standing(groups, _best_first(points, images, kept))
    out = np.flatnonzero(kept & (best != np.arange(len(best)))) if run.knobs.prune.copies in kind.one else []
    for k in out:
        actions[k], curated[k] = "drop", None
        reasons[k] = _and(reasons[k], f"{kind.alike} as {ids[best[k]]}, which stands for it")
    points = points.set_column(points.column_names.index("reason"), "reason", pa.array(reasons, pa.string()))
    points = points.append_column(f"{kind.prefix}copies", pa.array(copies))
    points = points.append_column(f"{kind.prefix}copy_labels", pa.array(copy_labels, pa.list_(pa.string())))
    if kind is NEAR:
        of = [ids[best[k]] if group != ALONE else None for k, group in enumerate(groups)]
        points = points.append_column("near_copy_of", pa.array(of, pa.string()))
    counts = {"copied_images": int((groups != ALONE).sum()), "copied_pictures": len(rows_of)}
    counts |= {"copies_under_two_labels": int(mixed.sum()), "copies_left_out": len(out)}
    numbers = found.numbers | {f"{kind.prefix}{name}": number for name, number in counts.items()}
    pictures = found.pictures | ({f"{kind.prefix}copies": _listed(rows_of, ids, labels)} if rows_of else {})
    return Copies(points, actions, curated, numbers, pictures)


def _best_first(points: pa.Table, images: pa.Table, kept: np.ndarray) -> np.ndarray:
    """Rows: what is kept, then the least evidence against it, then the most pixels, then the first."""
    pixels = images["width"].to_numpy().astype(np.int64) * images["height"].to_numpy()
    return np.lexsort((np.arange(len(points)), -pixels, points["evidence"].to_numpy(), ~kept))


def _codes(images: pa.Table) -> np.ndarray:
    """One number for equal pixels."""
    return images["pixel_hash"].combine_chunks().dictionary_encode().indices.to_numpy().astype(np.int64)


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
