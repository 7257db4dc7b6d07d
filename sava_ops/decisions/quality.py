"""Image quality as evidence: darker, brighter, emptier, blurrier, of another size or shape than trusted images are.

    t = −log P(a trusted image of the class is as odd)      for each of `ODDITIES`; exact with ties, and beyond the 90 %
                                                            quantile a generalized Pareto tail (Pickands 1975; fitted by
                                                            probability-weighted moments, Hosking & Wallis 1987)
    S = max over the oddities of min(t, t seen from what the image's source has in common)
    s = −log P(S of a trusted image is as large)            how many looks were taken is counted here
    o = excess of the pool over trusted images at s         (`decisions.evidence`), and no more than can be counted,
                                                            1 / P(clean | S) − 1 (`decisions.conformal`)
    evidence = max(0, log o)                                what does not make it likelier bad than good says nothing

Ours. Every image is measured by trusted images of other folds, trusted ones as those of the pool, so that S of both is
of one distribution where nothing is wrong. A source (shard) has its camera and light: with its middle and spread moved
to those of the trusted images, an image must still have that oddity. A source has its formats: a size or shape must be
as rare among the images of the source. As both can only lower S of the pool, p-values stay valid; of a source of a few
images they leave nothing to say. Where all images are alike in a measure, all are as odd as a trusted one: t = 0.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int64

from sava_ops.decisions.conformal import bad_share, clean_probabilities, conformal_p_values
from sava_ops.decisions.evidence import MOST_SURPRISE, TAIL, excess_odds

MEASURES = ("brightness", "information", "sharpness", "log pixels", "log width / height")
FOLDS = 5
ENOUGH = 100
"""Trusted images of a class by which its images are measured; those of a class with fewer, by all trusted images."""
ENOUGH_FOR_SHAPE = 10
"""Values of a tail from which its shape is fitted; with fewer it is exponential."""
NAMED = 0.5
"""Of the largest t: from here on an oddity is named rather than a later one. A flat image has no sharpness either."""
DIGITS = 9
"""To which measures are compared: moving values to another middle and back costs the last ones."""


class Oddity(NamedTuple):
    name: str
    than: str
    """… than trusted images."""
    measure: int
    sign: int
    """Of what is odd: 1 = a high measure, −1 = a low one."""


ODDITIES = (
    Oddity("dark", "darker", 0, -1),
    Oddity("bright", "brighter", 0, 1),
    Oddity("without information", "with less information", 1, -1),
    Oddity("blurred", "blurrier", 2, -1),
    Oddity("small", "with fewer pixels", 3, -1),
    Oddity("large", "with more pixels", 3, 1),
    Oddity("narrow", "narrower", 4, -1),
    Oddity("wide", "wider", 4, 1),
)

FORMATS = [k for k, oddity in enumerate(ODDITIES) if oddity.measure >= 3]
"""Oddities of size and shape."""


class Measured(NamedTuple):
    """n images."""

    measures: Float[np.ndarray, "n 5"]
    """`MEASURES`."""
    labels: Int64[np.ndarray, " n"]
    folds: Int64[np.ndarray, " n"]
    """0 … `FOLDS` − 1, from the pixels alone: the same for copies."""


@dataclass(frozen=True)
class QualityEvidence:
    """Of N images of a pool and M trusted ones."""

    pool: Float[np.ndarray, " N"]
    """Nats."""
    trusted: Float[np.ndarray, " M"]
    """Nats; of each trusted image by the others."""
    oddity: Int64[np.ndarray, " N"]
    """What is odd about the image: which of `ODDITIES`, the first that is at least half as surprising as the most."""
    share: Float[np.ndarray, " N"]
    """Of the trusted images it is measured by, how many are less odd in this way: 0..1."""
    of_class: Bool[np.ndarray, " N"]
    """Whether these are those of its class."""
    surprises: tuple[Float[np.ndarray, "N oddities"], Float[np.ndarray, "M oddities"]]
    """t of each oddity of both sides, nats; of the pool the smaller of both."""


def weigh_quality(pool: Measured, trusted: Measured, sources: Int64[np.ndarray, " N"]) -> QualityEvidence:
    """Evidence against the images of a pool, by their quality alone; `sources` say which of them came together."""
    judges = _Judges(trusted)
    seen = np.minimum(
        judges.surprises(pool.measures, pool), judges.surprises(judges.without_the_common(pool, sources), pool)
    )
    seen[:, FORMATS] = np.minimum(seen, _rarity(pool, sources))[:, FORMATS]
    usual = judges.surprises(trusted.measures, trusted)
    most, most_usual = (side.max(1) for side in (seen, usual))
    oddity = (seen >= NAMED * most[:, None]).argmax(1)
    of_pool, of_trusted = _evidence(most, most_usual)
    return QualityEvidence(
        pool=of_pool,
        trusted=of_trusted,
        oddity=oddity,
        share=judges.shares(pool, oddity),
        of_class=judges.groups(pool.labels) != _ALL,
        surprises=(seen, usual),
    )


def _evidence(most: np.ndarray, usual: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of both sides, by S."""
    weights = np.ones(len(usual))
    bad = bad_share(conformal_p_values(most, usual, weights), judges=len(usual)).share
    counted = clean_probabilities(most, usual, weights, bad=bad)
    fitted = excess_odds(surprise(most, usual), surprise(usual, usual))
    with np.errstate(divide="ignore"):  # beyond all trusted images nothing can be counted
        odds = [np.minimum(own, 1 / p - 1) for own, p in zip(fitted, counted, strict=True)]
    of_pool, of_trusted = (np.log(np.maximum(own, 1.0)) for own in odds)
    return of_pool, of_trusted


