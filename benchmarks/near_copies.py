"""Planted near copies, found by perceptual hash, beside imagededup's: writes near_copies.md.

    python benchmarks/near_copies.py FOLDER [IMAGES ...]

FOLDER holds cifar10/, cifar10_encoder/ and tiny_imagenet100/. Of IMAGES (10,000; the last shard of CIFAR-10's training
images first, then the quarters of Tiny ImageNet's, which are as large) every fifth is planted once more: resized to
three quarters, recompressed (JPEG, quality 50), cropped by 5 % of either side about the middle, or at one corner, or
mirrored. The threshold comes from the 10,000 test images with their labels. Recall is per kind, and precision of all
pairs found: whatever is no planted pair counts as wrong, also near copies that these sets have anyway.
`imagededup` is measured if it is installed, hours for 100,000 images; nothing else needs it.
"""

import io
import logging
import platform
import resource
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from itertools import chain, combinations
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from jaxtyping import Float, Integer
from PIL import Image
from torchvision.transforms import Compose, PILToTensor, Resize

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
from sava_ops.images.encoder import load_encoder
from sava_ops.images.perceptual_hash import HASH_BYTES

KINDS = ("resized", "recompressed", "cropped", "cut at a corner", "mirrored")
REPORT = Path(__file__).with_suffix(".md")
PEER_BITS, PEER_SIMILARITIES = (4, 10), (0.9, 0.98)
"""Up to and from which imagededup calls images duplicates; 10 and 0.9 are its defaults."""
MOST_SIMILARITIES = 20_000
"""Images whose similarities imagededup compares itself: it holds all of them, for 100,000 images twice 20 GB."""
ENCODER = "cifar10_encoder/resnet18_cifar10_first30k.safetensors"
INPUT: dict[str, Any] = {"image_size": 32, "mean": (125.3, 123.0, 113.9), "std": (63.0, 62.1, 66.7)}
ROWS = 1_000
"""Compared with all others at once."""
Pairs = Integer[np.ndarray, " pairs"]
"""Of images (a, b), a < b, as a · images + b."""
Row = tuple[str, Pairs, float, float]
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
    pairs = np.array([a * len(images) + b for a, b in _near(hashes, groups, within)], np.int64)
    return f"5 · 128 bits, ≤ {within} (derived)", pairs, hashed - started, time.perf_counter() - hashed


def _near(hashes: np.ndarray, groups: np.ndarray, within: int) -> Iterator[tuple[int, int]]:
    """All near pairs of the clusters, of which the forest holds only some."""
    for number in range(groups.max(initial=ALONE) + 1):
        rows = (groups == number).nonzero()[0]
        near = distances(hashes[rows], hashes[rows]) <= within
        yield from ((int(rows[a]), int(rows[b])) for a, b in combinations(range(len(rows)), 2) if near[a, b])


def theirs(images: list[bytes], folder: Path) -> Iterable[Row]:
    """imagededup's perceptual hash of 64 bits, and its search by the features of a network, here of the encoder for
    CIFAR-10 (its own weights come from the network); nothing where it is not installed.

    Each searches once, at the widest threshold: the narrower one has the same seconds.
    """
    try:
        from imagededup.methods import CNN, PHash  # pyright: ignore[reportMissingImports]
        from imagededup.utils import CustomModel  # pyright: ignore[reportMissingImports]
    except ImportError:
        return
    logging.getLogger("imagededup").setLevel(logging.WARNING)
    method, started = PHash(verbose=False), time.perf_counter()
    encoded = {str(row): method.encode_image(image_array=decode(data)) for row, data in enumerate(images)}
    hashed = time.perf_counter()
    pairs, bits = _scored(
        method.find_duplicates(encoding_map=encoded, max_distance_threshold=max(PEER_BITS), scores=True)
    )
    seconds = hashed - started, time.perf_counter() - hashed
    yield from ((f"imagededup PHash, ≤ {most}", pairs[bits <= most], *seconds) for most in PEER_BITS)

    encoder = load_encoder(str(folder / ENCODER), **INPUT)
    size = encoder.input_format.image_size
    own = CustomModel("cifar10", encoder.network.eval(), Compose([Resize((size, size)), PILToTensor()]))
    model, started = CNN(verbose=False, model_config=own), time.perf_counter()
    with tempfile.TemporaryDirectory() as files:
        for row, data in enumerate(images):
            (Path(files) / f"{row}.png").write_bytes(data)
        features = model.encode_images(image_dir=files, num_enc_workers=0)
    encoded = {name.removesuffix(".png"): own for name, own in features.items()}
    hashed, least = time.perf_counter(), min(PEER_SIMILARITIES)
    if whole := len(images) <= MOST_SIMILARITIES:
        pairs, similarity = _scored(
            model.find_duplicates(encoding_map=encoded, min_similarity_threshold=least, scores=True, num_sim_workers=0)
        )
    else:
        pairs, similarity = _similar(np.array([encoded[str(row)] for row in range(len(images))]), least)
    seconds = hashed - started, time.perf_counter() - hashed
    for least in PEER_SIMILARITIES:
        name = f"imagededup CNN, ≥ {least}" + ("" if whole else " (compared here)")
        yield name, pairs[similarity >= least], *seconds


