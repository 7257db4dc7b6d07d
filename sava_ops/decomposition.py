"""Is it the image or its label? The potential that a point would have under every other label.

    log S_k(c') = log Σ_{l: y'_l = c'} ν_l e^{(g_l − cost of the images k, l)/ε}
    f_k(c)      = −ε log Σ_{c'} e^{−λ_y W[c,c'] / 2ε} S_k(c')  [+ η ℓ_c(x_k)]

with g as solved: because the label enters the cost as ½ λ_y W[c, y'_l] alone, all labels together cost one pass over
the pairs and one product of (n, classes) with (classes, classes). At the given label, f_k(y_k) is the potential itself.
ℓ is a classifier's loss (`reference.discriminant`), which depends on the training point alone and so moves no mass.

    feature_value   = min_c f_k(c)                          how foreign the image is under its best label
    label_value     = f_k(y_k) − min_{c ≠ y_k} f_k(c)       signed margin; above 0, another label fits better
    suggested_label = argmin_c f_k(c)                      of damaged images, see `judgement.assess`
    label_odds      = log Σ_{c ≠ y_k} e^{(f_k(y_k) − f_k(c))/η}   Bayes' rule, were f/η minus log-likelihoods; of the
                                                           labels that are not kept one by one, r holds the sum
    value           = f_k(y_k) = feature_value + max(label_value, 0)

Ours. Labels that the reference set lacks are never suggested.
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

MOST_LABELS = 16
"""Labels kept of each point: its own, then the best of the others. Of all further ones together, their sum."""


@dataclass(frozen=True)
class LabelPotentials:
    """Potentials of n points under T labels against L reference batches."""

    labels: Int64[Tensor, "n T"]
    """First the given label, then the best others, best first."""
    potentials: Float[Tensor, "n L T"]
    """f_kj(c), units of cost; infinite where there are fewer than T labels to choose from."""
    rest: Float[Tensor, "n L"]
    """r_kj = −η log Σ e^{−f_kj(c)/η} over all further labels; infinite where there are none, or no classifier."""


@dataclass(frozen=True)
class Scores:
    """What is said of n points; all values in units of cost."""

    values: Float[Tensor, " n"]
    """High = far from the reference = prune first."""
    feature_values: Float[Tensor, " n"]
    label_values: Float[Tensor, " n"]
    """0 where no other label is known."""
    label_odds: Float[Tensor, " n"]
    """How much likelier than its own all other labels together are, nats; −∞ where no other label is known."""
    suggested_labels: Int64[Tensor, " n"]
    gaps: Float[Tensor, " n"]
    """How far the second-best label is behind the suggested one; 0 where no other label is known."""


def log_class_masses(
    cost: Float[Tensor, "n m"],
    g: Float[Tensor, " m"],
    log_b: Float[Tensor, " m"],
    labels: Int64[Tensor, " m"],
    *,
    classes: int,
    epsilon: float,
) -> Float[Tensor, "n {classes}"]:
    """log S: `cost` is that of the images alone, `labels` are those of the reference points; −∞ for absent classes."""
    order = labels.argsort(stable=True)
    exponents = ((g + epsilon * log_b)[None, order] - cost[:, order]) / epsilon
    parts = exponents.split(torch.bincount(labels, minlength=classes).tolist(), 1)
    nothing = cost.new_full((len(cost),), -torch.inf)
    return torch.stack([part.logsumexp(1) if part.shape[1] else nothing for part in parts], 1)


def potentials_by_label(
    log_masses: Float[Tensor, "n classes"], label_costs: Float[Tensor, "classes classes"], *, epsilon: float
) -> Float[Tensor, "n classes"]:
    """f_k(c) for every label c, units of cost; `label_costs` = ½ λ_y W."""
    dtype, log_masses = log_masses.dtype, log_masses.double()
    top = log_masses.amax(1, keepdim=True)
    closeness = torch.exp(-label_costs.double() / epsilon)
    total = torch.exp(log_masses - top) @ closeness.T
    # Beyond e^-700 the last digit of a potential no longer matters; infinity would.
    return (-epsilon * (top + total.clamp(min=1e-300).log())).to(dtype)


def best_labels(
    potentials: Float[Tensor, "n L classes"],
    given: Int64[Tensor, " n"],
    *,
    batch_masses: Float[Tensor, " L"],
    known: Bool[Tensor, " classes"],
    nat: float,
    mistakes: Int64[Tensor, " n"] | None = None,
) -> LabelPotentials:
    """Keep the given label and the best others that are `known`; which are best, the batch masses decide. The label in
    `mistakes` is kept as the last one, however badly it fits. `nat` = η, the price of a nat of the classifier's loss,
    units of cost."""
    mean = torch.einsum("nlc,l->nc", potentials, batch_masses).masked_fill(~known, torch.inf)
    if mistakes is not None:
        mean.scatter_(1, mistakes[:, None], torch.inf)
    mean.scatter_(1, given[:, None], -torch.inf)
    seen = known | torch.isin(torch.arange(len(known), device=given.device), given)
    kept = max(1, min(MOST_LABELS, int(seen.sum())))
    ranked, labels = mean.topk(kept, 1, largest=False)
    if mistakes is not None and kept > 1:
        labels[:, -1], ranked[:, -1] = mistakes, torch.where((mistakes == given) | ~known[mistakes], torch.inf, 0.0)
    chosen = potentials.gather(2, labels[:, None, :].expand(-1, potentials.shape[1], -1))
    chosen = chosen.masked_fill((ranked == torch.inf)[:, None, :], torch.inf)
    return LabelPotentials(labels, chosen, together(potentials, labels, known=known, nat=nat))


def together(
    potentials: Float[Tensor, "n L classes"],
    kept: Int64[Tensor, "n T"],
    *,
    known: Bool[Tensor, " classes"],
    nat: float,
) -> Float[Tensor, "n L"]:
    """r of all known labels that are not kept."""
    if not nat:
        return torch.full_like(potentials[:, :, 0], torch.inf)
    further = known.expand(len(kept), -1).scatter(1, kept, False)
    sums = [(-f / nat).masked_fill(~further, -torch.inf).logsumexp(1) for f in potentials.unbind(1)]
    return -nat * torch.stack(sums, 1)


def best_other_labels(
    losses: Float[Tensor, "n classes"], given: Int64[Tensor, " n"], *, known: Bool[Tensor, " classes"]
) -> tuple[Int64[Tensor, " n"], Float[Tensor, " n"]]:
    """The `known` label but the given one that costs least, and how much more the next one costs, the given one or
    another: negative where the given one costs less. The given label and 0 where there is no other."""
    others = losses.masked_fill(~known, torch.inf).scatter(1, given[:, None], torch.inf)
    least, best = others.min(1)
    nothing, own = least.isinf(), losses.gather(1, given[:, None])[:, 0]
    margins = torch.minimum(own, others.scatter(1, best[:, None], torch.inf).amin(1)) - least
    return torch.where(nothing, given, best), margins.masked_fill(nothing, 0.0)


def spared(found: LabelPotentials, judgeable: Bool[Tensor, " classes"]) -> LabelPotentials:
    """Points whose given label nobody can judge cost under it what they cost under the best one."""
    own = torch.where(judgeable[found.labels[:, :1]], found.potentials[:, :, 0], found.potentials.amin(2))
    return replace(found, potentials=torch.cat([own[:, :, None], found.potentials[:, :, 1:]], 2))


def decompose(
    labels: Int64[Tensor, "n T"], potentials: Float[Tensor, "n T"], rest: Float[Tensor, " n"], *, nat: float
) -> Scores:
    """Scores from the potentials of each point under its own label (first column) and others, and r of all further
    ones. `nat` = η."""
    value, place = potentials.min(1)
    own = potentials[:, 0]
    nothing = torch.zeros_like(own)
    if potentials.shape[1] == 1:
        return Scores(own, own, nothing, nothing - torch.inf, labels[:, 0], nothing)
    other = potentials[:, 1:].amin(1)
    two = potentials.topk(2, 1, largest=False).values
    return Scores(
        values=own,
        feature_values=value,
        label_values=torch.where(other.isinf(), nothing, own - other),
        label_odds=((own[:, None] - _others(potentials[:, 1:], rest)) / nat).logsumexp(1) if nat else nothing,
        suggested_labels=labels.gather(1, place[:, None])[:, 0],
        gaps=torch.where(other.isinf(), nothing, two[:, 1] - two[:, 0]),
    )


def odds_if_mistaken(
    labels: Int64[Tensor, "n T"],
    potentials: Float[Tensor, "n T"],
    rest: Float[Tensor, " n"],
    excess: Float[Tensor, "classes classes"],
    *,
    nat: float,
) -> Float[Tensor, " n"]:
    """`label_odds` of each point, had it been given the last of these labels instead of its own, the first; `excess` is
    what a label costs that is often mistaken for another (`LabelNoise`), and is in `rest`, the r of all further ones
    under that label. Infinite where nobody gives it."""
    # Of a label that is often given by mistake, more other ones are possible.
    under = potentials + nat * (excess[labels, labels[:, -1:]] - excess[labels, labels[:, :1]])
    fits = -_others(under[:, :-1], rest) / nat
    return (fits.logsumexp(1) + under[:, -1] / nat).masked_fill(potentials[:, -1].isinf(), torch.inf)


def _others(potentials: Float[Tensor, "n others"], rest: Float[Tensor, " n"]) -> Float[Tensor, "n others+1"]:
    return torch.cat([potentials, rest[:, None]], 1)
