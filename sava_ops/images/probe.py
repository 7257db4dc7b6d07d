"""Linear probes: the last layer alone, trained on stored features, for a proof that takes seconds.

    min_{W,b}  Σ_i s_i (log Σ_c e^{z_ic} − z_{i,y_i}) + ½ ‖W‖² / C,    z = W x + b

that is multinomial logistic regression with weights s; x are the features about their mean, in units of their standard
deviation (over all columns together). The objective is convex, so chance lies in the training images alone: each seed
weighs them by the Bayesian bootstrap (Rubin, Ann. Statist. 9, 1981: s_i times a draw of Exp(1), which leaves no class
without images), alike in all sets, and of a large pool takes a sample that stands for it.

Points are passed through in blocks, once for a step of L-BFGS on all sets together. Features that lie on disk (a
memory-mapped tensor) stay there but for a sample: memory goes by that, by sets × classes × width, and some bytes a
point and set.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from sava_ops.errors import BadInput
from sava_ops.images.classifier import Progress, TrainingSet

BLOCK = 4_096
"""Points looked at at once."""
MOST_POINTS = 50_000
"""Of a pool that one seed looks at."""
INVERSE_PENALTY = 1.0
"""C: that of the regression which the study compares with."""
LOSS_TOLERANCE = 1e-5
"""Relative fall of the loss in one step at which probes count as converged."""
MOST_STEPS = 200


@dataclass(frozen=True)
class LabelledFeatures:
    features: Float[Tensor, "n d"]
    """What is in half precision is computed with in single precision."""
    labels: Int64[Tensor, " n"]


@dataclass(frozen=True)
class Probed:
    """What linear probes make of training sets."""

    accuracies: dict[str, list[float]]
    """Share (0..1) of the test points whose class is told: of each set, one per seed."""
    converged: bool
    """Whether each optimisation met `LOSS_TOLERANCE` within `MOST_STEPS`."""


class Probes(NamedTuple):
    """One linear layer a set, on the features themselves."""

    weights: Float[Tensor, "sets classes d"]
    biases: Float[Tensor, "sets classes"]
    """−∞ for a class that has no weight in a set: what was never seen is never told."""
    converged: bool

    def told(self, features: Float[Tensor, "n d"]) -> Int64[Tensor, "sets n"]:
        """The class that each probe tells of each point."""
        blocks = (x.to(self.weights) @ self.weights.transpose(1, 2) for x in features.split(BLOCK))
        return torch.cat([(z + self.biases[:, None]).argmax(2) for z in blocks], 1)


def probe_training_sets(
    pool: LabelledFeatures,
    sets: Mapping[str, TrainingSet],
    test: LabelledFeatures,
    *,
    classes: int,
    seeds: Sequence[int],
    device: str = "cpu",
    progress: Progress | None = None,
) -> Probed:
    """Test accuracy of a linear probe trained on each set of the pool, one per seed.

    `progress` counts steps of the optimisations, which may end before all are taken. Raises BadInput for labels outside
    of 0..classes − 1, an empty set, and features that do not fit together.
    """
    _check(pool, test, classes)
    labels, weights = (torch.stack(each) for each in zip(*(_whole(pool, each) for each in sets.values()), strict=True))
    told: dict[str, list[float]] = {name: [] for name in sets}
    start, converged, total = None, True, len(seeds) * MOST_STEPS
    for done, seed in enumerate(seeds):
        rows, draw = _drawn(len(pool.labels), seed)
        for name, own in zip(sets, weights[:, rows], strict=True):
            if not own.any():
                raise BadInput(f"the training set {name!r} has no image that counts: nothing can be learned from it")
        fit = Fit(pool.features[rows], labels[:, rows], classes=classes, device=device, start=start)
        probes = fit.solve(weights[:, rows] * draw, step=_counted(progress, done * MOST_STEPS, total))
        start, converged = fit.start, converged and probes.converged
        right = probes.told(test.features).cpu() == test.labels
        for name, share in zip(sets, right.double().mean(1).tolist(), strict=True):
            told[name].append(share)
    if progress:
        progress(total, total)
    return Probed(told, converged)


class Fit:
    """The optimisation of several probes on the same points."""

    def __init__(
        self,
        features: Float[Tensor, "n d"],
        labels: Int64[Tensor, "sets n"],
        *,
        classes: int,
        device: str = "cpu",
        start: np.ndarray | None = None,
    ) -> None:
        """`labels`: of each point in each set. `start`: that of another fit, which is where its last solution was."""
        self.features, self.labels, self.classes, self.device = features, labels, classes, device
        self.dtype = torch.promote_types(features.dtype, torch.float32)
        self.start = np.zeros(len(labels) * classes * (features.shape[1] + 1)) if start is None else start

    def solve(
        self,
        weights: Float[Tensor, "sets n"],
        *,
        inverse_penalty: float = INVERSE_PENALTY,
        step: Callable[[], None] = lambda: None,
    ) -> Probes:
        """The probes with these weights: 0 for a point that a set has not, above 0 for some. `step` is called after
        each step."""
        from scipy.optimize import minimize

        totals = weights.sum(1, dtype=torch.float64)
        self.share = (weights / totals[:, None]).to(self.dtype)
        self.penalty = (1 / (inverse_penalty * totals))[:, None, None].to(self.device)
        self._look()
        options = {"ftol": LOSS_TOLERANCE, "gtol": 0.0, "maxiter": MOST_STEPS}
        found = minimize(
            self._objective, self.start, method="L-BFGS-B", jac=True, options=options, callback=lambda _: step()
        )
        self.start = found.x
        w, b = self._unpacked(found.x)
        w = w / self.unit
        return Probes(w, (b - w @ self.centre).masked_fill(self.absent, -torch.inf), bool(found.success))

    def _look(self) -> None:
        """Mean and spread of the points as they count in all sets together; classes that a set has not."""
        exact = {"device": self.device, "dtype": torch.float64}
        mean, square = torch.zeros(self.features.shape[1], **exact), torch.zeros((), **exact)
        mass = torch.zeros(len(self.labels), self.classes, **exact)
        for x, labels, share in self._blocks():
            own, wide = share.double().mean(0), x.double()
            mean += own @ wide
            square += own @ wide.square().sum(1)
            mass.scatter_add_(1, labels, share.double())
        self.centre, self.absent = mean.to(self.dtype), mass == 0
        self.unit = float((square - mean @ mean).clamp(min=0)) ** 0.5 or 1.0

    def _blocks(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Features (n, d), labels and shares (sets, n)."""
        for start in range(0, len(self.features), BLOCK):
            rows = slice(start, start + BLOCK)
            x, labels, share = self.features[rows], self.labels[:, rows], self.share[:, rows]
            yield x.to(self.device, self.dtype), labels.to(self.device), share.to(self.device)

    def _unpacked(self, flat: np.ndarray) -> tuple[Tensor, Tensor]:
        table = torch.from_numpy(flat).to(self.device, self.dtype).view(len(self.labels), self.classes, -1)
        return table[..., :-1], table[..., -1]

    def _objective(self, flat: np.ndarray) -> tuple[float, np.ndarray]:
        """The value, summed over the sets, and its gradient."""
        w, b = self._unpacked(flat)
        by_weight, by_bias = self.penalty * w.double(), torch.zeros_like(b, dtype=torch.float64)
        value = (by_weight * w).sum() / 2
        for x, labels, share in self._blocks():
            x = (x - self.centre) / self.unit
            # Points last: the passes over them are then over neighbours in memory.
            z = (w.flatten(0, 1) @ x.T).view(*b.shape, -1).add_(b[..., None])
            z = z.masked_fill_(self.absent[..., None], -torch.inf)
            log_total, own = z.logsumexp(1), labels[:, None]
            # What a set has not may be of a class that it has not: 0 · ∞.
            loss = torch.where(share > 0, log_total - z.gather(1, own)[:, 0], 0)
            value += (share * loss).sum(dtype=torch.float64)
            p = z.sub_(log_total[:, None]).exp_()
            slope = p.scatter_add_(1, own, -torch.ones_like(own, dtype=p.dtype)).mul_(share[:, None])
            by_weight += (slope.flatten(0, 1) @ x).view_as(w)
            by_bias += slope.sum(2)
        return float(value), torch.cat([by_weight, by_bias[..., None]], 2).flatten().cpu().numpy()


