"""Who confuses what: three models of how a given label z comes from the true class c of an image, by EM on p(c | x).

    U[c, z]   = (1 − e) 1[c = z] + e / (C − 1) 1[c ≠ z]     any other label, alike
    D[c, z]   = (1 − ω) 1[c = z] + ω q_z                    a wrong label is drawn from q, whatever the image
    T[c, z]   = P(given label z | true class c), held near U by a Dirichlet prior of `PRIOR_LABELS` labels, or fewer
                where classes have few, as q is held near even

Sukhbaatar et al. 2015; Dawid & Skene 1979 for the EM. Each fold has its own, from the pool points outside of it
(`label_noise` asks them).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from sava_ops.reference.both_sides import BothSides
from sava_ops.reference.label_shift import LEAST_WRONG, MOST_WRONG, PRIOR_LABELS, SMALLEST

PRIOR_SHARE = 0.5
"""Labels of the prior of T for each one that a class has on average: where classes are many, more would hide what these
say. A fifth ranks 100 confused classes better, at the price of the estimated shares and the rates."""
EM_STEPS, EM_TOLERANCE = 50, 1e-4
"""At most so many steps, until no probability changes by more."""

NoiseModel = Callable[[Tensor, Tensor, Tensor], Tensor]
"""From p, given labels and U to U, D or T."""


@dataclass(frozen=True)
class Confusions:
    """T, or what stands for it, and U of every fold, from the pool points outside of it."""

    confusions: Float[Tensor, "folds classes classes"]
    uniform: Float[Tensor, "folds classes classes"]
    model: NoiseModel

    def held_out(self, p: Float[Tensor, "n classes"], sides: BothSides) -> Float[Tensor, " n"]:
        """log P(given label | x) of the pool points under T."""
        return _log_likelihoods(p, self.confusions, sides)

    def gain(self, p: Float[Tensor, "n classes"], sides: BothSides) -> float:
        """How much larger their sum is than under U."""
        return float((self.held_out(p, sides) - _log_likelihoods(p, self.uniform, sides)).sum())

    @property
    def excess(self) -> Float[Tensor, "folds classes classes"]:
        """−log (T / U), nats; 0 where T is U."""
        log_ratio = self.uniform.clamp(min=SMALLEST).log() - self.confusions.clamp(min=SMALLEST).log()
        return log_ratio.masked_fill(self.uniform == 0, 0.0)


def by_folds(p: Float[Tensor, "n classes"], sides: BothSides, model: NoiseModel) -> Confusions:
    """T of this model and U of every fold."""
    labels, present, found = sides.pool.labels, sides.known.shares > 0, []
    for fold in range(sides.folds):
        fitted = sides.pool_folds != fold if sides.folds > 1 else sides.pool_folds == fold
        uniform = _uniform_noise(p[fitted], labels[fitted], present)
        found.append((model(p[fitted], labels[fitted], uniform), uniform))
    confusions, uniform = (torch.stack(side) for side in zip(*found, strict=True))
    return Confusions(confusions, uniform, model)


def likely_truth(
    p: Float[Tensor, "n classes"], confusions: Tensor, labels: Int64[Tensor, " n"]
) -> Float[Tensor, "n classes"]:
    """r: what an image truly is, by p and the label that it carries."""
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


def even_noise(_p: Float[Tensor, "n classes"], _labels: Int64[Tensor, " n"], uniform: Tensor) -> Tensor:
    """U."""
    return uniform


def drawn_noise(
    p: Float[Tensor, "n classes"], labels: Int64[Tensor, " n"], uniform: Tensor, *, present: Tensor
) -> Tensor:
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


def confused_noise(p: Float[Tensor, "n classes"], labels: Int64[Tensor, " n"], prior: Tensor) -> Tensor:
    """T near this prior."""
    confusions, strength = prior, min(PRIOR_LABELS, PRIOR_SHARE * len(labels) / len(prior))
    for _ in range(EM_STEPS):
        given = (strength * prior.T).index_add(0, labels, likely_truth(p, confusions, labels))
        confusions, last = given.T / given.sum(0)[:, None], confusions
        if float((confusions - last).abs().max()) < EM_TOLERANCE:
            break
    return confusions


def _log_likelihoods(
    p: Float[Tensor, "n classes"], confusions: Float[Tensor, "folds classes classes"], sides: BothSides
) -> Float[Tensor, " n"]:
    likelihood = (p * confusions[sides.pool_folds, :, sides.pool.labels]).sum(1)
    return likelihood.clamp(min=1e-12).log().double()
