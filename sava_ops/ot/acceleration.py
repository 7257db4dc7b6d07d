"""Anderson acceleration of a fixed-point iteration x ← T(x) (Anderson 1965; type II of Walker & Ni 2011).

    r_k = T(x_k) − x_k
    γ   = argmin ‖r_k − Σ_i γ_i (r_{i+1} − r_i)‖
    x_{k+1} = T(x_k) − Σ_i γ_i (T(x_{i+1}) − T(x_i))

over the last few steps. The fixed points are those of T; for Sinkhorn's sweep it needs a fraction of the sweeps. T is
followed as it is for a while, and each time twice as long, when its user says that a step went wrong: so whatever T
converges to is reached.
"""

import torch
from jaxtyping import Float, Int64
from torch import Tensor

DEPTH = 5
RIDGE = 1e-4
"""Relative to the longest difference: keeps parallel differences from blowing up γ."""


class Anderson:
    """The memory of one iteration."""

    def __init__(self) -> None:
        self.plain_steps, self.longest_pause = 0, 1
        self.remembered, self.last, self.steps = 0, None, None

    last: tuple[Tensor, Tensor] | None
    """T(x) and r of the step before."""
    steps: Float[Tensor, "2 depth m"] | None
    """The last differences of T(x) and of r, in float64; in a ring, since their order does not matter."""

    def pause(self) -> None:
        """The last step went wrong."""
        self.longest_pause *= 2
        self.plain_steps = self.longest_pause
        self.remembered, self.last = 0, None

    def step(self, x: Float[Tensor, " m"], image: Float[Tensor, " m"]) -> Float[Tensor, " m"]:
        """The next x, from x and T(x)."""
        if self.plain_steps:
            self.plain_steps -= 1
            return image
        residual = image - x
        last, self.last = self.last, (image, residual)
        if last is None:
            return image
        if self.steps is None:
            self.steps = x.new_empty(2, DEPTH, len(x), dtype=torch.float64)
        for kind, (new, old) in enumerate(zip(self.last, last, strict=True)):
            torch.sub(new, old, out=self.steps[kind, self.remembered % DEPTH])
        self.remembered += 1
        images, residuals = self.steps[:, : self.remembered]
        gram = residuals @ residuals.T
        diagonal = gram.diagonal()
        diagonal += RIDGE * diagonal.max() + torch.finfo(gram.dtype).tiny
        # The plain solve would wait for a GPU to say whether the matrix is singular, which the ridge rules out.
        gamma = torch.linalg.solve_ex(gram, residuals @ residual.double()).result
        return image - (gamma @ images).to(image.dtype)


class AndersonSideBySide:
    """The memories of many iterations in step, one to each column: what `Anderson` does with every one of them."""

    last: tuple[Tensor, Tensor] | None = None
    """T(x) and r of the step before."""

    def __init__(self, like: Float[Tensor, "m iterations"]) -> None:
        m, count = like.shape
        self.plain_steps = torch.zeros(count, dtype=torch.int64, device=like.device)
        self.longest_pause, self.follows = torch.ones_like(self.plain_steps), self.plain_steps.bool()
        # A difference of 0 in the ring has no say, so that all can share one place in it.
        self.place, self.steps = 0, like.new_zeros(2, DEPTH, m, count, dtype=torch.float64)
        self.gram = self.steps.new_zeros(DEPTH, DEPTH, count)

    def pause(self, iterations: Int64[Tensor, " k"]) -> None:
        """The last step of these went wrong."""
        self.longest_pause[iterations] *= 2
        self.plain_steps[iterations] = self.longest_pause[iterations]
        self.follows[iterations] = False
        self.steps[..., iterations] = 0
        self.gram[..., iterations] = 0

    def keep(self, iterations: Int64[Tensor, " k"]) -> None:
        """Forget all others."""
        for name in ("plain_steps", "longest_pause", "follows", "steps", "gram"):
            setattr(self, name, getattr(self, name).index_select(-1, iterations))
        if self.last is not None:
            image, residual = self.last
            self.last = image.index_select(-1, iterations), residual.index_select(-1, iterations)

    def step(self, x: Float[Tensor, "m iterations"], image: Float[Tensor, "m iterations"]) -> Tensor:
        """The next x (m, iterations), from x and T(x)."""
        plain, residual = self.plain_steps > 0, image - x
        differs, self.follows = self.follows & ~plain, ~plain
        self.plain_steps -= plain.long()
        last, self.last = self.last, (image, residual)
        if last is None:
            return image
        for steps, new, old in zip(self.steps, self.last, last, strict=True):
            steps[self.place] = torch.where(differs, new - old, 0)
        images, residuals = self.steps
        self.gram[self.place] = self.gram[:, self.place] = (residuals * residuals[self.place]).sum(1)
        self.place = (self.place + 1) % DEPTH
        gamma = _solved(self.gram, (residuals * residual).sum(1))
        return image - (gamma[:, None] * images).sum(0).to(image.dtype)


def _solved(gram: Float[Tensor, "depth depth k"], right: Float[Tensor, "depth k"]) -> Float[Tensor, "depth k"]:
    """γ of many small systems, by elimination: the ridge rules out pivots near 0."""
    table = torch.cat([gram, right[:, None]], 1)
    diagonal = table.diagonal()
    diagonal += (RIDGE * diagonal.amax(1) + torch.finfo(gram.dtype).tiny)[:, None]
    for k in range(len(gram)):
        pivot = table[k] / table[k, k]
        table -= table[:, k, None] * pivot
        table[k] = pivot
    return table[:, -1]
