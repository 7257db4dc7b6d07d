"""The home of a deployment: its folders, its knobs (`sava.yaml`), its store."""

import json
import math
import os
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field
from pydantic.dataclasses import dataclass as validated
from upath import UPath

from sava_assets.home.gpus import free_gpu
from sava_assets.home.outgoing import STRICT, GateKnobs, NotifyKnobs
from sava_assets.home.places import is_address, is_local, opened, refuse_unseen
from sava_assets.home.settings_file import read_settings
from sava_assets.home.store import Store
from sava_assets.home.worker_knobs import WorkerKnobs
from sava_ops.config import ValuationConfig
from sava_ops.decisions.pruning import PruneRule
from sava_ops.errors import BadInput
from sava_ops.images.training import TrainingConfig

KNOB_FILE = "sava.yaml"
# The same classes, with unknown keys refused and types checked when they come from YAML.
ValuationKnobs = validated(ValuationConfig, config=STRICT, frozen=True)
TrainingKnobs = validated(TrainingConfig, config=STRICT, frozen=True)
Seed = Annotated[int, Field(ge=0, lt=2**63)]
"""More than that no generator of random numbers takes."""
Level = Annotated[float, Field(allow_inf_nan=False)]
Spread = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class EncoderKnobs(BaseModel):
    model_config = STRICT
    source: str = "imagenet"
    """"imagenet", "train" (on the clean set), or a checkpoint's path or URL."""
    image_size: Annotated[int, Field(ge=8, le=1024)] = 224
    """Images are fitted to this many px before they are embedded and classified."""
    mean: tuple[Level, Level, Level] | None = None
    """Per channel on 0..255; for checkpoints that do not say it."""
    std: tuple[Spread, Spread, Spread] | None = None
    training: TrainingKnobs = TrainingKnobs()  # pyright: ignore[reportInvalidTypeForm]
    seed: Seed = 0


Share = Annotated[float, Field(ge=0, le=1), BeforeValidator(lambda share: _number(share))]


class PruneKnobs(BaseModel):
    """See `sava_ops.decisions.pruning.PruneRule`."""

    model_config = STRICT
    fraction: Annotated[float, Field(ge=0, lt=1)] | None = None
    """Share of the training points to flag; null = as many as the false-discovery rate allows."""
    false_discovery_rate: Annotated[float, Field(gt=0, lt=1)] = PruneRule.false_discovery_rate
    class_floor: Share = PruneRule.class_floor
    cap: Share = PruneRule.cap
    relabel_confidence: Share = PruneRule.relabel_confidence
    brake: Share = 0.5
    """Largest share of the points whose cut is published without being asked for, by `fraction` or by `confirm`."""
    confirm: bool = False
    """Publish a cut of as many points as the false-discovery rate allows, even more than `brake`."""
    relabel: bool = False
    """Keep points whose action is "relabel", under their suggested label; without it they are left out."""
    copies: Literal["keep", "one", "one_of_near"] = "keep"
    """Of images with equal pixels all are kept, or the best one; "one_of_near": of nearly equal ones, too. What a
    person decided on equal pixels holds for each."""
    export_images: bool = True
    """Publish the kept images, not only the table of points."""
    dry_run: bool = False
    """Decide and report; nothing is published, and nothing enters the history."""

    @property
    def rule(self) -> PruneRule:
        names = ("fraction", "false_discovery_rate", "class_floor", "cap", "relabel_confidence")
        return PruneRule(**{name: getattr(self, name) for name in names})


class ClassifierKnobs(BaseModel):
    model_config = STRICT
    training: TrainingKnobs = TrainingKnobs()  # pyright: ignore[reportInvalidTypeForm]
    seeds: Annotated[int, Field(ge=1)] = 3


class ProofKnobs(BaseModel):
    """When accuracy on the test set is measured (`sava_assets.freshness.proof`); the curation never waits for it."""

    model_config = STRICT
    when: Literal["never", "on_demand", "nightly", "changed"] = "nightly"
    """"never"; "on_demand": by `sava curate --prove` or in the UI; "nightly": by linear probes also every night and by
    every `sava curate`; "changed": by linear probes with every curation, and by training whole networks when more than
    `share` of the decisions changed since they were last trained."""
    share: Share = 0.05


class ReviewKnobs(BaseModel):
    """The page that people look at."""

    model_config = STRICT
    sample: Annotated[int, Field(ge=0)] = 100
    """Flagged images that are drawn for people, to measure how many of the flagged ones are clean."""
    seed: Seed = 0
    neighbours: Annotated[int, Field(ge=0, le=10)] = 3
    """Nearest reference images shown under the given and under the suggested label."""
    thumbnail: Annotated[int, Field(ge=8, le=256)] = 96
    """Pixels of the longer side."""
    promote: Annotated[bool, Field(exclude=True)] = False
    """Let images that a person confirmed judge, too (`sava_assets.freshness.promotion`). Results are named by which
    these are, not by this."""


class StudyKnobs(BaseModel):
    """Sizes of `sava study` (`sava_assets.study`)."""

    model_config = STRICT
    seeds: Annotated[int, Field(ge=1)] = 3
    """Corruptions of the same pool, each with another seed."""
    mistakes: dict[str, str] = {}
    """Asymmetric label noise: which class is taken for which; empty = each class of the first half for the next one."""
    pruned_shares: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = (0.1, 0.2, 0.3, 0.4, 0.5)
    sizes: tuple[Annotated[int, Field(ge=10)], ...] = (500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000)
    """Training points of the curve over N; those that the pool has not are passed over."""
    batch_sizes: tuple[Annotated[int, Field(ge=2)], ...] = (256, 512, 1_024, 2_048)
    last_layer_steps: Annotated[int, Field(ge=1)] = 2_000
    """Of the trainings of ResNet18's last layer alone."""
    training: TrainingKnobs = TrainingKnobs()  # pyright: ignore[reportInvalidTypeForm]
    """Of whole networks."""


