"""Transport between batches (SAVA Algorithm 1, lines 1-5): potentials and costs of every pair.

    for each training batch i, reference batch j:   f_ij, C̄[i,j]  ←  OT_ε(μ_i, ν_j)

What all pairs share is a `Calibration`, computed once. Every pair of reference batch j starts from the same potential
g_j. So a row of the batch matrix is a function of its training batch, the reference and the calibration alone, whoever
computes it and when.

Reference points go along with every training batch as if they belonged to it (each transported without itself): they
tell what clean points are worth there (`sava_ops.decisions.conformal`).

Differs from the authors' code in: 1. potential, plan and cost come from one problem on features (theirs: the plan on
pixels). 2. ε and ρ follow the scale of the costs (theirs: ε = 0.1 in raw units). 3. a stated tolerance (theirs: one
step per ε, unchecked). 4. unless told otherwise, the reference classes weigh what they weigh in the training batch
(`label_shift`), and the cost looks along a shift that part of the batch has (`covariate_shift`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from sava_ops.calibration import Calibration
from sava_ops.config import ValuationConfig
from sava_ops.decomposition import LabelPotentials, best_labels, spared, together
from sava_ops.errors import BadInput
from sava_ops.frame import Frame, known_of
from sava_ops.ot.cost import Points
from sava_ops.ot.labelled_kernel import Room
from sava_ops.ot.sinkhorn import Transport
from sava_ops.reference.density_ratio import told_apart

KERNELS = 3
"""Numbers held for each pair of points on a GPU: the kernel, its entropy, room for the rest."""


@dataclass(frozen=True)
class BatchRow:
    """One training batch of n points against L reference batches, and h reference points in its company."""

    labels: Int64[Tensor, "n T"]
    potentials: Float[Tensor, "n L T"]
    """f_ij of every point under its own label (first) and others, units of cost; see `LabelPotentials`."""
    rest: Float[Tensor, "n L"]
    """r of all further labels."""
    judged: Bool[Tensor, " n"]
    """Whether the reference set knows enough of the point's label to judge it."""
    held_out_labels: Int64[Tensor, "h S"]
    held_out_potentials: Float[Tensor, "h L S"]
    """The same of the reference points; the last label is one that the pool's people may have given them by mistake."""
    held_out_rest: Float[Tensor, "h L"]
    held_out_rest_if_mistaken: Float[Tensor, "h L"]
    """Under that last label instead of their own."""
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
    log_ratios: Float[Tensor, " n"]
    """How much likelier each image is of the pool than of the reference set: z of `density_ratio`, nats."""
    held_out_log_ratios: Float[Tensor, " h"]
    """The same of the reference points."""
    reference_labels: Int64[Tensor, " n"]
    """The best label but the given one to a classifier that has learned from the reference set alone."""
    reference_margins: Float[Tensor, " n"]
    """By how much it is better than all others, nats; below 0 where the given one is better still."""
    held_out_reference_margins: Float[Tensor, " h"]
    """The same of the reference points."""
    told_apart: Float[Tensor, ""]
    """How well z tells the batch from a reference with its class shares, 0..1; see `density_ratio.told_apart`."""
    costs: Float[Tensor, " L"]
    """C̄[i, :], units of cost."""
    marginal_errors: Float[Tensor, " L"]
    """L1 error of the second marginal."""
    sweeps: Int64[Tensor, " L"]
    converged: Bool[Tensor, " L"]


def starting_potentials(
    reference_batches: Sequence[Points], calibration: Calibration, config: ValuationConfig
) -> list[Float[Tensor, " _"]]:
    """One warm start (m_j,) per reference batch: the second potential against the calibration's sample."""
    sample = Frame(calibration.sample, calibration, config)
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
    held_out_of: Sequence[Int64[Tensor, " _"]] | None = None,
) -> BatchRow:
    """Solve one training batch against every one of the `Calibration.batches` (Alg. 1, l. 2-5).

    Different `turn`s take different reference points along, in turn all of them; or, of each batch, those rows that are
    in `held_out_of`: the others judge, and what clean points look like is not asked of them. Rows that are computed one
    after the other can share `room`. Raises BadInput if the device has no memory for a pair.
    """
    room = room or Room()
    batch = calibration.seen(batch)
    frame, sizes = Frame(batch, calibration, config), [len(b) for b in reference_batches]
    of = None if held_out_of is None else [len(rows) for rows in held_out_of]
    company = [rows.to(batch.labels.device) for rows in held_out_rows(sizes, config, turn=turn, of=of)]
    if held_out_of is not None:
        company = [of_batch[rows] for of_batch, rows in zip(held_out_of, company, strict=True)]
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
    keep = partial(best_labels, batch_masses=masses / masses.sum(), known=frame.known, nat=frame.nat)
    given, drawn = held_out.points.labels, mistakes(held_out.points.labels, calibration, seed=[config.seed, turn])
    of_clean = torch.stack(others, 1)
    points, clean = (
        spared(kept, frame.judgeable)
        for kept in (keep(torch.stack(own, 1), batch.labels), keep(of_clean, given, mistakes=drawn))
    )
    excess = calibration.label_noise.excess.mean(0).to(of_clean)
    under_drawn = of_clean + frame.nat * (excess[:, drawn] - excess[:, given]).T[:, None]
    if_mistaken = together(under_drawn, clean.labels, known=frame.known, nat=frame.nat)
    asked = None
    if held_out_of is not None:
        labels = torch.cat([b.labels[rows] for b, rows in zip(reference_batches, held_out_of, strict=True)])
        asked = torch.bincount(labels, minlength=len(frame.odds)).to(frame.odds)
    apart = _told_apart(frame, reference_batches)
    return _row(points, clean, if_mistaken, frame, held_out.points, solved, apart, asked)


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


