"""A curated toy home without its large files, to see that what names its results has not changed since it was written.

    python -m tests.sava_assets.freshness.stored_home

writes it anew: needed when results are meant to become stale (another code version, another knob that names them).
"""

import json
import shutil
import tarfile
import tempfile
from io import BytesIO
from pathlib import Path

from rich.console import Console

from sava_assets.cli.runner import curate
from sava_assets.freshness.proof import PROBED
from sava_assets.home.resources import Workspace
from tests.sava_assets.homes import write_home

STORED = Path(__file__).with_suffix(".tar.gz")
KEPT = ("landing/**/*", "reference/**/*", "test/**/*", "sava.yaml", "store/current/**/*", "store/results/**/*")
SMALL = ("manifest.json", ".moments.safetensors")
"""What a look reads of a result, and of the sets their `IDENTITIES`."""
IDENTITIES = ".points.parquet"


def pack(home: Path, target: Path = STORED) -> None:
    with tarfile.open(target, "w:gz") as archive:
        for file in sorted({file for pattern in KEPT for file in home.glob(pattern) if file.is_file()}):
            name = file.relative_to(home).as_posix()
            small = name.endswith(SMALL) or ("_images/" in name and name.endswith(IDENTITIES))
            if "results" in name and not small:
                continue
            data = file.read_bytes()
            if name.endswith("manifest.json"):
                data = json.dumps(json.loads(data) | {"pictures": {}}).encode()
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, BytesIO(data))


def unpack(home: Path) -> None:
    with tarfile.open(STORED) as archive:
        archive.extractall(home, filter="data")
    for manifest in home.glob("store/results/*/*/manifest.json"):
        for file in json.loads(manifest.read_bytes())["files"].values():
            # Stands for what was left out: that it is there, and not empty, is all a look sees.
            if not (left_out := manifest.with_name(file["file"])).exists():
                left_out.write_bytes(b"-")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        write_home(Path(folder))
        curate(Workspace(home=folder), Console(), prove=True)
        # As a home that was trained on, and is older than the probes.
        for asset in PROBED:
            (Path(folder) / "store" / "current" / f"{asset}.json").unlink()
            shutil.rmtree(Path(folder) / "store" / "results" / asset)
        pack(Path(folder))
