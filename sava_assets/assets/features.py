"""From images to features."""

from dataclasses import replace
from functools import partial

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Float16, Int64
from torch import Tensor

from sava_assets.assets.embedding import Embedder, embedded
from sava_assets.assets.pixels import pixel_file
from sava_assets.formats.columns import codes_of, places_of
from sava_assets.freshness.computation import Run, computed, log_work, sound_tensors
from sava_assets.freshness.promotion import PROMOTED
from sava_assets.home.resources import EncoderKnobs
from sava_assets.home.result import Output, Result, digest, table_file, tensor_file
from sava_assets.home.store import EMBEDDING_BLOCKS
from sava_ops.errors import BadInput
from sava_ops.images.encoder import FEATURES, Encoder, load_encoder, save_encoder, train_encoder
from sava_ops.ot.cost import moments

IMAGES_AT_ONCE = 4_096
"""Of a block that is put aside."""


@computed(group="reference", kinds={"pytorch"})
def encoder(run: Run) -> Output:
    """ResNet18 without its last layer: ImageNet's, a checkpoint's, or trained on clean images that judge nothing."""
    made = _make_encoder(run, run.knobs.encoder)
    return Output(
        files={"encoder.safetensors": partial(save_encoder, made)},
        numbers={"source": run.knobs.encoder.source, "image_size": made.input_format.image_size},
        data_version=run.content_version,
    )


@computed(group="training", kinds={"pytorch"})
def embeddings(run: Run) -> Output:
    """Features of the images of one shard, each image embedded once."""
    return embed_set(run, run.read("raw_images"))


@computed(group="reference", kinds={"pytorch"})
def reference_embeddings(run: Run) -> Output:
    """Features of the reference images that judge."""
    images = run.read("reference_images")
    found = embed_set(run, images, "valuation", PROMOTED)
    count = images.numbers.get("promoted")  # the last ones
    return replace(found, numbers={**found.numbers, "promoted": count}) if count else found


@computed(group="test", kinds={"pytorch"})
def test_embeddings(run: Run) -> Output:
    """Features of the test images: what is trained on features is judged on them."""
    return embed_set(run, run.read("test_images"))


def _make_encoder(run: Run, knobs: EncoderKnobs) -> Encoder:
    if knobs.source != "train":
        source = "imagenet" if knobs.source == "imagenet" else str(run.workspace.folder(knobs.source))
        return load_encoder(source, image_size=knobs.image_size, mean=knobs.mean, std=knobs.std)
    images = run.read("reference_images")
    points, rows = _of_role(images, "encoder")
    return train_encoder(
        pixel_file(run, [(images, rows)], size=knobs.image_size),
        torch.from_numpy(codes_of(points["label"])),
        classes=len(points["label"].unique()),
        config=knobs.training,
        seed=knobs.seed,
        device=run.workspace.device,
        progress=run.progress,
    )


def embed_set(run: Run, images: Result, *roles: str) -> Output:
    """Features (n, 512) in half precision, and the ids and labels that belong to them; of these roles, or of all."""
    points, rows = _of_role(images, *roles)
    features = _features(run, images, rows)
    broken = int((~torch.isfinite(features)).any(1).sum())
    if broken:
        raise BadInput(f"{run.title}: the encoder gives NaN or infinite features for {broken} images: use another one")
    return Output(
        files={
            "features.safetensors": tensor_file({"features": features}),
            "points.parquet": table_file(points.select(["id", "label"])),
            "moments.safetensors": tensor_file(moments(features)),
        },
        numbers={"points": len(points), "classes": sorted(points["label"].unique().to_pylist())},
        data_version=run.content_version,
    )


def _features(run: Run, images: Result, rows: Int64[np.ndarray, " n"]) -> Float16[Tensor, "n 512"]:
    """Features of these images of a set, block by block; those of several are put aside, so that what a crash
    interrupts goes on from there."""
    features = torch.empty(len(rows), FEATURES, dtype=torch.half)
    blocks = {start: rows[start : start + IMAGES_AT_ONCE] for start in range(0, len(rows), IMAGES_AT_ONCE)}
    keys = {start: digest([run.key, start, IMAGES_AT_ONCE]) for start in blocks} if len(blocks) > 1 else {}
    for start, key in keys.items():
        if stored := sound_tensors(run, EMBEDDING_BLOCKS, key):
            features[start : start + IMAGES_AT_ONCE] = stored["features"]
            del blocks[start]
    embedder = Embedder(images, run.read("encoder"), run.workers.device)
    done = len(rows) - sum(map(len, blocks.values()))
    for start, block in zip(blocks, run.workers.map(embedded, embedder, blocks.values()), strict=True):
        features[start : start + IMAGES_AT_ONCE] = block
        if start in keys:
            output = Output({"tensors.safetensors": tensor_file({"features": block})})
            run.workspace.store.save(EMBEDDING_BLOCKS, keys[start], output)
            log_work(f"embedding_block[{start}]")
        done += len(block)
        run.progress(done, len(rows))
    return features


def _of_role(images: Result, *roles: str) -> tuple[pa.Table, np.ndarray]:
    """Points of a set, of these roles where the set has roles, and their rows in it."""
    points = images.table("points.parquet")
    chosen = np.ones(len(points), dtype=bool) if not roles else places_of(points["role"], [*roles]) >= 0
    return points.filter(pa.array(chosen)), chosen.nonzero()[0]
