"""The knobs of a valuation, and the published settings as presets."""

import math
from dataclasses import dataclass, replace
from typing import Literal

from sava_ops.batches import Batching
from sava_ops.errors import BadInput


@dataclass(frozen=True)
class ValuationConfig:
    """Knobs of `value_points`. Lengths are relative to the scale of the costs, so one default serves any encoder."""

    batch_size: int | None = 2048
    """Largest batch on either side; None = one batch a side (LAVA)."""
    batching: Batching = "stratified"
    unit_norm: bool = True
    """Divide every feature vector by its length first."""
    shorten_columns: bool = True
    """Shorten single features that vary inside the reference classes far more than all others."""
    label_metric: Literal["published", "divergence"] = "divergence"
    label_weight: float = 1.5
    """λ_y. Under "divergence", a label mismatch costs on average `label_weight` times the mean feature cost."""
    class_sample: int = 256
    """Points per class, at most, from which label distances are computed."""
    calibration_sample: int = 1024
    """Training points, at most, from which starting potentials are computed."""
    epsilon: float = 0.1
    """ε of a batch pair, times the mean feature cost."""
    rho: float = 0.5
    """ρ of a batch pair, times the mean feature cost; infinity = balanced transport."""
    class_shares: Literal["estimated", "reference"] = "estimated"
    """Class shares of the reference measure: as estimated for the training batch, or those of the reference set."""
    classifier_weight: float = 1.0
    """η: price of one nat by which a classifier prefers another label, times the mean feature cost."""
    shift_weight: float = 2.0
    """κ: price of one standard deviation along the shift that only part of a training batch has, times the mean feature
    cost."""
    tolerance: float = 1e-2
    """L1 error allowed on the second marginal of a batch pair."""
    max_sweeps: int = 10_000
    gradient: Literal["absolute", "calibrated"] = "absolute"
    """"calibrated" = Eq. 6: relative to the rest of the batch; what balanced potentials need."""
    batch_weights: Literal["plan", "uniform"] = "plan"
    """How reference batches are combined: by the batch plan (SAVA) or equally (batch-wise LAVA, App. G.5)."""
    plan_epsilon: float = 0.01
    """ε of the batch plan, times the largest batch cost."""
    hierarchical: bool = False
    """Add the gradient of the batch itself (Eq. 10) to that of its points."""
    held_out_sample: int = 512
    """Reference points, at most, that are valued with each training batch as if they belonged to it: what clean points
    look like there."""
    seed: int = 0

    def __post_init__(self) -> None:
        _require(self, "batch_size", self.batch_size is None or self.batch_size >= 1, "at least 1, or null")
        for name in ("class_sample", "calibration_sample", "max_sweeps"):
            _require(self, name, getattr(self, name) >= 1, "at least 1")
        for name in ("epsilon", "rho", "tolerance", "plan_epsilon"):
            _require(self, name, getattr(self, name) > 0, "above 0")
        _require(self, "epsilon", math.isfinite(self.epsilon), "finite")
        for name in ("label_weight", "classifier_weight", "shift_weight", "held_out_sample", "seed"):
            _require(self, name, 0 <= getattr(self, name) < math.inf, "0 or above")
        _require(self, "seed", self.seed < 2**63, "below 2^63")
        for name, choices in _CHOICES.items():
            _require(self, name, getattr(self, name) in choices, " or ".join(map(repr, choices)))

    @classmethod
    def paper(cls) -> "ValuationConfig":
        """SAVA as published (Alg. 1), converged: balanced transport, raw features, W from training data."""
        return cls(
            unit_norm=False, shorten_columns=False, label_metric="published", label_weight=1.0, epsilon=0.02,
            rho=math.inf, tolerance=1e-3, gradient="calibrated", class_shares="reference", classifier_weight=0.0,
            shift_weight=0.0,
        )  # fmt: skip

    @classmethod
    def lava(cls) -> "ValuationConfig":
        """LAVA (Just et al. 2023): the paper's method with one batch a side."""
        return replace(cls.paper(), batch_size=None)

    @classmethod
    def batchwise_lava(cls) -> "ValuationConfig":
        """Batch-wise LAVA (SAVA App. G.5): the paper's method without a batch plan, and without the tanh."""
        return replace(cls.paper(), batch_weights="uniform")


_CHOICES = {
    "batching": ("stratified", "random"),
    "label_metric": ("published", "divergence"),
    "class_shares": ("estimated", "reference"),
    "gradient": ("absolute", "calibrated"),
    "batch_weights": ("plan", "uniform"),
}


def _require(config: ValuationConfig, name: str, holds: bool, allowed: str) -> None:
    if not holds:
        raise BadInput(f"`{name}` is {getattr(config, name)!r}: it must be {allowed}")
