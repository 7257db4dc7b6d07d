"""How one training batch sees the reference set: its class shares, its metric, and its labels' costs.

Everything that a row of the batch matrix needs of its training batch (`sava_ops.transport` puts the row together).
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from sava_ops.calibration import Calibration
from sava_ops.config import ValuationConfig
from sava_ops.decomposition import best_other_labels, log_class_masses, potentials_by_label
from sava_ops.ot.cost import Points, feature_cost, label_costs, with_label_costs
from sava_ops.ot.labelled_kernel import ColumnSide, LabelledKernel, Room, RowSide
from sava_ops.ot.sinkhorn import Problem, Transport, solve, sweep, uniform
from sava_ops.reference.covariate_shift import covariate_shift
from sava_ops.reference.density_ratio import familiar
from sava_ops.reference.label_shift import SMALLEST, possible_shares, reference_measure

ENOUGH_TO_JUDGE = 2
"""Reference points of a class without which nobody knows what a right label of it costs."""


class Side(NamedTuple):
    """Points as one training batch sees them, and as rows of its kernels."""

    points: Points
    rows: RowSide


class Judge(NamedTuple):
    """A reference batch as one training batch sees it, its measure, and the columns of a kernel."""

    points: Points
    b: Tensor
    columns: ColumnSide


class Frame:
    """How one training batch sees the reference: its class shares and its metric."""

    def __init__(self, batch: Points, calibration: Calibration, config: ValuationConfig) -> None:
        self.calibration, self.config, reference = calibration, config, calibration.discriminant
        losses, unit = reference.losses(batch.features), calibration.scale
        self.label_costs = label_costs(calibration.label_distances, config.label_weight)
        self.estimate = config.class_shares == "estimated"
        ratios = calibration.density_ratio.log_ratios(batch.features)
        found = calibration.label_noise.class_shares(batch, familiar(ratios)) if self.estimate else None
        self.shares = possible_shares(found, reference.shares)
        self.shift = covariate_shift(batch, losses.argmin(1), self.shares, reference)
        self.problem = Problem(config.epsilon * unit, config.rho * unit, config.tolerance, config.max_sweeps)
        self.compact = LabelledKernel.holds(self.label_costs, self.problem.epsilon)
        centred = batch.features - calibration.centre.to(batch.features)
        costs = calibration.label_noise.costs(batch.features, batch.labels)
        self.own = self.side(Points(centred, batch.labels, costs, losses, ratios), of_batch=True)

    @property
    def known(self) -> Bool[Tensor, " classes"]:
        """Labels that may be suggested: the reference set has them, and their distances are known."""
        present = self.calibration.discriminant.shares > 0
        return present & ~self.calibration.label_distances[:, present].isnan().any(1)

    @property
    def judgeable(self) -> Bool[Tensor, " classes"]:
        """Labels that may be blamed: those that the reference set lacks, and those of which it has an image left when
        one is held out. The published method blames all."""
        if not self.estimate:
            return torch.ones_like(self.known)
        counts = self.calibration.discriminant.counts
        return (counts == 0) | (counts >= ENOUGH_TO_JUDGE)

    @property
    def odds(self) -> Float[Tensor, " classes"]:
        """How much more frequent a class is in the batch than in the reference set."""
        reference = self.calibration.discriminant.shares
        return torch.where(reference > 0, self.shares / reference.clamp(min=1e-300), 0.0)

    @property
    def nat(self) -> float:
        """η, the price of one nat of the classifier's loss, units of cost."""
        return self.config.classifier_weight * self.calibration.scale

    def side(self, points: Points, *, of_batch: bool = False) -> Side:
        """Centred points, to be transported like those of the batch."""
        seen, epsilon = self._seen(points, of_batch=of_batch), self.problem.epsilon
        return Side(seen, RowSide.of(seen, label_costs=self.label_costs, epsilon=epsilon))

    def judge(self, reference: Points) -> Judge:
        """One of the `Calibration.batches`."""
        seen, classes, epsilon = self._seen(reference), len(self.label_costs), self.problem.epsilon
        b = self._measure(seen)
        return Judge(seen, b, ColumnSide.of(seen, b, classes=classes, epsilon=epsilon))

    def _seen(self, points: Points, *, of_batch: bool = False) -> Points:
        weight = self.config.shift_weight * self.calibration.scale
        return self.shift.augment(points, weight=weight, of_batch=of_batch)

    def _measure(self, reference: Points) -> Float[Tensor, " m"]:
        if self.estimate:
            return reference_measure(reference, self.shares)
        return uniform(len(reference), reference.features)

    def transport(
        self, judges: Sequence[Judge], starts: Sequence[Tensor] | None, room: Room
    ) -> tuple[list[Transport], list[Float[Tensor, "n classes"]]]:
        """Pairs of the training batch, and the log masses S of its points under each."""
        if not self.compact:
            return self._transport_on_costs(judges, starts)
        tables = room.tables(len(self.own.points), [len(judge.b) for judge in judges], judges[0].b)
        kernels = [
            LabelledKernel(self.own.rows, judge.columns, epsilon=self.problem.epsilon, table=table)
            for judge, table in zip(judges, tables, strict=True)
        ]
        pairs = sweep(kernels, self.problem, starts or [torch.zeros_like(judge.b) for judge in judges])
        return pairs, [kernel.log_class_masses(pair.g) for kernel, pair in zip(kernels, pairs, strict=True)]

    def _transport_on_costs(
        self, judges: Sequence[Judge], starts: Sequence[Tensor] | None
    ) -> tuple[list[Transport], list[Float[Tensor, "n classes"]]]:
        """The same where kernels do not hold the costs of the labels."""
        pairs, masses = [], []
        for judge, start in zip(judges, starts or [None] * len(judges), strict=True):
            images = feature_cost(self.own.points.features, judge.points.features)
            cost = with_label_costs(images, self.own.points, judge.points, self.label_costs)
            pairs.append(solve(cost, uniform(len(cost), cost), judge.b, self.problem, start=start))
            masses.append(self._masses_of(images, judge, pairs[-1].g))
        return pairs, masses

    def held_out_masses(
        self, held_out: Side, judge: Judge, g: Tensor, itself: tuple[Tensor, Tensor], room: Room
    ) -> Float[Tensor, "h classes"]:
        """log S of reference points under this g; `itself` = rows and columns of pairs that are the same point."""
        if self.compact:
            table = room.tables(len(held_out.points), [len(judge.b)], judge.b)[0]
            kernel = LabelledKernel(
                held_out.rows, judge.columns, epsilon=self.problem.epsilon, itself=itself, table=table
            )
            kernel.absorb(g)
            masses = kernel.log_class_masses(g)
        else:
            images = feature_cost(held_out.points.features, judge.points.features)
            images[itself] = torch.inf
            masses = self._masses_of(images, judge, g)
        # What is left of the reference is a whole measure again.
        masses[itself[0]] -= torch.log1p(-judge.b[itself[1]])[:, None]
        return masses

    def by_label(self, log_masses: Float[Tensor, "n classes"], side: Side) -> Float[Tensor, "n classes"]:
        """f of points under every label."""
        potentials = potentials_by_label(log_masses, self.label_costs, epsilon=self.problem.epsilon)
        # A cost of the point and its label alone: it changes no plan and adds to the potential.
        # What it costs beyond the best label: that an image is hard to classify is no fault of its label.
        losses = known_of(side.points.label_losses)
        beyond = losses - losses.amin(1, keepdim=True)
        return potentials + self.nat * beyond

    def best_others(self, points: Points) -> tuple[Int64[Tensor, " n"], Float[Tensor, " n"]]:
        """The best known label of each point but its own to the reference set's own regressions, were its classes as
        frequent as in the batch, and by how much it beats all others, nats."""
        losses = known_of(points.reference_losses) - self.odds.clamp(min=SMALLEST).log().to(points.features)
        return best_other_labels(losses, points.labels, known=self.known)

    def _masses_of(self, images: Tensor, judge: Judge, g: Tensor) -> Float[Tensor, "n classes"]:
        """log S from the costs of the images."""
        classes, epsilon = len(self.label_costs), self.problem.epsilon
        return log_class_masses(images, g, judge.b.log(), judge.points.labels, classes=classes, epsilon=epsilon)


def known_of(said: Tensor | None) -> Tensor:
    """What a classifier says of points."""
    assert said is not None, "reference points come from Calibration.batches"
    return said
