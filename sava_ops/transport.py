"""Transport between batches (SAVA Algorithm 1, lines 1-5): potentials and costs of every pair.

    for each training batch i, reference batch j:   f_ij, C̄[i,j]  ←  OT_ε(μ_i, ν_j)

What all pairs share (W, the scale of the costs, a linear discriminant of the reference classes) is a `Calibration`,
computed once. Every pair of reference batch j starts from the same potential g_j. So a row of the batch matrix is a
function of its training batch, the reference and the calibration alone, whoever computes it and when.

Reference points go along with every training batch as if they belonged to it (each transported without itself): they
tell what clean points are worth there (`sava_ops.conformal`).

Differs from the authors' code in: 1. potential, plan and cost come from one problem on features (theirs: the plan on
pixels). 2. ε and ρ follow the scale of the costs (theirs: ε = 0.1 in raw units). 3. a stated tolerance (theirs: one
step per ε, unchecked). 4. unless told otherwise, the reference classes weigh what they weigh in the training batch
(`label_shift`), and the cost looks along the batch's systematic shift (`covariate_shift`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from sava_ops.config import ValuationConfig
from sava_ops.cost import Points, feature_cost, label_costs, mean_feature_cost, with_label_costs
from sava_ops.covariate_shift import covariate_shift
from sava_ops.decomposition import LabelPotentials, best_labels, log_class_masses, potentials_by_label
from sava_ops.discriminant import Discriminant, fit_discriminant
from sava_ops.label_distance import class_samples, label_distances
from sava_ops.label_shift import estimated_shares, reference_measure
from sava_ops.labelled_kernel import LabelledKernel
from sava_ops.sinkhorn import Problem, Transport, solve, sweep, uniform


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

    def known(self, reference: Points) -> Points:
        """The reference points as `transport_row` takes them: with what a classifier thinks of their labels."""
        return replace(reference, label_losses=self.discriminant.reference_losses)


@dataclass(frozen=True)
class BatchRow:
    """One training batch of n points against L reference batches, and h reference points in its company."""

    labels: Int64[Tensor, "n T"]
    potentials: Float[Tensor, "n L T"]
    """f_ij of every point under its own label (first) and others, units of cost; see `LabelPotentials`."""
    held_out_labels: Int64[Tensor, "h S"]
    held_out_potentials: Float[Tensor, "h L S"]
    """The same of the reference points."""
    held_out_weights: Float[Tensor, " h"]
    """How many of the training points each of them stands for: more of the classes that are frequent here; sum n."""
    shift: Float[Tensor, ""]
    """How much of the batch's difference from the reference is systematic: t of `covariate_shift`, 0..1."""
    costs: Float[Tensor, " L"]
    """C̄[i, :], units of cost."""
    marginal_errors: Float[Tensor, " L"]
    """L1 error of the second marginal."""
    sweeps: Int64[Tensor, " L"]
    converged: Bool[Tensor, " L"]


def calibrate(train: Points, reference: Points, *, classes: int, config: ValuationConfig) -> Calibration:
    """W, scale and starting sample, from (a sample of) the training points and the whole reference set."""
    samples = [class_samples(side, cap=config.class_sample, seed=config.seed) for side in (train, reference)]
    generator = torch.Generator().manual_seed(config.seed)
    chosen = torch.randperm(len(train), generator=generator)[: config.calibration_sample].to(train.labels.device)
    return Calibration(
        label_distances=label_distances(*samples, classes=classes, metric=config.label_metric),
        # Without any spread all costs are 0 and any unit will do.
        scale=mean_feature_cost(train.features, reference.features) or 1.0,
        sample=train.take(chosen),
        discriminant=fit_discriminant(reference, classes=classes, seed=config.seed),
    )


