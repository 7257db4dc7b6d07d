"""What the training pool says of its labels: who confuses what, and a classifier that has learned from both sides.

    T[c, z]   = P(given label z | true class c) in the pool, by EM on p̃(c | x), held near uniform noise U (1 − e; all
                other labels alike) by a Dirichlet prior of at most `PRIOR_LABELS` labels
    r_i(c)    ∝ p(c | x_i) T[c, z_i]                       what the label of pool image i truly is (soft); p is what
                                                           the reference set's regressions say
    p̃(c | x)  ∝ π_c e^{z_c(x)}, z by logistic regression on the reference set's labels and on r, cross-fitted on both
                sides; π are the class shares in the pool, the mean of r, and in the reference set its own
    L(T, p̃)   = Σ_pool log Σ_c p̃(c | x_i) T[c, z_i] + Σ_reference log p̃(y_j | x_j), all points held out, each under π of
                its own side
    ℓ_c(x, z) = −log p̃(c | x) − log (T[c, z] / U[c, z])    what class c costs an image that is labelled z

At first T is U, and p has the class shares of the pool's labels; or it is

    D[c, z]   = (1 − ω) 1[c = z] + ω q_z       a wrong label is drawn from q, whatever the image: ω and q by EM on p

and p has the class shares that images and labels tell together (`label_shift`). Where one label is given too often, to
images with one mark, say, U takes it for a frequent class and p̃ would learn the mark; where the pool's images look
otherwise than the reference's, what p says of class shares is worth less than what the labels say. D goes on if under
it reference points held out, whose labels nobody made wrong, cost less by more than chance explains, or images and
labels together are likelier by as much, L and the sum over the pool of

    log P(x_i | pool) / P(x_i | reference) = log Σ_c p(c | x_i) π_c / π₀_c       were class shares all that differs

where chance is also that of the reference points, which are the same for all images (jackknife over the folds), and
what sets the images apart beside class shares, half the variance of the reference points' z for each (`density_ratio`):
another camera may look like other classes.

Then T and p̃ are found by turns, each from the other, for as long as L rises, the first time by more than chance
explains, `ROUNDS` times at most; in the first turn T from p as well, and the better one by L goes on. At last p̃ takes
the place of p in r, as EM has it, for as long as L rises, `OWN_ROUNDS` times at most: who knows a class by few images
learns it from the pool. A mark that stands beside a label is not learnt: where reference points held out cost more than
chance explains, those half of the pool's images that look most like them must have their part in the rise,
`PLAIN_PART`. U, D or T follows where L gains by it, and so does the sharpness of p̃. Each fold asks its own p̃, which has
seen nothing of what it will judge.

How sure p̃ may be is asked for the pool's sake: where its images look otherwise, those reference points count that look
like them, w ∝ e^z (`density_ratio`; importance-weighted validation, Sugiyama et al. 2007).

What large weights may cost depends on the encoder: where classes differ along narrow directions, they must be large.
Another penalty than the usual one is taken for all p̃ if under it, with U, reference points held out clearly cost less,
as they are like the pool, and L rises; L alone would take the one under which a mark tells the label.

A reference set is often balanced and a pool hardly ever. Were z fitted without π, it would be between the two, T would
explain the difference as confusion, and reference points held out would prefer whatever has their shares.

A small reference set, or one of other cameras, knows its classes by few images; the pool has many, most of them
labelled right. Semi-supervised learning under label noise (Nigam et al. 2000; Sukhbaatar et al. 2015; with trusted
data, Hendrycks et al. 2018) gets both. What an image shows, the soft labels first have from the reference set alone;
they follow a given label only as far as p and T leave room for it. T comes from p̃: a weak classifier's own confusions
would look like those of the people who labelled, and p̃ has learned better. Where it has not, T mends what p̃ says, and L
rises though mistakes are even; but the wrong labels that such a T finds are those that U finds, while who confuses two
classes leaves labels that look right to U. A T that tells less than `LEAST_TOLD` does not go on.

The p̃, T and U that judge a point were fitted without it and its label, on both sides alike. Six things are shared by
the folds: the class shares of p, p is there the mean of all of them, the penalty and the sharpness of p̃ are one number
each, how far the widest directions are shortened follows from all reference points (`spread`), and a T found from p̃ has
the labels of its own fold behind it at second hand, by way of the p̃ of the other folds' points.
"""

