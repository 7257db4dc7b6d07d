"""What the training pool says of its labels: who confuses what, and a classifier that has learned from both sides.

    T[c, z]   = P(given label z | true class c) in the pool, by EM on p(c | x) of the reference set's regressions, held
                near uniform noise U (1 − e; all other labels alike) by a Dirichlet prior of `PRIOR_LABELS` labels
    explained = (log-likelihood of labels held out under T − under U) / (share of wrong labels · log (C − 1))
    T ← U                            unless `LEAST_EXPLAINED` of what is unknown about a wrong label is explained by it
    r_i(c)    ∝ p(c | x_i) T[c, z_i]                       what the label of pool image i truly is (soft)
    p̃(c | x)  = logistic regression on the reference set's labels and on r, cross-fitted on both sides
    ℓ_c(x, z) = −log p̃(c | x) − log (T[c, z] / U[c, z])    what class c costs an image that is labelled z

A small reference set, or one of other cameras, knows its classes by few images; the pool has many, most of them
labelled right. One EM step of semi-supervised learning under label noise (Nigam et al. 2000; Sukhbaatar et al. 2015;
with trusted data, Hendrycks et al. 2018) gets both. The soft labels come from the reference set alone: mistakes that
the pool's labels share are not learned from them.

Whoever judges a point has seen neither it nor what was concluded from it, on both sides alike: reference points by
stratified folds, pool points by a hash of their features, which tells the fold of any image in any batch. The one
exception are T and U, a few numbers a class, to which all pool points contribute.

A weak classifier's own confusions look like those of the people who labelled; but they explain little of the wrong
labels, and people's much.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn.functional import one_hot

from sava_ops.ot.cost import Points
from sava_ops.reference.discriminant import Discriminant, fold_numbers
from sava_ops.reference.logistic import Regressions, losses

PRIOR_LABELS = 100.0
"""Strength of the Dirichlet prior: so many images with a label say as much of it as the prior."""
LEAST_EXPLAINED = 0.15
"""Share of what is unknown about a wrong label that T has to explain. Seen on the sets of `make benchmark`: below 0.14
for uniform noise of 5 % and more; where a fifth of the labels are the nearest class's, 0.13 (100 classes, 5 reference
images each: missed) to 0.59."""
INVERSE_PENALTY = 2.0
"""C of the regression on both sides: a quarter and four times of it ranked worse by the mean over the sets of
`make benchmark`."""
SHARPNESSES = tuple(2 ** (k / 4) for k in range(-4, 9))
"""Tried inverse temperatures."""
EM_STEPS = 50
LEAST_WRONG, MOST_WRONG = 1e-3, 0.9
"""Bounds of the share of wrong labels."""
SMALLEST = 1e-6
"""Probability below which no class of an image is held for."""


@dataclass(frozen=True)
class LabelNoise:
    """Fitted to a sample of the pool and the reference set; pinned with the calibration."""

    joint_weights: Float[Tensor, "folds classes d"]
    """Of p̃."""
    joint_biases: Float[Tensor, "folds classes"]
    confusions: Float[Tensor, "classes classes"]
    """T (true class, given label); rows sum to 1; U where T explains too little."""
    excess: Float[Tensor, "classes classes"]
    """−log (T / U), nats; 0 where T is U."""
    explained: Float[Tensor, ""]
    """Share of what is unknown about a wrong label that T explains, whether it counts or not."""
    joint_converged: Bool[Tensor, ""]
    """Whether p̃ met `LOSS_TOLERANCE`."""
    joint_reference_losses: Float[Tensor, "M classes"]
    """ℓ of the reference points under their own labels, by the fold that has not seen them."""

    def costs(self, features: Float[Tensor, "n d"], labels: Int64[Tensor, " n"]) -> Float[Tensor, "n classes"]:
        """ℓ of images with these labels that are not in the reference set."""
        fold_of = hashed_folds(features, len(self.joint_weights))
        logits = _own_logits(features, fold_of, self.joint_weights, self.joint_biases)
        return losses(logits.softmax(1)) + self.excess.T[labels].to(logits)


def hashed_folds(features: Float[Tensor, "n d"], folds: int) -> Int64[Tensor, " n"]:
    """Fold of every image, from its features alone: the same in any company, and for exact copies."""
    bits = features.contiguous().view(torch.int64 if features.dtype == torch.float64 else torch.int32).long()
    generator = torch.Generator().manual_seed(0)
    odd = torch.randint(2**62, (features.shape[1],), generator=generator).to(features.device) * 2 + 1
    # Sums of whole numbers wrap around and do not depend on their order.
    return ((bits * odd).sum(1) >> 33).remainder(folds)


def fit_label_noise(reference: Points, pool: Points, known: Discriminant, *, seed: int) -> LabelNoise:
    """From a sample of the pool, the reference set and what it says of its classes by itself."""
    classes, folds = known.biases.shape[1], len(known.biases)
    pool = pool.take((known.shares[pool.labels] > 0).nonzero()[:, 0])
    confusions, excess, explained = _noise_model(pool, known)
    own_fold = hashed_folds(pool.features, folds), fold_numbers(reference.labels, seed=seed)
    x = torch.cat([pool.features, reference.features])
    fold_of = torch.cat(own_fold)
    seen = [fold_of != fold if folds > 1 else fold_of == fold for fold in range(folds)]
    certain = one_hot(reference.labels, classes).to(x)
    targets = [
        torch.cat([_truth(probabilities(pool, known, fold), confusions, pool.labels), certain]) for fold in range(folds)
    ]
    weights, biases, converged = Regressions(x, torch.stack(targets), torch.stack(seen).to(x)).solve(INVERSE_PENALTY)
    logits = _own_logits(reference.features, own_fold[1], weights, biases)
    sharpness = _sharpness(logits, reference.labels)
    return LabelNoise(
        joint_weights=sharpness * weights,
        joint_biases=sharpness * biases,
        confusions=confusions,
        excess=excess,
        explained=explained,
        joint_converged=torch.tensor(converged, device=x.device),
        joint_reference_losses=losses((sharpness * logits).softmax(1)) + excess.T[reference.labels].to(x),
    )


def _sharpness(logits: Float[Tensor, "M classes"], labels: Int64[Tensor, " M"]) -> float:
    """Inverse temperature under which reference points held out have the least log loss: soft labels and the penalty
    leave a regression less sure than it may be."""
    tried = [losses((sharpness * logits).softmax(1)).gather(1, labels[:, None]) for sharpness in SHARPNESSES]
    return SHARPNESSES[int(np.argmin([float(loss.double().mean()) for loss in tried]))]


def _own_logits(
    features: Float[Tensor, "n d"],
    fold_of: Int64[Tensor, " n"],
    weights: Float[Tensor, "folds classes d"],
    biases: Float[Tensor, "folds classes"],
) -> Float[Tensor, "n classes"]:
    """Of each point by the fold that has not seen it."""
    logits = features.new_empty(len(features), biases.shape[1])
    for fold in range(len(biases)):
        own = fold_of == fold
        logits[own] = features[own] @ weights[fold].T + biases[fold]
    return logits


def probabilities(pool: Points, known: Discriminant, fold: int) -> Float[Tensor, "n classes"]:
    """p(c | x) of one fold of the reference set's regressions, were the classes as frequent there as the pool's labels
    are: who is rare in the reference set need not be rare."""
    given = torch.bincount(pool.labels, minlength=len(known.shares)).to(known.shares) + 1
    odds = (given / given.sum() / known.shares.clamp(min=SMALLEST)).log().to(known.biases)
    logits = pool.features @ known.weights[fold].T + known.biases[fold] + odds
    return logits.softmax(1).clamp(min=SMALLEST)


def _noise_model(pool: Points, known: Discriminant) -> tuple[Tensor, Tensor, Tensor]:
    """T, −log (T / U) and the share explained."""
    present = known.shares > 0
    count = int(present.sum())
    nothing = known.weights.new_zeros(())
    if count < 2 or len(pool) == 0:
        nobody = torch.eye(len(present)).to(known.weights)
        return nobody, torch.zeros_like(nobody), nothing
    p = torch.stack([probabilities(pool, known, fold) for fold in range(len(known.biases))]).mean(0)
    p = p.masked_fill(~present, 0.0)
    uniform = _uniform_noise(p, pool.labels, present)
    if count == 2:  # Nothing is unknown about a wrong label.
        return uniform, torch.zeros_like(uniform), nothing
    halves = hashed_folds(pool.features, 2)
    likelihoods = []
    for half in (0, 1):
        fitted, held_out = halves == half, halves != half
        even = _uniform_noise(p[fitted], pool.labels[fitted], present)
        found = _confusions(p[fitted], pool.labels[fitted], even)
        likelihoods.append([_log_likelihood(p, pool.labels, theta)[held_out].sum() for theta in (found, even)])
    confusions = _confusions(p, pool.labels, uniform)
    wrong = max(1 - float(_truth(p, confusions, pool.labels).gather(1, pool.labels[:, None]).mean()), LEAST_WRONG)
    gain = torch.tensor(likelihoods).sum(0) / len(pool)
    explained = (gain[0] - gain[1]) / (wrong * torch.tensor(count - 1.0).log())
    if explained < LEAST_EXPLAINED:
        return uniform, torch.zeros_like(uniform), explained
    log_ratio = uniform.clamp(min=SMALLEST).log() - confusions.clamp(min=SMALLEST).log()
    excess = log_ratio.masked_fill(uniform == 0, 0.0)
    return confusions, excess, explained


def _truth(
    p: Float[Tensor, "n classes"], confusions: Tensor, labels: Int64[Tensor, " n"]
) -> Float[Tensor, "n classes"]:
    """r."""
    joint = p * confusions.T[labels]
    return joint / joint.sum(1, keepdim=True)


def _uniform_noise(p: Float[Tensor, "n classes"], labels: Int64[Tensor, " n"], present: Tensor) -> Tensor:
    """U, with the most likely share of wrong labels."""
    own = torch.eye(len(present), dtype=p.dtype, device=p.device)
    others = present.to(p.dtype) * (1 - own) / max(int(present.sum()) - 1, 1)
    wrong = 0.2
    for _ in range(EM_STEPS):
        confusions = (1 - wrong) * own + wrong * others
        right = _truth(p, confusions, labels).gather(1, labels[:, None]) if len(p) else p.new_ones(1)
        wrong = min(max(1 - float(right.mean()), LEAST_WRONG), MOST_WRONG)
    return (1 - wrong) * own + wrong * others


def _confusions(p: Float[Tensor, "n classes"], labels: Int64[Tensor, " n"], prior: Tensor) -> Tensor:
    """T near this prior."""
    confusions = prior
    for _ in range(EM_STEPS):
        given = (PRIOR_LABELS * prior.T).index_add(0, labels, _truth(p, confusions, labels))
        confusions = given.T / given.sum(0)[:, None]
    return confusions


def _log_likelihood(
    p: Float[Tensor, "n classes"], labels: Int64[Tensor, " n"], confusions: Tensor
) -> Float[Tensor, " n"]:
    """log P(given label | x)."""
    return (p * confusions.T[labels]).sum(1).clamp(min=1e-12).log().double()
