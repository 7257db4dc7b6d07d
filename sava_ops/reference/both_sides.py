"""Pool and reference set side by side, in folds: whatever judges a point was fitted without it.

Reference points by stratified folds, pool points by a hash of their features, which tells the fold of any image in any
batch.
"""

from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from sava_ops.ot.cost import Points
from sava_ops.reference.discriminant import Discriminant, fold_numbers, mean_losses
from sava_ops.reference.logistic import Projected

CHANCE_DEVIATIONS = 2.0
"""By how many standard errors what was gained on points held out must be above 0."""


class BothSides:
    """A sample of n points of the pool and M reference points."""

    def __init__(self, reference: Points, pool: Points, known: Discriminant, *, seed: int) -> None:
        """`known` is what the reference set says of its classes by itself. Of the pool, those count whose label the
        reference set knows."""
        self.reference, self.known, self.folds = reference, known, len(known.biases)
        self.pool = pool.take((known.shares > 0)[pool.labels].nonzero()[:, 0])
        self.pool_folds = hashed_folds(self.pool.features, self.folds)
        self.reference_folds = fold_numbers(reference.labels, seed=seed)
        self.fold_of = torch.cat([self.pool_folds, self.reference_folds])

    @cached_property
    def projected(self) -> Projected:
        """The pool's points, then the reference's."""
        return Projected(torch.cat([self.pool.features, self.reference.features]), self.reference.labels)

    @property
    def pool_x(self) -> Float[Tensor, "n directions"]:
        """The pool's points as `projected`."""
        return self.projected.x[: len(self.pool)]

    @property
    def reference_x(self) -> Float[Tensor, "M directions"]:
        """The reference points as `projected`."""
        return self.projected.x[len(self.pool) :]

    @cached_property
    def known_logits(self) -> Float[Tensor, "folds n classes"]:
        """Of the pool's points, as the reference set by itself has them."""
        return self.known.logits(self.pool.features)

    @property
    def known_losses(self) -> Float[Tensor, "n classes"]:
        """ℓ of the same."""
        return mean_losses(self.known_logits)

    @cached_property
    def fitted(self) -> Bool[Tensor, "folds both"]:
        """Which points each fold's regression is fitted to: all others; a fold alone, to its own."""
        own = self.fold_of == torch.arange(self.folds, device=self.fold_of.device)[:, None]
        return ~own if self.folds > 1 else own


def beyond_chance(gains: Float[Tensor, " n"], *, shared: float = 0.0) -> bool:
    """Whether points gain more in sum than chance explains, were each as likely to lose what it gains.

    `shared` is the variance of the sum that comes from what judges all of them.
    """
    return float(gains.sum()) > CHANCE_DEVIATIONS * (float(gains.square().sum()) + shared) ** 0.5


def hashed_folds(features: Float[Tensor, "n d"], folds: int) -> Int64[Tensor, " n"]:
    """Fold of every image, from its features alone: the same in any company, and for exact copies."""
    bits = features.contiguous().view(torch.int64 if features.dtype == torch.float64 else torch.int32).long()
    generator = torch.Generator().manual_seed(0)
    odd = torch.randint(2**62, (features.shape[1],), generator=generator).to(features.device) * 2 + 1
    # Sums of whole numbers wrap around and do not depend on their order.
    return ((bits * odd).sum(1) >> 33).remainder(folds)


def own_logits(
    features: Float[Tensor, "n d"],
    fold_of: Int64[Tensor, " n"],
    weights: Float[Tensor, "folds classes d"],
    biases: Float[Tensor, "folds classes"],
) -> Float[Tensor, "n classes"]:
    """Of each point, projected or not, by the fold that has not seen it."""
    logits = features.new_empty(len(features), biases.shape[1])
    for fold in range(len(biases)):
        own = fold_of == fold
        logits[own] = features[own] @ weights[fold].T + biases[fold]
    return logits
