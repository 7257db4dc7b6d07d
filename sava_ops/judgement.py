"""What the values of all batches say, held against those of clean reference points and of mistaken ones.

Evidence against image and label (`decisions.evidence`), p-values against the reference points that went along
(`decisions.conformal`), the expected number of bad points (`decisions.shares`), and the label that a point deserves.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from sava_ops.config import ValuationConfig
from sava_ops.decisions.assessment import Assessment
from sava_ops.decisions.conformal import (
    class_p_values,
    clean_probability,
    conformal_p_values,
    effective_count,
    suggestion_confidence,
)
from sava_ops.decisions.evidence import EVEN_ODDS, Evidence, MistakenOdds, Side, Weighed, against_label, weigh
from sava_ops.decisions.shares import Mistaken, Seen, bad_points, beyond_chance, expected_bad
from sava_ops.decomposition import Scores, odds_if_mistaken
from sava_ops.hierarchy import BatchPlan, batch_scores, values_by_label
from sava_ops.reference.label_noise import LabelNoise
from sava_ops.transport import BatchRow


class Judgement(NamedTuple):
    """Of all points."""

    found: Assessment
    judges: float
    """How many equal reference points would tell as much of what is usual as these, of which those count that look as
    the pool does: the shares of bad points are known by so many (`decisions.shares`)."""


def assess(
    rows: Iterable[BatchRow],
    plan: BatchPlan,
    config: ValuationConfig,
    *,
    noise: LabelNoise,
    further: tuple[Float[np.ndarray, " N"], Float[np.ndarray, " H"]] | None = None,
) -> Judgement:
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
    # A reference point that went along with several batches is still one.
    own, ratios = found["weights"] * max(1.0, len(weights) / said.reference_points), np.ones_like(weights)
    if said.nat > 0 and len(weights):
        weighed, expected = _weighed(said, further)
        evidence, usual_evidence = weighed.pool, weighed.clean.total
        damaged = evidence.image > EVEN_ODDS
        # Who looks as the pool does stands for more of it, and for who looks as no clean point does, none stands. No
        # clean point of the pool has a label that the reference set lacks, whatever it looks like.
        known_label = (noise.joint_shares > 0).all(0).cpu().numpy()[found["given"]]
        own, ratios = np.where(known_label, own * weighed.pool_ratios, own), weighed.clean_ratios
    judges = effective_count(weights * ratios, points=said.reference_points)
    known = found["judged"]  # a class that nobody can judge is not doubted
    of_all = np.where(known, conformal_p_values(evidence.total, usual_evidence, weights * ratios, own=own), 1.0)
    p_values = class_p_values(
        of_all,
        evidence.total,
        found["given"],
        usual_evidence,
        usual["given"],
        weights,
        ratios=ratios,
        points=said.reference_points,
    )
    if expected is None:
        expected = beyond_chance(of_all, judges=judges)
    expected = np.where(known, expected, 0.0)
    bad = bad_points(expected)
    suggested, confidence = _suggestions(found, usual, damaged)
    assessment = Assessment(
        **{name: found[name] for name in ("values", "feature_values", "label_values")},
        suggested_labels=suggested,
        confidence=confidence,
        p_values=p_values,
        clean_probability=np.where(known, clean_probability(evidence.total, usual_evidence, weights, bad=bad), 1.0),
        evidence=evidence.total,
        image_evidence=evidence.image,
        expected_bad=expected,
    )
    return Judgement(assessment, judges)


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
) -> tuple[Weighed, Float[np.ndarray, " N"] | None]:
    """Evidence against the points and against the clean ones, and how many of the points are bad where it is known what
    mistaken ones look like."""
    found, usual, wrong, weights = said.of_pool, said.of_clean, said.of_mistaken, said.of_clean["weights"]
    pool, held_out = (
        Side(
            side["feature_values"] / said.nat + side["log_ratios"],
            side["label_odds"],
            best_labels=side["suggested_labels"],
        )
        for side in (found, usual)
    )
    as_mistaken = None if wrong is None else MistakenOdds(wrong["odds"], weights * wrong["masses"])
    different = said.reference_points
    weighed = weigh(pool, held_out, weights, as_mistaken, other_labels=said.other_labels, reference_points=different)
    if further is not None:
        of_pool, of_clean = (own.with_further(f) for own, f in zip((weighed.pool, weighed.clean), further, strict=True))
        weighed = weighed._replace(pool=of_pool, clean=of_clean)
    if wrong is None:
        return weighed, None
    expected = expected_bad(
        Seen(weighed.pool.image, weighed.pool.label, found["given"]),
        Seen(weighed.clean.image, weighed.clean.label, usual["given"]),
        weights * weighed.clean_ratios,
        Mistaken(against_label(wrong["odds"], weighed.prior), wrong["labels"], wrong["masses"]),
        reference_points=different,
    )
    return weighed, expected


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
    labels, of_clean = row.held_out_labels, (row.held_out_potentials, row.held_out_rest_if_mistaken)
    potentials, rest = values_by_label(*of_clean, row, plan, batch, config)
    masses = 1 - noise.confusions.mean(0).diagonal().to(potentials)[labels[:, 0]]
    masses = masses.masked_fill(potentials[:, -1].isinf(), 0.0)
    odds = odds_if_mistaken(labels, potentials, rest, noise.excess.mean(0).to(potentials), nat=float(row.nat))
    return {"odds": odds.cpu().numpy(), "labels": labels[:, -1].cpu().numpy(), "masses": masses.cpu().numpy()}
