"""Who confuses what: three models of how a given label z comes from the true class c of an image, by EM on p(c | x).

    U[c, z]   = (1 − e) 1[c = z] + e / (C − 1) 1[c ≠ z]     any other label, alike
    D[c, z]   = (1 − ω) 1[c = z] + ω q_z                    a wrong label is drawn from q, whatever the image
    T[c, z]   = P(given label z | true class c), held near U by a Dirichlet prior of s labels for each class, as q is
                held near even by `PRIOR_LABELS`

s, of `STRENGTHS`, is the one by which labels held out are likeliest, beyond U: those of the pool, less what the same s
gains on those of the reference set. Nobody made these wrong, so what T explains of them are mistakes of p.

Sukhbaatar et al. 2015; Dawid & Skene 1979 for the EM. Each fold has its own, from the pool points outside of it
(`label_noise` asks them).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from sava_ops.reference.both_sides import Given
from sava_ops.reference.label_shift import LEAST_WRONG, MOST_WRONG, PRIOR_LABELS, SMALLEST

STRENGTHS = (300.0, 100.0, 30.0, 10.0, 3.0)
"""Labels; of equally good ones the first."""
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

    def held_out(self, p: Float[Tensor, "n classes"], given: Given) -> Float[Tensor, " n"]:
        """log P(given label | x) of these points under T."""
        return _log_likelihoods(p, self.confusions, given)

    def gain(self, p: Float[Tensor, "n classes"], given: Given) -> float:
        """How much larger their sum is than under U."""
        return float((self.held_out(p, given) - _log_likelihoods(p, self.uniform, given)).sum())

    @property
    def excess(self) -> Float[Tensor, "folds classes classes"]:
        """−log (T / U), nats; 0 where T is U."""
        log_ratio = self.uniform.clamp(min=SMALLEST).log() - self.confusions.clamp(min=SMALLEST).log()
        return log_ratio.masked_fill(self.uniform == 0, 0.0)


def by_folds(p: Float[Tensor, "n classes"], given: Given, model: NoiseModel) -> Confusions:
    """T of this model and U of every fold."""
    labels, found = given.labels, []
    for fold in range(given.folds):
        fitted = given.fold_of != fold if given.folds > 1 else given.fold_of == fold
        uniform = _uniform_noise(p[fitted], labels[fitted], given.known)
        found.append((model(p[fitted], labels[fitted], uniform), uniform))
    confusions, uniform = (torch.stack(side) for side in zip(*found, strict=True))
    return Confusions(confusions, uniform, model)


def confused(
    p: Float[Tensor, "n classes"], given: Given, trusted_p: Float[Tensor, "M classes"], trusted: Given
) -> Confusions:
    """T of the pool with the best s; `trusted` are the labels of the reference set, and what is said of its points."""

    def beyond_mistakes(found: Confusions) -> float:
        own = by_folds(trusted_p, trusted, found.model).gain(trusted_p, trusted) / max(len(trusted_p), 1)
        return found.gain(p, given) / max(len(p), 1) - max(own, 0.0)

    tried = [by_folds(p, given, partial(confused_noise, strength=strength)) for strength in STRENGTHS]
    return max(tried, key=beyond_mistakes)


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


def confused_noise(
    p: Float[Tensor, "n classes"], labels: Int64[Tensor, " n"], prior: Tensor, *, strength: float
) -> Tensor:
    """T near this prior."""
    confusions = prior
    for _ in range(EM_STEPS):
        given = (strength * prior.T).index_add(0, labels, likely_truth(p, confusions, labels))
        confusions, last = given.T / given.sum(0)[:, None], confusions
        if float((confusions - last).abs().max()) < EM_TOLERANCE:
            break
    return confusions


def _log_likelihoods(
    p: Float[Tensor, "n classes"], confusions: Float[Tensor, "folds classes classes"], given: Given
) -> Float[Tensor, " n"]:
    likelihood = (p * confusions[given.fold_of, :, given.labels]).sum(1)
    return likelihood.clamp(min=1e-12).log().double()
