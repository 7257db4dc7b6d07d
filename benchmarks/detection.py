"""How well wrong labels are found on CIFAR-10: `python benchmarks/detection.py FOLDER`, or `make benchmark`.

20,000 training images (shards 3 and 4) with 30 % symmetric wrong labels against 5,000 reference images, on features of
an encoder that has seen neither. FOLDER holds cifar10/ and cifar10_encoder/, as for `sava cifar10`.
"""

import platform
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from upath import UPath

from sava_assets.demo import CIFAR10_SETTINGS, planted_errors, write_cifar10
from sava_assets.formats import EncodedImage, read_images
from sava_ops import ValuationConfig, value_points
from sava_ops.detection import auroc, found_in_top
from sava_ops.encoder import embed, load_encoder
from sava_ops.images import decode_all

METHODS = {
    "default": ValuationConfig(),
    "SAVA as published": ValuationConfig.paper(),
    "batch-wise LAVA": ValuationConfig.batchwise_lava(),
    "default, LAVA batches": replace(ValuationConfig(), batch_size=None),
}


def main(source: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        write_cifar10(home, source)
        shards = {path.stem: list(read_images(UPath(path))) for path in sorted((home / "landing").iterdir())}
        reference = list(read_images(UPath(home / "reference" / "cifar10.parquet")))
        planted = planted_errors(home)
        settings = CIFAR10_SETTINGS["encoder"]
        encoder = load_encoder(
            str(home / settings["source"]),
            image_size=settings["image_size"],
            mean=tuple(settings["mean"]),
            std=tuple(settings["std"]),
        )
    names = sorted({image.label or "" for image in reference})
    training = [image for images in shards.values() for image in images]
    wrong = np.array([f"{shard}/{image.name}" in planted for shard, images in shards.items() for image in images])

    def points(images: list[EncodedImage]) -> tuple[torch.Tensor, np.ndarray]:
        pixels = decode_all([image.data for image in images], size=encoder.input_format.image_size)
        return embed(encoder, pixels), np.array([names.index(image.label or "") for image in images])

    sides = (*points(training), *points(reference))
    print(f"{len(training):,} training and {len(reference):,} reference points, {wrong.sum():,} wrong labels")
    print(f"Python {platform.python_version()}, torch {torch.__version__}, {torch.get_num_threads()} CPU threads\n")
    print(
        f"| method | AUROC | found in the {wrong.sum():,} highest | seconds | converged pairs |\n|---|---|---|---|---|"
    )
    for name, config in METHODS.items():
        started = time.perf_counter()
        found = value_points(*sides, config=config)
        seconds = time.perf_counter() - started
        top = found_in_top(found.values, wrong, count=int(wrong.sum()))
        pairs = f"{found.converged.sum()} of {found.converged.size}"
        print(f"| {name} | {auroc(found.values, wrong):.3f} | {top:,} | {seconds:.1f} | {pairs} |", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "../shared/data"))