def held_out_rows(
    sizes: Sequence[int], config: ValuationConfig, *, turn: int, of: Sequence[int] | None = None
) -> list[Int64[Tensor, " _"]]:
    """Rows of each reference batch that go along with a training batch, of so many as `of` says or of all; none if a
    batch would be left empty."""
    of = sizes if of is None else of
    share = min(1.0, config.held_out_sample / max(sum(of), 1)) if min(sizes) > 1 else 0.0
    chosen = []
    for number, size in enumerate(of):
        order = np.random.default_rng([config.seed, number]).permutation(size)
        count = round(share * size)
        chosen.append(torch.from_numpy(np.roll(order, -turn * count)[:count].copy()))
    return chosen


def mistakes(labels: Int64[Tensor, " n"], calibration: Calibration, *, seed: Sequence[int]) -> Int64[Tensor, " n"]:
    """A wrong label for each point of these classes, drawn as the pool's people are mistaken; its own, where nobody can
    be."""
    likely = calibration.label_noise.confusions.mean(0).double()[labels].scatter(1, labels[:, None], 0.0).cumsum(1)
    chance = torch.from_numpy(np.random.default_rng(seed).random(len(labels))).to(likely)[:, None]
    drawn = (likely <= chance * likely[:, -1:]).sum(1)
    return torch.where(likely[:, -1] > 0, drawn.clamp(max=likely.shape[1] - 1), labels)


def _joined(parts: Sequence[Points]) -> Points:
    said = [
        [known_of(own) for own in (part.label_losses, part.reference_losses, part.log_ratios, part.left_out)]
        for part in parts
    ]
    sides = zip(*((part.features, part.labels, *own) for part, own in zip(parts, said, strict=True)), strict=True)
    return Points(*(torch.cat(side) for side in sides))


def _told_apart(frame: Frame, reference_batches: Sequence[Points]) -> Float[Tensor, ""]:
    """The batch from all reference points, which count as much as their classes do in its company."""
    of_reference = torch.cat([known_of(batch.log_ratios) for batch in reference_batches])
    weights = torch.cat([frame.odds[batch.labels] for batch in reference_batches])
    return told_apart(known_of(frame.own.points.log_ratios), of_reference, weights)


def _row(
    points: LabelPotentials,
    clean: LabelPotentials,
    if_mistaken: Float[Tensor, "h L"],
    frame: Frame,
    held_out: Points,
    solved: Sequence[Transport],
    apart: Tensor,
    asked: Float[Tensor, " classes"] | None,
) -> BatchRow:
    """`asked` = points of each class that may go along, where these are not all."""
    like, odds, known = points.potentials, frame.odds, frame.calibration.discriminant
    if asked is not None:  # a class of which fewer may go along than judge is seldom among them
        odds = odds * torch.where(asked > 0, known.shares / (asked / asked.sum()).clamp(min=1e-300), 0.0)
    weights = odds[held_out.labels]
    unit = len(points.labels) / weights.sum() if len(weights) else 1.0
    given = points.labels[:, 0]
    size = len(known.reference_losses) if asked is None else int(asked.sum())
    counts = (known.counts if asked is None else asked)[given]
    by_label = torch.bincount(given)[given] / counts.clamp(min=1) * size / max(len(weights), 1)
    own = torch.maximum(odds[given] * unit, by_label)
    labels, margins = frame.best_others(frame.own.points)
    return BatchRow(
        labels=points.labels,
        potentials=points.potentials,
        rest=points.rest,
        judged=frame.judgeable[points.labels[:, 0]],
        held_out_labels=clean.labels,
        held_out_potentials=clean.potentials,
        held_out_rest=clean.rest,
        held_out_rest_if_mistaken=if_mistaken,
        held_out_weights=(weights * unit).to(like.dtype),
        weights=torch.where(counts > 0, own, len(given) / max(len(weights), 1)).to(like.dtype),
        reference_points=torch.tensor(size),
        nat=like.new_tensor(frame.nat),
        other_labels=(frame.known.sum() - 1).clamp(min=0),
        shift=frame.shift.size.to(like.dtype),
        log_ratios=known_of(frame.own.points.log_ratios),
        held_out_log_ratios=known_of(held_out.log_ratios),
        reference_labels=labels,
        reference_margins=margins,
        held_out_reference_margins=frame.best_others(held_out)[1],
        told_apart=apart.to(like.dtype),
        costs=like.new_tensor([pair.cost for pair in solved]),
        marginal_errors=like.new_tensor([pair.marginal_error for pair in solved]),
        sweeps=torch.tensor([pair.sweeps for pair in solved]),
        converged=torch.tensor([pair.converged for pair in solved]),
    )
