"""Blocks of a set embedded, each by whoever works on it: in the process of the run or in a worker."""

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float16, Int64
from numpy import ndarray
from torch import Tensor
from upath import UPath

from sava_assets.assets.pixels import decoded
from sava_assets.formats.stored_images import IMAGES_FILE
from sava_assets.home.resources import Workspace
from sava_assets.home.result import Result
from sava_ops.images.encoder import Encoder, embed, load_encoder

_encoders: dict[str, Encoder] = {}


def stored_encoder(result: Result) -> Encoder:
    """The encoder of a result; many shards in one process load it once."""
    stored = result.files["encoder.safetensors"]
    if stored.sha256 not in _encoders:
        result.check()
        _encoders.clear()
        _encoders[stored.sha256] = load_encoder(str(stored.path))
    return _encoders[stored.sha256]


@dataclass(frozen=True)
class Embedder:
    """What all blocks have in common. Images are read from the store by whoever embeds them."""

    images: Result
    encoder: Result
    device: str
    """What is embedded on; see `Workers.device`."""

    @cached_property
    def table(self) -> UPath:
        """Where the images lie, verified once by whoever asks."""
        return self.images.verified(IMAGES_FILE)


def embedded(embedder: Embedder, rows: Int64[ndarray, " n"]) -> Float16[Tensor, "n 512"]:
    """Features of these images of the set (ascending), in half precision on the CPU."""
    network, device = stored_encoder(embedder.encoder), Workspace.checked_device(embedder.device)
    pieces = decoded(embedder.table, size=network.input_format.image_size, rows=rows)
    return torch.cat([embed(network, pixels, device=device).half() for pixels in pieces])
