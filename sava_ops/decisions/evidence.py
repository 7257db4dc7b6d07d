"""Image and label in one unit: how much likelier what was seen is of a bad point than of a good one.

    s = −log P(a clean image is as foreign)        held-out reference points; exponential beyond their 90 % quantile
    o_image = (1 − λ) a (e^{(1 − a) s} − 1) / π₀   excess of the pool over clean images, from the mixture
                                                   p ~ λ U(0, 1) + (1 − λ) Beta(a, 1), π₀ = λ + (1 − λ) a
                                                   (Pounds & Morris 2003)
    o_label = o_other ω / ((C − 1)(1 − ω))                 o_other = odds of all other labels together
                                                           (`sava_ops.decomposition`)
    ω         = share of wrong labels among good images: by how much they are held for wrong more often than clean
                reference points under the same ω (as by Saerens et al. 2002, were those never held for wrong)
    evidence = log(1 + o_image) + log(1 + o_label)

Ours. Where the pool's images are like the reference's, o_image is near 0 and the evidence ranks as o_other does;
where its labels are right, o_label is; what is odd in both adds up. What the images of a pool have in common is not
held against them: their lower quartile is brought to that of the clean ones first, if it lies above.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.special import expit

TAIL = 0.9
"""Quantile of the clean points from which on their tail is exponential."""
MOST_SURPRISE = 300.0
REPRESENTATIVES = 4096
"""Points that stand for a pool in the fits."""
MOST_EVEN = 0.8
"""a of a pool with a tail. Seen on the sets of `make benchmark`: at its bound of 0.9 without damage, below a half with
it."""
STEPS = 200
LEAST_SHARE, MOST_SHARE = 1e-4, 0.95


class Evidence(NamedTuple):
    """Of n points, nats."""

    total: Float[np.ndarray, " n"]
    image: Float[np.ndarray, " n"]
    """What is left under the best label."""

    def with_further(self, evidence: Float[np.ndarray, " n"]) -> "Evidence":
        """With evidence of another kind against the same images."""
        return Evidence(self.total + evidence, self.image + evidence)


class Side(NamedTuple):
    """What is said of n points."""

    foreign: Float[np.ndarray, " n"]
    """How foreign the image is to transport under its best label, and to a classifier that tells the sides apart, units
    of cost."""
    label_odds: Float[np.ndarray, " n"]
    """How much likelier another label is, all others together, nats."""


def weigh(pool: Side, clean: Side, weights: Float[np.ndarray, " h"], *, other_labels: int) -> tuple[Evidence, Evidence]:
    """Evidence against the points of the pool, and against clean ones; `weights` say how many points of the pool each
    clean one stands for.

    `other_labels` = C − 1.
    """
    seen = _without_the_common_shift(pool.foreign, clean.foreign, weights)
    surprises = [_surprise(side, clean.foreign, weights) for side in (seen, clean.foreign)]
    odds = excess_odds(*surprises)
    others = [side.label_odds - np.log(max(other_labels, 1)) for side in (pool, clean)]
    some = _representatives(others[0])
    prior = _log_odds_of_a_wrong_label(others[0][some], 1 / (1 + odds[0][some]), others[1], weights)
    images = [np.log1p(own) for own in odds]
    totals = [image + np.logaddexp(0.0, other + prior) for image, other in zip(images, others, strict=True)]
    of_pool, of_clean = (Evidence(total, image) for total, image in zip(totals, images, strict=True))
    return of_pool, of_clean


def excess_odds(
    pool: Float[np.ndarray, " n"], clean: Float[np.ndarray, " h"]
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " h"]]:
    """o of both sides: how much likelier a surprise (nats) is of the pool's bad points than of good ones."""
    fitted = _excess(pool[_representatives(pool)])
    return _odds(pool, *fitted), _odds(clean, *fitted)


def _without_the_common_shift(values: np.ndarray, clean: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """At least a quarter of the images are taken to be undamaged: what they have beyond clean ones, all have."""
    low, quarter = np.quantile(values, [0.1, 0.25])
    order = np.argsort(clean, kind="stable")
    clean_low, clean_quarter = np.interp([0.1, 0.25], _middles(weights[order]), clean[order])
    spread = max(1.0, (quarter - low) / max(clean_quarter - clean_low, 1e-12)) if quarter > low else 1.0
    return clean_quarter + (values - clean_quarter - max(quarter - clean_quarter, 0.0)) / spread


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


def _log_odds_of_a_wrong_label(
    others: np.ndarray, good: np.ndarray, of_clean: np.ndarray, weights: np.ndarray
) -> float:
    """log(ω / (1 − ω)); `good` is the probability that an image is: what a damaged one shows is not what its label
    says."""
    share = 0.1
    for _ in range(STEPS):
        prior = np.log(share / (1 - share))
        found = np.average(expit(others + prior), weights=good)
        usual = np.average(expit(of_clean + prior), weights=weights)
        share = float(np.clip((found - usual) / max(1 - usual, 1e-12), LEAST_SHARE, MOST_SHARE))
    return float(np.log(share / (1 - share)))


def _representatives(values: np.ndarray) -> np.ndarray:
    """Rows."""
    if len(values) <= REPRESENTATIVES:
        return np.arange(len(values))
    return np.argsort(values, kind="stable")[np.linspace(0, len(values) - 1, REPRESENTATIVES).round().astype(np.int64)]
