"""What is found on other sets, and with few reference images: `make benchmark`, or `benchmarks/other_sets.py FOLDER`.

FOLDER holds cifar10/ and cifar10_encoder/ (here with 20 and 100 reference images a class), tiny_imagenet100/ (100
classes, a pool and a reference of the same source) and clothing/ (photographs by other people than those of the
reference, with natural confusions and three junk classes), the last two with features of an ImageNet network. Prints
AUROC beside yardsticks, and what is flagged at several false-discovery rates. A process for every processor; a set that
is not in FOLDER is named and left out.
"""

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from detection import print_table
from safetensors.numpy import load_file
from scenarios import Cifar10, report_environment

from sava_ops import value_points
from sava_ops.baselines import knn_shapley, nearest_neighbours
from sava_ops.baselines.confident_learning import held_out_probabilities
from sava_ops.decisions.conformal import benjamini_hochberg, conformal_p_values
from sava_ops.decisions.detection import auroc
from sava_ops.decisions.shares import bad_points
from sava_ops.images.corruptions import noisy_labels
from sava_ops.inputs import as_points
from sava_ops.reference.discriminant import fit_discriminant
from sava_ops.valuation import Valuation

FEATURES = "features_efficientnet_lite0.safetensors"
PER_CLASS = (5, 10, 25)
CIFAR10_PER_CLASS = (20, 100)
CIFAR10_SCENARIOS = ("symmetric 30 %", "asymmetric 30 %")
OURS = ("evidence", "values", "label_values")
YARDSTICKS = (
    "logistic regression",
    "its margin",
    "confident learning",
    "nearest class mean",
    "50-NN vote",
    "KNN-Shapley",
)
RATES = (0.01, 0.05, 0.1, 0.2)
FLAGS = (
    *(f"realised at {rate:.0%}" for rate in RATES),
    "flagged of the good at 5%",
    "recall at 5%",
    "recall at 10%",
    "the regression's at 10%",
    "estimated bad share",
    "off by class",
    "true bad share",
)


@dataclass(frozen=True)
class Sides:
    """Features and class numbers of pool and reference; a number that the reference lacks is junk."""

    features: np.ndarray
    labels: np.ndarray
    reference_features: np.ndarray
    reference_labels: np.ndarray

    @property
    def classes(self) -> int:
        return int(self.reference_labels.max()) + 1

    def without_junk(self) -> "Sides":
        known = self.labels < self.classes
        return replace(self, features=self.features[known], labels=self.labels[known])


Row = tuple[str, np.ndarray, np.ndarray, Sides]
"""Name, the labels that the pool carries, which points are bad, and the sides."""


def main(source: Path, seeds: Sequence[int]) -> None:
    for name in (name for name in ("cifar10", "tiny_imagenet100", "clothing") if not (source / name).is_dir()):
        print(f"{source / name} is not there: left out")
    report((row for seed in seeds for row in rows(source, seed)), seeds)


def report(rows: Iterable[Row], seeds: Sequence[int]) -> None:
    """Measure and print them, those of the same name as one."""
    found: dict[str, list[dict[str, float]]] = {}
    # Spawned, or the threads that torch has started here would be missing there.
    with ProcessPoolExecutor(os.cpu_count(), get_context("spawn"), torch.set_num_threads, (1,)) as processes:
        for name, row in [(name, processes.submit(measure, *row)) for name, *row in rows]:
            found.setdefault(name, []).append(row.result())
    print(f"{report_environment()} seeds {', '.join(map(str, seeds))}; mean ± standard deviation over the seeds\n")
    print_table("AUROC", OURS + YARDSTICKS, found)
    print_table("Flagged at a nominal rate", FLAGS, found)


def rows(source: Path, seed: int) -> Iterator[Row]:
    data = Cifar10(source) if (source / "cifar10").is_dir() else None
    for count in CIFAR10_PER_CLASS if data else ():
        for name in CIFAR10_SCENARIOS:
            made = data.scenario(name, seed)
            few = first_of_each(made.reference.labels, count, seed)
            reference = unit(made.reference.features[few]), made.reference.labels[few]
            sides = Sides(unit(made.train.features), made.train.true_labels, *reference)
            yield f"CIFAR-10, {count} a class: {name}", made.train.labels, made.train.bad, sides
    for count in PER_CLASS if (source / "tiny_imagenet100").is_dir() else ():
        sides = tiny_imagenet(source, count, seed)
        yield from wrong_labels(f"100 classes, {count} a class", sides, seed)
    if not (source / "clothing").is_dir():
        return
    junk = clothing(source)
    yield "clothing as it is: junk classes", junk.labels, junk.labels >= junk.classes, junk
    yield from wrong_labels("clothing", junk.without_junk(), seed)


