"""Peak memory of every asset for 2,000 and 20,000 images of 224 px: `make memory`, or `memory.py FOLDER [SIZE ...]`.

FOLDER holds cifar10/. Its images, made larger, are the pool and the clean images that train the encoder, as many of
either; 500 more judge, and on 500 accuracy is reported. Every asset is run by a process of its own, which a small one
starts: a process inherits the peak of the one that started it. Networks see every eighth pixel and are trained for a
few steps, since time is not the matter here; all pixels are decoded, held and drawn as ever.
"""

import io
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from PIL import Image

from sava_assets.formats.image_table import image_schema
from sava_assets.freshness.rules import RULES
from sava_assets.home.resources import Workspace

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
    found: dict[int, dict[str, tuple[float, float]]] = {}
    for size in sizes:
        with tempfile.TemporaryDirectory() as home:
            call("make", folder, home, str(size))
            found[size] = {asset: measured(home, asset) for asset in RULES}
    print(f"| asset | {' | '.join(f'{size:,} images' for size in sizes)} | growth | seconds |")
    print(f"|---|{'---:|' * (len(sizes) + 2)}")
    for asset in RULES:
        peaks = [found[size][asset][0] for size in sizes]
        cells = [*(f"{peak:.2f} GB" for peak in peaks), f"{peaks[-1] / peaks[0] - 1:+.0%}"]
        print(f"| {asset} | {' | '.join(cells)} | {found[sizes[-1]][asset][1]:.0f} |")


def measured(home: str, asset: str) -> tuple[float, float]:
    """Peak memory in GB and seconds of the process that computes an asset."""
    peak, seconds = json.loads(call("run", home, asset).splitlines()[-1])
    print(f"{asset}: {peak:.2f} GB, {seconds:.0f} s", file=sys.stderr, flush=True)
    return peak, seconds


def call(*arguments: str) -> str:
    return subprocess.run([sys.executable, __file__, *arguments], check=True, stdout=subprocess.PIPE, text=True).stdout


def make(folder: Path, home: Path, size: int) -> None:
    images = enlarged(folder)
    for place, count in (
        (f"landing/{SHARD}", size),
        ("clean_train/clean", size),
        ("reference/judges", JUDGES),
        ("test/test", JUDGES),
    ):
        write(home / f"{place}.parquet", images, count)
    (home / "sava.yaml").write_text(yaml.safe_dump(SETTINGS))


def enlarged(folder: Path) -> Iterator[dict]:
    """Rows of CIFAR-10's images as JPEGs of 224 px."""
    for file in sorted((folder / "cifar10").glob("*.parquet")):
        for batch in pq.ParquetFile(file).iter_batches(1_000):
            columns = dict(zip(batch.schema.names, batch.columns, strict=True))
            picture, label = (
                next(columns[name] for name in names if name in columns) for names in (("image", "img"), ("label",))
            )
            for image, number in zip(picture.to_pylist(), label.to_pylist(), strict=True):
                data = io.BytesIO()
                Image.open(io.BytesIO(image["bytes"])).resize((SIDE, SIDE)).save(data, "JPEG", quality=90)
                yield {"image": {"bytes": data.getvalue(), "path": None}, "label": number}


def write(target: Path, images: Iterator[dict], count: int) -> None:
    """One row group, as most data sets come."""
    schema = image_schema(CLASSES)
    target.parent.mkdir(parents=True)
    tables = [
        pa.Table.from_pylist([next(images) for _ in range(min(1_000, count))], schema)
        for _ in range(-(-count // 1_000))
    ]
    pq.write_table(pa.concat_tables(tables), target, row_group_size=count)


def run(home: str, asset: str) -> None:
    import dagster as dg
    from stored_points import run as materialize

    from sava_ops.images.classifier import PixelResNet18

    whole = PixelResNet18.forward
    PixelResNet18.forward = lambda self, images: whole(self, images[:, :, ::EVERY, ::EVERY])
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("shards", [SHARD])
        started = time.monotonic()
        materialize(Workspace(home=home), instance, asset, shard=SHARD if RULES[asset].sharded else None)
        seconds = time.monotonic() - started
    print(json.dumps([resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9, seconds]))


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["make", folder, home, size]:
            make(Path(folder), Path(home), int(size))
        case ["run", home, asset]:
            run(home, asset)
        case [folder, *sizes]:
            main(folder, [int(size) for size in sizes] or list(SIZES))
        case _:
            sys.exit(__doc__)
