"""Class-to-class distances W, computed once and kept (SAVA §4 and App. G.3; after OTDD, Alvarez-Melis & Fusi 2020).

    W[c,c'] = 2 min_π ⟨π, ½‖x − x'‖²⟩       between the features of class c and of class c', entropic, converged

from a seeded sample of each class over the whole pool, addressed by global class id.

Differs from the authors' code in: 1. it takes W from the first pair of batches, so a class missing there has no
distance; here every class of either side has one. 2. The divergence is ours: W between halves of the *reference* set,
minus the spread inside the two classes, scaled so that a wrong label costs on average as much as a foreign image.
"""

import math
from collections.abc import Iterator, Mapping
from itertools import product

import torch
from jaxtyping import Float
from torch import Tensor

from sava_ops.ot.cost import Points, feature_cost, mean_feature_cost
from sava_ops.ot.side_by_side import bytes_of_problem, solve_side_by_side
from sava_ops.ot.sinkhorn import Problem

EPSILON = 0.05
"""ε of the class-to-class problems, relative to the mean feature cost. Its own constant: tuning the ε of the batch
pairs must not change W."""
TOLERANCE = 1e-3
BLOCK_BYTES, GPU_BLOCK_BYTES = 2**26, 2**30
"""Of the problems that are solved side by side: about a processor's cache, and what keeps a GPU busy."""
FEWEST = 32
"""Problems side by side that fill the vector unit of a processor: fewer are faster one by one."""
SIMILAR = 1.5
"""Classes that have up to this many times as many points as others share a block with them."""
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
    sizes = [{label: len(sample) for label, sample in side.items()} for side in (rows, columns)]
    budget = BLOCK_BYTES if some.device.type == "cpu" else GPU_BLOCK_BYTES
    for row_labels, column_labels in blocks(*sizes, itemsize=some.element_size(), budget=budget):
        x, a = _stacked([rows[label] for label in row_labels])
        y, b = _stacked([columns[label] for label in column_labels])
        (n, r, _), (m, c, _) = x.shape, y.shape
        # One product for all pairs of classes, which then go to the last place.
        cost = feature_cost(x.flatten(0, 1), y.flatten(0, 1)).view(n, r, m, c).transpose(1, 2).reshape(n, m, r * c)
        found = solve_side_by_side(cost, a.repeat_interleave(c, 1), b.repeat(1, r), problem)
        distances[torch.tensor(row_labels)[:, None], torch.tensor(column_labels)] = 2 * found.cost.view(r, c)
    return distances


def blocks(
    rows: Mapping[int, int], columns: Mapping[int, int], *, itemsize: int, budget: int
) -> Iterator[tuple[list[int], list[int]]]:
    """Blocks of (row labels, column labels) that cover all pairs once, from label → number of points.

    In each, classes are of similar size and the problems fit into `budget` bytes, or there is only one.
    """
    for some, others in product(_of_similar_size(rows), _of_similar_size(columns)):
        n, m = max(rows[label] for label in some), max(columns[label] for label in others)
        most = budget // bytes_of_problem(n, m, itemsize)
        if most < FEWEST:
            most = 1
        # As many points on either side: the fewest features for so many problems.
        height = _even(len(some), min(most, max(1, math.isqrt(most * m // n))))
        width = _even(len(others), most // height)
        for top, left in product(range(0, len(some), height), range(0, len(others), width)):
            yield some[top : top + height], others[left : left + width]


def _even(count: int, most: int) -> int:
    """Size of the fewest parts of at most `most` that `count` things make, none much smaller than the others."""
    return math.ceil(count / math.ceil(count / most))


def _of_similar_size(sizes: Mapping[int, int]) -> list[list[int]]:
    """Labels in groups, by number of points."""
    groups: list[list[int]] = []
    for label in sorted(sizes, key=lambda label: (sizes[label], label)):
        if groups and sizes[label] <= SIMILAR * sizes[groups[-1][0]]:
            groups[-1].append(label)
        else:
            groups.append([label])
    return groups


def _stacked(samples: list[Tensor]) -> tuple[Float[Tensor, "n classes d"], Float[Tensor, "n classes"]]:
    """Classes beside each other, and the uniform measure on each; the last point of a smaller one is repeated, with
    weight 0."""
    some, most = samples[0], max(len(sample) for sample in samples)
    sizes = torch.tensor([len(sample) for sample in samples], device=some.device)
    place = torch.arange(most, device=some.device)[:, None]
    rows = torch.minimum(place, sizes - 1) + (sizes.cumsum(0) - sizes)
    return torch.cat(samples)[rows], (place < sizes) / sizes.to(some)


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
