"""The kernel of labelled points (Eq. 8), without an n × m matrix of costs.

    K_kl = E_kl F[y_k, y'_l],    E = b_l e^{(g_l − ½‖x_k − x'_l‖²)/ε},    F = e^{−λ_y W / 2ε}

The reference points stand in order of their classes, so the label term is one number per row and class, subtracted on
the way from the matrix product to the exponential; and the masses of `sava_ops.decomposition` are the class sums of
`K v` divided by `F`. The kernel is built in blocks of rows that stay in a processor's cache, each row scaled by its
largest entry.
"""

import math
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from sava_ops.ot.cost import Points
from sava_ops.ot.sinkhorn import Kernel

BLOCK_ENTRIES = 2**21
"""Of a block of rows on a processor: 8 MB in float32. A GPU takes all rows at once."""
LOST = 15.0
"""log of how far below a mass what underflows must stay: with a thousand entries, 1e-4 of it."""


@dataclass(frozen=True)
class RowSide:
    """n points as rows of kernels: what all reference batches have in common. In units of ε."""

    features: Float[Tensor, "n width"]
    """x / ε, and a 1 for what belongs to the column."""
    half_squares: Float[Tensor, " n"]
    label_costs: Float[Tensor, "classes n"]

    @classmethod
    def of(cls, points: Points, *, label_costs: Float[Tensor, "classes classes"], epsilon: float) -> "RowSide":
        """`label_costs` = ½ λ_y W without NaN."""
        x = points.features
        wider = x.new_ones(len(x), x.shape[1] + 1)
        torch.div(x, epsilon, out=wider[:, :-1])
        return cls(wider, _half_squares(x) / epsilon, (label_costs / epsilon)[points.labels].T.contiguous())


@dataclass(frozen=True)
class ColumnSide:
    """m reference points, in order of their classes, as columns of kernels."""

    features: Float[Tensor, "m width"]
    """x', and room for what belongs to the column and the potential absorbed."""
    half_squares: Float[Tensor, " m"]
    """In units of ε."""
    b: Float[Tensor, " m"]
    classes: list[tuple[int, slice]]
    """The columns of each class that occurs."""

    @classmethod
    def of(cls, points: Points, b: Float[Tensor, " m"], *, classes: int, epsilon: float) -> "ColumnSide":
        y = points.features
        wider = y.new_empty(len(y), y.shape[1] + 1)
        wider[:, :-1] = y
        counts = torch.bincount(points.labels, minlength=classes)
        sizes, ends = counts.tolist(), counts.cumsum(0).tolist()
        columns = [(c, slice(end - size, end)) for c, (size, end) in enumerate(zip(sizes, ends, strict=True)) if size]
        return cls(wider, _half_squares(y) / epsilon, b, columns)


