"""Image and label in one unit: how much likelier what was seen is of a bad point than of a good one.

    s = −log P(a clean image is as foreign)        held-out reference points; exponential beyond their 90 % quantile
    o_image = (1 − λ) a (e^{(1 − a) s} − 1) / π₀   excess of the pool over clean images, from the mixture
                                                   p ~ λ U(0, 1) + (1 − λ) Beta(a, 1), π₀ = λ + (1 − λ) a
                                                   (Pounds & Morris 2003)
    o_label = o_other ω / ((C − 1)(1 − ω))                 o_other = odds of all other labels together
                                                           (`sava_ops.decomposition`)
    ω         = share of wrong labels among good images: by how much more often their labels are held for wrong than
                those of clean reference points, over by how much more often those are that are mistaken on purpose
                (Forman's adjusted count, 2008), all under the same ω (as by Saerens et al. 2002)
    evidence = log(1 + o_image) + log(1 + o_label)

Ours. Where the pool's images are like the reference's, o_image is near 0 and the evidence ranks as o_other does;
where its labels are right, o_label is; what is odd in both adds up. What the images of a pool have in common is not
held against them: the lower quartile of its undamaged images is brought to that of the clean ones first, if it lies
above. Another camera changes some classes more than others: then that of each class, as far as it lies above all by no
more than all do above the clean ones.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int64
from scipy.special import expit

from sava_ops.decisions.conformal import bad_share, by_label, conformal_p_values, effective_count

TAIL = 0.9
"""Quantile of the clean points from which on their tail is exponential."""
MOST_SURPRISE = 300.0
EVEN_ODDS = math.log(2)
"""Evidence of an image that is as likely bad as good."""
REPRESENTATIVES = 4096
"""Points that stand for a pool in the fits."""
MOST_EVEN = 0.8
"""a of a pool with a tail. Seen on the sets of `make benchmark`: at its bound of 0.9 without damage, below a half with
it."""
SHIFT_STEPS, SHIFT_TOLERANCE = 20, 1e-3
"""At most so many turns, until the share of damaged images grows by less."""
STEPS = 200
LEAST_SHARE, MOST_SHARE = 1e-4, 0.95


_Weighted = tuple[Float[np.ndarray, " _"], Float[np.ndarray, " _"]]
"""Numbers and their weights."""


class Evidence(NamedTuple):
    """Of n points, nats."""

    total: Float[np.ndarray, " n"]
    image: Float[np.ndarray, " n"]
    """What is left under the best label."""

    @property
    def label(self) -> Float[np.ndarray, " n"]:
        """The rest."""
        return self.total - self.image

    def with_further(self, evidence: Float[np.ndarray, " n"]) -> "Evidence":
        """With evidence of another kind against the same images."""
        return Evidence(self.total + evidence, self.image + evidence)


class Side(NamedTuple):
    """What is said of n points."""

    foreign: Float[np.ndarray, " n"]
    """How foreign the image is to transport under its best label, and to a classifier that tells the sides apart,
    nats."""
    label_odds: Float[np.ndarray, " n"]
    """How much likelier another label is, all others together, nats."""
    best_labels: Int64[np.ndarray, " n"]
    """Under which the images fit best: their class, as far as it is known."""


class MistakenOdds(NamedTuple):
    """What is said of clean points, each under a label that is not its own."""

    label_odds: Float[np.ndarray, " m"]
    weights: Float[np.ndarray, " m"]
    """How many points of the pool it would stand for."""


class Weighed(NamedTuple):
    """What speaks against the points of the pool, and against clean ones."""

    pool: Evidence
    clean: Evidence
    prior: float
    """log(o_label / o_other), which all have in common."""
    pool_ratios: Float[np.ndarray, " n"]
    """How many times as likely such an image is in the pool as among clean ones, as all are otherwise; 1 where they
    are not."""
    clean_ratios: Float[np.ndarray, " h"]


def weigh(
    pool: Side,
    clean: Side,
    weights: Float[np.ndarray, " h"],
    mistaken: MistakenOdds | None,
    *,
    other_labels: int,
    reference_points: float | int = math.inf,
) -> Weighed:
    """`weights` say how many points of the pool each clean one stands for; `other_labels` = C − 1; so many of the clean
    ones are different `reference_points`. Without mistaken points, a wrong label is taken to be always recognised.
    """
    judges = effective_count(weights, points=reference_points)
    shift = common_shift(pool, clean.foreign, weights, judges)
    surprises = [_surprise(side, clean.foreign, weights) for side in (shift.without, clean.foreign)]
    odds = excess_odds(*surprises)
    even = float(np.log(max(other_labels, 1)))
    some = _representatives(pool.label_odds)
    wrong = mistaken if mistaken is not None and mistaken.weights.any() else None
    prior = _log_odds_of_a_wrong_label(
        (pool.label_odds[some] - even, 1 / (1 + odds[0][some])),
        (clean.label_odds - even, weights),
        (wrong.label_odds - even, wrong.weights) if wrong else (np.full(1, np.inf), np.ones(1)),
    )
    prior -= even
    images = [np.log1p(own) for own in odds]
    totals = [image + against_label(side.label_odds, prior) for image, side in zip(images, (pool, clean), strict=True)]
    of_pool, of_clean = (Evidence(total, image) for total, image in zip(totals, images, strict=True))
    return Weighed(of_pool, of_clean, prior, shift.ratios(pool.foreign, least=shift.size), shift.ratios(clean.foreign))


def against_label(label_odds: np.ndarray, prior: float) -> np.ndarray:
    """log(1 + o_label), nats; `prior` = log(o_label / o_other)."""
    return np.logaddexp(0.0, label_odds + prior)


def excess_odds(
    pool: Float[np.ndarray, " n"], clean: Float[np.ndarray, " h"]
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " h"]]:
    """o of both sides: how much likelier a surprise (nats) is of the pool's bad points than of good ones."""
    fitted = _excess(pool[_representatives(pool)])
    return _odds(pool, *fitted), _odds(clean, *fitted)


