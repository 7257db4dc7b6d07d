"""From what a caller has (numpy or torch, any float type) to checked `Points` on the device."""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from sava_ops.errors import BadInput
from sava_ops.ot.cost import Points

Array = np.ndarray | Tensor
SHORTEST = 1e-12
"""Length below which torch takes a vector for zero."""

AFFORDABLE_WIDTH = 4_096
"""Features of which a square matrix takes seconds and megabytes; an encoder has fewer."""


def as_points(features: Array, labels: Array, *, side: str, unit_norm: bool, device: str = "cpu") -> Points:
    """Checked points: features (n, d) float32 or float64, finite, unit norm if asked; labels (n,) int64 ≥ 0.

    `side` names the points in errors ("training", "reference"). Raises BadInput.
    """
    x, y = torch.as_tensor(features), torch.as_tensor(labels)
    _check_shapes(x, y, side)
    _check_labels(y, side)
    x = x.to(device=device, dtype=torch.float64 if x.dtype == torch.float64 else torch.float32)
    # Sums first: they cost a tenth, and only NaN, infinity or an overflow make one of them infinite.
    if not torch.isfinite(x.sum(1)).all() and (broken := (~torch.isfinite(x)).any(1)).any():
        raise BadInput(
            f"{int(broken.sum())} of {len(x)} {side} points have NaN or infinite features (first: row "
            f"{int(broken.nonzero()[0])}): drop these rows or mend what computed them"
        )
    return Points(_unit(x) if unit_norm else _within_range(x, side), y.to(device, torch.int64))


def _unit(x: Tensor) -> Tensor:
    """Every row divided by its length, also where the squares of its numbers overflow or vanish."""
    unit = torch.nn.functional.normalize(x, dim=1)
    length, largest = torch.linalg.vector_norm(x, dim=1), torch.linalg.vector_norm(x, ord=float("inf"), dim=1)
    lost = (~torch.isfinite(length) | (length < SHORTEST)) & (largest > 0)
    if lost.any():
        unit[lost] = torch.nn.functional.normalize(x[lost] / largest[lost, None], dim=1)
    return unit


def _within_range(x: Tensor, side: str) -> Tensor:
    """Raises BadInput where the squares of distances would overflow."""
    limit = torch.finfo(x.dtype).max ** 0.5 * 1e-3
    if len(far := (torch.linalg.vector_norm(x, dim=1) > limit).nonzero()):
        raise BadInput(
            f"{len(far)} of {len(x)} {side} points are longer than {limit:.0e} (first: row {int(far[0])}), and their "
            "squares overflow: divide all features by one number, or use unit_norm"
        )
    return x


def in_their_span(train: Points, reference: Points) -> tuple[Points, Points]:
    """The same points in no more coordinates than there are points, where they have more than `AFFORDABLE_WIDTH`
    features: R of the QR decomposition, which keeps every distance and every product. What grows with the square of the
    width is then bounded by the points."""
    x = torch.cat([train.features, reference.features])
    if x.shape[1] <= max(len(x), AFFORDABLE_WIDTH):
        return train, reference
    coordinates = torch.linalg.qr(x.double().T, mode="r").R.T.to(x.dtype).contiguous()
    own, others = coordinates.split([len(train), len(reference)])
    return replace(train, features=own), replace(reference, features=others)


def class_count(train: Points, reference: Points) -> int:
    """Number of classes of both sides together; refuses points that cannot be compared."""
    widths = train.features.shape[1], reference.features.shape[1]
    if widths[0] != widths[1]:
        raise BadInput(
            f"training features have {widths[0]} columns and reference features {widths[1]}: embed both with the "
            "same encoder"
        )
    if train.features.dtype != reference.features.dtype:
        raise BadInput(
            f"training features are {train.features.dtype} and reference features {reference.features.dtype}: "
            "convert one side"
        )
    return int(max(train.labels.max(), reference.labels.max())) + 1


def _check_shapes(x: Tensor, y: Tensor, side: str) -> None:
    if x.ndim != 2 or y.ndim != 1:
        raise BadInput(
            f"{side} features have shape {tuple(x.shape)} and labels {tuple(y.shape)}: pass (points, width) and "
            "(points,)"
        )
    if len(x) != len(y):
        raise BadInput(f"there are {len(x)} {side} features and {len(y)} labels: pass one label a point")
    if len(x) == 0:
        raise BadInput(f"the {side} set is empty: pass at least one point")
    if x.shape[1] == 0:
        raise BadInput(f"{side} features have no columns: pass at least one")


def _check_labels(y: Tensor, side: str) -> None:
    if y.is_floating_point() or y.is_complex() or y.dtype == torch.bool:
        raise BadInput(f"{side} labels are {y.dtype}: pass whole class numbers 0, 1, 2, …")
    negative = y < 0
    if negative.any():
        row = int(negative.nonzero()[0])
        raise BadInput(
            f"{side} labels have {int(negative.sum())} values below 0 (first: {int(y[row])} at row {row}): number the "
            "classes from 0"
        )
