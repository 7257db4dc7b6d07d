"""Where to cut: what clean points look like, and how many of the flagged ones may be clean.

    p_k = (Σ_h w_h 1[v_h ≥ v_k] + w_k) / (Σ_h w_h + w_k)        conformal p-value (Vovk et al. 2005; Bates et al. 2023;
                                                                weighted by ratios of densities where all images are
                                                                otherwise, Tibshirani et al. 2019)
    p_k = (n_c F_c(v_k) + 1) / (n_c + 1)                        by the n_c clean ones of its class alone, where most of
                                                                its labels are thought mistaken, and too many of them
                                                                are as high (Mondrian, Vovk et al. 2005)
    flag the largest k with p_(k) ≤ α k / N                     expected share of clean points among the flagged ≤ α
                                                                (Benjamini & Hochberg 1995)
    share of bad points ≥ 1 − #{p > t} / ((1 − t) N)            (Storey 2002), where that is beyond chance
    P(clean | v) = (1 − bad share) f_clean(v) / f(v)            local false-discovery rate (Efron 2001), monotone in v

v_h are values of held-out reference points, obtained as the training points obtain theirs; w_h weighs them as their
batches weigh in the training set.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int64

from sava_ops.errors import BadInput

QUANTILES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5)
"""t, of clean points. Few bad points that nothing clean comes near are seen at the small ones alone, where chance among
the clean ones is small; those that lie among clean ones at the larger ones."""
CHANCE_DEVIATIONS = 3.0
"""By how many standard errors a bound must be above 0; and as unlikely as a normal number beyond as many must be what a
class's clean points show, were they as all are."""
THOUGHT_MISTAKEN = 0.5
"""Share of a class's labels, from which on its own clean points are asked."""

ROUNDING = 1e-9
"""Relative to one point: weighted shares of a whole number of points are not quite whole."""


def conformal_p_values(
    values: Float[np.ndarray, " N"],
    clean: Float[np.ndarray, " H"],
    weights: Float[np.ndarray, " H"],
    *,
    own: Float[np.ndarray, " N"] | None = None,
) -> Float[np.ndarray, " N"]:
    """Chance that a clean point is as high, from held-out clean values; 1 where there are none.

    `own` is the weight of each point itself, that of a clean point of its kind (default: the mean of `weights`): of a
    class that few clean points stand for, none is beyond doubt.
    """
    if not len(clean):
        return np.ones_like(values)
    as_high, of_all = _weight_as_high(values, clean, weights)
    one_more = weights.mean() if own is None else own
    return (as_high + one_more) / (of_all + one_more)


def class_p_values(
    p_values: Float[np.ndarray, " N"],
    values: Float[np.ndarray, " N"],
    labels: Int64[np.ndarray, " N"],
    clean: Float[np.ndarray, " H"],
    clean_labels: Int64[np.ndarray, " H"],
    weights: Float[np.ndarray, " H"],
    *,
    points: int,
    ratios: Float[np.ndarray, " H"] | None = None,
) -> Float[np.ndarray, " N"]:
    """The p-values, but of a class of which most labels are thought mistaken, as its clean points weigh less than half
    of what it has points, by those alone where more of them have such values than chance explains: what takes a whole
    class for another one finds its reference points mistaken, too, which hardly weigh in the pooled p-values. Never
    lower than these, nor than what its own clean points say of a higher value.

    `weights` say how many points of the pool each clean one stands for, of which each of so many `points` may stand
    more than once; `ratios`, how many times as likely one like it is in the pool (default: as likely).
    """
    from scipy.special import bdtrc, ndtr  # commands that only look wait for no library that computes

    found, each = p_values.copy(), min(1.0, points / max(len(clean), 1))
    ratios = np.ones_like(weights) if ratios is None else ratios
    weight_of_a_point = weights.sum() / max(np.isin(labels, clean_labels[weights > 0]).sum(), 1)
    for label, rows in by_label(labels):
        own = clean_labels == label
        if not 0 < weights[own].sum() < (1 - THOUGHT_MISTAKEN) * len(rows) * weight_of_a_point:
            continue
        count = max(1, round(each * effective_count(ratios[own])))
        weight, of_all = _weight_as_high(values[rows], clean[own], weights[own] * ratios[own])
        as_high = count * np.minimum(weight / of_all, 1.0)
        # P(that many or more of them)
        chance = bdtrc(np.ceil(as_high - ROUNDING) - 1, count, p_values[rows])
        clear = (as_high > count * p_values[rows]) & (chance < ndtr(-CHANCE_DEVIATIONS))
        at_least = np.where(clear, (as_high + 1) / (count + 1), 0.0)
        highest_first = np.argsort(-values[rows], kind="stable")
        at_least[highest_first] = np.maximum.accumulate(at_least[highest_first])
        found[rows] = np.maximum(at_least, p_values[rows])
    return found


def _weight_as_high(
    values: Float[np.ndarray, " N"], clean: Float[np.ndarray, " H"], weights: Float[np.ndarray, " H"]
) -> tuple[Float[np.ndarray, " N"], float]:
    """Weight of the clean points that are as high as each value, and of all of them."""
    order = np.argsort(clean, kind="stable")
    above = np.concatenate([np.cumsum(weights[order][::-1])[::-1], [0.0]])
    return above[np.searchsorted(clean[order], values, side="left")], float(above[0])


