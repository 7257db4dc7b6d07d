"""Planted near copies, found by perceptual hash, beside imagededup's: writes near_copies.md.

    python benchmarks/near_copies.py FOLDER [IMAGES]

FOLDER holds cifar10/ and tiny_imagenet100/. Of IMAGES (10,000; the last shard of CIFAR-10's training images first, then
the quarters of Tiny ImageNet's, which are as large) every fifth is planted once more: resized to three quarters,
recompressed (JPEG, quality 50), cropped by 5 % of either side about the middle, or at one corner, or mirrored. The
threshold comes from the 10,000 test images with their labels. Recall is per kind, and precision of all pairs found:
whatever is no planted pair counts as wrong, also near copies that these sets have anyway.
`imagededup` is measured if it is installed; nothing else needs it.
"""

import io
import logging
import platform
import resource
import sys
import time
from collections.abc import Iterable, Iterator
from itertools import chain, combinations
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from sava_ops.decisions.copies import ALONE
from sava_ops.decisions.near_copies import (
    RATE,
    as_hashes,
    clusters,
    difference_threshold,
    distance_counts,
    distances,
    near_forest,
)
from sava_ops.images.decode import decode, inspect_all
from sava_ops.images.perceptual_hash import HASH_BYTES

KINDS = ("resized", "recompressed", "cropped", "cut at a corner", "mirrored")
REPORT = Path(__file__).with_suffix(".md")
PEER_BITS = (4, 10)
"""Distances up to which imagededup calls images duplicates; 10 is its default."""
Row = tuple[str, set[tuple[int, int]], float, float]
"""Method, pairs found, seconds for hashes and for pairs."""


