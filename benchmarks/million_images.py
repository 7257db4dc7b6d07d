"""A million real images through every asset: `make million-images`; `million_images.py FOLDER HOME [SHARDS [IMAGES]]`.

FOLDER holds cifar10/ and cifar10_encoder/. Each of twenty shards is CIFAR-10's training images once more, shifted by up
to three pixels and compressed again, both seeded; half of its test images judge, on the other half accuracy is
reported. Time on the clock and of processors and the largest memory of every asset, a process for each shard: what is
done is written to HOME and not done again, so a run that was stopped goes on.
"""

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from measured import measured
from PIL import Image

from sava_assets.formats.demo_sets import CIFAR10_SETTINGS
from sava_assets.formats.image_table import image_schema
from sava_assets.freshness.rules import RULES

SHARDS, IMAGES, JUDGES, SHIFT, FOUND = 20, 50_000, 5_000, 3, "measured.json"
CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
ENCODER = "cifar10_encoder/resnet18_cifar10_first30k.safetensors"


def main(folder: Path, home: Path, shards: int, images: int) -> None:
    names = [f"shard-{number:02}" for number in range(shards)]
    home.mkdir(parents=True, exist_ok=True)
    for place in [*(f"landing/{name}" for name in names), "reference/judges", "test/test"]:
        if not (home / f"{place}.parquet").exists():
            subprocess.run([sys.executable, __file__, "make", str(folder), str(home), place, str(images)], check=True)
    (home / "sava.yaml").write_text(yaml.safe_dump(settings(folder)))
    found: dict[str, Any] = json.loads((home / FOUND).read_text()) if (home / FOUND).exists() else {}
    for asset, rule in RULES.items():
        for shard in names if rule.sharded else [None]:
            unit = asset if shard is None else f"{asset}[{shard}]"
            # What is made of all shards is made anew for more of them, and what was measured of less again.
            known = found.get(unit, {})
            if "busy" not in known or known["shards"] != (shards if shard is None else 1):
                of_asset = measured(home, asset, shard, names)
                found[unit] = {**of_asset._asdict(), "shards": shards if shard is None else 1}
                (home / FOUND).write_text(json.dumps(found, indent=1))
    print(f"\n{shards * images:,} images; torch {version('torch')}, {os.cpu_count()} processors\n")
    print("| asset | seconds | processor seconds | peak memory |\n|---|---:|---:|---:|")
    for asset, rule in RULES.items():
        own = [found[f"{asset}[{name}]"] for name in names] if rule.sharded else [found[asset]]
        seconds, busy = (sum(each[name] for each in own) for name in ("seconds", "busy"))
        print(f"| {asset} | {seconds:,.0f} | {busy:,.0f} | {max(each['peak'] for each in own):.2f} GB |")


def settings(folder: Path) -> dict[str, Any]:
    return {
        "encoder": CIFAR10_SETTINGS["encoder"] | {"source": str((folder / ENCODER).absolute())},
        "classifier": {"seeds": 1, "training": {"steps": 100, "batch_size": 128}},
        "settle_seconds": 0,
    }


def make(folder: Path, home: Path, place: str, images: int) -> None:
    """A set that is there is whole: it gets its name last."""
    kind, name = place.split("/")
    if kind == "landing":
        number = int(name.rpartition("-")[2])
        rows = shifted(rows_of(folder, "train*", 0, images), np.random.default_rng(number))
    else:
        first = 0 if kind == "reference" else JUDGES
        rows = rows_of(folder, "test*", first, first + min(JUDGES, images))
    (home / kind).mkdir(exist_ok=True)
    partial = home / kind / f"_{name}.partial"
    with pq.ParquetWriter(partial, image_schema(CLASSES)) as out:
        table = pa.Table.from_pylist(list(rows), image_schema(CLASSES))
        out.write_table(table, row_group_size=len(table))
    partial.rename(home / f"{place}.parquet")


def rows_of(folder: Path, files: str, first: int, after: int) -> Iterator[dict]:
    row = 0
    for file in sorted((folder / "cifar10").glob(f"{files}.parquet")):
        for batch in pq.ParquetFile(file).iter_batches(1_000, columns=["image", "label"]):
            yield from batch.to_pylist()[max(first - row, 0) : max(after - row, 0)]
            row += len(batch)


def shifted(rows: Iterator[dict], chance: np.random.Generator) -> Iterator[dict]:
    """Each image moved within its reflected border, as a JPEG."""
    for row in rows:
        y, x = chance.integers(0, 2 * SHIFT + 1, 2)
        pixels = np.asarray(Image.open(io.BytesIO(row["image"]["bytes"])).convert("RGB"))
        wide = np.pad(pixels, ((SHIFT, SHIFT), (SHIFT, SHIFT), (0, 0)), mode="reflect")
        data, (height, width) = io.BytesIO(), pixels.shape[:2]
        Image.fromarray(wide[y : y + height, x : x + width]).save(data, "JPEG", quality=int(chance.integers(85, 96)))
        yield {"image": {"bytes": data.getvalue(), "path": None}, "label": row["label"]}


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["make", folder, home, place, images]:
            make(Path(folder), Path(home), place, int(images))
        case [folder, home, *sizes] if len(sizes) <= 2:
            shards, images = [*map(int, sizes), *(SHARDS, IMAGES)[len(sizes) :]]
            main(Path(folder), Path(home), shards, images)
        case _:
            sys.exit(__doc__)
