"""Class-to-class distances W, computed once and kept (SAVA §4 and App. G.3; after OTDD, Alvarez-Melis & Fusi 2020).

    W[c,c'] = 2 min_π ⟨π, ½‖x − x'‖²⟩       between the features of class c and of class c', entropic, converged

from a seeded sample of each class over the whole pool, addressed by global class id.

Differs from the authors' code in: 1. it takes W from the first pair of batches, so a class missing there has no
distance; here every class of either side has one. 2. The divergence is ours: W between halves of the *reference* set,
minus the spread inside the two classes, scaled so that a wrong label costs on average as much as a foreign image.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from sava_ops.ot.cost import Points, feature_cost, mean_feature_cost
from sava_ops.ot.sinkhorn import Problem, solve, uniform

EPSILON = 0.05
"""ε of the class-to-class problems, relative to the mean feature cost. Its own constant: tuning the ε of the batch
pairs must not change W."""
TOLERANCE = 1e-3
ClassSamples = dict[int, Tensor]
"""class id → features (n_c, d)."""


def class_samples(points: Points, *, cap: int, seed: int) -> ClassSamples:
    """At most `cap` points of every class that occurs, drawn by seed."""
    generator = torch.Generator().manual_seed(seed)
    samples = {}
    for label in points.labels.unique().tolist():
        rows = (points.labels == label).nonzero()[:, 0]
        chosen = torch.randperm(len(rows), generator=generator)[:cap].to(rows.device)
        samples[label] = points.features[rows[chosen]]
    return samples


def label_distances(
    train: ClassSamples, reference: ClassSamples, *, classes: int, divergence: bool
) -> Float[Tensor, "{classes} {classes}"]:
    """W (training class, reference class), in squared feature units; NaN where a class does not occur on its side.

    As a divergence, every class of the reference set has a row even if no training point carries it.
    """
    if not divergence:
        return _distances(train, reference, classes)
    # A class is represented by one half on the training side and the other half on the reference side.
    halves = {label: _halves(sample) for label, sample in (train | reference).items()}
    pairs = _distances({c: h[0] for c, h in halves.items()}, {c: h[1] for c, h in halves.items()}, classes)
    spread = pairs.diagonal()
    beyond = (pairs - 0.5 * (spread[:, None] + spread[None, :])).clamp(min=0)
    known = beyond[:, sorted(reference)]
    columns = torch.full_like(beyond, torch.nan)
    columns[:, sorted(reference)] = known * _mismatch_scale(beyond, reference)
    return columns


def _distances(rows: ClassSamples, columns: ClassSamples, classes: int) -> Float[Tensor, "{classes} {classes}"]:
    some = next(iter(columns.values()))
    distances = torch.full((classes, classes), torch.nan, dtype=some.dtype, device=some.device)
    scale = mean_feature_cost(torch.cat(list(rows.values())), torch.cat(list(columns.values()))) or 1.0
    problem = Problem(EPSILON * scale, tolerance=TOLERANCE)
    for column, y in columns.items():
        for row, x in rows.items():
            cost = feature_cost(x, y)
            distances[row, column] = 2 * solve(cost, uniform(len(x), x), uniform(len(y), y), problem).cost
    return distances


def _halves(sample: Float[Tensor, "n d"]) -> tuple[Float[Tensor, "_ d"], Float[Tensor, "_ d"]]:
    """Two disjoint halves; a class of one point stands for itself on both sides."""
    return (sample, sample) if len(sample) == 1 else (sample[0::2], sample[1::2])


def _mismatch_scale(divergence: Tensor, reference: ClassSamples) -> float:
    """Factor that makes ½W of a wrong label average the mean feature cost of the reference set."""
    present = sorted(reference)
    block = divergence[present][:, present]
    mismatch = float(block.sum()) / max(len(present) * (len(present) - 1), 1)
    features = torch.cat(list(reference.values()))
    return 2 * mean_feature_cost(features, features) / mismatch if mismatch > 0 else 1.0
