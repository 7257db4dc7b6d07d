"""How well a ranking finds the points known to be bad. High value = suspected bad."""

import numpy as np
from jaxtyping import Bool, Float
from sklearn.metrics import roc_auc_score

from sava_ops.errors import BadInput


def auroc(values: Float[np.ndarray, " n"], bad: Bool[np.ndarray, " n"]) -> float:
    """Probability that a bad point is ranked above a good one (ties count half)."""
    if bad.all() or not bad.any():
        raise BadInput(f"{int(bad.sum())} of {len(bad)} points are bad: AUROC needs good and bad points")
    return float(roc_auc_score(bad, values))


def found_in_top(values: Float[np.ndarray, " n"], bad: Bool[np.ndarray, " n"], *, count: int) -> int:
    """Number of bad points among the `count` highest values (ties by position)."""
    return int(bad[np.argsort(-values, kind="stable")[:count]].sum())
