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
        self._forget()

    def pause(self) -> None:
        """The last step went wrong."""
        self.longest_pause *= 2
        self.plain_steps = self.longest_pause
        self._forget()

    def _forget(self) -> None:
        self.image_steps: list[Tensor] = []
        self.residual_steps: list[Tensor] = []
        self.last: tuple[Tensor, Tensor] | None = None

    def step(self, x: Float[Tensor, " m"], image: Float[Tensor, " m"]) -> Float[Tensor, " m"]:
        """The next x, from x and T(x)."""
        if self.plain_steps:
            self.plain_steps -= 1
            return image
        residual = image - x
        if self.last:
            self.image_steps = [*self.image_steps[1 - DEPTH :], image - self.last[0]]
            self.residual_steps = [*self.residual_steps[1 - DEPTH :], residual - self.last[1]]
        self.last = image, residual
        if not self.residual_steps:
            return image
        steps = torch.stack(self.residual_steps).double()
        gram = steps @ steps.T
        gram.diagonal().add_(RIDGE * gram.diagonal().max() + torch.finfo(gram.dtype).tiny)
        # The plain solve would wait for a GPU to say whether the matrix is singular, which the ridge rules out.
        gamma = torch.linalg.solve_ex(gram, steps @ residual.double()).result
        return image - (gamma @ torch.stack(self.image_steps).double()).to(image.dtype)
