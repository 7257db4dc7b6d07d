"""What all batch pairs share: computed once and pinned, so that new data changes no existing row.

How much single features count (`reference.spread`), W (`ot.label_distance`), the scale of the costs, a sample of the
pool to start from, what the reference set says of its classes (`reference.discriminant`), and what pool and reference
together say of labels (`reference.label_noise`) and of each other's images (`reference.density_ratio`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int64
from threadpoolctl import threadpool_limits
from torch import Tensor

from sava_ops.config import ValuationConfig
from sava_ops.ot.cost import Points, mean_feature_cost
from sava_ops.ot.label_distance import class_samples, label_distances
from sava_ops.reference.both_sides import BothSides
from sava_ops.reference.density_ratio import DensityRatio, fit_density_ratio
from sava_ops.reference.discriminant import Discriminant, fit_discriminant
from sava_ops.reference.label_noise import LabelNoise, fit_label_noise
from sava_ops.reference.spread import inside_classes, scaled, scales

POOL_POINTS, POOL_POINTS_PER_CLASS = 16_384, 64
"""Training points from which the noise of their labels is learned: so many of all, and of a class if that is no more
than as many again."""
NO_ONE_ELSES = 240_601_130
"""Beside the seed: by it alone, the draw could repeat one that others made with the same seed, of what they damaged."""


@dataclass(frozen=True)
class Calibration:
    """What all batch pairs share; computed once and pinned, so that new data changes no existing row."""

    label_distances: Float[Tensor, "classes classes"]
    """W (training class, reference class), squared feature units; NaN where a side lacks the class."""
    scale: float
    """Mean feature cost ½‖x − x'‖² between training sample and reference; ε, ρ and κ are multiples of it."""
    sample: Points
    """Training points from which each reference batch gets its starting potential."""
    discriminant: Discriminant
    """Of the reference classes."""
    label_noise: LabelNoise
    """Of the pool, and what both sides together say of an image's class."""
    density_ratio: DensityRatio
    """Of pool and reference."""
    column_scales: Float[Tensor, " d"]
    """What the features are multiplied by first, 0..1; all of the above is said of the scaled ones."""

    @property
    def centre(self) -> Float[Tensor, " d"]:
        """Mean of the reference set. Distances do not see a common shift; without it, rounding does not see the norm of
        the mean."""
        return self.discriminant.shares @ self.discriminant.means

    def seen(self, points: Points) -> Points:
        """With their features scaled."""
        return replace(points, features=scaled(points.features, self.column_scales))

    def batches(self, reference: Points, rows: Sequence[Int64[np.ndarray, " _"]]) -> list[Points]:
        """The reference set in batches as `transport_row` takes them: each in order of its classes, around `centre`,
        with what the classifiers think of them."""
        features = self.seen(reference).features
        known = replace(
            reference,
            features=features - self.centre.to(features),
            label_losses=self.label_noise.joint_reference_losses,
            reference_losses=self.discriminant.reference_losses,
            log_ratios=self.density_ratio.reference_log_ratios,
            left_out=self.discriminant.left_out,
        )
        return [known.take(own) for own in by_class(reference.labels, rows)]


def by_class(labels: Int64[Tensor, " M"], rows: Sequence[Int64[np.ndarray, " _"]]) -> list[Int64[Tensor, " _"]]:
    """The rows of each reference batch in the order in which it holds them: that of their classes."""
    chosen = [torch.from_numpy(own).to(labels.device) for own in rows]
    return [own[labels[own].argsort(stable=True)] for own in chosen]


# The threads of NumPy's and SciPy's BLAS spin between calls, and torch's would wait for the processors they hold.
@threadpool_limits.wrap(limits=1, user_api="blas")
def calibrate(train: Points, reference: Points, *, classes: int, config: ValuationConfig) -> Calibration:
    """All of it, from (a sample of) the training points and the whole reference set."""
    nothing = reference.features.new_ones(reference.features.shape[1], dtype=torch.float64)
    columns = scales(inside_classes(reference)) if config.shorten_columns else nothing
    train, reference = (replace(side, features=scaled(side.features, columns)) for side in (train, reference))
    samples = [class_samples(side, cap=config.class_sample, seed=config.seed) for side in (train, reference)]
    chosen = torch.from_numpy(_order(len(train), config.seed)[: config.calibration_sample]).to(train.labels.device)
    known = fit_discriminant(reference, classes=classes, seed=config.seed)
    labels, per_class = train.labels.cpu().numpy(), min(POOL_POINTS_PER_CLASS, POOL_POINTS // classes)
    rows = calibration_rows(labels, size=POOL_POINTS, per_class=per_class, seed=config.seed)
    pool = train.take(torch.from_numpy(rows).to(train.labels.device))
    sides = BothSides(reference, pool, known, seed=config.seed)
    ratio = fit_density_ratio(sides)
    return Calibration(
        label_distances=label_distances(*samples, classes=classes, divergence=config.label_metric == "divergence"),
        # Without any spread all costs are 0 and any unit will do.
        scale=mean_feature_cost(train.features, reference.features) or 1.0,
        sample=train.take(chosen),
        discriminant=known,
        label_noise=fit_label_noise(sides, ratio),
        density_ratio=ratio,
        column_scales=columns,
    )


def calibration_rows(
    labels: Int64[np.ndarray, " N"], *, size: int, per_class: int, seed: int
) -> Int64[np.ndarray, " n"]:
    """Rows of a seeded sample to calibrate from: `size` points of the pool, and `per_class` of every class.

    A pool of at most `size` points is its own sample.
    """
    order = _order(len(labels), seed)
    rank_in_class = np.empty(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        members = order[labels[order] == label]
        rank_in_class[members] = np.arange(len(members))
    chosen = rank_in_class < per_class
    chosen[order[:size]] = True
    return chosen.nonzero()[0]


def _order(count: int, seed: int) -> Int64[np.ndarray, " count"]:
    return np.random.default_rng([seed, NO_ONE_ELSES]).permutation(count)
