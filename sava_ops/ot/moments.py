"""The scale of the costs of a whole pool, from what `cost.moments` keeps of each part: no point is read again."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

Moments = Mapping[str, Float[np.ndarray, "..."]]


def mean_feature_cost_of_moments(parts: Sequence[tuple[int, Moments]], reference: Moments, *, unit_norm: bool) -> float:
    """`mean_feature_cost` of the union of sets, given as (size, moments), to the reference: no point is read.

    ½E‖x‖² + ½E‖x'‖² − ⟨E x, E x'⟩, in squared feature units.
    """
    kind, total = "unit" if unit_norm else "raw", sum(size for size, _ in parts)
    mean = sum(size / total * part[f"{kind}_mean"] for size, part in parts)
    square = sum(size / total * part[f"{kind}_square"] for size, part in parts)
    return float(0.5 * square + 0.5 * reference[f"{kind}_square"] - (mean * reference[f"{kind}_mean"]).sum())
