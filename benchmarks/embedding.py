"""Images a second, by us and by a plain torchvision loop with the same network."""

import io
from unittest.mock import patch

import numpy as np
import torch
import torchvision
from PIL import Image
from timing import best
from torchvision.models import resnet18 as torchvision_resnet18

from sava_ops.images import classifier
from sava_ops.images.classifier import resnet18
from sava_ops.images.decode import decode_all
from sava_ops.images.encoder import Encoder, InputFormat, embed


def embedding(count: int = 2_000) -> list[dict]:
    """Images a second from encoded bytes, 32 px, beside a plain torchvision loop with the same network."""
    generator = np.random.default_rng(0)
    images = [png(generator.integers(0, 256, (32, 32, 3), dtype=np.uint8)) for _ in range(count)]
    network = resnet18(10, stem="small", seed=0)
    network.network.fc = torch.nn.Identity()  # pyright: ignore[reportAttributeAccessIssue]
    encoder = Encoder(network.eval(), InputFormat(32, "small"))
    embed(encoder, decode_all(images[:256], size=32))
    other = torchvision_resnet18(weights=None)
    other.conv1, other.maxpool = torch.nn.Conv2d(3, 64, 3, 2, 1, bias=False), torch.nn.Identity()  # pyright: ignore[reportAttributeAccessIssue]
    other.fc = torch.nn.Identity()  # pyright: ignore[reportAttributeAccessIssue]
    to_tensor = torchvision.transforms.ToTensor()

    def plain() -> None:
        with torch.no_grad():
            for first in range(0, count, 256):
                batch = [to_tensor(Image.open(io.BytesIO(data)).convert("RGB")) for data in images[first : first + 256]]
                other.eval()(torch.stack(batch))

    def ours() -> None:
        embed(encoder, decode_all(images, size=32))

    with patch.object(classifier, "_fast_bf16", lambda _: False):
        exact = best(ours, 2)
    times = {
        "ours, decoding included; bfloat16 where the processor has it": best(ours, 2),
        "ours in float32": exact,
        "torchvision loop in float32, decoding included": best(plain, 2),
        "decoding alone": best(lambda: decode_all(images, size=32), 2),
    }
    return [{"name": name, "images_per_second": count / taken} for name, taken in times.items()]


def png(pixels: np.ndarray) -> bytes:
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, format="png")
    return data.getvalue()