def calibration_rows(
    labels: Int64[np.ndarray, " N"], *, size: int, per_class: int, seed: int
) -> Int64[np.ndarray, " n"]:
    """Rows of a seeded sample to calibrate from: `size` points of the pool, and `per_class` of every class.

    A pool of at most `size` points is its own sample.
    """
    order = np.random.default_rng(seed).permutation(len(labels))
    rank_in_class = np.empty(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        members = order[labels[order] == label]
        rank_in_class[members] = np.arange(len(members))
    chosen = rank_in_class < per_class
    chosen[order[:size]] = True
    return chosen.nonzero()[0]


def starting_potentials(
    reference_batches: Sequence[Points], calibration: Calibration, config: ValuationConfig
) -> list[Float[Tensor, " _"]]:
    """One warm start (m_j,) per reference batch: the second potential against the calibration's sample."""
    sample = _Frame(calibration.sample, calibration, config)
    return [sample.transport(sample.view(batch), None, None)[0].g for batch in reference_batches]


def transport_row(
    batch: Points,
    reference_batches: Sequence[Points],
    starts: Sequence[Tensor],
    calibration: Calibration,
    config: ValuationConfig,
    *,
    turn: int = 0,
) -> BatchRow:
    """Solve one training batch against every reference batch of `Calibration.known` points (Alg. 1, l. 2-5).

    Different `turn`s take different reference points along, in turn all of them.
    """
    frame = _Frame(batch, calibration, config)
    rows = held_out_rows([len(b) for b in reference_batches], config, turn=turn)
    held_out = frame.view(
        _joined([b.take(r.to(b.labels.device)) for b, r in zip(reference_batches, rows, strict=True)])
    )
    buffer = batch.features.new_empty(max(len(batch), len(held_out)) * max(map(len, reference_batches)))
    solved, own, others, first = [], [], [], 0
    for reference, start, taken in zip(reference_batches, starts, rows, strict=True):
        seen = frame.view(reference)
        pair, masses = frame.transport(seen, start, buffer)
        solved.append(pair)
        own.append(frame.by_label(masses, frame.points))
        itself = torch.arange(first, first + len(taken), device=batch.labels.device), taken.to(batch.labels.device)
        masses = frame.held_out_masses(held_out, seen, pair.g, itself, buffer)
        others.append(frame.by_label(masses, held_out))
        first += len(taken)
    masses = torch.tensor([float(len(b)) for b in reference_batches]).to(batch.features)
    keep = partial(best_labels, batch_masses=masses / masses.sum(), known=frame.known)
    points, clean = keep(torch.stack(own, 1), batch.labels), keep(torch.stack(others, 1), held_out.labels)
    return _row(points, clean, frame, held_out, solved)


def held_out_rows(sizes: Sequence[int], config: ValuationConfig, *, turn: int) -> list[Int64[Tensor, " _"]]:
    """Rows of each reference batch that go along with a training batch; none if a batch would be left empty."""
    share = min(1.0, config.held_out_sample / sum(sizes)) if min(sizes) > 1 else 0.0
    chosen = []
    for number, size in enumerate(sizes):
        order = np.random.default_rng([config.seed, number]).permutation(size)
        count = round(share * size)
        chosen.append(torch.from_numpy(np.roll(order, -turn * count)[:count].copy()))
    return chosen


class _Frame:
    """How one training batch sees the reference: its class shares and its metric."""

    def __init__(self, batch: Points, calibration: Calibration, config: ValuationConfig) -> None:
        self.calibration, self.config, reference = calibration, config, calibration.discriminant
        losses = reference.losses(batch.features)
        self.centre = (reference.shares @ reference.means).to(batch.features)
        self.label_costs = label_costs(calibration.label_distances, config.label_weight)
        self.estimate = config.class_shares == "estimated"
        self.shares = estimated_shares(losses, reference) if self.estimate else reference.shares
        self.shift = covariate_shift(batch, self.shares, reference)
        self.points = self.view(replace(batch, label_losses=losses))
        unit = calibration.scale
        self.problem = Problem(config.epsilon * unit, config.rho * unit, config.tolerance, config.max_sweeps)
        self.compact = LabelledKernel.holds(self.label_costs, self.problem.epsilon)

    @property
    def known(self) -> Bool[Tensor, " classes"]:
        """Labels that may be suggested: the reference set has them, and their distances are known."""
        present = self.calibration.discriminant.shares > 0
        return present & ~self.calibration.label_distances[:, present].isnan().any(1)

    @property
    def odds(self) -> Float[Tensor, " classes"]:
        """How much more frequent a class is in the batch than in the reference set."""
        reference = self.calibration.discriminant.shares
        return torch.where(reference > 0, self.shares / reference.clamp(min=1e-300), 0.0)

    def view(self, points: Points) -> Points:
        # Distances do not see a common shift; without it, rounding does not see the norm of the mean.
        centred = replace(points, features=points.features - self.centre)
        return self.shift.augment(centred, weight=self.config.shift_weight * self.calibration.scale)

    def measure(self, reference: Points) -> Float[Tensor, " m"]:
        if self.estimate:
            return reference_measure(reference, self.shares)
        return uniform(len(reference), reference.features)

    def transport(
        self, seen: Points, start: Tensor | None, buffer: Tensor | None
    ) -> tuple[Transport, Float[Tensor, "n classes"]]:
        """One pair, and the log masses S of its training points."""
        b = self.measure(seen)
        if self.compact:
            kernel = self._kernel(self.points, seen, b, None, buffer)
            pair = sweep(kernel, self.problem, torch.zeros_like(b) if start is None else start)
            return pair, kernel.log_class_masses(pair.g)
        images = feature_cost(self.points.features, seen.features)
        cost = with_label_costs(images, self.points, seen, self.label_costs)
        pair = solve(cost, uniform(len(cost), cost), b, self.problem, start=start)
        return pair, self._masses_of(images, seen, b, pair.g)

    def held_out_masses(
        self, points: Points, seen: Points, g: Tensor, itself: tuple[Tensor, Tensor], buffer: Tensor
    ) -> Float[Tensor, "n classes"]:
        """log S of reference points under this g; `itself` = rows and columns of pairs that are the same point."""
        b = self.measure(seen)
        if self.compact:
            kernel = self._kernel(points, seen, b, itself, buffer)
            kernel.absorb(g)
            masses = kernel.log_class_masses(g)
        else:
            images = feature_cost(points.features, seen.features)
            images[itself] = torch.inf
            masses = self._masses_of(images, seen, b, g)
        # What is left of the reference is a whole measure again.
        masses[itself[0]] -= torch.log1p(-b[itself[1]])[:, None]
        return masses

    def by_label(self, log_masses: Float[Tensor, "n classes"], points: Points) -> Float[Tensor, "n classes"]:
        """f of points under every label."""
        potentials = potentials_by_label(log_masses, self.label_costs, epsilon=self.problem.epsilon)
        # A cost of the point and its label alone: it changes no plan and adds to the potential.
        return potentials + self.config.classifier_weight * self.calibration.scale * _losses(points)

    def _kernel(
        self, points: Points, seen: Points, b: Tensor, itself: tuple[Tensor, Tensor] | None, buffer: Tensor | None
    ) -> LabelledKernel:
        costs, epsilon = self.label_costs, self.problem.epsilon
        return LabelledKernel(points, seen, b, label_costs=costs, epsilon=epsilon, itself=itself, buffer=buffer)

    def _masses_of(self, images: Tensor, seen: Points, b: Tensor, g: Tensor) -> Float[Tensor, "n classes"]:
        """log S from the costs of the images."""
        classes, epsilon = len(self.label_costs), self.problem.epsilon
        return log_class_masses(images, g, b.log(), seen.labels, classes=classes, epsilon=epsilon)


def _joined(parts: Sequence[Points]) -> Points:
    sides = [part.features for part in parts], [part.labels for part in parts], [_losses(part) for part in parts]
    return Points(*map(torch.cat, sides))


def _losses(points: Points) -> Tensor:
    assert points.label_losses is not None, "reference points come from Calibration.known"
    return points.label_losses


def _row(
    points: LabelPotentials, clean: LabelPotentials, frame: _Frame, held_out: Points, solved: Sequence[Transport]
) -> BatchRow:
    like = points.potentials
    weights = frame.odds[held_out.labels]
    return BatchRow(
        labels=points.labels,
        potentials=points.potentials,
        held_out_labels=clean.labels,
        held_out_potentials=clean.potentials,
        held_out_weights=(weights * (len(points.labels) / weights.sum())).to(like.dtype),
        shift=frame.shift.size.to(like.dtype),
        costs=like.new_tensor([pair.cost for pair in solved]),
        marginal_errors=like.new_tensor([pair.marginal_error for pair in solved]),
        sweeps=torch.tensor([pair.sweeps for pair in solved]),
        converged=torch.tensor([pair.converged for pair in solved]),
    )