import math
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from sava_ops.ot.cost import Points
from sava_ops.reference.both_sides import BothSides, beyond_chance, hashed_folds, own_logits
from sava_ops.reference.confusions import (
    EM_STEPS,
    EM_TOLERANCE,
    Confusions,
    by_folds,
    confused_noise,
    drawn_noise,
    even_noise,
)
from sava_ops.reference.density_ratio import DensityRatio
from sava_ops.reference.discriminant import Discriminant
from sava_ops.reference.joint import Joint, JointRegressions
from sava_ops.reference.label_shift import LEAST_WRONG, SMALLEST
from sava_ops.reference.logistic import losses

ROUNDS, OWN_ROUNDS = 2, 4
"""Of T and p̃ by turns, and then of p̃ by itself: each fits the regressions on both sides again."""
PLAIN_PART = 1 / 3
"""Of what p̃ learns, by those half of the pool's images that look most like the reference set: half as much as by the
others. With seed 0 of CIFAR-10 and clothing through five encoders and three cameras it was 0.36 to 0.7 of what is to be
learnt, and less than 0.2 of marks; beside another camera, a mark has 0.3 to 0.5."""
LEAST_TOLD = 0.18
"""By a T that goes on: the share of its wrong labels that U does not find, and `LabelNoise.explained`. With seed 0 of
CIFAR-10, clothing and 100 classes of Tiny ImageNet through five encoders, even mistakes have told at most 0.17,
people's confusions more but where features tell next to nothing; both together, in between."""


@dataclass(frozen=True)
class LabelNoise:
    """Fitted to a sample of the pool and the reference set; pinned with the calibration."""

    joint_weights: Float[Tensor, "folds classes d"]
    """Of p̃."""
    joint_biases: Float[Tensor, "folds classes"]
    joint_shares: Float[Tensor, "folds classes"]
    """Of the classes in the pool; 0 for a class that the reference set lacks."""
    confusions: Float[Tensor, "folds classes classes"]
    """T (true class, given label); rows sum to 1."""
    excess: Float[Tensor, "folds classes classes"]
    """−log (T / U), nats; 0 where T is U."""
    explained: Float[Tensor, ""]
    """How much of what is unknown about a wrong label the first T tried explains, whether it counts or not: what it
    adds to the log-likelihood of a label held out, over the share of wrong labels times log (C − 1)."""
    joint_inverse_penalty: Float[Tensor, ""]
    """C of p̃, one of `INVERSE_PENALTIES`."""
    joint_converged: Bool[Tensor, ""]
    """Whether p̃ met `LOSS_TOLERANCE`."""
    joint_reference_losses: Float[Tensor, "M classes"]
    """ℓ of the reference points under their own labels, by the fold that has not seen them."""

    def costs(self, features: Float[Tensor, "n d"], labels: Int64[Tensor, " n"]) -> Float[Tensor, "n classes"]:
        """ℓ of images with these labels that are not in the reference set."""
        fold_of = hashed_folds(features, len(self.joint_weights))
        logits = own_logits(features, fold_of, self.joint_weights, self.joint_biases)
        return losses(logits.softmax(1)) + self.excess[fold_of, :, labels].to(logits)

    def class_shares(self, images: Points, weights: Float[Tensor, " n"]) -> Float[Tensor, " classes"] | None:
        """What is truly of each class among images of which each counts so much, sum 1: by EM on p̃ and T, from the
        shares in the pool (as by Saerens et al. 2002, with labels). None where the reference set knows no label."""
        shares = self.joint_shares.mean(0).double()
        known = shares[images.labels] > 0
        images, weights = images.take(known.nonzero()[:, 0]), weights[known].double()
        if not len(images):
            return None
        fold_of = hashed_folds(images.features, len(self.joint_weights))
        logits = own_logits(images.features, fold_of, self.joint_weights, self.joint_biases)
        likely = self.confusions[fold_of, :, images.labels].double() * logits.softmax(1).clamp(min=SMALLEST).double()
        likely /= self.joint_shares[fold_of].clamp(min=SMALLEST)
        for _ in range(EM_STEPS):
            truth = likely * shares
            found = weights @ (truth / truth.sum(1, keepdim=True)) / weights.sum()
            shares, last = found, shares
            if float((shares - last).abs().max()) < EM_TOLERANCE / 100:
                break
        return shares


