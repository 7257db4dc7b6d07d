"""What the training pool says of its labels: who confuses what, and a classifier that has learned from both sides.

    T[c, z]   = P(given label z | true class c) in the pool, by EM on p̃(c | x), held near uniform noise U (1 − e; all
                other labels alike) by a Dirichlet prior of `PRIOR_LABELS` labels
    r_i(c)    ∝ p(c | x_i) T[c, z_i]                       what the label of pool image i truly is (soft); p is what
                                                           the reference set's regressions say
    p̃(c | x)  = logistic regression on the reference set's labels and on r, cross-fitted on both sides
    L(T, p̃)   = Σ_pool log Σ_c p̃(c | x_i) T[c, z_i] + Σ_reference log p̃(y_j | x_j), all points held out
    ℓ_c(x, z) = −log p̃(c | x) − log (T[c, z] / U[c, z])    what class c costs an image that is labelled z

At first T is U, and p has the class shares of the pool's labels; or it is

    D[c, z]   = (1 − ω) 1[c = z] + ω q_z       a wrong label is drawn from q, whatever the image: ω and q by EM on p

and p has the class shares that the images alone tell (`label_shift`). Where one label is given too often, to images
with one mark, say, U takes it for a frequent class and p̃ would learn the mark. Reference points held out decide, whose
labels nobody made wrong: D goes on if p̃ has less log loss under it, by more than chance explains. Then T and p̃ are
found by turns, each from the other, for as long as L rises, `ROUNDS` times at most; in the first turn T from p as well,
and the better one by L goes on. At last p̃ takes the place of p in r, as EM has it, for as long as L rises and reference
points held out do not cost more than chance explains, `OWN_ROUNDS` times at most: who knows a class by few images
learns it from the pool, and a mark that stands beside a label is not learnt. U, D or T follows where L gains by it, and
so does the sharpness of p̃. Each fold asks its own p̃, which has seen nothing of what it will judge.

A small reference set, or one of other cameras, knows its classes by few images; the pool has many, most of them
labelled right. Semi-supervised learning under label noise (Nigam et al. 2000; Sukhbaatar et al. 2015; with trusted
data, Hendrycks et al. 2018) gets both. What an image shows, the soft labels first have from the reference set alone;
they follow a given label only as far as p and T leave room for it. T comes from p̃: a weak classifier's own confusions
would look like those of the people who labelled, and p̃ has learned better; where it has not, a T that is the
classifier's own predicts the labels of images held out no better than U does.

The p̃, T and U that judge a point were fitted without it and its label, on both sides alike. Three things are shared
by the folds: p is there the mean of all of them, the sharpness of p̃ is one number, and a T found from p̃
has the labels of its own fold behind it at second hand, by way of the p̃ of the other folds' points.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn.functional import one_hot

from sava_ops.ot.cost import Points
from sava_ops.reference.both_sides import BothSides, beyond_chance, hashed_folds, own_logits
from sava_ops.reference.discriminant import Discriminant
from sava_ops.reference.logistic import Regressions, losses

PRIOR_LABELS = 100.0
"""Strength of the Dirichlet prior: so many images with a label say as much of it as the prior."""
ROUNDS, OWN_ROUNDS = 2, 4
"""Of T and p̃ by turns, and then of p̃ by itself: each fits the regressions on both sides again."""
INVERSE_PENALTY = 2.0
"""C of the regression on both sides: a quarter and four times of it ranked worse by the mean over the sets of
`make benchmark`."""
SHARPNESSES = tuple(2 ** (k / 4) for k in range(-4, 9))
"""Tried inverse temperatures."""
EM_STEPS, EM_TOLERANCE = 50, 1e-4
"""At most so many steps, until no probability changes by more."""
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
    confusions: Float[Tensor, "folds classes classes"]
    """T (true class, given label); rows sum to 1."""
    excess: Float[Tensor, "folds classes classes"]
    """−log (T / U), nats; 0 where T is U."""
    explained: Float[Tensor, ""]
    """How much of what is unknown about a wrong label the first T tried explains, whether it counts or not: what it
    adds to the log-likelihood of a label held out, over the share of wrong labels times log (C − 1)."""
    joint_converged: Bool[Tensor, ""]
    """Whether p̃ met `LOSS_TOLERANCE`."""
    joint_reference_losses: Float[Tensor, "M classes"]
    """ℓ of the reference points under their own labels, by the fold that has not seen them."""

    def costs(self, features: Float[Tensor, "n d"], labels: Int64[Tensor, " n"]) -> Float[Tensor, "n classes"]:
        """ℓ of images with these labels that are not in the reference set."""
        fold_of = hashed_folds(features, len(self.joint_weights))
        logits = own_logits(features, fold_of, self.joint_weights, self.joint_biases)
        return losses(logits.softmax(1)) + self.excess[fold_of, :, labels].to(logits)


_Model = Callable[[Tensor, Tensor, Tensor], Tensor]
"""From p, given labels and U to U, D or T."""


@dataclass(frozen=True)
class _Confusions:
    """T and U of every fold, from the pool points outside of it."""

    confusions: Float[Tensor, "folds classes classes"]
    uniform: Float[Tensor, "folds classes classes"]
    model: _Model

    def held_out(self, p: Float[Tensor, "n classes"], sides: BothSides) -> float:
        """log P(given label | x) of the pool points under T, summed."""
        return _log_likelihood(p, self.confusions, sides)

    def gain(self, p: Float[Tensor, "n classes"], sides: BothSides) -> float:
        """How much larger that is than under U."""
        return self.held_out(p, sides) - _log_likelihood(p, self.uniform, sides)

    @property
    def excess(self) -> Float[Tensor, "folds classes classes"]:
        log_ratio = self.uniform.clamp(min=SMALLEST).log() - self.confusions.clamp(min=SMALLEST).log()
        return log_ratio.masked_fill(self.uniform == 0, 0.0)


class _Joint(NamedTuple):
    """p̃ of one T."""

    weights: Float[Tensor, "folds classes d"]
    biases: Float[Tensor, "folds classes"]
    converged: bool
    pool: Float[Tensor, "n classes"]
    """p̃ of the pool points, each held out."""
    reference_losses: Float[Tensor, "M classes"]
    """−log p̃ of the reference points, each held out."""

    def of_all(self, features: Float[Tensor, "n d"]) -> Float[Tensor, "folds n classes"]:
        """p̃ of every fold, whether it has seen them or not."""
        pairs = zip(self.weights, self.biases, strict=True)
        return torch.stack([(features @ own.T + bias).softmax(1).clamp(min=SMALLEST) for own, bias in pairs])

    def own_losses(self, sides: BothSides) -> Float[Tensor, " M"]:
        """Of the reference points under their own labels."""
        return self.reference_losses.gather(1, sides.reference.labels[:, None])[:, 0].double()

    def clearly_beats(self, other: "_Joint", sides: BothSides) -> bool:
        """Whether the reference points, each beside itself, cost less here, by more than chance."""
        return beyond_chance(other.own_losses(sides) - self.own_losses(sides))

    def likelihood(self, noise: _Confusions, sides: BothSides) -> float:
        """L."""
        return noise.held_out(self.pool, sides) - float(self.own_losses(sides).sum())


class _Regressions:
    """The regressions on both sides: only their targets change with T."""

    def __init__(self, sides: BothSides) -> None:
        self.sides = sides
        self.certain = one_hot(sides.reference.labels, len(sides.known.shares)).to(sides.reference.features)
        self.problem = Regressions(sides.projected, sides.fitted.to(self.certain))

    def fit(
        self, by_reference: Float[Tensor, "folds n classes"], noise: _Confusions, *, sharpened_by_both: bool = False
    ) -> _Joint:
        """p̃ on the soft labels of this p and T."""
        sides, pairs = self.sides, zip(by_reference, noise.confusions, strict=True)
        targets = [torch.cat([_truth(p, own, sides.pool.labels), self.certain]) for p, own in pairs]
        weights, biases, converged = self.problem.solve(torch.stack(targets), INVERSE_PENALTY)
        logits = own_logits(sides.reference.features, sides.reference_folds, weights, biases)
        of_pool = own_logits(sides.pool.features, sides.pool_folds, weights, biases)

        def judged(sharpness: float) -> float:
            """L, or what the reference set adds to it."""
            own = losses((sharpness * logits).softmax(1)).gather(1, sides.reference.labels[:, None])
            pool = noise.held_out((sharpness * of_pool).softmax(1), sides) if sharpened_by_both else 0.0
            return pool - float(own.double().sum())

        # Soft labels and the penalty leave a regression less sure than it may be.
        sharpness = max(SHARPNESSES, key=judged)
        return _Joint(
            sharpness * weights,
            sharpness * biases,
            converged,
            (sharpness * of_pool).softmax(1).clamp(min=SMALLEST),
            losses((sharpness * logits).softmax(1)),
        )


def _log_likelihood(
    p: Float[Tensor, "n classes"], confusions: Float[Tensor, "folds classes classes"], sides: BothSides
) -> float:
    likelihood = (p * confusions[sides.pool_folds, :, sides.pool.labels]).sum(1)
    return float(likelihood.clamp(min=1e-12).log().double().sum())


def fit_label_noise(sides: BothSides, shares: Float[Tensor, " classes"]) -> LabelNoise:
    """From a sample of the pool, whose true class shares are these, and the reference set."""
    pool, reference, known = sides.pool, sides.reference, sides.known
    regressions, present, first = _Regressions(sides), known.shares > 0, []
    for these, model in ((_given_shares(pool, known), _even), (shares, partial(_drawn, present=present))):
        by_reference = torch.stack([probabilities(pool, known, fold, these) for fold in range(sides.folds)])
        noise = _by_folds(by_reference.mean(0), sides, model)
        first.append((by_reference, noise, regressions.fit(by_reference, noise)))
    by_reference, noise, found = first[first[1][2].clearly_beats(first[0][2], sides)]
    p, explained = by_reference.mean(0), None
    before = found.likelihood(noise, sides)
    # Of two classes, nothing is unknown about a wrong label.
    for turn in range(ROUNDS if int(present.sum()) > 2 and len(pool) else 0):
        # A strong reference set is the better judge of who confuses what, for it has not learned from them.
        judges = [found.pool, p] if turn == 0 else [found.pool]
        tried = [(judge, _by_folds(judge, sides, _confusions)) for judge in judges]
        gains = [own.gain(judge, sides) for judge, own in tried]
        if explained is None:
            explained = _explained(*tried[0], sides, gain=gains[0])
        refitted = [
            (own, regressions.fit(by_reference, own)) for (_, own), gain in zip(tried, gains, strict=True) if gain > 0
        ]
        likelihoods = [joint.likelihood(own, sides) for own, joint in refitted]
        if max(likelihoods, default=before) <= before:
            break
        before = max(likelihoods)
        noise, found = refitted[likelihoods.index(before)]
    noise, found = _by_itself(noise, found, sides, regressions)
    excess = noise.excess
    return LabelNoise(
        joint_weights=found.weights,
        joint_biases=found.biases,
        confusions=noise.confusions,
        excess=excess,
        explained=known.weights.new_tensor(explained or 0.0),
        joint_converged=torch.tensor(found.converged, device=known.weights.device),
        joint_reference_losses=found.reference_losses
        + excess[sides.reference_folds, :, reference.labels].to(found.reference_losses),
    )


def _by_itself(
    noise: _Confusions, found: _Joint, sides: BothSides, regressions: _Regressions
) -> tuple[_Confusions, _Joint]:
    """p̃ with p̃ in the place of p, for as long as L rises and the reference set does not clearly lose."""
    for _ in range(OWN_ROUNDS if len(sides.pool) else 0):
        followed = _by_folds(found.pool, sides, noise.model)
        own = max(noise, followed, key=lambda each: each.held_out(found.pool, sides))
        tried = regressions.fit(found.of_all(sides.pool.features), own, sharpened_by_both=True)
        rises = tried.likelihood(own, sides) > found.likelihood(noise, sides)
        if not rises or found.clearly_beats(tried, sides):
            break
        noise, found = own, tried
    return noise, found


def _by_folds(p: Float[Tensor, "n classes"], sides: BothSides, model: _Model) -> _Confusions:
    """T of this model and U of every fold."""
    labels, present, found = sides.pool.labels, sides.known.shares > 0, []
    for fold in range(sides.folds):
        fitted = sides.pool_folds != fold if sides.folds > 1 else sides.pool_folds == fold
        uniform = _uniform_noise(p[fitted], labels[fitted], present)
        found.append((model(p[fitted], labels[fitted], uniform), uniform))
    confusions, uniform = (torch.stack(side) for side in zip(*found, strict=True))
    return _Confusions(confusions, uniform, model)


def _explained(p: Float[Tensor, "n classes"], tried: _Confusions, sides: BothSides, *, gain: float) -> float:
    joint = p * tried.confusions[sides.pool_folds, :, sides.pool.labels]
    right = (joint / joint.sum(1, keepdim=True)).gather(1, sides.pool.labels[:, None])
    wrong = max(1 - float(right.double().mean()), LEAST_WRONG)
    return gain / len(p) / (wrong * math.log(max(p.shape[1] - 1, 2)))


def _given_shares(pool: Points, known: Discriminant) -> Float[Tensor, " classes"]:
    given = torch.bincount(pool.labels, minlength=len(known.shares)).to(known.shares) + 1
    return given / given.sum()


def probabilities(
    pool: Points, known: Discriminant, fold: int, shares: Float[Tensor, " classes"]
) -> Float[Tensor, "n classes"]:
    """p(c | x) of one fold of the reference set's regressions, had the classes these shares: who is rare in the
    reference set need not be rare."""
    odds = (shares.clamp(min=SMALLEST) / known.shares.clamp(min=SMALLEST)).log().to(known.biases)
    logits = pool.features @ known.weights[fold].T + known.biases[fold] + odds
    return logits.softmax(1).clamp(min=SMALLEST)


def _truth(
    p: Float[Tensor, "n classes"], confusions: Tensor, labels: Int64[Tensor, " n"]
) -> Float[Tensor, "n classes"]:
    """r."""
    joint = p * confusions.T[labels]
    return joint / joint.sum(1, keepdim=True)


def _uniform_noise(p: Float[Tensor, "n classes"], labels: Int64[Tensor, " n"], present: Tensor) -> Tensor:
    """U, with the most likely share of wrong labels."""
    own = torch.eye(len(present), dtype=p.dtype, device=p.device)
    others = max(int(present.sum()) - 1, 1)
    right = p.gather(1, labels[:, None])[:, 0].double()
    rest = (p[:, present].double().sum(1) - right).clamp(min=0.0) / others
    wrong = 0.2
    for _ in range(EM_STEPS if len(p) else 0):
        belongs = (1 - wrong) * right / ((1 - wrong) * right + wrong * rest)
        wrong, last = min(max(1 - float(belongs.mean()), LEAST_WRONG), MOST_WRONG), wrong
        if abs(wrong - last) < EM_TOLERANCE / 10:
            break
    return (1 - wrong) * own + wrong * present.to(p.dtype) * (1 - own) / others


def _even(_p: Float[Tensor, "n classes"], _labels: Int64[Tensor, " n"], uniform: Tensor) -> Tensor:
    return uniform


def _drawn(p: Float[Tensor, "n classes"], labels: Int64[Tensor, " n"], uniform: Tensor, *, present: Tensor) -> Tensor:
    """D; q near even, as T is near U."""
    even = present.double() / present.sum()
    right, q, wrong = p.gather(1, labels[:, None])[:, 0].double(), even, 0.2
    for _ in range(EM_STEPS if len(p) else 0):
        belongs = wrong * q[labels] / (wrong * q[labels] + (1 - wrong) * right)
        wrong = min(max(float(belongs.mean()), LEAST_WRONG), MOST_WRONG)
        drawn = (PRIOR_LABELS * even).index_add(0, labels, belongs)
        q, last = drawn / drawn.sum(), q
        if float((q - last).abs().max()) < EM_TOLERANCE:
            break
    drawn = ((1 - wrong) * torch.eye(len(q), dtype=q.dtype, device=q.device) + wrong * q).to(p.dtype)
    return torch.where(present[:, None], drawn, uniform)


def _confusions(p: Float[Tensor, "n classes"], labels: Int64[Tensor, " n"], prior: Tensor) -> Tensor:
    """T near this prior."""
    confusions = prior
    for _ in range(EM_STEPS):
        given = (PRIOR_LABELS * prior.T).index_add(0, labels, _truth(p, confusions, labels))
        confusions, last = given.T / given.sum(0)[:, None], confusions
        if float((confusions - last).abs().max()) < EM_TOLERANCE:
            break
    return confusions
