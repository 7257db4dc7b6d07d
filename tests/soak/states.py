"""The end of a soak beside a clean run: the same results of the same values, the same published data set."""

import shutil
from pathlib import Path
from typing import Any

from sava_assets.formats.landing import find_shards
from sava_assets.freshness.rules import RULES
from sava_assets.freshness.survey import Survey
from sava_assets.home.publication import Publication
from sava_assets.home.resources import Workspace

PINNED = "label_distances"
"""Of the shards that were there when it was computed: the one input that depends on what happened before."""
READ = ("reference", "test", "landing", "encoder.safetensors", "sava.yaml")


def shards_of(home: Path) -> list[str]:
    return list(find_shards(Workspace(home=str(home)).folder("landing")))


def unfinished(home: Path) -> dict[str, str]:
    """What is not fresh, and why."""
    states = Survey(Workspace(home=str(home)), shards_of(home)).all()
    return {state.title: f"{state.status}: {state.reason}" for state in states if state.status not in ("fresh", "held")}


def clean_copy(home: Path, target: Path) -> None:
    """A new home with the same data and settings, and with the calibration that is pinned in the old one."""
    target.mkdir()
    for name in READ:
        copy = shutil.copytree if (home / name).is_dir() else shutil.copy2
        copy(home / name, target / name)
    calibration = Workspace(home=str(home)).store.require(PINNED)
    for part in (f"results/{PINNED}/{calibration.key}", f"current/{PINNED}.json"):
        copy = shutil.copytree if (home / "store" / part).is_dir() else shutil.copy2
        (target / "store" / part).parent.mkdir(parents=True, exist_ok=True)
        copy(home / "store" / part, target / "store" / part)


def state(home: Path) -> dict[str, Any]:
    """Key, version and numbers of every current result, and the checksums of what is published."""
    workspace, shards = Workspace(home=str(home)), shards_of(home)
    found: dict[str, Any] = {}
    for asset, rule in RULES.items():
        for shard in shards if rule.sharded else [None]:
            result = workspace.store.require(asset, shard)
            result.check()
            found[f"{asset}[{shard}]" if shard else asset] = result.key, result.data_version, dict(result.numbers)
    publication = Publication(workspace.curated)
    assert publication.current is not None
    publication.check(publication.current)
    about = publication.about(publication.current) or {}
    return found | {"published": publication.current, "files": about["files"]}


def differences(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    return [name for name in sorted(one.keys() | other.keys()) if one.get(name) != other.get(name)]
