"""Confident learning: how little a classifier of the training labels believes in a label it has not seen.

    score_k = 1 − quality(y_k, p(· | x_k)),   quality = p(y_k | x_k)       (Northcutt et al. 2021; Kuan & Mueller 2022)

as ranked by cleanlab, an optional package. p comes from the cross-fitted logistic regressions of
`sava_ops.reference.discriminant` (stratified seeded folds) on the noisy labels. O(N d C) a step; looks at no reference
point. A class too small for the folds gets p near 0 where it is held out.
"""

import numpy as np
from jaxtyping import Float

from sava_ops.errors import BadInput
from sava_ops.inputs import class_count
from sava_ops.ot.cost import Points
from sava_ops.reference.discriminant import FOLDS, cross_fitted

SEED = 0


def score(train: Points, reference: Points) -> Float[np.ndarray, " N"]:
    """1 − label quality, 0..1. Raises BadInput without cleanlab, and where the regressions do not converge."""
    try:
        from cleanlab.rank import get_label_quality_scores
    except ImportError as missing:
        raise BadInput("cleanlab is not installed: pip install 'sava-assets[study]'") from missing
    probabilities = held_out_probabilities(train, classes=class_count(train, reference))
    return 1 - get_label_quality_scores(train.labels.cpu().numpy(), probabilities)


def memory(n: int, m: int, d: int, classes: int) -> int:  # noqa: ARG001
    """A copy of the features; logits of every fold; probabilities in float64."""
    return 4 * (2 * n * d + 6 * FOLDS * n * classes + 40 * FOLDS * classes * d) + 24 * n * classes


def held_out_probabilities(train: Points, *, classes: int) -> Float[np.ndarray, "N {classes}"]:
    """p(class | x), float64, each from the folds that a point is not in."""
    fitted = cross_fitted(train, classes, SEED)
    if not fitted.converged:
        raise BadInput(
            "confident learning: the logistic regressions did not converge: bring the columns of the features to one "
            "scale"
        )
    return fitted.losses.double().neg().exp().cpu().numpy()