class _Start(NamedTuple):
    """The class shares of p, U or D from it, and the p̃ of both."""

    shares: Float[Tensor, " classes"]
    noise: Confusions
    joint: Joint


def fit_label_noise(sides: BothSides, ratio: DensityRatio) -> LabelNoise:
    """From a sample of the pool and the reference set, and how they differ."""
    pool, reference, known = sides.pool, sides.reference, sides.known
    regressions, present, first = JointRegressions(sides, ratio), known.shares > 0, []
    given = _given_shares(pool, known)
    for these, model, fit in (
        (given, even_noise, regressions.fit_penalty),
        (ratio.pool_shares, partial(drawn_noise, present=present), regressions.fit),
    ):
        by_reference = probabilities(sides, these)
        noise = by_folds(by_reference.mean(0), sides, model)
        first.append(_Start(these, noise, fit(by_reference, noise)))
    as_frequent, as_mistaken = first
    mistaken = _mistaken(as_mistaken, as_frequent, sides, ratio)
    shares, noise, found = as_mistaken if mistaken else as_frequent
    by_reference = probabilities(sides, shares)
    p, explained = by_reference.mean(0), None
    # Of two classes, nothing is unknown about a wrong label.
    for turn in range(ROUNDS if int(present.sum()) > 2 and len(pool) else 0):
        # A strong reference set is the better judge of who confuses what, for it has not learned from them.
        judges = [found.pool, p] if turn == 0 else [found.pool]
        tried = [(judge, by_folds(judge, sides, confused_noise)) for judge in judges]
        if explained is None:
            explained = _explained(*tried[0], sides)
        refitted = [
            (own, regressions.fit(by_reference, own))
            for judge, own in tried
            if own.gain(judge, sides) > 0 and _told(judge, own, sides) >= LEAST_TOLD
        ]
        if not refitted:
            break
        own, joint = max(refitted, key=lambda each: each[1].likelihood(each[0], sides))
        rise = joint.likelihoods(own, sides) - found.likelihoods(noise, sides)
        # T has many numbers where U has one and D a few.
        if not (beyond_chance(rise) if turn == 0 else float(rise.sum()) > 0):
            break
        noise, found = own, joint
    noise, found = _by_itself(noise, found, sides, regressions, ratio)
    excess = noise.excess
    weights, biases = sides.projected.on_features(found.weights, found.biases)
    return LabelNoise(
        joint_weights=weights,
        joint_biases=biases,
        joint_shares=found.shares,
        confusions=noise.confusions,
        excess=excess,
        explained=known.weights.new_tensor(explained or 0.0),
        joint_inverse_penalty=known.weights.new_tensor(regressions.inverse_penalty),
        joint_converged=torch.tensor(found.converged, device=known.weights.device),
        joint_reference_losses=found.reference_losses
        + excess[sides.reference_folds, :, reference.labels].to(found.reference_losses),
    )