def _scored(found: dict[str, list[tuple[str, float]]]) -> tuple[Pairs, Float[np.ndarray, " pairs"]]:
    """Pairs, and how far apart or how similar they are."""
    rows = [
        (int(a) * len(found) + int(b), score) for a, others in found.items() for b, score in others if int(a) < int(b)
    ]
    return np.array([pair for pair, _ in rows], np.int64), np.array([score for _, score in rows], float)


def _similar(features: np.ndarray, least: float) -> tuple[Pairs, Float[np.ndarray, " pairs"]]:
    """The same of all pairs whose features are at least so similar (cosine), by blocks of rows."""
    features = features / np.linalg.norm(features, axis=1, keepdims=True)
    found = []
    for start in range(0, len(features), ROWS):
        cosine = features[start : start + ROWS] @ features[start:].T
        a, b = np.nonzero(np.triu(cosine, 1) >= least)
        found.append(((a + start) * len(features) + b + start, cosine[a, b]))
    return np.concatenate([pairs for pairs, _ in found]), np.concatenate([similarity for _, similarity in found])


def peak() -> float:
    """Of this process so far, in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def main(folder: Path, counts: Sequence[int]) -> None:
    """Print the tables, and write them with what they were measured on."""
    reference, labels = read(folder / "cifar10", "test", 10_000)
    lines = [
        "# Planted near copies",
        "",
        f"Written by `make near-copies`: a threshold from {len(reference):,} other images (rate {RATE:g}). What is no "
        f"planted pair counts as wrong, also near copies that the sets have of their own. {_versions()}, "
        f"threads: {torch.get_num_threads()}, and imagededup's search by PHash asks all processors; "
        f"{platform.machine()}, a shared machine: seconds are rough, and the peak "
        f"is of all so far. imagededup searches once for both thresholds; its CNN has the weights of the encoder for "
        "CIFAR-10, as its own come from the network, and above "
        f"{MOST_SIMILARITIES:,} images this benchmark compares its features: it would hold all similarities, for "
        "100,000 images 20 GB, twice over.",
    ]
    for count in counts:
        pool = pool_of(folder, count)
        originals = list(range(0, len(pool), 5))
        kinds = [KINDS[k % len(KINDS)] for k in range(len(originals))]
        images = pool + [planted(pool[row], kind) for row, kind in zip(originals, kinds, strict=True)]
        truth = np.array([row * len(images) + len(pool) + k for k, row in enumerate(originals)])
        lines += [
            "",
            f"{len(pool):,} images and {len(originals):,} planted copies:",
            "",
            f"| method | {' | '.join(KINDS)} | precision | pairs | hashing (s) | pairs (s) | peak (GB) |",
            "|---|" + "---:|" * (len(KINDS) + 5),
        ]
        for name, pairs, hashing, pairing in chain([ours(images, reference, labels)], theirs(images, folder)):
            right = np.isin(truth, pairs)
            recalls = " | ".join(f"{right[k :: len(KINDS)].mean():.3f}" for k in range(len(KINDS)))
            precision = right.sum() / max(len(pairs), 1)
            found = f"{precision:.3f} | {len(pairs):,} | {hashing:.1f} | {pairing:.1f} | {peak():.2f}"
            lines.append(f"| {name} | {recalls} | {found} |")
            print(lines[-1], flush=True)
    REPORT.write_text("\n".join(lines) + "\n")


def _versions() -> str:
    try:
        return f"imagededup {version('imagededup')}, torch {version('torch')}"
    except PackageNotFoundError:
        return f"torch {version('torch')}, without imagededup"


if __name__ == "__main__":
    main(Path(sys.argv[1]), [int(count) for count in sys.argv[2:]] or [10_000])
