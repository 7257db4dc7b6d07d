"""What happens to a landing folder: small shards arrive, change and vanish, as people and scrapers leave them."""

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np

from sava_assets.formats.demo_sets import Labelled, write_set
from tests.pictures import png, scan
from tests.sava_assets.homes import NAMES, write_folders

PICTURES = (6, 24)
"""Of a shard, at least and at most."""
WRONG = 0.2
"""Share of labels."""


class Landing:
    """A landing folder in which so many shards come and go."""

    def __init__(self, folder: Path, shards: int, *, seed: int) -> None:
        self.folder, self.seed, self.chance = folder, seed, random.Random(seed)
        self.names = [f"s{number:02}" for number in range(shards)]
        self.pictures = 0
        self.damaged: set[str] = set()
        folder.mkdir(parents=True, exist_ok=True)

    def happens(self) -> str:
        """One event; returns it in words."""
        name = self.chance.choice(self.names)
        there = [path for path in (self.folder / name, self.folder / f"{name}.parquet") if path.exists()]
        if not there:
            return self._said(name, self.chance.choice([self._table, self._folders, self._moved_in]))
        (path,) = there
        if path.is_file():
            return self._said(name, self.chance.choice([self._vanishes, self._table, self._touched, self._damaged]))
        events = [self._vanishes, self._one_more, self._one_less, self._relabelled, self._touched, self._no_image]
        return self._said(name, self.chance.choice(events))

    def clears_up(self) -> None:
        """The end: what is damaged is written anew, and there is at least one shard of each layout."""
        for name in sorted(self.damaged):
            self._table(name)
        for name, arrives in zip(self.names[:2], (self._table, self._folders), strict=True):
            if not any(path.exists() for path in (self.folder / name, self.folder / f"{name}.parquet")):
                arrives(name)

    def _said(self, name: str, event: Callable[[str], None]) -> str:
        event(name)
        return f"{name} {event.__name__.strip('_')}"

    def _made(self) -> Labelled:
        count = self.chance.randint(*PICTURES)
        labels = np.arange(count) % len(NAMES)
        images = [self._picture(int(label)) for label in labels]
        wrong = np.random.default_rng(self.chance.randrange(2**32)).random(count) < WRONG
        return Labelled(images, np.where(wrong, (labels + 1) % len(NAMES), labels), NAMES)

    def _picture(self, label: int) -> bytes:
        """No two are alike."""
        self.pictures += 1
        return png(scan(label, 100_000 * (1 + self.seed) + self.pictures))

    def _table(self, name: str) -> None:
        self.damaged.discard(name)
        write_set(self.folder / f"{name}.parquet", self._made())

    def _folders(self, name: str) -> None:
        write_folders(self.folder / name, self._made())

    def _moved_in(self, name: str) -> None:
        """Whole, in one step."""
        write_folders(self.folder / f".{name}", self._made())
        (self.folder / f".{name}").rename(self.folder / name)

    def _vanishes(self, name: str) -> None:
        self.damaged.discard(name)
        shutil.rmtree(self.folder / name, ignore_errors=True)
        (self.folder / f"{name}.parquet").unlink(missing_ok=True)

    def _touched(self, name: str) -> None:
        for path in (self.folder / f"{name}.parquet", *(self.folder / name).rglob("*.png")):
            if path.exists():
                path.touch()

    def _damaged(self, name: str) -> None:
        """The first half of what it was."""
        self.damaged.add(name)
        path = self.folder / f"{name}.parquet"
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    def _images(self, name: str) -> list[Path]:
        return sorted((self.folder / name).rglob("*.png"))

    def _one_more(self, name: str) -> None:
        label = self.chance.randrange(len(NAMES))
        (self.folder / name / NAMES[label]).mkdir(exist_ok=True)
        (self.folder / name / NAMES[label] / f"more{self.pictures}.png").write_bytes(self._picture(label))

    def _one_less(self, name: str) -> None:
        self.chance.choice(self._images(name)).unlink()
        if not self._images(name):
            self._one_more(name)

    def _relabelled(self, name: str) -> None:
        image, label = self.chance.choice(self._images(name)), self.chance.choice(NAMES)
        (self.folder / name / label).mkdir(exist_ok=True)
        image.rename(self.folder / name / label / f"moved{self.pictures}.png")
        self.pictures += 1

    def _no_image(self, name: str) -> None:
        (self.folder / name / NAMES[0]).mkdir(exist_ok=True)
        (self.folder / name / NAMES[0] / f"text{self.pictures}.png").write_bytes(b"no image")
        self.pictures += 1