def by_label(labels: Int64[np.ndarray, " N"]) -> Iterator[tuple[int, Int64[np.ndarray, " _"]]]:
    """Each label, and the points that carry it."""
    order = np.argsort(labels, kind="stable")
    present, starts = np.unique(labels[order], return_index=True)
    ends = np.append(starts, len(order))[1:]
    for label, start, end in zip(present.tolist(), starts, ends, strict=True):
        yield label, order[start:end]


def benjamini_hochberg(p_values: Float[np.ndarray, " N"], *, rate: float) -> Bool[np.ndarray, " N"]:
    """Mask of the flagged points: at most `rate` of them are expected to be clean."""
    if not 0 < rate < 1:
        raise BadInput(f"`false_discovery_rate` is {rate}: it must be above 0 and below 1")
    ranked = np.sort(p_values)
    within = (ranked <= rate * np.arange(1, len(ranked) + 1) / len(ranked)).nonzero()[0]
    return p_values <= (ranked[within[-1]] if len(within) else -1.0)


class Bound(NamedTuple):
    """Of the share of bad points."""

    share: float
    beyond: float
    """t: bad are points with smaller p-values, where the share is not 0."""


def bad_share(p_values: Float[np.ndarray, " n"], *, judges: float | int) -> Bound:
    """A lower estimate of the share of bad points, 0..1: clean points have p > t in 1 − t of the cases, so each t gives
    a bound, of which those count that chance does not explain among the points and so many clean ones. The larger t,
    the less of the bad points it misses, and the larger is chance: a larger one must be above the one before by more
    than a standard error (as Lepski 1990 chooses)."""
    if not len(p_values) or judges <= 0:
        return Bound(0.0, 0.0)
    best, known = Bound(0.0, 0.0), 0.0
    for t in QUANTILES:
        bound = Bound(float(1 - (p_values > t).mean() / (1 - t)), t)
        variance = t / (1 - t) * (1 / len(p_values) + 1 / judges)
        # Points beyond t are beyond all larger ones, too: chance adds the difference of the variances.
        higher = bound.share > best.share + (variance - known) ** 0.5
        if higher and bound.share > CHANCE_DEVIATIONS * variance**0.5:
            best, known = bound, variance
    return best


def effective_count(weights: Float[np.ndarray, " n"], *, points: float | int = math.inf) -> float:
    """How many equal ones tell as much as these (Kish 1965), among which each of so many points may stand more than
    once; 0 of none."""
    if not weights.any():
        return 0.0
    return float(weights.sum() ** 2 / np.square(weights).sum()) * min(1.0, points / len(weights))


def clean_probability(
    values: Float[np.ndarray, " N"], clean: Float[np.ndarray, " H"], weights: Float[np.ndarray, " H"], *, bad: float
) -> Float[np.ndarray, " N"]:
    """P(clean | value), falling in the value, for a pool of which the share `bad` is bad; 1 without held-out points."""
    return clean_probabilities(values, clean, weights, bad=bad)[0]


def clean_probabilities(
    values: Float[np.ndarray, " N"], clean: Float[np.ndarray, " H"], weights: Float[np.ndarray, " H"], *, bad: float
) -> tuple[Float[np.ndarray, " N"], Float[np.ndarray, " H"]]:
    """The same of the pool's points, and of points of the pool that had the values of the held-out ones."""
    if not len(clean):
        return np.ones_like(values), np.ones_like(clean)
    both = np.concatenate([values, clean])
    is_clean = np.concatenate([np.zeros(len(values)), np.ones(len(clean))])
    mass = np.concatenate([np.full(len(values), 1 / len(values)), weights / weights.sum()])
    # With equal mass on either side, P(held out | v) = f_clean / (f_clean + f).
    held_out = monotone(both, is_clean, mass, at=both, rising=False)
    ratio = held_out / np.maximum(1 - held_out, np.finfo(float).tiny)
    probability = np.minimum(1.0, (1 - bad) * ratio)
    return probability[: len(values)], probability[len(values) :]


def suggestion_confidence(
    gaps: Float[np.ndarray, " N"], clean_gaps: Float[np.ndarray, " H"], clean_right: Bool[np.ndarray, " H"]
) -> Float[np.ndarray, " N"]:
    """How often the best-fitting label of a held-out reference point is its own, where the next one is as far behind.

    0 without held-out points.
    """
    if not len(clean_gaps):
        return np.zeros_like(gaps)
    return monotone(clean_gaps, clean_right.astype(float), np.ones(len(clean_gaps)), at=gaps, rising=True)


def monotone(
    x: Float[np.ndarray, " n"],
    y: Float[np.ndarray, " n"],
    weights: Float[np.ndarray, " n"],
    *,
    at: Float[np.ndarray, " k"],
    rising: bool,
) -> Float[np.ndarray, " k"]:
    """The monotone function of x nearest to y, between the points as a straight line and beyond them as at the last."""
    from scipy.optimize import isotonic_regression  # scikit-learn's takes a second to be imported

    knots, of = np.unique(x[weights > 0], return_inverse=True)
    mass, total = (np.bincount(of, own[weights > 0]) for own in (weights, weights * y))
    return np.interp(at, knots, isotonic_regression(total / mass, weights=mass, increasing=rising).x)
