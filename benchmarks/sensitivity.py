"""How the defaults were chosen: `make sensitivity`, or `python benchmarks/sensitivity.py FOLDER`.

One knob at a time around the defaults, on seeds that no reported table uses; the best of `evidence`, `values` and
`label_values` as AUROC on six corruptions, and their mean.
"""

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from scenarios import Cifar10, Pool, Scenario, report_environment

from sava_ops import ValuationConfig, value_points
from sava_ops.decisions.detection import auroc

SEEDS = (100, 101)
NAMES = (
    "symmetric 30 %",
    "asymmetric 30 %",
    "skewed classes",
    "noisy features 30 %",
    "trojan square 10 %",
    "mixture",
)
DEFAULT = ValuationConfig()
KNOBS = {
    "epsilon": (0.03, 0.05, 0.2),
    "rho": (0.1, 0.25, 1.0, float("inf")),
    "label_weight": (0.5, 1.0, 2.0, 3.0),
    "classifier_weight": (0.0, 0.3, 3.0),
    "shift_weight": (0.0, 0.5, 1.0, 4.0),
    "class_shares": ("reference",),
    "batch_weights": ("uniform",),
    "batch_size": (512, 1024, 4096),
}
REFERENCE_SIZES = (500, 1000, 2500)
Transform = Callable[[Scenario], Scenario]


def configurations(source: Path) -> Iterator[tuple[str, ValuationConfig, Transform]]:
    """Name, knobs, and what is done to the points."""
    yield "default", DEFAULT, lambda s: s
    for name, values in KNOBS.items():
        for value in values:
            yield f"{name} {value}", replace(DEFAULT, **{name: value}), lambda s: s
    for size in REFERENCE_SIZES:
        yield f"reference of {size:,}", DEFAULT, lambda s, size=size: replace(s, reference=_first(s.reference, size))
    yield "raw features", replace(DEFAULT, unit_norm=False), lambda s: s
    yield "whitened within classes", replace(DEFAULT, unit_norm=False), _whitened
    head = load_file(source / "cifar10_encoder" / "resnet18_cifar10_first30k.safetensors")
    for name, squash in (("logits", lambda z: z), ("softmax", lambda z: z.softmax(1))):
        yield name, replace(DEFAULT, unit_norm=False), lambda s, squash=squash: _through(s, head, squash)


def main(source: Path) -> None:
    data = Cifar10(source)
    print(report_environment(), f"seeds {', '.join(map(str, SEEDS))}\n")
    print(f"| | mean | {' | '.join(NAMES)} |\n|---|{'---|' * (len(NAMES) + 1)}")
    for title, config, transform in configurations(source):
        means = []
        for name in NAMES:
            scenarios = [transform(data.scenario(name, seed)) for seed in SEEDS]
            means.append(np.mean([_best(scenario, config) for scenario in scenarios]))
        print(f"| {title} | **{np.mean(means):.4f}** | {' | '.join(f'{m:.4f}' for m in means)} |", flush=True)


def _best(scenario: Scenario, config: ValuationConfig) -> float:
    train, reference = scenario.train, scenario.reference
    found = value_points(train.features, train.labels, reference.features, reference.labels, config=config)
    return max(auroc(scores, train.bad) for scores in (found.evidence, found.values, found.label_values))


def _first(pool: Pool, size: int) -> Pool:
    return pool.take(np.arange(size))


def _mapped(scenario: Scenario, to: Callable[[np.ndarray], np.ndarray]) -> Scenario:
    train, reference = (replace(side, features=to(side.features)) for side in (scenario.train, scenario.reference))
    return replace(scenario, train=train, reference=reference)


def _whitened(scenario: Scenario) -> Scenario:
    x, labels = scenario.reference.features, scenario.reference.labels
    means = np.stack([x[labels == c].mean(0) for c in range(labels.max() + 1)])
    variances, axes = np.linalg.eigh(np.cov((x - means[labels]).T))
    whiten = axes / np.sqrt(variances + 0.01 * variances.mean())
    return _mapped(scenario, lambda features: (features @ whiten).astype(np.float32))


def _through(scenario: Scenario, head: dict[str, torch.Tensor], squash: Callable) -> Scenario:
    weight, bias = head["fc.weight"].float(), head["fc.bias"].float()
    return _mapped(scenario, lambda features: squash(torch.from_numpy(features) @ weight.T + bias).numpy())


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "../shared/data"))
