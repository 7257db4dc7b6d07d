"""How many points are bad, of all or of any group, without what clean ones look like being held against them.

    p_image = 1 − e^{−image evidence}, p_label = 1 − e^{−the rest}     of each point
    b_k     = s(p_image,k) + (1 − p_image,k) s(p_label,k),             its mean over a group estimates the group's share
    s(p)    = (p − usual) / (recognised − usual)                       adjusted count (Forman 2008)

`usual` and `recognised` are the means of p of clean and of bad points. Clean are held-out reference points; bad are
the same points, each under a wrong label that the pool's noise model draws for it: one that is easily mistaken is as
hard to recognise there as in the pool. Both are taken by the given label, near the mean of all where few points have
it. What damage looks like nobody knows: images are recognised so well that all of them together have the share which
Storey's bound leaves to their tails (`decisions.conformal`).

Ours. Where a clean image of the pool is a little less sure of its label than one of the reference, it moves p, which
follows large odds, less than it moves p-values, which follow every rank.
"""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int64

from sava_ops.decisions.conformal import bad_share, conformal_p_values, effective_count

POINTS_OF_A_MEAN = 20.0
"""So many points with a label say as much of it as all others do."""
LEAST_APART = 0.05
"""Of recognised and usual: what cannot be told apart cannot be counted."""
DEVIATIONS = 1.96
"""Of the normal distribution: an interval of 95 %."""


class Share(NamedTuple):
    """Estimated share of bad points, 0..1."""

    value: float
    low: float
    """Ends of its interval of 95 %: chance among the points and among the reference points that tell what is usual, of
    which those count that look as the pool does. That the same images are harder to tell in the pool is not in it."""
    high: float


class Seen(NamedTuple):
    """Points with what speaks against them, nats."""

    against_image: Float[np.ndarray, " n"]
    against_label: Float[np.ndarray, " n"]
    labels: Int64[np.ndarray, " n"]
    """That they carry."""


class Mistaken(NamedTuple):
    """The clean points, each under one label that is not its own."""

    against_label: Float[np.ndarray, " H"]
    labels: Int64[np.ndarray, " H"]
    masses: Float[np.ndarray, " H"]
    """How likely a point of its class is mistaken at all."""


def bad_points(expected_bad: Float[np.ndarray, " n"]) -> float:
    """Their share among points of which each adds so much, 0..1; 0 of none."""
    return float(np.clip(expected_bad.mean(), 0, 1)) if len(expected_bad) else 0.0


def share_of_bad(expected_bad: Float[np.ndarray, " n"], *, judges: float | int) -> Share:
    """The same with its interval, where so many reference points told what is usual; 0..1 if nobody did."""
    if not len(expected_bad) or judges <= 0:
        return Share(0.0, 0.0, 1.0)
    value = bad_points(expected_bad)
    error = DEVIATIONS * float(np.sqrt(expected_bad.var() * (1 / len(expected_bad) + 1 / judges)))
    return Share(value, max(0.0, value - error), min(1.0, value + error))


def expected_bad(
    pool: Seen,
    clean: Seen,
    weights: Float[np.ndarray, " H"],
    mistaken: Mistaken,
    *,
    reference_points: float | int = math.inf,
) -> Float[np.ndarray, " N"]:
    """b of each point of the pool; `weights` say how many of them each clean point stands for, as far as it looks as
    they do; each of so many `reference_points` may stand among them more than once."""
    damaged, clean_damaged = (-np.expm1(-side.against_image) for side in (pool, clean))
    usual, found = np.average(clean_damaged, weights=weights), damaged.mean()
    p_values = conformal_p_values(pool.against_image, clean.against_image, weights)
    share = bad_share(p_values, judges=effective_count(weights, points=reference_points)).share
    of_images = (damaged - usual) * (share / (found - usual) if share > 0 and found > usual else 0.0)
    counts = weights * len(weights) / weights.sum()
    mistakes = counts * mistaken.masses * counts.sum() / max(float(counts @ mistaken.masses), 1e-300)
    classes = int(max(own.labels.max(initial=0) for own in (pool, clean, mistaken))) + 1
    usual_labels = _by_label(clean, counts, classes)
    recognised = _by_label(mistaken, mistakes, classes)
    apart = np.maximum((recognised - usual_labels)[pool.labels], LEAST_APART)
    return of_images + (1 - damaged) * (-np.expm1(-pool.against_label) - usual_labels[pool.labels]) / apart


def beyond_chance(p_values: Float[np.ndarray, " N"], *, judges: float | int) -> Float[np.ndarray, " N"]:
    """b where nothing is known but p-values of so many clean points: its mean is Storey's bound."""
    share, beyond = bad_share(p_values, judges=judges)
    return 1 - (p_values > beyond) / (1 - beyond) if share > 0 else np.zeros_like(p_values)


def _by_label(side: Seen | Mistaken, counts: Float[np.ndarray, " n"], classes: int) -> Float[np.ndarray, " classes"]:
    """Mean p_label of points that stand for so many, by their label."""
    totals, sums = (np.bincount(side.labels, own, classes) for own in (counts, -counts * np.expm1(-side.against_label)))
    everywhere = sums.sum() / max(totals.sum(), 1e-300)
    return (sums + POINTS_OF_A_MEAN * everywhere) / (totals + POINTS_OF_A_MEAN)
