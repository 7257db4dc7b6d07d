"""Planted near copies, found by the cosine of features: `benchmarks/near_copies.py FOLDER [IMAGES]`.

FOLDER holds cifar10/ and cifar10_encoder/. Of IMAGES pool images (2,000) every fifth is planted once more: resized to
three quarters and back, recompressed (JPEG, quality 50), cropped by 5 % or mirrored. The threshold comes from as many
other images with labels. Recall is per kind of copy; precision, of all pairs found. What is no planted pair counts as
wrong, also where the set holds near copies of its own.
"""

import io
import sys
import time
from itertools import product
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from PIL import Image

from sava_assets.formats.demo_sets import CIFAR10_SETTINGS
from sava_ops.decisions.near_copies import difference_threshold, near_pairs_within
from sava_ops.images.decode import decode_all
from sava_ops.images.encoder import embed, load_encoder

RATES = (0.1, 0.01, 0.001)
KINDS = ("resized", "recompressed", "cropped", "mirrored")


def planted(data: bytes, kind: str) -> bytes:
    """The image changed a little, as PNG (recompressed: as JPEG)."""
    image, out = Image.open(io.BytesIO(data)).convert("RGB"), io.BytesIO()
    wide, high = image.size
    if kind == "resized":
        image = image.resize((wide * 3 // 4, high * 3 // 4), Image.Resampling.BICUBIC).resize((wide, high))
    if kind == "cropped":
        image = image.resize(image.size, Image.Resampling.BICUBIC, (0.05 * wide, 0.05 * high, wide, high))
    if kind == "mirrored":
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    image.save(out, "JPEG" if kind == "recompressed" else "PNG", **({"quality": 50} if kind == "recompressed" else {}))
    return out.getvalue()


def main(folder: Path, count: int) -> None:
    """Print recall of each kind and precision at several rates."""
    tables = [pq.read_table(next((folder / "cifar10").glob(f"{name}*"))) for name in ("test", "train-00004")]
    reference, pool = ([row["bytes"] for row in t["image"].slice(0, count).to_pylist()] for t in tables)
    labels = np.array(tables[0]["label"].to_pylist()[:count])
    originals = list(range(0, count, 5))
    kinds = [KINDS[k % len(KINDS)] for k in range(len(originals))]
    copies = [planted(pool[row], kind) for row, kind in zip(originals, kinds, strict=True)]
    known = CIFAR10_SETTINGS["encoder"]
    source = str(next((folder / "cifar10_encoder").glob("*.safetensors")))
    encoder = load_encoder(source, image_size=known["image_size"], mean=known["mean"], std=known["std"], stem="small")
    size = encoder.input_format.image_size
    features = embed(encoder, decode_all(pool + copies, size=size)).half()
    judges = embed(encoder, decode_all(reference, size=size)).half()
    truth = {(row, count + k): kind for k, (row, kind) in enumerate(zip(originals, kinds, strict=True))}
    print(f"{count:,} images, {len(copies):,} planted copies, {len(judges):,} reference images")
    print(f"| known to be different | rate | threshold | {' | '.join(KINDS)} | precision | pairs | seconds |")
    print("|" + "---:|" * (len(KINDS) + 6))
    each = np.arange(len(labels))  # every image a class of its own: different from all others
    for known_different, rate in product(("another class", "any other image"), RATES):
        own = labels if known_different == "another class" else each
        started, threshold = time.perf_counter(), difference_threshold(judges, own, rate=rate)
        pairs = {(int(a), int(b)) for a, b in near_pairs_within(features, threshold=threshold)[0]}
        seconds, right = time.perf_counter() - started, [truth[pair] for pair in pairs & truth.keys()]
        recalls = " | ".join(f"{right.count(kind) / kinds.count(kind):.3f}" for kind in KINDS)
        found = f"{len(right) / max(len(pairs), 1):.3f} | {len(pairs):,} | {seconds:.2f}"
        print(f"| {known_different} | {rate} | {threshold:.4f} | {recalls} | {found} |")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 2_000)