def _half_squares(x: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
    return torch.linalg.vector_norm(x, dim=1).square_().mul_(0.5)


class Room(threading.local):
    """Memory for some kernels after others: fresh pages cost as much as a few sweeps. Each thread has its own."""

    def __init__(self) -> None:
        self.memory: Tensor | None = None

    @property
    def bytes(self) -> int:
        return 0 if self.memory is None else self.memory.nbytes

    def tables(self, rows: int, columns: Sequence[int], like: Tensor) -> list[Float[Tensor, "{rows} _"]]:
        """One of each number of columns, with whatever was in it."""
        size, memory = rows * sum(columns), self.memory
        if memory is None or len(memory) < size or (memory.dtype, memory.device) != (like.dtype, like.device):
            # The old one goes first.
            memory = self.memory = None
            memory = self.memory = like.new_empty(size)
        parts = memory[:size].split([rows * width for width in columns])
        return [part.view(rows, width) for part, width in zip(parts, columns, strict=True)]


class LabelledKernel(Kernel):
    """The kernel of n points and m reference points with potentials absorbed."""

    def __init__(
        self,
        rows: RowSide,
        columns: ColumnSide,
        *,
        epsilon: float,
        itself: tuple[Int64[Tensor, " h"], Int64[Tensor, " h"]] | None = None,
        table: Float[Tensor, "n m"] | None = None,
    ) -> None:
        """`itself` = rows and columns of pairs that are one and the same point, between which there is no transport;
        `table` = where to put the entries. Kernels of the same columns or table take turns."""
        self.row_side, self.column_side, self.epsilon, self.itself = rows, columns, epsilon, itself
        self.b, n = columns.b, len(rows.half_squares)
        self.a = self.b.new_full((n,), 1.0 / max(n, 1))
        self.entries = self.b.new_empty(n, len(self.b)) if table is None else table

    @staticmethod
    def holds(label_costs: Float[Tensor, "classes classes"], epsilon: float) -> bool:
        """Whether the number format holds every entry that matters under some label."""
        # Under another label, an entry may matter although F made it that small twice.
        return 2 * float(label_costs.max()) / epsilon < -math.log(torch.finfo(label_costs.dtype).tiny) - LOST

    def absorb(self, g: Float[Tensor, " m"]) -> Float[Tensor, " n"]:
        self.g = g
        self.offsets = g / self.epsilon + self.b.log()
        x, y = self.row_side.features, self.column_side.features
        # One more coordinate adds what belongs to the column, at no pass over the pairs.
        y[:, -1] = self.offsets - self.column_side.half_squares
        self.tops, least = torch.empty_like(self.a), math.log(torch.finfo(x.dtype).tiny)
        for rows in self._blocks():
            block = torch.mm(x[rows], y.T, out=self.entries[rows])
            if self.itself:
                inside = (self.itself[0] >= rows.start) & (self.itself[0] < rows.stop)
                block[self.itself[0][inside] - rows.start, self.itself[1][inside]] = -torch.inf
            for c, columns in self.column_side.classes:
                block[:, columns].sub_(self.row_side.label_costs[c, rows, None])
            self.tops[rows] = block.amax(1)
            # Numbers below the normal ones would make every pass over them ten times as slow.
            block.sub_(self.tops[rows, None]).clamp_(min=least).exp_()
        if self.itself:
            self.entries[self.itself] = 0
        self.row_scale = torch.ones_like(self.a)
        total = self.rows(torch.ones_like(g))
        self.row_scale = self.a / total
        return self.epsilon * (self.row_side.half_squares - self.tops - total.log())

    def rows(self, v: Float[Tensor, " m"]) -> Float[Tensor, " n"]:
        return self.row_scale * (self.entries @ v)

    def columns(self, u: Float[Tensor, " n"]) -> Float[Tensor, " m"]:
        return self.entries.T @ (self.row_scale * u)

    def log_class_masses(self, g: Float[Tensor, " m"]) -> Float[Tensor, "n classes"]:
        """log S under these g (near the absorbed ones); −∞ for classes that the reference lacks."""
        v, label_costs = torch.exp((g - self.g) / self.epsilon), self.row_side.label_costs
        sums = torch.zeros_like(label_costs)
        for c, columns in self.column_side.classes:
            torch.mv(self.entries[:, columns], v[columns], out=sums[c])
        return sums.log_().add_(label_costs - self.row_side.half_squares + self.tops).T

    def transport_cost(
        self, u: Float[Tensor, " n"], v: Float[Tensor, " m"], columns: Float[Tensor, " m"]
    ) -> Float[Tensor, ""]:
        # log K gives back the cost. (torch.xlogy takes three times as long.)
        mass, logs, tiny = self.row_scale * u, v.new_zeros(()), torch.finfo(v.dtype).tiny
        for rows in self._blocks():
            block = self.entries[rows]
            logs += mass[rows] @ (block.add(tiny).log_().mul_(block) @ v)
        by_row = self.a @ (self.row_side.half_squares - self.tops)
        return self.epsilon * (by_row + (v * columns) @ self.offsets - logs)

    def log_columns(self, f: Float[Tensor, " n"]) -> Float[Tensor, " m"]:
        """log Σ_k a_k e^{(f_k − C_kl)/ε}; overwrites the kernel."""
        x, y = self.row_side.features, self.column_side.features
        y[:, -1] = -self.column_side.half_squares
        torch.mm(x, y.T, out=self.entries)
        shifted = f / self.epsilon - self.row_side.half_squares + self.a.log()
        costs = self.row_side.label_costs
        return torch.cat(
            [(self.entries[:, own] + (shifted - costs[c])[:, None]).logsumexp(0) for c, own in self.column_side.classes]
        )

    def _blocks(self) -> Iterator[slice]:
        n, m = self.entries.shape
        size = max(1, BLOCK_ENTRIES // m) if self.entries.device.type == "cpu" else n
        return (slice(start, min(start + size, n)) for start in range(0, n, size))
