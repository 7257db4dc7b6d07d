"""The trainings that a curation is judged by, each by whoever works on it: in the process of the run or in a worker."""

import hashlib
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from sava_assets.assets.pixels import pixel_file
from sava_assets.formats.columns import places_of
from sava_assets.home.resources import Workspace
from sava_assets.home.result import Result, digest
from sava_ops.images.classifier import Comparison, LabelledImages, Progress, TrainingSet, trained_accuracy

VERSION = "1"
"""Of the trainings: their keys begin with it."""


@dataclass(frozen=True)
class Trainings:
    """What they have in common. Images are read from the store by whoever trains."""

    title: str
    pool: Sequence[Result]
    """Of the shards, in their order."""
    test: Result
    classes: list[str]
    sets: Mapping[str, TrainingSet]
    comparison: Comparison
    image_size: int
    device: str
    """What is trained on; see `Workers.device`."""
    scratch: Path | None
    """Where decoded images lie; None for the temporary files of whoever trains."""
    progress: Progress | None = None
    """Told every step, where that can be told."""

    def key(self, name: str, seed: int) -> str:
        """Of the training of a set from a seed: whatever else is compared with it, and whatever it is called."""
        chosen = self.sets[name]
        parts = [_digest_of(part) for part in (chosen.rows, chosen.labels, chosen.weights)]
        images = [result.data_version for result in (*self.pool, self.test)]
        return digest([VERSION, images, self.classes, self.image_size, asdict(self.comparison.config), parts, seed])

    @cached_property
    def images(self) -> tuple[LabelledImages, LabelledImages]:
        """Pixels and class ids of the pool and of the test set, decoded once by whoever asks."""
        with tempfile.TemporaryDirectory() as folder:  # the files in it have no names, and outlive it
            own = _Place(self.title, self.scratch or Path(folder))
            return self._labelled(self.pool, own), self._labelled([self.test], own)

    def _labelled(self, sets: Sequence[Result], own: "_Place") -> LabelledImages:
        columns = [result.table("points.parquet", ["label"])["label"] for result in sets]
        labels = np.concatenate([places_of(column, self.classes) for column in columns])
        pixels = pixel_file(own, [(result, None) for result in sets], size=self.image_size)
        return LabelledImages(pixels, torch.from_numpy(labels))


@dataclass(frozen=True)
class _Place:
    title: str
    scratch: Path


def trained(trainings: Trainings, item: tuple[str, int]) -> float:
    """Test accuracy of a network trained on a set from a seed."""
    (name, seed), (pool, test) = item, trainings.images
    return trained_accuracy(
        pool,
        trainings.sets[name],
        test,
        comparison=trainings.comparison,
        seed=seed,
        device=Workspace.checked_device(trainings.device),
        progress=trainings.progress,
    )


def _digest_of(values: torch.Tensor | None) -> str | None:
    return None if values is None else hashlib.sha256(values.contiguous().numpy().tobytes()).hexdigest()
