"""What is done to the clean pool, at the paper's shares."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np

from sava_ops.errors import BadInput
from sava_ops.images.corruptions import confused_labels, noisy_features, noisy_labels, poison_frogs, trojan_square
from sava_ops.images.encoder import Encoder

MAIN = "noisy labels"
"""Corruption of the figures that show one."""
TARGET = 0
"""Class that trojans are labelled as, and that poisons collide with."""


@dataclass(frozen=True)
class Clean:
    """What is corrupted."""

    pixels: np.ndarray
    features: np.ndarray
    labels: np.ndarray
    names: list[str]
    mistakes: Mapping[int, int]
    """Asymmetric noise: which class is taken for which."""
    targets: np.ndarray
    """Test images of class `TARGET`, for poisons to collide with."""
    encoder: Encoder


@dataclass(frozen=True)
class Corrupted:
    """The pool after its corruption, and which points it touched."""

    pixels: np.ndarray
    labels: np.ndarray
    bad: np.ndarray


def _noisy_labels(clean: Clean, seed: int) -> Corrupted:
    return Corrupted(clean.pixels, *noisy_labels(clean.labels, share=0.3, classes=len(clean.names), seed=seed))


def _asymmetric_labels(clean: Clean, seed: int) -> Corrupted:
    return Corrupted(clean.pixels, *confused_labels(clean.labels, share=0.3, mistakes=clean.mistakes, seed=seed))


def _noisy_features(clean: Clean, seed: int) -> Corrupted:
    pixels, bad = noisy_features(clean.pixels, share=0.3, seed=seed)
    return Corrupted(pixels, clean.labels, bad)


def _trojan(clean: Clean, seed: int, *, fixed: bool) -> Corrupted:
    return Corrupted(*trojan_square(clean.pixels, clean.labels, share=0.1, target=TARGET, seed=seed, fixed=fixed))


def _poison_frogs(clean: Clean, seed: int) -> Corrupted:
    target = clean.targets[np.random.default_rng(seed).integers(len(clean.targets))]
    pixels, bad = poison_frogs(
        clean.pixels, clean.labels, target, encoder=clean.encoder, share=0.05, base=len(clean.names) - 1, seed=seed
    )
    return Corrupted(pixels, clean.labels, bad)


CORRUPTIONS: dict[str, Callable[[Clean, int], Corrupted]] = {
    MAIN: _noisy_labels,
    "asymmetric labels": _asymmetric_labels,
    "noisy features": _noisy_features,
    "trojan square": partial(_trojan, fixed=False),
    "patch trigger": partial(_trojan, fixed=True),
    "poison frogs": _poison_frogs,
}


def mistakes_of(asked: Mapping[str, str], number: Mapping[str, int]) -> dict[int, int]:
    """Asymmetric noise as asked for by name, else each class of the first half is taken for the next one."""
    if unknown := sorted({*asked, *asked.values()} - number.keys()):
        raise BadInput(f"`study.mistakes` names {unknown[0]}, which is no class: use {', '.join(number)}")
    if asked:
        return {number[label]: number[mistaken] for label, mistaken in asked.items()}
    return {k: k + 1 for k in range((len(number) + 1) // 2)}
