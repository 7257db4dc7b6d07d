"""From batch pairs to point values (SAVA Algorithm 1, lines 6-10; Eq. 6-13). The front door is `value_points`.

    g_ij[k] = f_ij[k] − (1/(n_i − 1)) Σ_{k'≠k} f_ij[k']                    calibrated gradient (Eq. 6, 14)
    π̄       = entropic plan between batches, cost C̄, masses a_i = n_i/N and b_j = m_j/M    (Eq. 7, 9-11)
    s_k     = Σ_j (π̄[i,j] / a_i) g_ij[k]     for point k of batch i        (Eq. 12-13)

High value = far from the reference distribution = prune first. The same sum over the potentials of other labels says
whether the image or its label is to blame (`sava_ops.decomposition`); the values of held-out reference points, what is
usual for clean ones (`sava_ops.decisions.conformal`).

Differs from the authors' code in: 1. the batch plan has the batches' masses as marginals (theirs: all ones).
2. dividing by a_i makes batches of different sizes comparable. 3. no tanh.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

from sava_ops.batches import split_batches
from sava_ops.calibration import calibrate
from sava_ops.config import ValuationConfig
from sava_ops.decisions.assessment import Assessment
from sava_ops.decisions.conformal import (
    clean_probability,
    conformal_p_values,
    effective_count,
    suggestion_confidence,
)
from sava_ops.decisions.evidence import EVEN_ODDS, Evidence, MistakenOdds, Side, against_label, weigh
from sava_ops.decisions.shares import Mistaken, Seen, bad_points, beyond_chance, expected_bad
from sava_ops.decomposition import Scores, decompose, odds_if_mistaken
from sava_ops.inputs import Array, as_points, class_count, in_their_span
from sava_ops.ot.cost import Points
from sava_ops.ot.labelled_kernel import Room
from sava_ops.ot.sinkhorn import Problem, solve
from sava_ops.reference.label_noise import LabelNoise
from sava_ops.threads import in_threads
from sava_ops.transport import BatchRow, starting_potentials, transport_row

PLAN_TOLERANCE = 1e-6


@dataclass(frozen=True)
class Valuation(Assessment):
    """Values of N training points, and the batch-level transport (K × L batches) they come from."""

    batch_costs: Float[np.ndarray, "K L"]
    """C̄, units of cost."""
    batch_plan: Float[np.ndarray, "K L"]
    """π̄, total mass 1."""
    label_distances: Float[np.ndarray, "classes classes"]
    """W (training class, reference class), squared feature units; NaN where a side lacks the class."""
    converged: Bool[np.ndarray, "K L"]
    """Whether each batch pair met its tolerance."""
    train_batches: list[Int64[np.ndarray, " _"]]
    """Rows of the training points in each of the K batches."""
    reference_batches: list[Int64[np.ndarray, " _"]]
    """Rows of the reference points in each of the L batches."""


@dataclass(frozen=True)
class BatchPlan:
    """The transport between batches (Alg. 1, l. 6)."""

    plan: Float[np.ndarray, "K L"]
    """π̄, total mass 1, rows summing to a."""
    weights: Float[np.ndarray, "K L"]
    """How much each reference batch counts for a training batch; rows sum to 1. π̄[i,j]/a_i, or 1/L."""
    batch_gradient: Float[np.ndarray, " K"]
    """G_i, calibrated gradient of the batch mass (Eq. 10), units of cost; 0 unless `hierarchical`."""
    marginal_error: float
    """L1 error of the second marginal."""
    converged: bool


def value_points(
    train_features: Array,
    train_labels: Array,
    reference_features: Array,
    reference_labels: Array,
    *,
    config: ValuationConfig = ValuationConfig(),  # noqa: B008 (frozen)
    device: str = "cpu",
) -> Valuation:
    """Value every training point by how far it pulls the training distribution from the reference (Alg. 1).

    Features are (N, d) and (M, d), labels (N,) and (M,) integers ≥ 0 that mean the same class on both sides; numpy or
    torch. float64 features are computed in float64, all others in float32. Raises BadInput for anything else.
    """
    train = as_points(train_features, train_labels, side="training", unit_norm=config.unit_norm, device=device)
    reference = as_points(
        reference_features, reference_labels, side="reference", unit_norm=config.unit_norm, device=device
    )
    classes = class_count(train, reference)
    train, reference = in_their_span(train, reference)
    train_rows, reference_rows = (split_points(side, config) for side in (train, reference))
    calibration = calibrate(train, reference, classes=classes, config=config)
    reference_batches = calibration.batches(reference, reference_rows)
    starts = starting_potentials(reference_batches, calibration, config)
    room = Room()

    def row(batch: tuple[int, np.ndarray]) -> BatchRow:
        turn, own = batch
        points = train.take(torch.from_numpy(own).to(device))
        return transport_row(points, reference_batches, starts, calibration, config, turn=turn, room=room)

    rows = list((in_threads if device == "cpu" else map)(row, enumerate(train_rows)))
    costs = torch.stack([row.costs for row in rows]).double().cpu().numpy()
    plan = plan_batches(costs, [len(rows) for rows in train_rows], [len(rows) for rows in reference_rows], config)
    order = np.concatenate(train_rows).argsort()
    return Valuation(
        **{
            name: array[order]
            for name, array in vars(assess(rows, plan, config, noise=calibration.label_noise)).items()
        },
        batch_costs=costs,
        batch_plan=plan.plan,
        label_distances=calibration.label_distances.double().cpu().numpy(),
        converged=torch.stack([row.converged for row in rows]).numpy(),
        train_batches=train_rows,
        reference_batches=reference_rows,
    )


def assess(
    rows: Iterable[BatchRow],
    plan: BatchPlan,
    config: ValuationConfig,
    *,
    noise: LabelNoise,
    further: tuple[Float[np.ndarray, " N"], Float[np.ndarray, " H"]] | None = None,
) -> Assessment:
    """Values of all points, batch after batch (Alg. 1, l. 7-10), held against those of the reference points.

    `noise`, of the calibration that the rows were made with, says which labels are given by mistake.
    `further` is evidence of another kind against the images (`decisions.quality`), nats: of all points, and of the
    reference points that went along, batch after batch. It counts where the configuration has a classifier, without
    which evidence has another unit.
    """
    said = _said(rows, plan, config, noise)
    found, usual, weights = said.of_pool, said.of_clean, said.of_clean["weights"]
    evidence, usual_evidence, expected = Evidence(found["values"], found["feature_values"]), usual["values"], None
    damaged = np.zeros(len(found["values"]), bool)
    if said.nat > 0 and len(weights):
        evidence, of_clean, expected = _weighed(said, further)
        usual_evidence = of_clean.total
        damaged = evidence.image > EVEN_ODDS
    known = found["judged"]  # what nobody can judge is not doubted
    # A reference point that went along with several batches is still one.
    own = found["weights"] * max(1.0, len(weights) / said.reference_points)
    p_values = np.where(known, conformal_p_values(evidence.total, usual_evidence, weights, own=own), 1.0)
    if expected is None:
        expected = beyond_chance(p_values, judges=effective_count(weights, points=said.reference_points))
    expected = np.where(known, expected, 0.0)
    bad = bad_points(expected)
    suggested, confidence = _suggestions(found, usual, damaged)
    return Assessment(
        **{name: found[name] for name in ("values", "feature_values", "label_values")},
        suggested_labels=suggested,
        confidence=confidence,
        p_values=p_values,
        clean_probability=np.where(known, clean_probability(evidence.total, usual_evidence, weights, bad=bad), 1.0),
        evidence=evidence.total,
        image_evidence=evidence.image,
        expected_bad=expected,
    )


class _Said(NamedTuple):
    """What the rows of all batches say: numbers of the points by name, batch after batch."""

    of_pool: dict[str, np.ndarray]
    of_clean: dict[str, np.ndarray]
    """Of the reference points that went along."""
    of_mistaken: dict[str, np.ndarray] | None
    """Of the same under wrong labels; None where there is no other label, or nothing that judges labels."""
    nat: float
    """Price of a nat, units of cost; 0 without a classifier."""
    other_labels: int
    reference_points: int
    """Size of the reference set."""


def _said(rows: Iterable[BatchRow], plan: BatchPlan, config: ValuationConfig, noise: LabelNoise) -> _Said:
    points, clean, mistaken = [], [], []
    nat, other_labels, reference_points = 0.0, 0, 1
    for i, row in enumerate(rows):
        nat, other_labels, reference_points = float(row.nat), int(row.other_labels), int(row.reference_points)
        scores, of_clean = batch_scores(row, plan, i, config)
        points.append(
            _arrays(
                scores,
                given=row.labels[:, 0],
                weights=row.weights,
                judged=row.judged,
                log_ratios=row.log_ratios,
                reference_labels=row.reference_labels,
                reference_margins=row.reference_margins,
            )
        )
        clean.append(
            _arrays(
                of_clean,
                given=row.held_out_labels[:, 0],
                weights=row.held_out_weights,
                log_ratios=row.held_out_log_ratios,
                reference_margins=row.held_out_reference_margins,
            )
        )
        if nat > 0 and row.held_out_labels.shape[1] > 1:
            mistaken.append(_mistaken(row, plan, i, config, noise))
    of_mistaken = _joined(mistaken) if mistaken else None
    return _Said(_joined(points), _joined(clean), of_mistaken, nat, other_labels, reference_points)


def _weighed(
    said: _Said, further: tuple[Float[np.ndarray, " N"], Float[np.ndarray, " H"]] | None
) -> tuple[Evidence, Evidence, Float[np.ndarray, " N"] | None]:
    """Evidence against the points and against the clean ones, and how many of the points are bad where it is known what
    mistaken ones look like."""
    found, usual, wrong, weights = said.of_pool, said.of_clean, said.of_mistaken, said.of_clean["weights"]
    pool, held_out = (
        Side(side["feature_values"] + said.nat * side["log_ratios"], side["label_odds"]) for side in (found, usual)
    )
    as_mistaken = None if wrong is None else MistakenOdds(wrong["odds"], weights * wrong["masses"])
    different = said.reference_points
    evidence, of_clean, prior = weigh(
        pool, held_out, weights, as_mistaken, other_labels=said.other_labels, reference_points=different
    )
    if further is not None:
        evidence, of_clean = (own.with_further(f) for own, f in zip((evidence, of_clean), further, strict=True))
    if wrong is None:
        return evidence, of_clean, None
    expected = expected_bad(
        Seen(evidence.image, evidence.label, found["given"]),
        Seen(of_clean.image, of_clean.label, usual["given"]),
        weights,
        Mistaken(against_label(wrong["odds"], prior), wrong["labels"], wrong["masses"]),
        reference_points=different,
    )
    return evidence, of_clean, expected


def _suggestions(
    found: dict[str, np.ndarray], usual: dict[str, np.ndarray], damaged: Bool[np.ndarray, " N"]
) -> tuple[Int64[np.ndarray, " N"], Float[np.ndarray, " N"]]:
    """The best label of each point, and how often such a suggestion is right. Damaged images have taught the classifier
    of both sides what they look like: which other label they deserve, the reference set alone says."""
    margins = usual["reference_margins"]
    by_both = suggestion_confidence(found["gaps"], usual["gaps"], usual["suggested_labels"] == usual["given"])
    by_reference = suggestion_confidence(found["reference_margins"], np.abs(margins), margins <= 0)
    asked = damaged & (found["suggested_labels"] != found["given"])
    return (
        np.where(asked, found["reference_labels"], found["suggested_labels"]),
        np.where(asked, by_reference, by_both),
    )


def _arrays(scores: Scores, **further: Tensor) -> dict[str, np.ndarray]:
    tensors = {**vars(scores), **further}
    return {name: (t.double() if t.is_floating_point() else t).cpu().numpy() for name, t in tensors.items()}


def _joined(parts: Sequence[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _mistaken(
    row: BatchRow, plan: BatchPlan, batch: int, config: ValuationConfig, noise: LabelNoise
) -> dict[str, np.ndarray]:
    """The reference points with a batch, each under a wrong label: the odds against it, and how likely a mistake is."""
    labels, own = row.held_out_labels, row.potentials[:, :, 0].double()
    potentials = potential_values(row.held_out_potentials.double(), own, plan, batch, config)
    masses = 1 - noise.confusions.mean(0).diagonal().to(potentials)[labels[:, 0]]
    masses = masses.masked_fill(potentials[:, -1].isinf(), 0.0)
    odds = odds_if_mistaken(labels, potentials, noise.excess.mean(0).to(potentials), nat=float(row.nat))
    return {"odds": odds.cpu().numpy(), "labels": labels[:, -1].cpu().numpy(), "masses": masses.cpu().numpy()}


def plan_batches(
    costs: Float[np.ndarray, "K L"], train_sizes: Sequence[int], reference_sizes: Sequence[int], config: ValuationConfig
) -> BatchPlan:
    """π̄ between batches of the given sizes (Eq. 7), in float64; ε and ρ relative to the batch costs."""
    cost = torch.from_numpy(costs).double()
    a, b = (torch.tensor(sizes, dtype=torch.float64) / sum(sizes) for sizes in (train_sizes, reference_sizes))
    unit = float(cost.max()) or 1.0
    problem = Problem(config.plan_epsilon * unit, config.rho * unit, PLAN_TOLERANCE, config.max_sweeps)
    solved = solve(cost, a, b, problem)
    plan = solved.plan(cost, a, b, problem.epsilon)
    uniform_weights = torch.full_like(plan, 1 / plan.shape[1])
    gradient = calibrated_gradient(solved.f[:, None, None], solved.f[:, None])[:, 0, 0]
    if not config.hierarchical:
        gradient = torch.zeros_like(gradient)
    return BatchPlan(
        plan=plan.numpy(),
        weights=(plan / a[:, None] if config.batch_weights == "plan" else uniform_weights).numpy(),
        batch_gradient=gradient.numpy(),
        marginal_error=solved.marginal_error,
        converged=solved.converged,
    )


def batch_scores(row: BatchRow, plan: BatchPlan, batch: int, config: ValuationConfig) -> tuple[Scores, Scores]:
    """s_k of the points of one training batch (Alg. 1, l. 7-10; Eq. 12-13), and of the reference points with it."""
    own = row.potentials[:, :, 0].double()
    scores = [
        decompose(labels, potential_values(f.double(), own, plan, batch, config), nat=float(row.nat))
        for labels, f in ((row.labels, row.potentials), (row.held_out_labels, row.held_out_potentials))
    ]
    return scores[0], scores[1]


def potential_values(
    potentials: Float64[Tensor, "k L T"],
    own: Float64[Tensor, "n L"],
    plan: BatchPlan,
    batch: int,
    config: ValuationConfig,
) -> Float64[Tensor, "k T"]:
    """s_k under every label, in the company of the points of one training batch, whose potentials are `own`."""
    weights = torch.from_numpy(plan.weights[batch]).to(own.device)
    gradient = calibrated_gradient(potentials, own) if config.gradient == "calibrated" else potentials
    return _combined(gradient, weights) + plan.batch_gradient[batch]


def calibrated_gradient(potentials: Float[Tensor, "k L T"], own: Float[Tensor, "n L"]) -> Float[Tensor, "k L T"]:
    """g_ij (Eq. 6, 14), units of cost: change of the cost per unit of mass moved onto a point from those of its batch.

    `own` are the batch's potentials. The free constant of a balanced potential drops out. A batch of one point has
    gradient 0.
    """
    n = len(own)
    if n == 1:
        return torch.zeros_like(potentials)
    return (potentials - own.mean(0)[:, None]) * (n / (n - 1))


def _combined(gradients: Float[Tensor, "n L T"], weights: Float[Tensor, " L"]) -> Float[Tensor, "n T"]:
    """Σ_j (π̄[i,j] / a_i) g_ij[k]; infinite where a gradient is."""
    finite = torch.einsum("nlt,l->nt", gradients.nan_to_num(0.0, posinf=0.0), weights)
    return finite.masked_fill(gradients.isinf().any(1), torch.inf)


def split_points(points: Points, config: ValuationConfig) -> list[Int64[np.ndarray, " _"]]:
    """Rows of each batch."""
    size = config.batch_size or len(points)
    return split_batches(points.labels.cpu().numpy(), batch_size=size, seed=config.seed, batching=config.batching)
