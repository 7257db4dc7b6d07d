"""Can the pool's images be told from the reference's?

    z(x) = log P(pool | x) − log P(reference | x)     logistic regression of the side on the features' main directions;
                                                      both sides weigh the same, and the reference classes what they
                                                      weigh in the pool (`label_shift`): at first by all of its
                                                      images, then by those that are not foreign, min(1, e^−z) each

An estimate of the log density ratio (Bickel et al. 2007; Sugiyama et al. 2012), cross-fitted on both sides. Its penalty
is the one with the least log loss on the points held out; where it does not clearly beat a coin, chance explains what
difference there is and z is 0. How well z tells the sides apart is a classifier two-sample test (Lopez-Paz & Oquab
2017).

A damage that many images of the pool share, noise or a mark, shows in z before transport sees it. So does a camera that
all of them share, which is none: `decisions.evidence` holds only that against an image which sets it apart from the
rest of the pool.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import one_hot

from sava_ops.ot.sinkhorn import uniform
from sava_ops.reference.both_sides import BothSides, beyond_chance, hashed_folds, own_logits
from sava_ops.reference.label_shift import estimated_shares, reference_measure
from sava_ops.reference.logistic import Regressions, losses

INVERSE_PENALTIES = tuple(0.0005 * 8**k for k in range(6))
"""C of the regressions, from the strongest penalty on, for as long as the held-out log loss falls."""
LEAST_FAMILIAR = 1e-6
"""Of an image, so that some always count."""


@dataclass(frozen=True)
class DensityRatio:
    """Fitted to a sample of the pool and M reference points; pinned with the calibration."""

    side_weights: Float[Tensor, "folds d"]
    side_biases: Float[Tensor, " folds"]
    reference_log_ratios: Float[Tensor, " M"]
    """z of the reference points, each by the regression that has not seen it."""
    pool_shares: Float[Tensor, " classes"]
    """True class shares of the pool, as its images and labels tell them that are not foreign."""
    side_converged: Bool[Tensor, ""]
    """Whether the regressions met `LOSS_TOLERANCE`."""

    def likeness(self, pool: Float[Tensor, "n d"]) -> "Likeness":
        """Of the reference points to these images of the pool."""
        z = self.reference_log_ratios.double()
        ordinary = self.log_ratios(pool).double().median() if len(pool) else z.new_zeros(())
        return Likeness(z.softmax(0), (ordinary - z.logsumexp(0)).exp())

    def log_ratios(self, features: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        """z of images that are not in the reference set, nats."""
        fold_of = hashed_folds(features, len(self.side_weights))
        return own_logits(features, fold_of, self.side_weights[:, None], self.side_biases[:, None])[:, 0]


class Likeness(NamedTuple):
    """How much reference points count where they stand for the pool's images, ∝ e^z."""

    weights: Float[Tensor, " M"]
    """Sum 1."""
    ordinary: Float[Tensor, ""]
    """What an ordinary image of the pool, the one of the median, would count beside them."""

    def beyond_chance(self, gains: Float[Tensor, " M"]) -> bool:
        """Whether images like the pool's gain more than chance explains.

        As in weighted conformal p-values (Tibshirani et al. 2019), the image that is judged counts, too: what it gains
        nobody knows, and where no reference point is like it, that is all.
        """
        unseen = self.ordinary.square() * (self.weights @ gains.square())
        return beyond_chance(self.weights * gains, shared=float(unseen))


def familiar(log_ratios: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """min(1, e^−z): how much an image counts where the pool's images are to tell its classes' shares."""
    return (-log_ratios).exp().clamp(LEAST_FAMILIAR, 1)


def fit_density_ratio(sides: BothSides) -> DensityRatio:
    """Without points in the pool, z is 0."""
    shares = estimated_shares(sides.known_losses, sides.pool.labels, sides.known)
    if not len(sides.pool):
        return _no_difference(sides, shares)
    first = _with_shares(sides, shares)
    if not first.side_weights.any():
        return first
    weights = familiar(first.log_ratios(sides.pool.features))
    return _with_shares(sides, estimated_shares(sides.known_losses, sides.pool.labels, sides.known, weights))


def _no_difference(sides: BothSides, shares: Tensor) -> DensityRatio:
    x = sides.reference.features
    nothing = x.new_zeros(sides.folds, x.shape[1]), x.new_zeros(sides.folds), x.new_zeros(len(x))
    return DensityRatio(*nothing, pool_shares=shares, side_converged=torch.tensor(True, device=x.device))


def _with_shares(sides: BothSides, shares: Float[Tensor, " classes"]) -> DensityRatio:
    """The best penalty where the reference classes weigh this."""
    n, best, most = len(sides.pool), _no_difference(sides, shares), 0.0
    of_reference = reference_measure(sides.reference, shares)
    mass = torch.cat([uniform(n, of_reference), of_reference]) / 2
    side = (torch.arange(len(mass), device=mass.device) >= n).long()
    problem = Regressions(sides.projected, sides.fitted * (mass * len(mass)))
    targets = one_hot(side, 2).to(sides.projected.x).expand(sides.folds, -1, -1)
    for inverse_penalty in INVERSE_PENALTIES:
        found = problem.solve(targets, inverse_penalty)
        logits = own_logits(sides.projected.x, sides.fold_of, found.weights, found.biases)
        own_losses = losses(logits.softmax(1)).gather(1, side[:, None])[:, 0]
        # What is known beyond a coin's throw.
        gains = mass.double() * (math.log(2) - own_losses.double())
        if float(gains.sum()) <= most:
            break
        most = float(gains.sum())
        if beyond_chance(gains):
            on_features = sides.projected.on_features(found.weights, found.biases)
            weights, biases, z = (a[:, 0] - a[:, 1] for a in (*on_features, logits))
            converged = torch.tensor(found.converged, device=z.device)
            best = DensityRatio(weights, biases, z[n:], pool_shares=shares, side_converged=converged)
    return best


def told_apart(
    pool: Float[Tensor, " n"], reference: Float[Tensor, " M"], weights: Float[Tensor, " M"]
) -> Float[Tensor, ""]:
    """P(z of a pool image > z of a reference image), ties half: 0.5 = exchangeable, 1 = two worlds.

    `weights` say how much a reference point counts.
    """
    z, order = reference.sort()
    below = torch.cat([weights.new_zeros(1), weights[order].double().cumsum(0)])
    less, at_most = (below[torch.searchsorted(z, pool.contiguous(), right=right)] for right in (False, True))
    return ((less + at_most) / 2).mean() / below[-1]
