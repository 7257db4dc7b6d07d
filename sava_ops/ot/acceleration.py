"""Anderson acceleration of a fixed-point iteration x ← T(x) (Anderson 1965; type II of Walker & Ni 2011).

    r_k = T(x_k) − x_k
    γ   = argmin ‖r_k − Σ_i γ_i (r_{i+1} − r_i)‖
    x_{k+1} = T(x_k) − Σ_i γ_i (T(x_{i+1}) − T(x_i))

over the last few steps. The fixed points are those of T; for Sinkhorn's sweep it needs a fraction of the sweeps. T is
followed as it is for a while, and each time twice as long, when its user says that a step went wrong: so whatever T
converges to is reached.
"""

import torch
from jaxtyping import Float
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