def planted(data: bytes, kind: str) -> bytes:
    """The image changed a little, as PNG (recompressed: as JPEG)."""
    image, out = Image.open(io.BytesIO(data)).convert("RGB"), io.BytesIO()
    wide, high = image.size
    if kind == "resized":
        image = image.resize((wide * 3 // 4, high * 3 // 4), Image.Resampling.BICUBIC)
    if kind == "cropped":
        kept = (0.025 * wide, 0.025 * high, 0.975 * wide, 0.975 * high)
        image = image.resize(image.size, Image.Resampling.BICUBIC, kept)
    if kind == "cut at a corner":
        image = image.resize(image.size, Image.Resampling.BICUBIC, (0.05 * wide, 0.05 * high, wide, high))
    if kind == "mirrored":
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    image.save(out, "JPEG" if kind == "recompressed" else "PNG", **({"quality": 50} if kind == "recompressed" else {}))
    return out.getvalue()


def pool_of(folder: Path, count: int) -> list[bytes]:
    """So many images that show different things."""
    images, _ = read(folder / "cifar10", "train", count)
    whole, _ = read(folder / "tiny_imagenet100", "train", -(-(count - len(images)) // 4))
    return (images + [quarter for data in whole for quarter in quarters(data)])[:count]


def quarters(data: bytes) -> Iterator[bytes]:
    image = Image.open(io.BytesIO(data)).convert("RGB")
    wide, high = (side // 2 for side in image.size)
    for left, top in ((0, 0), (wide, 0), (0, high), (wide, high)):
        out = io.BytesIO()
        image.crop((left, top, left + wide, top + high)).save(out, "PNG")
        yield out.getvalue()


def read(folder: Path, name: str, count: int) -> tuple[list[bytes], np.ndarray]:
    """The first so many images and labels of the files of this name, the last file first."""
    images: list[bytes] = []
    labels: list[int] = []
    for file in sorted(folder.glob(f"{name}*.parquet"), reverse=True):
        table = pq.read_table(file).slice(0, count - len(images))
        images += [row["bytes"] for row in table["image"].to_pylist()]
        labels += table["label"].to_pylist()
    return images, np.array(labels)


def hashes_of(images: list[bytes]) -> np.ndarray:
    looks = [facts.perceptual_hash for facts in inspect_all(images) if not isinstance(facts, str)]
    return as_hashes([look or bytes(HASH_BYTES) for look in looks])


def ours(images: list[bytes], reference: list[bytes], labels: np.ndarray) -> Row:
    known = distance_counts(hashes_of(reference), labels)
    started = time.perf_counter()
    hashes = hashes_of(images)
    hashed = time.perf_counter()
    within = difference_threshold(known, among=len(images) - 1)
    ends, far = near_forest(hashes)
    groups = clusters(len(images), ends[far <= within])
    pairs = set(_near(hashes, groups, within))
    return f"5 · 128 bits, ≤ {within} (derived)", pairs, hashed - started, time.perf_counter() - hashed


def _near(hashes: np.ndarray, groups: np.ndarray, within: int) -> Iterator[tuple[int, int]]:
    """All near pairs of the clusters, of which the forest holds only some."""
    for number in range(groups.max(initial=ALONE) + 1):
        rows = (groups == number).nonzero()[0]
        near = distances(hashes[rows], hashes[rows]) <= within
        yield from ((int(rows[a]), int(rows[b])) for a, b in combinations(range(len(rows)), 2) if near[a, b])


def theirs(images: list[bytes]) -> Iterable[Row]:
    """imagededup's perceptual hash of 64 bits; nothing where it is not installed."""
    try:
        from imagededup.methods import PHash  # pyright: ignore[reportMissingImports]
    except ImportError:
        return
    method, started = PHash(verbose=False), time.perf_counter()
    encoded = {str(row): method.encode_image(image_array=decode(data)) for row, data in enumerate(images)}
    hashed = time.perf_counter()
    logging.getLogger("imagededup").setLevel(logging.WARNING)
    for bits in PEER_BITS:
        began = time.perf_counter()
        found = method.find_duplicates(encoding_map=encoded, max_distance_threshold=bits, num_dist_workers=0)
        pairs = {(int(a), int(b)) for a, others in found.items() for b in others if int(a) < int(b)}
        yield f"imagededup PHash, ≤ {bits}", pairs, hashed - started, time.perf_counter() - began


def peak() -> float:
    """Of this process so far, in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def main(folder: Path, count: int) -> None:
    """Print the table, and write it with what it was measured on."""
    pool = pool_of(folder, count)
    reference, labels = read(folder / "cifar10", "test", 10_000)
    originals = list(range(0, len(pool), 5))
    kinds = [KINDS[k % len(KINDS)] for k in range(len(originals))]
    images = pool + [planted(pool[row], kind) for row, kind in zip(originals, kinds, strict=True)]
    truth = {(row, len(pool) + k): kind for k, (row, kind) in enumerate(zip(originals, kinds, strict=True))}
    lines = [
        "# Planted near copies",
        "",
        f"Written by `make near-copies`: {len(pool):,} CIFAR-10 images and {len(originals):,} planted copies, a "
        f"threshold from {len(reference):,} others (rate {RATE:g}). What is no planted pair counts as wrong, also near "
        f"copies that CIFAR-10 has of its own. One thread, {platform.machine()}, a shared machine: seconds are rough.",
        "",
        f"| method | {' | '.join(KINDS)} | precision | pairs | hashing (s) | pairs (s) | peak (GB) |",
        "|---|" + "---:|" * (len(KINDS) + 5),
    ]
    print(*lines, sep="\n")
    for name, pairs, hashing, pairing in chain([ours(images, reference, labels)], theirs(images)):
        right = [truth[pair] for pair in pairs & truth.keys()]
        recalls = " | ".join(f"{right.count(kind) / kinds.count(kind):.3f}" for kind in KINDS)
        found = f"{len(right) / max(len(pairs), 1):.3f} | {len(pairs):,} | {hashing:.1f} | {pairing:.1f} | {peak():.2f}"
        lines.append(f"| {name} | {recalls} | {found} |")
        print(lines[-1], flush=True)
    REPORT.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 10_000)
