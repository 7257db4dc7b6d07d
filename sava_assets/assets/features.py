"""From images to features."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from sava_assets.freshness.computation import Run, computed, log_work, sound_tensors
from sava_assets.home.resources import EncoderKnobs
from sava_assets.home.result import Output, Result, digest, table_file, tensor_file
from sava_assets.home.store import EMBEDDING_BLOCKS
from sava_ops.errors import BadInput
from sava_ops.images.decode import decode_all
from sava_ops.images.encoder import Encoder, embed, load_encoder, save_encoder, train_encoder
from sava_ops.ot.cost import moments

IMAGES_AT_ONCE = 4_096


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
    return embed_set(run, run.read("reference_images"), role="valuation")


@computed(group="test", kinds={"pytorch"})
def test_embeddings(run: Run) -> Output:
    """Features of the test images: what is trained on features is judged on them."""
    return embed_set(run, run.read("test_images"))


def _make_encoder(run: Run, knobs: EncoderKnobs) -> Encoder:
    if knobs.source != "train":
        source = "imagenet" if knobs.source == "imagenet" else str(run.workspace.folder(knobs.source))
        return load_encoder(source, image_size=knobs.image_size, mean=knobs.mean, std=knobs.std)
    points, images = _of_role(run.read("reference_images"), "encoder")
    names, labels = np.unique(points["label"].to_pylist(), return_inverse=True)
    return train_encoder(
        decode_all(images.to_pylist(), size=knobs.image_size),
        torch.from_numpy(labels),
        classes=len(names),
        config=knobs.training,
        seed=knobs.seed,
        device=run.workspace.device,
        progress=run.progress,
    )


_encoders: dict[str, Encoder] = {}


def stored_encoder(result: Result) -> Encoder:
    """The encoder of a result; many shards in one process load it once."""
    stored = result.files["encoder.safetensors"]
    if stored.sha256 not in _encoders:
        result.check()
        _encoders.clear()
        _encoders[stored.sha256] = load_encoder(str(stored.path))
    return _encoders[stored.sha256]


def embed_set(run: Run, images: Result, role: str | None = None) -> Output:
    """Features (n, 512) in half precision, and the ids and labels that belong to them."""
    points, encoded = _of_role(images, role)
    features = torch.cat(list(_blocks(run, encoded)))
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


def _blocks(run: Run, encoded: pa.ChunkedArray) -> Iterator[Tensor]:
    """Features of a set, block by block; those of several are put aside, so that what a crash interrupts goes on from
    there."""
    starts, aside = range(0, len(encoded), IMAGES_AT_ONCE), len(encoded) > IMAGES_AT_ONCE
    keys = {start: digest([run.key, start, IMAGES_AT_ONCE]) for start in starts}
    stored = {start: sound_tensors(run, EMBEDDING_BLOCKS, key) if aside else None for start, key in keys.items()}
    missing = _embedded(run, encoded, [start for start in starts if not stored[start]])
    done = 0
    for start in starts:
        if kept := stored[start]:
            features = kept["features"]
        else:
            features = next(missing)
            if aside:
                files = {"tensors.safetensors": tensor_file({"features": features})}
                run.workspace.store.save(EMBEDDING_BLOCKS, keys[start], Output(files))
                log_work(f"embedding_block[{start}]")
        done += len(features)
        run.progress(done, len(encoded))
        yield features


def _embedded(run: Run, encoded: pa.ChunkedArray, starts: Sequence[int]) -> Iterator[Tensor]:
    """Features of the blocks that begin there. While one is computed, the next is decoded."""
    made = stored_encoder(run.read("encoder"))

    def decoded(start: int) -> Tensor:
        return decode_all(encoded.slice(start, IMAGES_AT_ONCE).to_pylist(), size=made.input_format.image_size)

    with ThreadPoolExecutor(1) as ahead:
        waiting = ahead.submit(decoded, starts[0])
        for following in [*starts[1:], None]:
            pixels = waiting.result()
            if following is not None:
                waiting = ahead.submit(decoded, following)
            yield embed(made, pixels, device=run.workspace.device).half()


def _of_role(images: Result, role: str | None) -> tuple[pa.Table, pa.ChunkedArray]:
    """Points and encoded images of a set, of one role where the set has roles."""
    points, encoded = images.table("points.parquet"), images.table("images.parquet", ["image"])["image"]
    if role is None:
        return points, encoded
    chosen = np.equal(points["role"].to_pylist(), role)
    return points.filter(chosen), encoded.filter(chosen)
