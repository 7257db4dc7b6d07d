"""Small pictures for people: a few hundred bytes to a few KB each."""

import io
from collections.abc import Sequence

from PIL import Image

from sava_ops.images.decode import decode, in_order

QUALITY, EFFORT = 70, 2
"""Of WebP, which has no tables to repeat in each file as JPEG has."""


def thumbnails(blobs: Sequence[bytes], *, size: int) -> list[bytes]:
    """WebP files whose longer side is at most `size` px, in order; small images keep their size.

    Raises Undecodable for the first that does not decode: meant for images that `decode` has accepted before.
    """
    return list(in_order(lambda blob: _thumbnail(blob, size), blobs))


def _thumbnail(blob: bytes, size: int) -> bytes:
    image, small = Image.fromarray(decode(blob)), io.BytesIO()
    image.thumbnail((size, size))  # changes this copy, never enlarges it
    image.save(small, format="webp", quality=QUALITY, method=EFFORT)
    return small.getvalue()