def _rarity(pool: Measured, sources: np.ndarray) -> Float[np.ndarray, "N oddities"]:
    """−log of the share of the images of its source that are at least as odd as each, ties counted."""
    found = np.zeros((len(pool.labels), len(ODDITIES)))
    for _, _, own in _parts(sources, np.zeros_like(sources)):
        for k, (_, _, measure, sign) in enumerate(ODDITIES):
            values = (sign * pool.measures[own, measure]).round(DIGITS)
            found[own, k] = -np.log(1 - np.searchsorted(np.sort(values), values, side="left") / len(values))
    return found


def surprise(values: Float[np.ndarray, " n"], trusted: Float[np.ndarray, " m"]) -> Float[np.ndarray, " n"]:
    """−log P(a trusted value is at least as high), 0 … `MOST_SURPRISE` nats; 0 where all are, and without any.

    Of m values and the one in question: (1 + #{trusted ≥ value}) / (m + 1), ties counted whole. Beyond the 90 %
    quantile by the tail, if the trusted values have one there; a single value that many share has no scale.
    """
    if not len(trusted):
        return np.zeros(len(values))
    ordered = np.sort(trusted)
    at_least = len(ordered) - np.searchsorted(ordered, values, side="left")
    found = -np.log((at_least + 1) / (len(ordered) + 1))
    start = ordered[int(np.ceil(TAIL * len(ordered))) - 1]
    excesses = ordered[ordered > start] - start
    if len(excesses):
        beyond = values > start
        base = -np.log((len(excesses) + 1) / (len(ordered) + 1))
        found[beyond] = base + _hazard(values[beyond] - start, excesses)
    return np.minimum(found, MOST_SURPRISE)


def _hazard(excess: np.ndarray, known: np.ndarray) -> np.ndarray:
    """−log P(excess or more), by the tail fitted to known excesses (ascending, > 0)."""
    count, mean = len(known), known.mean()
    weighted = (known * (1 - (np.arange(1, count + 1) - 0.35) / count)).mean()
    half = mean - 2 * weighted
    shape = 2 - mean / half if count >= ENOUGH_FOR_SHAPE and half > 0 else 0.0
    if shape <= 0:  # one that ends is not trusted to
        return excess / mean
    scale = 2 * mean * weighted / half
    return np.log1p(shape * excess / scale) / shape