class Knobs(BaseModel):
    """Everything that may be set in `sava.yaml`; folders are relative to the home folder."""

    model_config = STRICT
    landing: str = "landing"
    reference: str = "reference"
    test: str | None = "test"
    """Clean images on which accuracy is reported. A home needs none: null, or not set and no folder of that name."""
    decisions: str = "decisions"
    """What people decided about images (`sava_assets.formats.decision_files`)."""
    store: str = "store"
    """Results; they name no place, so a copied or moved store is the same one."""
    curated: str = "curated"
    """What is published."""
    overlap: Literal["set_aside", "refuse"] = "set_aside"
    """What becomes of a training image that also stands in the reference or test set: it is left out and counted, or
    the run refuses the sets."""
    clean_train: str | None = None
    """Clean images that train the encoder; without them half of the reference set does."""
    classes: list[str] | None = None
    """Names of the classes, for files whose labels are bare numbers."""
    follow_links: bool = True
    """Read what symbolic links in the sets name; false where strangers write to them: links are then passed over."""
    settle_seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 30.0
    """A set that changed this recently counts as still being written, unless it is a whole Parquet file or holds a
    `_SUCCESS` marker."""
    device: Annotated[str, AfterValidator(lambda device: _known_device(device))] = "auto"
    """"auto" (CUDA if there is one; of several GPUs one that no other process has taken), "cpu", "cuda" (the first) or
    "cuda:" and a number."""
    encoder: EncoderKnobs = EncoderKnobs()
    valuation: ValuationKnobs = ValuationKnobs()  # pyright: ignore[reportInvalidTypeForm]
    prune: PruneKnobs = PruneKnobs()
    classifier: ClassifierKnobs = ClassifierKnobs()
    proof: ProofKnobs = ProofKnobs()
    gates: GateKnobs = GateKnobs()
    notify: NotifyKnobs = NotifyKnobs()
    review: ReviewKnobs = ReviewKnobs()
    study: StudyKnobs = StudyKnobs()
    workers: WorkerKnobs = WorkerKnobs()

    def value(self, dotted: str) -> Any:
        """The knob of this dotted name, as JSON: what the store gives back of a result's inputs is equal to it."""
        value: Any = json.loads(json.dumps(self.model_dump(mode="python")))
        for name in dotted.split("."):
            value = value[name]
        return str(value) if isinstance(value, float) and not math.isfinite(value) else value


@dataclass(frozen=True)
class Workspace:
    """A home, in a folder or on an object store."""

    home: str

    @property
    def root(self) -> UPath:
        # Absolute: of a relative path with a colon, libraries take the first part for a protocol.
        return opened(self.home) if is_address(self.home) else UPath(Path(self.home).absolute())

    @property
    def store(self) -> Store:
        """Where it was when it was first asked for: a process that runs on keeps it."""
        return self._store

    @cached_property
    def _store(self) -> Store:
        return Store(self.folder(self.knobs.store))

    @property
    def curated(self) -> UPath:
        """Where the data set is published."""
        return self.folder(self.knobs.curated)

    @property
    def knobs(self) -> Knobs:
        return read_knobs(self.root / KNOB_FILE)

    def folder(self, path: str) -> UPath:
        """A knob's folder: absolute and remote paths as they are, others below the home folder. Raises BadInput for
        what is no path, or none that can be looked at."""
        if "\0" in path or any("\ud800" <= letter <= "\udbff" for letter in path):
            raise BadInput(f"{path!a} is no path: name a folder or file")
        if is_address(path):
            return opened(path)
        # Below a local home no name is an address (`s3:`, `data:`), however it begins.
        place = path if is_address(self.home) else f"./{path}"
        found = UPath(Path(path)) if Path(path).is_absolute() else self.root / place
        if is_local(found):
            refuse_unseen(Path(found.path))
        return found

    @property
    def device(self) -> str:
        return self.checked_device(self.knobs.device)

    @staticmethod
    def checked_device(device: str) -> str:
        """What torch calls it. Raises BadInput for a device that is not there, or not known."""
        _known_device(device)
        if device == "cpu":
            return device
        import torch

        there = torch.cuda.is_available()
        if device == "auto":
            return free_gpu() if there else "cpu"
        if not there:
            raise BadInput(f"`device` is {device!r} and there is no CUDA device: set it to 'auto' or 'cpu'")
        if ":" in device and int(device.split(":")[1]) >= (count := torch.cuda.device_count()):
            raise BadInput(f"`device` is {device!r} and there are {count} CUDA devices: count them from 0")
        return device


def _known_device(device: str) -> str:
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", device):
        raise BadInput(f"`device` is {device!r}: it must be 'auto', 'cpu', 'cuda' or 'cuda:' and a number")
    return device


def _number(share: object) -> object:
    """YAML reads yes, no, on and off as truth values, which would count as 1 and 0."""
    if isinstance(share, bool):
        raise BadInput(f"it is {share}: write a number")
    return share


def read_knobs(path: UPath) -> Knobs:
    """The knobs of a home folder; defaults where the file is silent. Raises BadInput naming key and allowed range."""
    return read_settings(path, Knobs)


def default_home() -> str:
    return os.environ.get("SAVA_HOME", "data")
