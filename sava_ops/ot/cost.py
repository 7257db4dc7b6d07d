"""Ground cost between labelled points (SAVA Eq. 1 and 8; `λ_x = 1`).

    C[k,l] = ½‖x_k − x'_l‖² + λ_y · ½ W[y_k, y'_l]

Both terms are matrix products: the label term is `⟨½ λ_y W[y_k, :], onehot(y'_l)⟩`, so no n × m gather of `W` is ever
made, and the cost of the images alone is there for whoever asks what another label would cost.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

BLOCK_ROWS = 16_384
MOMENT_ROWS, MOMENT_COLUMNS = 4_096, 64


@dataclass(frozen=True)
class Points:
    """A batch of labelled points: a batch's measure is uniform on them."""

    features: Float[Tensor, "n d"]
    """Feature vectors φ(image)."""
    labels: Int64[Tensor, " n"]
    """Global class ids, 0..classes-1."""
    label_losses: Float[Tensor, "n classes"] | None = None
    """What each label costs the image in the eyes of a classifier that has not seen it."""
    reference_losses: Float[Tensor, "n classes"] | None = None
    """The same in the eyes of one that has learned from the reference set alone."""
    log_ratios: Float[Tensor, " n"] | None = None
    """How much likelier the image is of the pool than of the reference set to one that has not seen it, nats."""
    left_out: Float[Tensor, " n"] | None = None
    """Of reference points: see `Discriminant.left_out`."""

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: Int64[Tensor, " k"]) -> "Points":
        known = self.label_losses, self.reference_losses, self.log_ratios, self.left_out
        return Points(self.features[rows], self.labels[rows], *(None if own is None else own[rows] for own in known))


def feature_cost(x: Float[Tensor, "n d"], y: Float[Tensor, "m d"]) -> Float[Tensor, "n m"]:
    """½‖x_k − y_l‖², never negative, in squared feature units."""
    # Distances do not see a common shift; without it, rounding does not see the norm of the mean.
    centre = y.mean(0)
    x, y = x - centre, y - centre
    cost = torch.addmm(_half_squared_norm(y)[None, :], x, y.T, alpha=-1)
    return cost.add_(_half_squared_norm(x)[:, None]).clamp_(min=0)


def ground_cost(
    train: Points,
    reference: Points,
    *,
    label_distances: Float[Tensor, "classes classes"],
    label_weight: float,
) -> Float[Tensor, "n m"]:
    """C of Eq. 8 for two batches; `label_weight` = λ_y, `label_distances` = W (train class, reference class)."""
    images = feature_cost(train.features, reference.features)
    return with_label_costs(images, train, reference, label_costs(label_distances, label_weight))


def label_costs(
    label_distances: Float[Tensor, "classes classes"], label_weight: float
) -> Float[Tensor, "classes classes"]:
    """½ λ_y W; a class that a side lacks has NaN in W, which nothing selects but would spread through products: 0."""
    return 0.5 * label_weight * label_distances.nan_to_num(0.0)


def with_label_costs(
    images: Float[Tensor, "n m"], train: Points, reference: Points, costs: Float[Tensor, "classes classes"]
) -> Float[Tensor, "n m"]:
    """C of Eq. 8 from the cost of the images alone."""
    one_hot = torch.nn.functional.one_hot(reference.labels, len(costs)).to(images.dtype)
    return torch.addmm(images, costs[train.labels], one_hot.T)


def mean_feature_cost(x: Float[Tensor, "n d"], y: Float[Tensor, "m d"]) -> float:
    """Mean over all pairs of ½‖x_k − y_l‖², in O((n + m) d): the scale that ε, ρ and the label weight follow."""
    centre = y.mean(0)
    x, y = x - centre, y - centre
    # In blocks: the squares of a large set at once would double what it takes of memory.
    norms = [torch.cat([_half_squared_norm(block) for block in side.split(BLOCK_ROWS)]) for side in (x, y)]
    squares = sum(float(side.double().mean()) for side in norms)
    return max(squares - float(x.mean(0).double() @ y.mean(0).double()), 0.0)


def moments(features: Float[Tensor, "n d"]) -> dict[str, Tensor]:
    """Mean (d,) and mean squared norm (), of the features as they are ("raw") and at unit length ("unit").

    In double precision part by part, since all at once would take many times the memory of the features: the same
    sums in the same order, as rows do not enter into each other's norms nor columns into each other's means.
    """
    lengths = torch.cat([x.double().norm(dim=1, keepdim=True) for x in features.split(MOMENT_ROWS)]).clamp(min=1e-12)
    means, squares = {}, {}
    for kind, divisor in (("raw", torch.ones_like(lengths)), ("unit", lengths)):
        columns = [(x.double() / divisor).mean(0) for x in features.split(MOMENT_COLUMNS, dim=1)]
        pairs = zip(features.split(MOMENT_ROWS), divisor.split(MOMENT_ROWS), strict=True)
        rows = [(x.double() / length).square().sum(1) for x, length in pairs]
        means[f"{kind}_mean"], squares[f"{kind}_square"] = torch.cat(columns), torch.cat(rows).mean()
    return means | squares


def _half_squared_norm(x: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
    return 0.5 * x.square().sum(1)
