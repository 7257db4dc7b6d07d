"""What is found on CIFAR-10, beside the yardsticks: `make benchmark`, or `benchmarks/detection.py FOLDER [SEEDS]`.

20,000 training images (shards 3 and 4) made dirty in ten ways, against half of the test images, on features of an
encoder that has seen neither. FOLDER holds cifar10/ and cifar10_encoder/, as for `sava cifar10`. Prints three tables:
AUROC; what the automatic threshold flags at a false-discovery rate of 5 %; suggested labels. A process for every
processor.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import cache
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from scenarios import SCENARIOS, Cifar10, report_environment

from sava_ops import ValuationConfig, value_points
from sava_ops.baselines import logistic_regression, nearest_neighbours
from sava_ops.decisions.conformal import benjamini_hochberg
from sava_ops.decisions.detection import auroc
from sava_ops.decisions.shares import bad_points
from sava_ops.inputs import as_points

RATE = 0.05
PAPER = replace(ValuationConfig.paper(), held_out_sample=0)
RANKINGS = (
    "evidence",
    "values",
    "label_values",
    "paper values",
    "paper label_values",
    "logistic regression",
    "50-NN vote",
)
FLAGS = ("false-discovery rate", "recall", "flagged share", "estimated bad share", "true bad share")
LABELS = ("right suggestions", "stated confidence", "logistic regression's")


def main(source: Path, seeds: Sequence[int]) -> None:
    data(source)  # embeds the clean images, which all processes then find
    # Spawned, or the threads that torch has started here would be missing there.
    with ProcessPoolExecutor(os.cpu_count(), get_context("spawn"), torch.set_num_threads, (1,)) as processes:
        waiting = {name: [processes.submit(measure, source, name, seed) for seed in seeds] for name in SCENARIOS}
        found = {name: [run.result() for run in runs] for name, runs in waiting.items()}
    sizes = f"20,000 training images, 5,000 reference images, seeds {', '.join(map(str, seeds))}"
    print(f"{report_environment()} {sizes}; mean ± standard deviation over the seeds\n")
    for title, columns in (
        ("AUROC", RANKINGS),
        (f"Automatic threshold, nominal rate {RATE:.0%}", FLAGS),
        ("Suggested labels of flagged wrong labels", LABELS),
    ):
        print_table(title, columns, found)


data = cache(Cifar10)
"""Read once a process."""


def measure(source: Path, name: str, seed: int) -> dict[str, float]:
    """Everything that the tables say of one scenario."""
    scenario = data(source).scenario(name, seed)
    train, reference = scenario.train, scenario.reference
    sides = train.features, train.labels, reference.features, reference.labels
    ours = value_points(*sides)
    flagged = benjamini_hochberg(ours.p_values, rate=RATE)
    made = {
        "false-discovery rate": (flagged & ~train.bad).sum() / max(flagged.sum(), 1),
        "flagged share": flagged.mean(),
        "estimated bad share": bad_points(ours.expected_bad),
        "true bad share": train.bad.mean(),
    }
    if not train.bad.any():
        return made
    judged = as_points(*sides[:2], side="training", unit_norm=True)
    judges = as_points(*sides[2:], side="reference", unit_norm=True)
    paper = value_points(*sides, config=PAPER)
    scores = {
        "evidence": ours.evidence,
        "values": ours.values,
        "label_values": ours.label_values,
        "paper values": paper.values,
        "paper label_values": paper.label_values,
        "logistic regression": logistic_regression.score(judged, judges),
        "50-NN vote": nearest_neighbours.score(judged, judges),
    }
    made |= {name: auroc(score, train.bad) for name, score in scores.items()}
    made["recall"] = flagged[train.bad].mean()
    mislabelled = flagged & (train.labels != train.true_labels) & (ours.suggested_labels != train.labels)
    if mislabelled.any():
        probability, classes = logistic_regression.class_probabilities(judged, judges)
        truth = train.true_labels[mislabelled]
        made["right suggestions"] = (ours.suggested_labels[mislabelled] == truth).mean()
        made["stated confidence"] = ours.confidence[mislabelled].mean()
        made["logistic regression's"] = (classes[probability.argmax(1)][mislabelled] == truth).mean()
    return made


def print_table(title: str, columns: Sequence[str], found: Mapping[str, list[dict[str, float]]]) -> None:
    print(f"**{title}**\n\n| | {' | '.join(columns)} |\n|---|{'---:|' * len(columns)}")
    for name, runs in found.items():
        if any(column in runs[0] for column in columns):
            cells = [_cell([float(run[column]) for run in runs if column in run]) for column in columns]
            print(f"| {name} | {' | '.join(cells)} |")
    print()


def _cell(values: list[float]) -> str:
    return f"{np.mean(values):.4f} ± {np.std(values):.4f}" if values else "–"


if __name__ == "__main__":
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "../shared/data")
    main(folder, [int(seed) for seed in sys.argv[2:]] or [0, 1, 2, 3, 4])