class _Judges:
    """Trusted images, by class where there are enough of it."""

    def __init__(self, trusted: Measured) -> None:
        self.trusted, self.measures = trusted, trusted.measures.round(DIGITS)
        labels, counts = np.unique(trusted.labels, return_counts=True)
        self.by_class = labels[counts >= ENOUGH]
        rows = {int(label): (trusted.labels == label).nonzero()[0] for label in self.by_class}
        self.rows = {_ALL: np.arange(len(trusted.labels)), **rows}

    def groups(self, labels: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
        """The class that an image is measured by, or all."""
        return np.where(np.isin(labels, self.by_class), labels, _ALL)

    def surprises(self, measures: Float[np.ndarray, "n 5"], images: Measured) -> Float[np.ndarray, "n oddities"]:
        """t of these measures, by trusted images of other folds than the images are of."""
        found = np.zeros((len(measures), len(ODDITIES)))
        measures = measures.round(DIGITS)
        for group, fold, own in _parts(self.groups(images.labels), images.folds):
            rows = self.rows[group]
            trusted = self.measures[rows[self.trusted.folds[rows] != fold]]
            for k, (_, _, measure, sign) in enumerate(ODDITIES):
                found[own, k] = surprise(sign * measures[own, measure], sign * trusted[:, measure])
        return found

    def without_the_common(self, pool: Measured, sources: Int64[np.ndarray, " N"]) -> Float[np.ndarray, "N 5"]:
        """The measures as if the middle half of every source, seen from the middles of its classes, were where that of
        the trusted images is, and no wider."""
        if not len(self.measures):
            return pool.measures
        centres, own_centres = (self._middles(each.labels) for each in (pool, self.trusted))
        off, low_high = pool.measures - centres, [0.25, 0.75]
        usual = np.subtract(*np.quantile(self.measures - own_centres, low_high, axis=0)[::-1])
        made = centres.copy()
        for _, _, own in _parts(sources, np.zeros_like(sources)):
            spread = np.subtract(*np.quantile(off[own], low_high, axis=0)[::-1])
            # What varies where nothing trusted does, has no scale here.
            narrower = np.divide(usual, spread, out=np.ones_like(usual), where=spread > usual)
            made[own] += narrower * (off[own] - np.median(off[own], axis=0))
        return made

    def _middles(self, labels: Int64[np.ndarray, " n"]) -> Float[np.ndarray, "n 5"]:
        """Medians of the trusted images that each one is measured by."""
        groups, place = np.unique(self.groups(labels), return_inverse=True)
        middles = [np.median(self.measures[self.rows[int(group)]], axis=0) for group in groups]
        return np.array(middles).reshape(-1, len(MEASURES))[place]

    def shares(self, pool: Measured, oddity: Int64[np.ndarray, " N"]) -> Float[np.ndarray, " N"]:
        """Of all trusted images of each one's group, how many are less odd in this way."""
        found, measures = np.zeros(len(oddity)), pool.measures.round(DIGITS)
        for group, kind, own in _parts(self.groups(pool.labels), oddity):
            _, _, measure, sign = ODDITIES[kind]
            trusted = np.sort(sign * self.measures[self.rows[group], measure])
            found[own] = np.searchsorted(trusted, sign * measures[own, measure], side="left") / max(len(trusted), 1)
        return found


_ALL = -1


def _parts(first: np.ndarray, second: np.ndarray) -> list[tuple[int, int, np.ndarray]]:
    """Rows of every pair of numbers that occurs; the second ones are ≥ 0."""
    width = int(second.max(initial=0)) + 1
    pairs, place = np.unique(first * width + second, return_inverse=True)
    order = np.argsort(place, kind="stable")
    rows = np.split(order, np.cumsum(np.bincount(place, minlength=len(pairs)))[:-1]) if len(pairs) else []
    return [(*divmod(int(pair), width), own) for pair, own in zip(pairs, rows, strict=True)]