class Shift(NamedTuple):
    """What undamaged images of a pool have beyond clean ones, nats."""

    start: float
    """Lower quartile of the clean ones."""
    size: float
    """How far that of the pool's undamaged images lies above; 0 where it does not."""
    without: Float[np.ndarray, " n"]
    """The pool's points, brought to the clean ones."""

    def ratios(self, foreign: Float[np.ndarray, " m"], *, least: float = 0.0) -> Float[np.ndarray, " m"]:
        """Of densities, as far as they are put down to the shift: of at least so many nats, at most twice its size."""
        return np.exp(np.clip(foreign - self.start, least, 2 * self.size).clip(max=MOST_SURPRISE))


def common_shift(
    pool: Side, clean: Float[np.ndarray, " h"], weights: Float[np.ndarray, " h"], judges: float | int
) -> Shift:
    """Which quantile of the pool is the quartile of its undamaged images, the share of damaged ones says, and that
    follows from what lies beyond clean ones once the shift is off: by turns, beginning with none."""
    kinds, damaged = [rows for _, rows in by_label(pool.best_labels)], 0.0
    found = _shift(pool.foreign, kinds, clean, weights, undamaged=1.0)
    for _ in range(SHIFT_STEPS):
        share = bad_share(conformal_p_values(found.without, clean, weights), judges=judges).share
        if share < damaged + SHIFT_TOLERANCE:
            break
        damaged = share
        found = _shift(pool.foreign, kinds, clean, weights, undamaged=1 - damaged)
    return found


def _shift(
    foreign: Float[np.ndarray, " n"],
    kinds: Sequence[Int64[np.ndarray, " _"]],
    clean: Float[np.ndarray, " h"],
    weights: Float[np.ndarray, " h"],
    *,
    undamaged: float,
) -> Shift:
    """`kinds` are the rows of the images of each class."""
    low, quarter = np.quantile(foreign, [0.1 * undamaged, 0.25 * undamaged])
    order = np.argsort(clean, kind="stable")
    clean_low, clean_quarter = np.interp([0.1, 0.25], _middles(weights[order]), clean[order])
    spread = max(1.0, (quarter - low) / max(clean_quarter - clean_low, 1e-12)) if quarter > low else 1.0
    size = max(quarter - clean_quarter, 0.0)
    beyond = foreign - clean_quarter - size
    for rows in kinds if size > 0 else ():
        beyond[rows] -= np.clip(np.quantile(beyond[rows], 0.25 * undamaged), 0.0, size)
    return Shift(float(clean_quarter), float(size), clean_quarter + beyond / spread)


def _surprise(values: np.ndarray, clean: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """s, 0 … MOST_SURPRISE."""
    order = np.argsort(clean, kind="stable")
    ordered, below = clean[order], _middles(weights[order])
    start = float(np.interp(TAIL, below, ordered))
    beyond = ordered > start
    own = weights[order][beyond]
    mean_excess = float((own * (ordered[beyond] - start)).sum() / own.sum()) if beyond.any() else 0.0
    body = -np.log(np.maximum(1 - np.interp(values, ordered, below), 1 - TAIL))
    tail = -np.log(1 - TAIL) + (values - start) / max(mean_excess, 1e-12)
    return np.minimum(np.where(values > start, tail, body), MOST_SURPRISE)


def _middles(weights: np.ndarray) -> np.ndarray:
    """Share of the weight below each of these, half of its own counted."""
    return (np.cumsum(weights) - weights / 2) / weights.sum()


def _excess(surprise: np.ndarray) -> tuple[float, float]:
    """λ and a, by EM."""
    share, a = 0.2, 0.3
    for _ in range(STEPS):
        bad = share * a * np.exp((1 - a) * surprise)
        belongs = bad / (bad + 1 - share)
        share = float(np.clip(belongs.mean(), LEAST_SHARE, 1 - 1e-3))
        a = float(np.clip(belongs.sum() / max((belongs * surprise).sum(), 1e-9), 0.05, 0.9))
    return 1 - share, a


def _odds(surprise: np.ndarray, even: float, a: float) -> np.ndarray:
    """o_image; none for a mixture whose second part is as even as the first: that is what chance looks like."""
    if a > MOST_EVEN:
        return np.zeros_like(surprise)
    return (1 - even) * a * np.expm1((1 - a) * surprise) / (even + (1 - even) * a)


def _log_odds_of_a_wrong_label(pool: _Weighted, clean: _Weighted, mistaken: _Weighted) -> float:
    """log(ω / (1 − ω)), from the odds of each; the weight of a point of the pool is the probability that its image is
    good: what a damaged one shows is not what its label says."""
    share = 0.1
    for _ in range(STEPS):
        prior = np.log(share / (1 - share))
        found, usual, recognised = (
            float(np.average(expit(odds + prior), weights=weights)) for odds, weights in (pool, clean, mistaken)
        )
        share = float(np.clip((found - usual) / max(recognised - usual, 1e-12), LEAST_SHARE, MOST_SHARE))
    return float(np.log(share / (1 - share)))


def _representatives(values: np.ndarray) -> np.ndarray:
    """Rows."""
    if len(values) <= REPRESENTATIVES:
        return np.arange(len(values))
    return np.argsort(values, kind="stable")[np.linspace(0, len(values) - 1, REPRESENTATIVES).round().astype(np.int64)]