def wrong_labels(name: str, sides: Sides, seed: int) -> Iterator[Row]:
    yield f"{name}: nothing wrong", sides.labels, np.zeros(len(sides.labels), dtype=bool), sides
    labels, bad = noisy_labels(sides.labels, share=0.3, classes=sides.classes, seed=seed)
    yield f"{name}: 30 % symmetric", labels, bad, sides
    nearest = class_distances(sides).argsort(1)[:, 1]
    bad = np.zeros(len(sides.labels), dtype=bool)
    bad[np.random.default_rng([seed, 1]).permutation(len(bad))[: len(bad) // 5]] = True
    yield f"{name}: 20 % for the nearest class", np.where(bad, nearest[sides.labels], sides.labels), bad, sides


def class_means(sides: Sides) -> np.ndarray:
    """(classes, d), of the reference."""
    x, y = sides.reference_features, sides.reference_labels
    return np.stack([x[y == c].mean(0) for c in range(sides.classes)])


def class_distances(sides: Sides) -> np.ndarray:
    means = class_means(sides)
    return np.linalg.norm(means[:, None] - means[None], axis=2)


def tiny_imagenet(source: Path, count: int, seed: int) -> Sides:
    """With so many reference images a class."""
    stored = load_file(source / "tiny_imagenet100" / FEATURES)
    labels = stored["reference_label"]
    chosen = first_of_each(labels, count, seed)
    sides = stored["train"], stored["train_label"], stored["reference"][chosen], labels[chosen]
    return Sides(unit(sides[0]), sides[1], unit(sides[2]), sides[3])


def first_of_each(labels: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Rows of so many points a class, drawn by seed."""
    order = np.random.default_rng([seed, 2]).permutation(len(labels))
    return np.concatenate([order[labels[order] == c][:count] for c in np.unique(labels)])


def clothing(source: Path) -> Sides:
    folder = source / "clothing"
    stored = load_file(folder / FEATURES)
    files = {"reference": folder / "reference.parquet"} | {p.stem: p for p in sorted((folder / "landing").iterdir())}
    words = {name: pq.read_table(file, columns=["label"])["label"].to_pylist() for name, file in files.items()}
    reference = words.pop("reference")
    given = [word for own in words.values() for word in own]
    known = sorted(set(reference))
    # A class that the reference lacks but may well be right ("Body") is a stranger, too, and counts as junk here.
    number = {word: k for k, word in enumerate([*known, *sorted(set(given) - set(known))])}
    features = np.concatenate([stored[name] for name in words])
    numbers = [np.array([number[word] for word in side]) for side in (given, reference)]
    return Sides(unit(features), numbers[0], unit(stored["reference"]), numbers[1])


def unit(features: np.ndarray) -> np.ndarray:
    x = features.astype(np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def measure(labels: np.ndarray, bad: np.ndarray, sides: Sides) -> dict[str, float]:
    ours = value_points(sides.features, labels, sides.reference_features, sides.reference_labels)
    rates = {rate: benjamini_hochberg(ours.p_values, rate=rate) for rate in RATES}
    made = {
        f"realised at {rate:.0%}": (flagged & ~bad).sum() / max(flagged.sum(), 1) for rate, flagged in rates.items()
    }
    made |= {
        "flagged of the good at 5%": rates[0.05][~bad].mean(),
        "estimated bad share": bad_points(ours.expected_bad),
        "off by class": off_by_class(ours, labels, bad),
        "true bad share": bad.mean(),
    }
    if not bad.any():
        return made
    made |= {name: auroc(getattr(ours, name), bad) for name in OURS}
    made |= {f"recall at {rate:.0%}": rates[rate][bad].mean() for rate in (0.05, 0.1)}
    if labels.max() >= sides.classes:  # no yardstick knows a label of these
        return made
    judges = as_points(sides.reference_features, sides.reference_labels, side="reference", unit_norm=True)
    regression = fit_discriminant(judges, classes=sides.classes, seed=0)
    rows = np.arange(len(labels))
    # The penalty is chosen by the log loss on held-out images, as for ours.
    losses = regression.losses(torch.from_numpy(sides.features)).numpy()
    made["logistic regression"] = auroc(losses[rows, labels], bad)
    made["its margin"] = auroc(_margin(losses, labels), bad)
    # Judged by the same reference images, each by the fold that has not seen it.
    clean = _margin(regression.reference_losses.numpy(), sides.reference_labels)
    p_values = conformal_p_values(_margin(losses, labels), clean, np.ones(len(clean)))
    made["the regression's at 10%"] = benjamini_hochberg(p_values, rate=0.1)[bad].mean()
    pool = as_points(sides.features, labels, side="training", unit_norm=True)
    of_the_pool = held_out_probabilities(pool, classes=sides.classes)
    made["confident learning"] = max(
        auroc(1 - of_the_pool[rows, labels], bad), auroc(_margin(-of_the_pool, labels), bad)
    )
    made["50-NN vote"] = auroc(nearest_neighbours.score(pool, judges), bad)
    made["KNN-Shapley"] = auroc(knn_shapley.score(pool, judges), bad)
    means = unit(class_means(sides))
    made["nearest class mean"] = auroc(-(sides.features @ means.T)[rows, labels], bad)
    return made


def off_by_class(ours: Valuation, labels: np.ndarray, bad: np.ndarray) -> float:
    """How far the estimated share of bad points is off, the mean over the classes of the labels."""
    each = [labels == c for c in np.unique(labels)]
    return float(np.mean([abs(bad_points(ours.expected_bad[c]) - bad[c].mean()) for c in each]))


def _margin(losses: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """How much more the given label costs than the best other one."""
    others = losses.copy()
    others[np.arange(len(labels)), labels] = np.inf
    return losses[np.arange(len(labels)), labels] - others.min(1)


if __name__ == "__main__":
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "../shared/data")
    main(folder, [int(seed) for seed in sys.argv[2:]] or [0, 1, 2, 3, 4])
