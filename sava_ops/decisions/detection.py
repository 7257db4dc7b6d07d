"""How well a ranking finds the points known to be bad. High value = suspected bad."""

import numpy as np
from jaxtyping import Bool, Float
from sklearn.metrics import average_precision_score, roc_auc_score

from sava_ops.errors import BadInput


def auroc(values: Float[np.ndarray, " n"], bad: Bool[np.ndarray, " n"]) -> float:
    """Probability that a bad point is ranked above a good one (ties count half)."""
    if bad.all() or not bad.any():
        raise BadInput(f"{int(bad.sum())} of {len(bad)} points are bad: AUROC needs good and bad points")
    return float(roc_auc_score(bad, values))


def found_in_top(values: Float[np.ndarray, " n"], bad: Bool[np.ndarray, " n"], *, count: int) -> int:
    """Number of bad points among the `count` highest values (ties by position)."""
    return int(bad[np.argsort(-values, kind="stable")[:count]].sum())


def average_precision(values: Float[np.ndarray, " n"], bad: Bool[np.ndarray, " n"]) -> float:
    """Mean precision at the ranks of the bad points, 0..1. Raises BadInput if none is bad."""
    if not bad.any():
        raise BadInput(f"none of {len(bad)} points is bad: average precision needs one")
    return float(average_precision_score(bad, values))


def detection_curve(
    values: Float[np.ndarray, " n"], bad: Bool[np.ndarray, " n"], *, steps: int = 100
) -> tuple[Float[np.ndarray, " points"], Float[np.ndarray, " points"]]:
    """Share of the points inspected, highest value first (ties by position), and share of the bad ones found by then.

    Raises BadInput if none is bad.
    """
    if not bad.any():
        raise BadInput(f"none of {len(bad)} points is bad: a detection curve needs one")
    found = np.concatenate([[0], bad[np.argsort(-values, kind="stable")].cumsum()]) / bad.sum()
    inspected = np.linspace(0, 1, steps + 1)
    return inspected, found[np.rint(inspected * len(values)).astype(int)]
