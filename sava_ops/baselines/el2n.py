"""EL2N: how wrong early heads are about a training point (Paul et al. 2021, Definition 2.1 and Section 3.3).

    score_k = mean over seeds of ‖p(x_k) − onehot(y_k)‖₂

O(N d C) for each epoch of each seed, O(N C) memory; looks at no reference point. Published is also a window: of hard
points, some are wrong, so the `offset` share of the highest scores goes, and of the rest the highest stay. Here the
accuracy on the reference set of a head trained on what stays decides the offset.
"""

import numpy as np
import torch
from jaxtyping import Float

from sava_ops.baselines.linear_head import train_head
from sava_ops.errors import BadInput
from sava_ops.inputs import class_count
from sava_ops.ot.cost import Points

EPOCHS = 5
HEADS = 10
PRUNED = 0.3
"""Share of the training points that a window leaves out."""
OFFSETS = (0.3, 0.2, 0.1, 0.0)
"""Of equally accurate ones the first: it keeps the fewest points that may be wrong."""


def score(train: Points, reference: Points) -> Float[np.ndarray, " N"]:
    """0..√2."""
    classes = class_count(train, reference)
    heads = [train_head(train, classes=classes, epochs=EPOCHS, seed=seed)[-1] for seed in range(HEADS)]
    return torch.stack([head.residuals(train).norm(dim=1).double() for head in heads]).mean(0).cpu().numpy()


def memory(n: int, m: int, d: int, classes: int) -> int:
    """Residuals and logits, some numbers for each point, the heads."""
    return 4 * (4 * max(n, m) * classes + (HEADS + EPOCHS) * classes * d) + (8 * HEADS + 40) * n


def window_score(train: Points, reference: Points, *, pruned: float = PRUNED) -> Float[np.ndarray, " N"]:
    """Distance from the middle of the window, in ranks: the window itself scores lowest."""
    scores = score(train, reference)
    rankings = [windowed(scores, pruned=pruned, offset=offset) for offset in OFFSETS if offset <= pruned]
    return rankings[int(np.argmax([_accuracy(ranking, train, reference, pruned) for ranking in rankings]))]


def window_memory(n: int, m: int, d: int, classes: int) -> int:
    """And the points in the window."""
    return memory(n, m, d, classes) + (4 * d + 8) * n + 8 * len(OFFSETS) * n


def windowed(scores: Float[np.ndarray, " N"], *, pruned: float, offset: float) -> Float[np.ndarray, " N"]:
    """A ranking whose last (1 − `pruned`) N points are those that follow the `offset` share of the highest scores.

    Ties by position. Raises BadInput for shares between which there is no window.
    """
    if not 0 <= offset <= pruned < 1:
        raise BadInput(f"`offset` is {offset} and `pruned` {pruned}: they must be 0 ≤ offset ≤ pruned < 1")
    rank = np.empty(len(scores))
    rank[np.argsort(-scores, kind="stable")] = np.arange(len(scores))
    first = min(round(offset * len(scores)), len(scores) - kept_count(len(scores), pruned))
    return np.abs(rank - (first + (kept_count(len(scores), pruned) - 1) / 2))


def kept_count(count: int, pruned: float) -> int:
    """Points in the window, at least one."""
    return max(1, count - round(pruned * count))


def _accuracy(ranking: np.ndarray, train: Points, reference: Points, pruned: float) -> float:
    rows = np.sort(np.argsort(ranking, kind="stable")[: kept_count(len(ranking), pruned)])
    kept = train.take(torch.from_numpy(rows).to(train.labels.device))
    return train_head(kept, classes=class_count(train, reference), epochs=EPOCHS, seed=HEADS)[-1].accuracy(reference)
