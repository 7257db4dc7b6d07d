"""What is said of each point, as columns of a table, with the reason in plain words."""

from collections.abc import Collection, Sequence

import numpy as np
import pyarrow as pa

from sava_assets.formats.columns import codes_of
from sava_ops.decisions.assessment import Assessment

DOUBTFUL = 0.05
"""A reason is given where a clean point would rarely be as high: p-value at most this."""
FOREIGN = "unlike anything in the reference set"
COLUMNS = {
    "values": "value",
    "feature_values": "feature_value",
    "label_values": "label_value",
    "confidence": "confidence",
    "p_values": "p_value",
    "clean_probability": "clean_probability",
    "evidence": "evidence",
    "image_evidence": "image_evidence",
}
"""Field of `Assessment` → column."""


def with_findings(points: pa.Table, found: Assessment, classes: Sequence[str], *, known: Collection[str]) -> pa.Table:
    """The table with the columns of `found`, `suggested_label` and `reason`; `known` = classes of the reference set."""
    reasons = _reasons(found, points["label"], classes, known)
    suggested = pa.array(classes, pa.string()).take(pa.array(found.suggested_labels))
    points = with_numbers(points, found).append_column("suggested_label", suggested)
    return points.append_column("reason", pa.array(reasons, pa.string()))


def with_numbers(points: pa.Table, found: Assessment) -> pa.Table:
    """The table with one column for each of `COLUMNS`."""
    for field, column in COLUMNS.items():
        points = points.append_column(column, pa.array(getattr(found, field)))
    return points


def findings(points: pa.Table) -> Assessment:
    """The columns as an `Assessment` again; suggested labels are numbered by name."""
    columns = {field: points[column].to_numpy() for field, column in COLUMNS.items()}
    return Assessment(**columns, suggested_labels=codes_of(points["suggested_label"]))


def _reasons(found: Assessment, labels: pa.ChunkedArray, classes: Sequence[str], known: Collection[str]) -> list[str]:
    """Why a point is high; empty where it is not."""
    doubtful = found.p_values <= DOUBTFUL
    # Under its best label nothing but the image speaks against a point.
    foreign = found.image_evidence >= found.evidence[doubtful].min(initial=np.inf)
    reasons = [""] * len(labels)
    rows = doubtful.nonzero()[0]
    for k, label in zip(rows, labels.take(pa.array(rows)).to_pylist(), strict=True):
        suggested = classes[found.suggested_labels[k]]
        if label not in known:
            reasons[k] = f"the reference set has no class {label}: looks like {suggested}"
        elif foreign[k] or label == suggested:
            reasons[k] = FOREIGN
        else:
            reasons[k] = f"label disagrees with its neighbours: {label} → {suggested}"
    return reasons
