"""The yardstick of label noise: 1 − p(given label | x), logistic regression trained on the reference set.

Needs labels on both sides; O(M d C) per iteration, O(N d) to score, holds the reference set. A training label that the
reference set lacks scores 1.
"""

import numpy as np
from jaxtyping import Float, Int64
from sklearn.linear_model import LogisticRegression

from sava_ops.ot.cost import Points

INVERSE_PENALTY = 1.0
"""Of unit-norm features."""


def score(train: Points, reference: Points) -> Float[np.ndarray, " N"]:
    """Probability that the given label is wrong."""
    probability, known = class_probabilities(train, reference)
    given = train.labels.cpu().numpy()
    place = np.searchsorted(known, given).clip(max=len(known) - 1)
    own = np.where(known[place] == given, probability[np.arange(len(given)), place], 0.0)
    return 1 - own.astype(np.float64)


def memory(n: int, m: int, d: int, classes: int) -> int:
    """Logits and probabilities of both sides, the vectors of the solver."""
    return 8 * (3 * (n + m) * classes + 30 * (d + 1) * classes) + 4 * m * d + 40 * n


def class_probabilities(
    train: Points, reference: Points
) -> tuple[Float[np.ndarray, "N known"], Int64[np.ndarray, " known"]]:
    """p(class | x) of the training points, and the classes of its columns."""
    model = LogisticRegression(C=INVERSE_PENALTY, max_iter=1000)
    model.fit(reference.features.cpu().numpy(), reference.labels.cpu().numpy())
    return model.predict_proba(train.features.cpu().numpy()), model.classes_
