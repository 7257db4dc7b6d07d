"""How many points of a pool truly are of each class, and what follows for the reference.

    π, ω, q = argmax  Σ_i w_i log Σ_c π_c p(c | x_i) / π₀_c ((1 − ω) 1[c = z_i] + ω q_{z_i})                     by EM

p is what the reference set's regressions say, π₀ are the shares in the reference set, z_i the given label: it is right,
or with probability ω drawn from q whatever the image, q near even by a Dirichlet prior of `PRIOR_LABELS` labels. Images
alone (ω = 1: Saerens et al. 2002) tell little of π where p is weak, labels alone are what is doubted, and a label that
many images of other classes carry is seen for what it is.

Ours: the reference measure of a batch pair is reweighted to π (target-shift transport, Redko et al. 2019), so that a
class that is honestly frequent is not punished for it, while wrong labels are.
"""

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from sava_ops.ot.cost import Points
from sava_ops.reference.discriminant import Discriminant

SMALLEST_SHARE = 0.01
"""Of a class's share in the reference set; transport needs every reference point to have some mass."""
PRIOR_LABELS = 100.0
"""Strength of the Dirichlet prior: so many images with a label say as much of it as the prior."""
EM_STEPS, EM_TOLERANCE = 300, 1e-5
"""At most so many steps, until no share changes by more."""
SMALLEST = 1e-6
"""Probability below which no class of an image is held for."""
LEAST_WRONG, MOST_WRONG = 1e-3, 0.9
"""Bounds of ω, the share of wrong labels."""


def estimated_shares(
    losses: Float[Tensor, "n classes"],
    labels: Int64[Tensor, " n"],
    reference: Discriminant,
    weights: Float[Tensor, " n"] | None = None,
) -> Float[Tensor, " classes"]:
    """π: true class shares, sum 1, from what each label would cost and what is given; 0 for a class that the reference
    set lacks. Points labelled so say nothing.

    `weights` in 0..1 say how much an image counts: a damaged one looks like anything.
    """
    known = reference.shares > 0
    counted = known[labels]
    if not counted.any():
        return reference.shares.clone()
    weights = reference.shares.new_ones(len(labels)) if weights is None else weights.double()
    z, w = labels[counted], weights[counted]
    likely = (-losses[counted].double()).softmax(1).clamp(min=SMALLEST) / reference.shares.clamp(min=SMALLEST)
    likely[:, ~known] = 0.0
    prior = PRIOR_LABELS * known.double() / known.sum()
    shares, wrong, drawn = reference.shares.clone(), 0.2, prior / prior.sum()
    for _ in range(EM_STEPS):
        of_class = likely * shares
        right = (1 - wrong) * of_class.gather(1, z[:, None])[:, 0]
        by_chance = wrong * drawn[z] * of_class.sum(1)
        belongs = by_chance / (right + by_chance)
        truth = of_class * (belongs / of_class.sum(1))[:, None]
        truth.scatter_add_(1, z[:, None], (1 - belongs)[:, None])
        found = w @ truth / w.sum()
        wrong = min(max(float(w @ belongs / w.sum()), LEAST_WRONG), MOST_WRONG)
        drawn = prior.index_add(0, z, w * belongs)
        drawn /= drawn.sum()
        shares, last = found, shares
        if float((shares - last).abs().max()) < EM_TOLERANCE:
            break
    return possible_shares(shares, reference.shares)


def possible_shares(
    found: Float[Tensor, " classes"] | None, reference: Float[Tensor, " classes"]
) -> Float[Tensor, " classes"]:
    """With at least some of each class that the reference set has; its own shares where nothing was found."""
    if found is None:
        return reference.clone()
    shares = torch.maximum(found.to(reference), SMALLEST_SHARE * reference)
    return shares / shares.sum()


def reference_measure(batch: Points, shares: Float[Tensor, " classes"]) -> Float[Tensor, " m"]:
    """ν of a reference batch whose classes weigh `shares`; uniform inside a class, sum 1."""
    counts = torch.bincount(batch.labels, minlength=len(shares))
    weights = (shares / counts.clamp(min=1))[batch.labels]
    return (weights / weights.sum()).to(batch.features.dtype)