def _mistaken(as_mistaken: _Start, as_frequent: _Start, sides: BothSides, ratio: DensityRatio) -> bool:
    """Whether labels that are given too often are given by mistake, by reference points held out, or by the pool's
    images and labels together: predicting labels does not tell a frequent class from a frequent mistake.

    That all images are judged by the same few reference points is in the chance, by the jackknife over the folds; so is
    what sets them apart from the reference set under the class shares of `ratio`, of which a damage that some of them
    have is no part: half the variance of a normal log-likelihood ratio is its mean.
    """
    (_, mistakes, mistaken), (given, even, frequent) = as_mistaken, as_frequent
    shares = torch.stack([own.pool.double().mean(0) for own in (mistaken, frequent)], 1)
    # p / π is ∝ P(image | class), as each fold tells it.
    by_fold = torch.stack([(p.double() @ (shares / given[:, None])).log() for p in probabilities(sides, given)])
    by_fold = by_fold[..., 0] - by_fold[..., 1]
    gains = mistaken.likelihoods(mistakes, sides) - frequent.likelihoods(even, sides)
    gains[: len(sides.pool)] += by_fold.mean(0)
    jackknife = (len(by_fold) - 1) * float(by_fold.sum(1).var(correction=0))
    otherwise = len(sides.pool) * float(ratio.reference_log_ratios.double().var(correction=0)) / 2
    return beyond_chance(mistaken.gains(frequent)) or beyond_chance(gains, shared=jackknife + otherwise**2)


def _by_itself(
    noise: Confusions, found: Joint, sides: BothSides, regressions: JointRegressions, ratio: DensityRatio
) -> tuple[Confusions, Joint]:
    """p̃ with p̃ in the place of p, for as long as L rises and nothing is learned from damage alone."""
    if not len(sides.pool):
        return noise, found
    log_ratios = ratio.log_ratios(sides.pool.features)
    plain, start = log_ratios < log_ratios.median(), found.likelihoods(noise, sides)
    reached = start
    for _ in range(OWN_ROUNDS):
        followed = by_folds(found.pool, sides, noise.model)
        own = max(noise, followed, key=lambda each: float(each.held_out(found.pool, sides).sum()))
        tried = regressions.fit(found.of_all(sides.pool_x), own, sharpened_by_both=True)
        likelihoods = tried.likelihoods(own, sides)
        learned = (likelihoods - start)[: len(plain)]
        only_damage = float(learned[plain].sum()) < PLAIN_PART * float(learned.sum())
        if float(likelihoods.sum()) <= float(reached.sum()) or (only_damage and beyond_chance(found.gains(tried))):
            break
        noise, found, reached = own, tried, likelihoods
    return noise, found


def _told(p: Float[Tensor, "n classes"], tried: Confusions, sides: BothSides) -> float:
    """What T tells that U does not: which labels are wrong, and which label a wrong one is."""
    even, confused = (_wrong(p, own, sides) for own in (tried.uniform, tried.confusions))
    return 1 - even / confused + _explained(p, tried, sides)


def _explained(p: Float[Tensor, "n classes"], tried: Confusions, sides: BothSides) -> float:
    unknown = _wrong(p, tried.confusions, sides) * math.log(max(p.shape[1] - 1, 2))
    return tried.gain(p, sides) / len(p) / unknown


def _wrong(p: Float[Tensor, "n classes"], noise: Float[Tensor, "folds classes classes"], sides: BothSides) -> float:
    """Share of wrong labels under this noise."""
    likely = p * noise[sides.pool_folds, :, sides.pool.labels]
    right = (likely / likely.sum(1, keepdim=True)).gather(1, sides.pool.labels[:, None])
    return max(1 - float(right.double().mean()), LEAST_WRONG)


def _given_shares(pool: Points, known: Discriminant) -> Float[Tensor, " classes"]:
    given = torch.bincount(pool.labels, minlength=len(known.shares)).to(known.shares) + 1
    return given / given.sum()


def probabilities(sides: BothSides, shares: Float[Tensor, " classes"]) -> Float[Tensor, "folds n classes"]:
    """p(c | x) of each fold of the reference set's regressions, had the classes these shares: who is rare in the
    reference set need not be rare."""
    odds = (shares.clamp(min=SMALLEST) / sides.known.shares.clamp(min=SMALLEST)).log()
    return (sides.known_logits + odds.to(sides.known_logits)).softmax(2).clamp_(min=SMALLEST)
