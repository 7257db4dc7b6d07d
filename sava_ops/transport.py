"""Transport between batches (SAVA Algorithm 1, lines 1-5): potentials and costs of every pair.

    for each training batch i, reference batch j:   f_ij, C̄[i,j]  ←  OT_ε(μ_i, ν_j)

What all pairs share (W, the scale of the costs, a linear discriminant of the reference classes) is a `Calibration`,
computed once. Every pair of reference batch j starts from the same potential g_j. So a row of the batch matrix is a
function of its training batch, the reference and the calibration alone, whoever computes it and when.

Reference points go along with every training batch as if they belonged to it (each transported without itself): they
tell what clean points are worth there (`sava_ops.decisions.conformal`).

Differs from the authors' code in: 1. potential, plan and cost come from one problem on features (theirs: the plan on
pixels). 2. ε and ρ follow the scale of the costs (theirs: ε = 0.1 in raw units). 3. a stated tolerance (theirs: one
step per ε, unchecked). 4. unless told otherwise, the reference classes weigh what they weigh in the training batch
(`label_shift`), and the cost looks along a shift that part of the batch has (`covariate_shift`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from sava_ops.config import ValuationConfig
from sava_ops.decomposition import LabelPotentials, best_labels, log_class_masses, potentials_by_label, spared
from sava_ops.errors import BadInput
from sava_ops.ot.cost import Points, feature_cost, label_costs, mean_feature_cost, with_label_costs
from sava_ops.ot.label_distance import class_samples, label_distances
from sava_ops.ot.labelled_kernel import ColumnSide, LabelledKernel, Room, RowSide
from sava_ops.ot.sinkhorn import Problem, Transport, solve, sweep, uniform
from sava_ops.reference.covariate_shift import covariate_shift
from sava_ops.reference.discriminant import Discriminant, fit_discriminant
from sava_ops.reference.label_noise import LabelNoise, fit_label_noise
from sava_ops.reference.label_shift import estimated_shares, reference_measure

POOL_POINTS, POOL_POINTS_PER_CLASS = 16_384, 64
"""Training points from which the noise of their labels is learned: so many of all, and of a class if that is no more
than as many again."""
ENOUGH_TO_JUDGE = 2
"""Reference points of a class without which nobody knows what a right label of it costs."""
KERNELS = 3
"""Numbers held for each pair of points on a GPU: the kernel, its entropy, room for the rest."""


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

    @property
    def centre(self) -> Float[Tensor, " d"]:
        """Mean of the reference set. Distances do not see a common shift; without it, rounding does not see the norm of
        the mean."""
        return self.discriminant.shares @ self.discriminant.means

    def batches(self, reference: Points, rows: Sequence[Int64[np.ndarray, " _"]]) -> list[Points]:
        """The reference set in batches as `transport_row` takes them: each in order of its classes, around `centre`,
        with what a classifier thinks of the labels."""
        known = replace(
            reference,
            features=reference.features - self.centre.to(reference.features),
            label_losses=self.label_noise.joint_reference_losses,
        )
        chosen = [torch.from_numpy(own).to(reference.labels.device) for own in rows]
        return [known.take(own[reference.labels[own].argsort(stable=True)]) for own in chosen]


@dataclass(frozen=True)
class BatchRow:
    """One training batch of n points against L reference batches, and h reference points in its company."""

    labels: Int64[Tensor, "n T"]
    potentials: Float[Tensor, "n L T"]
    """f_ij of every point under its own label (first) and others, units of cost; see `LabelPotentials`."""
    judged: Bool[Tensor, " n"]
    """Whether the reference set knows enough of the point's label to judge it."""
    held_out_labels: Int64[Tensor, "h S"]
    held_out_potentials: Float[Tensor, "h L S"]
    """The same of the reference points."""
    held_out_weights: Float[Tensor, " h"]
    """How many of the training points each of them stands for: more of the classes that are frequent here; sum n."""
    weights: Float[Tensor, " n"]
    """How many a reference point of the same class stands for, by the images or by the labels, whichever is more; the
    mean for classes that the reference set lacks."""
    reference_points: Int64[Tensor, ""]
    """Size of the reference set."""
    nat: Float[Tensor, ""]
    """Price of one nat of the classifier's loss, units of cost."""
    other_labels: Int64[Tensor, ""]
    """Labels that a point could have instead of its own."""
    shift: Float[Tensor, ""]
    """How much of the batch's difference from the reference only a part of it has: t of `covariate_shift`, 0..1."""
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
    known = fit_discriminant(reference, classes=classes, seed=config.seed)
    labels, per_class = train.labels.cpu().numpy(), min(POOL_POINTS_PER_CLASS, POOL_POINTS // classes)
    rows = calibration_rows(labels, size=POOL_POINTS, per_class=per_class, seed=config.seed)
    pool = train.take(torch.from_numpy(rows).to(train.labels.device))
    return Calibration(
        label_distances=label_distances(*samples, classes=classes, divergence=config.label_metric == "divergence"),
        # Without any spread all costs are 0 and any unit will do.
        scale=mean_feature_cost(train.features, reference.features) or 1.0,
        sample=train.take(chosen),
        discriminant=known,
        label_noise=fit_label_noise(reference, pool, known, seed=config.seed),
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
    return [sample.transport([sample.judge(batch)], None, Room())[0][0].g for batch in reference_batches]


def transport_row(
    batch: Points,
    reference_batches: Sequence[Points],
    starts: Sequence[Tensor],
    calibration: Calibration,
    config: ValuationConfig,
    *,
    turn: int = 0,
    room: Room | None = None,
) -> BatchRow:
    """Solve one training batch against every one of the `Calibration.batches` (Alg. 1, l. 2-5).

    Different `turn`s take different reference points along, in turn all of them. Rows that are computed one after the
    other can share `room`. Raises BadInput if the device has no memory for a pair.
    """
    room = room or Room()
    frame, sizes = _Frame(batch, calibration, config), [len(b) for b in reference_batches]
    company = [rows.to(batch.labels.device) for rows in held_out_rows(sizes, config, turn=turn)]
    held_out = frame.side(_joined([b.take(rows) for b, rows in zip(reference_batches, company, strict=True)]))
    most_rows = max(len(batch), len(held_out.points))
    at_once = pairs_at_once(most_rows, max(sizes), batch.features, held=room.bytes) if frame.compact else 1
    solved, own, others, first = [], [], [], 0
    for start in range(0, len(sizes), at_once):
        some = slice(start, start + at_once)
        judges = [frame.judge(reference) for reference in reference_batches[some]]
        pairs, masses = frame.transport(judges, starts[some], room)
        solved += pairs
        own += [frame.by_label(own_masses, frame.own) for own_masses in masses]
        for judge, pair, taken in zip(judges, pairs, company[some], strict=True):
            itself = torch.arange(first, first + len(taken), device=taken.device), taken
            others.append(frame.by_label(frame.held_out_masses(held_out, judge, pair.g, itself, room), held_out))
            first += len(taken)
    masses = torch.tensor(sizes).to(batch.features)
    keep = partial(best_labels, batch_masses=masses / masses.sum(), known=frame.known)
    points, clean = (
        spared(keep(torch.stack(potentials, 1), labels), frame.judgeable)
        for potentials, labels in ((own, batch.labels), (others, held_out.points.labels))
    )
    return _row(points, clean, frame, held_out.points, solved)


def pairs_at_once(rows: int, columns: int, like: Tensor, *, held: int = 0) -> int:
    """How many batch pairs of this size are solved side by side: on a GPU as many as its free memory and the bytes
    `held` for them have room for, on a processor one, which stays in its cache. Raises BadInput where none has."""
    if like.device.type != "cuda":
        return 1
    reusable = torch.cuda.memory_reserved(like.device) - torch.cuda.memory_allocated(like.device)
    free = torch.cuda.mem_get_info(like.device)[0] + reusable + held
    needed = KERNELS * rows * columns * like.element_size()
    if needed > free:
        raise BadInput(
            f"a pair of batches of {rows:,} × {columns:,} points needs {needed / 1e9:.1f} GB of memory and "
            f"{like.device} has {free / 1e9:.1f} GB free: lower `batch_size`"
        )
    return free // needed


def held_out_rows(sizes: Sequence[int], config: ValuationConfig, *, turn: int) -> list[Int64[Tensor, " _"]]:
    """Rows of each reference batch that go along with a training batch; none if a batch would be left empty."""
    share = min(1.0, config.held_out_sample / sum(sizes)) if min(sizes) > 1 else 0.0
    chosen = []
    for number, size in enumerate(sizes):
        order = np.random.default_rng([config.seed, number]).permutation(size)
        count = round(share * size)
        chosen.append(torch.from_numpy(np.roll(order, -turn * count)[:count].copy()))
    return chosen


class _Side(NamedTuple):
    """Points as one training batch sees them, and as rows of its kernels."""

    points: Points
    rows: RowSide


class _Judge(NamedTuple):
    """A reference batch as one training batch sees it, its measure, and the columns of a kernel."""

    points: Points
    b: Tensor
    columns: ColumnSide


class _Frame:
    """How one training batch sees the reference: its class shares and its metric."""

    def __init__(self, batch: Points, calibration: Calibration, config: ValuationConfig) -> None:
        self.calibration, self.config, reference = calibration, config, calibration.discriminant
        losses, unit = reference.losses(batch.features), calibration.scale
        self.label_costs = label_costs(calibration.label_distances, config.label_weight)
        self.estimate = config.class_shares == "estimated"
        self.shares = estimated_shares(losses, reference) if self.estimate else reference.shares
        self.shift = covariate_shift(batch, losses.argmin(1), self.shares, reference)
        self.problem = Problem(config.epsilon * unit, config.rho * unit, config.tolerance, config.max_sweeps)
        self.compact = LabelledKernel.holds(self.label_costs, self.problem.epsilon)
        centred = batch.features - calibration.centre.to(batch.features)
        costs = calibration.label_noise.costs(batch.features, batch.labels)
        self.own = self.side(Points(centred, batch.labels, costs), of_batch=True)

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
        counts = (self.calibration.discriminant.shares * len(self.calibration.discriminant.reference_losses)).round()
        return (counts == 0) | (counts >= ENOUGH_TO_JUDGE)

    @property
    def odds(self) -> Float[Tensor, " classes"]:
        """How much more frequent a class is in the batch than in the reference set."""
        reference = self.calibration.discriminant.shares
        return torch.where(reference > 0, self.shares / reference.clamp(min=1e-300), 0.0)

    def side(self, points: Points, *, of_batch: bool = False) -> _Side:
        """Centred points, to be transported like those of the batch."""
        seen, epsilon = self._seen(points, of_batch=of_batch), self.problem.epsilon
        return _Side(seen, RowSide.of(seen, label_costs=self.label_costs, epsilon=epsilon))

    def judge(self, reference: Points) -> _Judge:
        """One of the `Calibration.batches`."""
        seen, classes, epsilon = self._seen(reference), len(self.label_costs), self.problem.epsilon
        b = self._measure(seen)
        return _Judge(seen, b, ColumnSide.of(seen, b, classes=classes, epsilon=epsilon))

    def _seen(self, points: Points, *, of_batch: bool = False) -> Points:
        weight = self.config.shift_weight * self.calibration.scale
        return self.shift.augment(points, weight=weight, of_batch=of_batch)

    def _measure(self, reference: Points) -> Float[Tensor, " m"]:
        if self.estimate:
            return reference_measure(reference, self.shares)
        return uniform(len(reference), reference.features)

    def transport(
        self, judges: Sequence[_Judge], starts: Sequence[Tensor] | None, room: Room
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
        self, judges: Sequence[_Judge], starts: Sequence[Tensor] | None
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
        self, held_out: _Side, judge: _Judge, g: Tensor, itself: tuple[Tensor, Tensor], room: Room
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

    def by_label(self, log_masses: Float[Tensor, "n classes"], side: _Side) -> Float[Tensor, "n classes"]:
        """f of points under every label."""
        potentials = potentials_by_label(log_masses, self.label_costs, epsilon=self.problem.epsilon)
        # A cost of the point and its label alone: it changes no plan and adds to the potential.
        # What it costs beyond the best label: that an image is hard to classify is no fault of its label.
        losses = _losses(side.points)
        beyond = losses - losses.amin(1, keepdim=True)
        return potentials + self.config.classifier_weight * self.calibration.scale * beyond

    def _masses_of(self, images: Tensor, judge: _Judge, g: Tensor) -> Float[Tensor, "n classes"]:
        """log S from the costs of the images."""
        classes, epsilon = len(self.label_costs), self.problem.epsilon
        return log_class_masses(images, g, judge.b.log(), judge.points.labels, classes=classes, epsilon=epsilon)


def _joined(parts: Sequence[Points]) -> Points:
    sides = [part.features for part in parts], [part.labels for part in parts], [_losses(part) for part in parts]
    return Points(*map(torch.cat, sides))


def _losses(points: Points) -> Tensor:
    assert points.label_losses is not None, "reference points come from Calibration.batches"
    return points.label_losses


def _row(
    points: LabelPotentials, clean: LabelPotentials, frame: _Frame, held_out: Points, solved: Sequence[Transport]
) -> BatchRow:
    like = points.potentials
    weights = frame.odds[held_out.labels]
    unit = len(points.labels) / weights.sum() if len(weights) else 1.0
    given, known = points.labels[:, 0], frame.calibration.discriminant
    size = len(known.reference_losses)
    counts = (known.shares * size)[given]
    by_label = torch.bincount(given)[given] / counts.clamp(min=1) * size / max(len(weights), 1)
    own = torch.maximum(frame.odds[given] * unit, by_label)
    return BatchRow(
        labels=points.labels,
        potentials=points.potentials,
        judged=frame.judgeable[points.labels[:, 0]],
        held_out_labels=clean.labels,
        held_out_potentials=clean.potentials,
        held_out_weights=(weights * unit).to(like.dtype),
        weights=torch.where(counts > 0, own, len(given) / max(len(weights), 1)).to(like.dtype),
        reference_points=torch.tensor(size),
        nat=like.new_tensor(frame.config.classifier_weight * frame.calibration.scale),
        other_labels=(frame.known.sum() - 1).clamp(min=0),
        shift=frame.shift.size.to(like.dtype),
        costs=like.new_tensor([pair.cost for pair in solved]),
        marginal_errors=like.new_tensor([pair.marginal_error for pair in solved]),
        sweeps=torch.tensor([pair.sweeps for pair in solved]),
        converged=torch.tensor([pair.converged for pair in solved]),
    )
