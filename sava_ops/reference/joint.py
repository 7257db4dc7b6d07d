"""A classifier that has learned from both sides: p̃.

    p̃(c | x)  ∝ (π_c e^{z_c(x)})^s, z by logistic regression on the reference set's labels and on the pool's soft ones
    C         = the usual penalty, or another one under which reference points held out clearly cost less, and L rises
    s         = sharpness, the one under which points held out cost least

`label_noise` gives it p and T, and says what it is for.
"""

from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import one_hot

from sava_ops.reference.both_sides import BothSides, own_logits
from sava_ops.reference.confusions import Confusions, likely_truth
from sava_ops.reference.density_ratio import DensityRatio
from sava_ops.reference.label_shift import SMALLEST
from sava_ops.reference.logistic import Offset, Regressions, best_penalty, losses

INVERSE_PENALTIES = (0.03125, 0.125, 0.5, 2.0, 8.0, 32.0, 128.0)
"""C of the regressions on both sides. The middle one ranks best by the mean over the sets of `make benchmark`; where
another one does, the reference points say so."""
TRIAL_TOLERANCE = 1e-3
"""Instead of `LOSS_TOLERANCE`, of a penalty on trial."""
SHARPNESSES = tuple(2 ** (k / 4) for k in range(-4, 9))
"""Tried inverse temperatures."""


class Joint(NamedTuple):
    """p̃ of one T, on projected points."""

    weights: Float[Tensor, "folds classes directions"]
    biases: Float[Tensor, "folds classes"]
    shares: Float[Tensor, "folds classes"]
    """Of the classes in the pool."""
    converged: bool
    pool: Float[Tensor, "n classes"]
    """p̃ of the pool points, each held out."""
    reference_losses: Float[Tensor, "M classes"]
    """−log p̃ of the reference points, each held out, as if they were of the pool."""
    own_losses: Float[Tensor, " M"]
    """Of the reference points under their own labels, where classes have the shares of the reference set."""

    def of_all(self, x: Float[Tensor, "n directions"]) -> Float[Tensor, "folds n classes"]:
        """p̃ of every fold, whether it has seen them or not."""
        pairs = zip(self.weights, self.biases, strict=True)
        return torch.stack([(x @ own.T + bias).softmax(1).clamp(min=SMALLEST) for own, bias in pairs])

    def gains(self, other: "Joint") -> Float[Tensor, " M"]:
        """How much less the reference points cost here, each beside itself."""
        return other.own_losses - self.own_losses

    def likelihoods(self, noise: Confusions, sides: BothSides) -> Float[Tensor, " both"]:
        """What each point adds to L: the pool's, then the reference's."""
        return torch.cat([noise.held_out(self.pool, sides), -self.own_losses])

    def likelihood(self, noise: Confusions, sides: BothSides) -> float:
        """L."""
        return float(self.likelihoods(noise, sides).sum())


