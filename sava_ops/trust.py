"""The reference set is not taken on faith: its points are valued against each other.

In turn, one batch of the reference set is valued as training data against the others. What stands out there is a
wrong label or a foreign image among the points that are to judge all others.
"""

from dataclasses import fields

import numpy as np
from jaxtyping import Bool

from sava_ops.batches import split_batches
from sava_ops.config import ValuationConfig
from sava_ops.decisions.assessment import Assessment
from sava_ops.decisions.conformal import benjamini_hochberg
from sava_ops.errors import BadInput
from sava_ops.inputs import Array
from sava_ops.valuation import value_points

TRUSTED_SUGGESTION = 0.95
FALSE_DISCOVERY_RATE = 0.05


def value_reference(features: Array, labels: Array, *, config: ValuationConfig, device: str = "cpu") -> Assessment:
    """Assessment of M ≥ 2 reference points, features (M, d) and labels (M,), each against the batches it is not in.

    Raises BadInput for fewer points, and as `value_points` does.
    """
    if len(labels) < 2:
        raise BadInput(f"points in the reference set: {len(labels)}; valuing it against itself takes at least 2")
    codes = np.asarray(labels)
    half = -(-len(codes) // 2)
    size = min(config.batch_size or half, half)
    parts = split_batches(codes, batch_size=size, seed=config.seed, batching=config.batching)
    found = []
    for part in parts:
        rest = np.setdiff1d(np.arange(len(codes)), part)
        found.append(
            value_points(features[part], codes[part], features[rest], codes[rest], config=config, device=device)
        )
    order = np.concatenate(parts).argsort()
    return Assessment(
        **{field.name: np.concatenate([getattr(f, field.name) for f in found])[order] for field in fields(Assessment)}
    )


def suspicious(found: Assessment) -> Bool[np.ndarray, " M"]:
    """Points that clean data would rarely hold, or whose label another one clearly beats."""
    beaten = (found.label_values > 0) & (found.confidence >= TRUSTED_SUGGESTION)
    return beaten | benjamini_hochberg(found.p_values, rate=FALSE_DISCOVERY_RATE)
