"""What is said of each point, as columns of a table, with the reason in plain words."""

from collections.abc import Collection, Sequence

import numpy as np
import pyarrow as pa

from sava_ops.decisions.assessment import Assessment

DOUBTFUL = 0.05
"""A reason is given where a clean point would rarely be as high: p-value at most this."""
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
    labels = np.array(points["label"].to_pylist(), dtype=object)
    suggested = np.array(classes, dtype=object)[found.suggested_labels]
    points = with_numbers(points, found).append_column("suggested_label", pa.array(suggested.tolist(), pa.string()))
    return points.append_column("reason", pa.array(_reasons(found, labels, suggested, known), pa.string()))


def with_numbers(points: pa.Table, found: Assessment) -> pa.Table:
    """The table with one column for each of `COLUMNS`."""
    for field, column in COLUMNS.items():
        points = points.append_column(column, pa.array(getattr(found, field)))
    return points


def findings(points: pa.Table) -> Assessment:
    """The columns as an `Assessment` again; suggested labels are numbered by name."""
    columns = {field: points[column].to_numpy() for field, column in COLUMNS.items()}
    suggested = np.unique(points["suggested_label"].to_pylist(), return_inverse=True)[1]
    return Assessment(**columns, suggested_labels=suggested)


def _reasons(found: Assessment, labels: np.ndarray, suggested: np.ndarray, known: Collection[str]) -> list[str]:
    """Why a point is high; empty where it is not."""
    doubtful = found.p_values <= DOUBTFUL
    # Under its best label nothing but the image speaks against a point.
    foreign = found.image_evidence >= found.evidence[doubtful].min(initial=np.inf)
    reasons = [""] * len(labels)
    for k in doubtful.nonzero()[0]:
        if labels[k] not in known:
            reasons[k] = f"the reference set has no class {labels[k]}: looks like {suggested[k]}"
        elif foreign[k] or labels[k] == suggested[k]:
            reasons[k] = "unlike anything in the reference set"
        else:
            reasons[k] = f"label disagrees with its neighbours: {labels[k]} → {suggested[k]}"
    return reasons