class JointRegressions:
    """The regressions on both sides: only their targets change with T."""

    def __init__(self, sides: BothSides, ratio: DensityRatio) -> None:
        self.sides = sides
        self.likeness = ratio.likeness(sides.pool.features)
        certain = one_hot(sides.reference.labels, len(sides.known.shares)).to(sides.reference.features)
        # One table for all fits: memory that is new each time costs as much as a step.
        self.targets = certain.new_zeros(sides.folds, len(sides.fold_of), certain.shape[1])
        self.truth, self.certain = self.targets.split([len(sides.pool), len(sides.reference)], 1)
        self.certain.copy_(certain)
        self.problem = Regressions(sides.projected, sides.fitted.to(certain))
        self.problem.start = self._of_the_reference()
        self.inverse_penalty = INVERSE_PENALTIES[len(INVERSE_PENALTIES) // 2]

    def fit_penalty(self, by_reference: Float[Tensor, "folds n classes"], noise: Confusions) -> Joint:
        """p̃ under the best penalty, which later ones keep. L must rise by it, but does not choose it alone: a mark that
        stands beside a label tells the labels better the less it costs."""
        fit, usual = partial(self.fit, by_reference, noise), self.inverse_penalty
        as_usual = fit()

        def tried(inverse_penalty: float) -> Joint:
            if inverse_penalty == usual:
                return as_usual
            self.inverse_penalty = inverse_penalty
            return fit(tolerance=TRIAL_TOLERANCE)

        def better(own: Joint, best: Joint) -> bool:
            rises = own.likelihood(noise, self.sides) > best.likelihood(noise, self.sides)
            return rises and self.likeness.beyond_chance(own.gains(best))

        _, self.inverse_penalty = best_penalty(tried, INVERSE_PENALTIES, better)
        return as_usual if self.inverse_penalty == usual else fit()

    def fit(
        self,
        by_reference: Float[Tensor, "folds n classes"],
        noise: Confusions,
        *,
        sharpened_by_both: bool = False,
        tolerance: float | None = None,
    ) -> Joint:
        """p̃ on the soft labels of this p and T."""
        sides = self.sides
        for truth, p, own in zip(self.truth, by_reference, noise.confusions, strict=True):
            truth.copy_(likely_truth(p, own, sides.pool.labels))
        runs = self.truth, self.certain
        fitted = sides.fitted.split([len(sides.pool), len(sides.reference)], 1)
        priors = [self._log_shares(each, own) for each, own in zip(runs, fitted, strict=True)]
        offsets = [Offset(each.shape[1], prior) for each, prior in zip(runs, priors, strict=True)]
        weights, biases, converged = self.problem.solve(
            self.targets, self.inverse_penalty, offsets, tolerance=tolerance
        )
        of_pool = own_logits(sides.pool_x, sides.pool_folds, weights, biases + priors[0])
        as_pool, as_reference = (
            own_logits(sides.reference_x, sides.reference_folds, weights, biases + prior) for prior in priors
        )

        def own_losses(sharpness: float) -> Tensor:
            found = losses((sharpness * as_reference).softmax(1))
            return found.gather(1, sides.reference.labels[:, None])[:, 0].double()

        def judged(sharpness: float) -> float:
            """L, or what the reference set adds to it, where reference points count as they are like the pool."""
            pool = float(noise.held_out((sharpness * of_pool).softmax(1), sides).sum()) if sharpened_by_both else 0.0
            return pool - len(sides.reference) * float(self.likeness.weights @ own_losses(sharpness))

        # Soft labels and the penalty leave a regression less sure than it may be.
        sharpness = max(SHARPNESSES, key=judged)
        return Joint(
            sharpness * weights,
            sharpness * (biases + priors[0]),
            priors[0].exp() * (sides.known.shares > 0),
            converged,
            (sharpness * of_pool).softmax(1).clamp(min=SMALLEST),
            losses((sharpness * as_pool).softmax(1)),
            own_losses(sharpness),
        )

    def _of_the_reference(self) -> tuple[Tensor, Tensor]:
        """The regressions of the same folds that the reference set has by itself, where all classes are as frequent."""
        known = self.sides.known
        frequent = known.shares.clamp(min=SMALLEST).log().to(known.biases)
        weights, biases = self.sides.projected.from_features(known.weights, known.biases - frequent)
        return weights, biases.masked_fill(biases.isinf(), 0.0)

    def _log_shares(
        self, truth: Float[Tensor, "folds n classes"], fitted: Bool[Tensor, "folds n"]
    ) -> Float[Tensor, "folds classes"]:
        """Of the classes among the points of one side that each fold's regression is fitted to, near even by one point
        a class; 0 for a class that the reference set lacks."""
        present = (self.sides.known.shares > 0).to(truth)
        counts = torch.einsum("fnc,fn->fc", truth, fitted.to(truth)) + present
        return (counts / counts.sum(1, keepdim=True)).log().masked_fill(present == 0, 0.0)
