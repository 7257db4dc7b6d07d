"""The kernel of labelled points (Eq. 8), without an n × m matrix of costs.

    K_kl = E_kl F[y_k, y'_l],    E = b_l e^{(g_l − ½‖x_k − x'_l‖²)/ε},    F = e^{−λ_y W / 2ε}

The reference points stand in order of their classes, so the label term is one number per row and class, subtracted on
the way from the matrix product to the exponential; and the masses of `sava_ops.decomposition` are the class sums of
`K v` divided by `F`. The kernel is built in blocks of rows that stay in the processor's cache, each row scaled by its
largest entry.
"""

import math
from collections.abc import Iterator

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from sava_ops.cost import Points
from sava_ops.sinkhorn import Kernel

BLOCK_ENTRIES = 2**21
"""Of a block of rows: 8 MB in float32."""
LOST = 15.0
"""log of how far below a mass what underflows must stay: with a thousand entries, 1e-4 of it."""


class LabelledKernel(Kernel):
    """The kernel of n points and m reference points with potentials absorbed, in one buffer."""

    def __init__(
        self,
        points: Points,
        reference: Points,
        b: Float[Tensor, " m"],
        *,
        label_costs: Float[Tensor, "classes classes"],
        epsilon: float,
        itself: tuple[Int64[Tensor, " h"], Int64[Tensor, " h"]] | None = None,
        buffer: Tensor | None = None,
    ) -> None:
        """`label_costs` = ½ λ_y W without NaN; `itself` = rows and columns of pairs that are one and the same point,
        between which there is no transport; `buffer` = n · m numbers or more to work in."""
        self.order = reference.labels.argsort(stable=True)
        self.place = self.order.argsort()
        self.epsilon, self.b = epsilon, b
        self.x, self.y = points.features / epsilon, reference.features[self.order]
        self.half_squares = 0.5 * points.features.square().sum(1), 0.5 * self.y.square().sum(1)
        self.label_costs = label_costs[points.labels].T.contiguous()
        counts = torch.bincount(reference.labels, minlength=len(label_costs)).tolist()
        ends = torch.tensor(counts).cumsum(0).tolist()
        self.classes = [
            (c, slice(end - size, end)) for c, (size, end) in enumerate(zip(counts, ends, strict=True)) if size
        ]
        n, m = len(points), len(reference)
        self.a = b.new_full((n,), 1.0 / max(n, 1))
        if buffer is None:
            buffer = torch.empty(n * m, dtype=b.dtype, device=b.device)
        self.entries = buffer[: n * m].view(n, m)
        self.itself = (itself[0], self.place[itself[1]]) if itself else None

    @staticmethod
    def holds(label_costs: Float[Tensor, "classes classes"], epsilon: float) -> bool:
        """Whether the number format holds every entry that matters under some label."""
        # Under another label, an entry may matter although F made it that small twice.
        return 2 * float(label_costs.max()) / epsilon < -math.log(torch.finfo(label_costs.dtype).tiny) - LOST

    def absorb(self, g: Float[Tensor, " m"]) -> Float[Tensor, " n"]:
        self.g = g
        self.offsets = (g / self.epsilon + self.b.log())[self.order]
        # One more coordinate adds what belongs to the column, at no pass over the pairs.
        x = torch.cat([self.x, torch.ones_like(self.x[:, :1])], 1)
        y = torch.cat([self.y, (self.offsets - self.half_squares[1] / self.epsilon)[:, None]], 1)
        self.tops = torch.empty_like(self.a)
        for rows in self._blocks():
            block = torch.mm(x[rows], y.T, out=self.entries[rows])
            if self.itself:
                inside = (self.itself[0] >= rows.start) & (self.itself[0] < rows.stop)
                block[self.itself[0][inside] - rows.start, self.itself[1][inside]] = -torch.inf
            for c, columns in self.classes:
                block[:, columns].sub_(self.label_costs[c, rows, None] / self.epsilon)
            self.tops[rows] = block.amax(1)
            block.sub_(self.tops[rows, None]).exp_()
        self.row_scale = torch.ones_like(self.a)
        total = self.rows(torch.ones_like(g))
        self.row_scale = self.a / total
        return self.half_squares[0] - self.epsilon * (self.tops + total.log())

    def rows(self, v: Float[Tensor, " m"]) -> Float[Tensor, " n"]:
        return self.row_scale * (self.entries @ v[self.order])

    def columns(self, u: Float[Tensor, " n"]) -> Float[Tensor, " m"]:
        return (self.entries.T @ (self.row_scale * u))[self.place]

    def log_class_masses(self, g: Float[Tensor, " m"]) -> Float[Tensor, "n classes"]:
        """log S under these g (near the absorbed ones); −∞ for classes that the reference lacks."""
        v = torch.exp((g - self.g) / self.epsilon)[self.order]
        sums = self.label_costs.new_zeros(self.label_costs.shape)
        for c, columns in self.classes:
            torch.mv(self.entries[:, columns], v[columns], out=sums[c])
        return (sums.log() + (self.label_costs - self.half_squares[0]) / self.epsilon + self.tops).T

    def transport_cost(self, u: Float[Tensor, " n"], v: Float[Tensor, " m"]) -> float:
        # log K gives back the cost.
        mass, logs, tiny = self.row_scale * u, v.new_zeros(()), torch.finfo(v.dtype).tiny
        for rows in self._blocks():
            block = self.entries[rows]
            logs += mass[rows] @ (block.clamp(min=tiny).log_().mul_(block) @ v[self.order])
        by_row = (u * self.rows(v)) @ (self.half_squares[0] / self.epsilon - self.tops)
        by_column = (v * self.columns(u))[self.order] @ self.offsets
        return self.epsilon * float(by_row + by_column - logs)

    def log_columns(self, f: Float[Tensor, " n"]) -> Float[Tensor, " m"]:
        """log Σ_k a_k e^{(f_k − C_kl)/ε}; overwrites the buffer."""
        shifted = (f - self.half_squares[0]) / self.epsilon + self.a.log()
        torch.mm(self.x, self.y.T, out=self.entries).add_(shifted[:, None])
        sums = torch.empty_like(self.b)
        for c, columns in self.classes:
            labelled = self.entries[:, columns] - self.label_costs[c, :, None] / self.epsilon
            sums[columns] = torch.logsumexp(labelled, 0) - self.half_squares[1][columns] / self.epsilon
        return sums[self.place]

    def _blocks(self) -> Iterator[slice]:
        n, m = self.entries.shape
        size = max(1, BLOCK_ENTRIES // m)
        return (slice(start, min(start + size, n)) for start in range(0, n, size))
