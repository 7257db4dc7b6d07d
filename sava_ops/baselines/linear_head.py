"""Softmax regression trained by mini-batch SGD on the labels as they are: what TracInCP and EL2N look at.

    r(x, y) = softmax(W x + b) − onehot(y),    ∇_W ℓ = r xᵀ,    ∇_b ℓ = r
    (W, b) ← (W, b) − η · mean of ∇ℓ over a mini-batch

from zero, with a constant η that the size of the features decides; one checkpoint an epoch. O(N d C) an epoch.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from sava_ops.ot.cost import Points

BATCH = 128
LEARNING_RATE = 1.0
"""η times the mean of 1 + ‖x‖²: the loss bends by at most half of that mean, so any rate below 4 is stable."""


@dataclass(frozen=True)
class Head:
    """A checkpoint, and the η that led to it."""

    weights: Float[Tensor, "classes d"]
    biases: Float[Tensor, " classes"]
    learning_rate: float

    def logits(self, features: Float[Tensor, "n d"]) -> Float[Tensor, "n classes"]:
        return torch.addmm(self.biases, features, self.weights.T)

    def residuals(self, points: Points) -> Float[Tensor, "n classes"]:
        """r, the gradient of each point's loss with respect to its logits."""
        residuals = self.logits(points.features).softmax(1)
        residuals[torch.arange(len(points), device=residuals.device), points.labels] -= 1
        return residuals

    def accuracy(self, points: Points) -> float:
        return float((self.logits(points.features).argmax(1) == points.labels).double().mean())


def train_head(points: Points, *, classes: int, epochs: int, seed: int) -> list[Head]:
    """One checkpoint after every epoch."""
    x = points.features
    rate = LEARNING_RATE / (1 + float(x.square().sum(1).mean()))
    head = Head(x.new_zeros(classes, x.shape[1]), x.new_zeros(classes), rate)
    generator, checkpoints = torch.Generator().manual_seed(seed), []
    for _ in range(epochs):
        for rows in torch.randperm(len(points), generator=generator).to(x.device).split(BATCH):
            head = _stepped(head, points.take(rows))
        checkpoints.append(head)
    return checkpoints


def _stepped(head: Head, batch: Points) -> Head:
    slope = head.residuals(batch) * (head.learning_rate / len(batch))
    return Head(head.weights - slope.T @ batch.features, head.biases - slope.sum(0), head.learning_rate)
