"""Peak memory of every asset for 2,000 and 20,000 images of 224 px: `make memory`, or `memory.py FOLDER [SIZE ...]`.

FOLDER holds cifar10/. Its images, made larger, are the pool and the clean images that train the encoder, as many of
either; 500 more judge, and on 500 accuracy is reported. Networks see every eighth pixel and are trained for a few
steps: time is not the matter here.
"""

import io
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from measured import Measured, measured
from PIL import Image

from sava_assets.formats.image_table import image_schema
from sava_assets.freshness.rules import RULES

SIZES, SIDE, JUDGES, SHARD, EVERY = (2_000, 20_000), 224, 500, "pool", 8
CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
TRAINING = {"steps": 8, "batch_size": 64, "learning_rate": 0.01}
SETTINGS = {
    "clean_train": "clean_train",
    "encoder": {"source": "train", "image_size": SIDE, "training": TRAINING},
    "prune": {"fraction": 0.1},
    "classifier": {"seeds": 1, "training": TRAINING},
    "settle_seconds": 0,
}


def main(folder: str, sizes: list[int]) -> None:
    found: dict[int, dict[str, Measured]] = {}
    for size in sizes:
        with tempfile.TemporaryDirectory() as home:
            subprocess.run([sys.executable, __file__, "make", folder, home, str(size)], check=True)
            found[size] = {
                asset: measured(Path(home), asset, SHARD if rule.sharded else None, [SHARD], every=EVERY)
                for asset, rule in RULES.items()
            }
    print(f"| asset | {' | '.join(f'peak at {size:,}' for size in sizes)} | growth | seconds |")
    print(f"|---|{'---:|' * (len(sizes) + 2)}")
    for asset in RULES:
        peaks = [found[size][asset].peak for size in sizes]
        cells = [*(f"{peak:.2f} GB" for peak in peaks), f"{peaks[-1] / peaks[0] - 1:+.0%}"]
        print(f"| {asset} | {' | '.join(cells)} | {found[sizes[-1]][asset].seconds:.0f} |")


def make(folder: Path, home: Path, size: int) -> None:
    images = enlarged(folder)
    sets = {f"landing/{SHARD}": size, "clean_train/clean": size, "reference/judges": JUDGES, "test/test": JUDGES}
    for place, count in sets.items():
        write(home / f"{place}.parquet", images, count)
    (home / "sava.yaml").write_text(yaml.safe_dump(SETTINGS))


def enlarged(folder: Path) -> Iterator[dict]:
    """Rows of CIFAR-10's images as JPEGs of `SIDE` px."""
    for file in sorted((folder / "cifar10").glob("*.parquet")):
        for batch in pq.ParquetFile(file).iter_batches(1_000, columns=["image", "label"]):
            for row in batch.to_pylist():
                data = io.BytesIO()
                Image.open(io.BytesIO(row["image"]["bytes"])).resize((SIDE, SIDE)).save(data, "JPEG", quality=90)
                yield {"image": {"bytes": data.getvalue(), "path": None}, "label": row["label"]}


def write(target: Path, images: Iterator[dict], count: int) -> None:
    """One row group, as most data sets come."""
    target.parent.mkdir(parents=True)
    parts = [min(1_000, count - first) for first in range(0, count, 1_000)]
    tables = [pa.Table.from_pylist([next(images) for _ in range(part)], image_schema(CLASSES)) for part in parts]
    pq.write_table(pa.concat_tables(tables), target, row_group_size=count)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["make", folder, home, size]:
            make(Path(folder), Path(home), int(size))
        case [folder, *sizes]:
            main(folder, [int(size) for size in sizes] or list(SIZES))
        case _:
            sys.exit(__doc__)