def _drawn(count: int, seed: int) -> tuple[slice | Int64[Tensor, " some"], Float[Tensor, " some"]]:
    """What a seed looks at of so many points, and what each weighs."""
    chance = np.random.default_rng(seed)
    rows = slice(None) if count <= MOST_POINTS else np.sort(chance.choice(count, MOST_POINTS, replace=False))
    weights = chance.exponential(size=min(count, MOST_POINTS)).astype(np.float32)
    return rows if isinstance(rows, slice) else torch.from_numpy(rows), torch.from_numpy(weights)


def _whole(pool: LabelledFeatures, chosen: TrainingSet) -> tuple[Int64[Tensor, " n"], Float[Tensor, " n"]]:
    """A set as labels and weights of the whole pool."""
    labels, weights = pool.labels.clone(), torch.zeros(len(pool.labels))
    labels[chosen.rows] = pool.labels[chosen.rows] if chosen.labels is None else chosen.labels
    weights[chosen.rows] = torch.ones(len(chosen.rows)) if chosen.weights is None else chosen.weights.float()
    return labels, weights


def _check(pool: LabelledFeatures, test: LabelledFeatures, classes: int) -> None:
    if pool.features.shape[1] != test.features.shape[1]:
        raise BadInput(
            f"the pool has {pool.features.shape[1]} features and the test set {test.features.shape[1]}: embed both "
            "with one encoder"
        )
    for name, points in {"pool": pool, "test set": test}.items():
        if len(points.labels) == 0:
            raise BadInput(f"the {name} is empty: pass at least one point")
        outside = ((points.labels < 0) | (points.labels >= classes)).nonzero().flatten()
        if len(outside):
            first = int(outside[0])
            raise BadInput(
                f"`labels` of the {name} has {len(outside)} values outside 0..{classes - 1} (first: "
                f"{int(points.labels[first])} at row {first}): raise `classes` or mend the labels"
            )


def _counted(progress: Progress | None, before: int, total: int) -> Callable[[], None]:
    done = before

    def step() -> None:
        nonlocal done
        done += 1
        if progress:
            progress(done, total)

    return step
