"""Stored images as pixels, decoded piece by piece: neither the encoded nor the decoded images of a set are held."""

import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Protocol

import numpy as np
from jaxtyping import Int64, UInt8
from torch import Tensor
from upath import UPath

from sava_assets.formats.stored_images import IMAGES_FILE, blobs, encoded_images
from sava_assets.home.result import Result
from sava_ops.errors import BadInput
from sava_ops.images.decode import decode_all
from sava_ops.images.pixel_file import PixelFile

DECODED_AT_ONCE = 512
"""A multiple of what a network is given at once, so that no outcome depends on it."""


def encoded(
    images: Result | UPath, *, rows: Int64[np.ndarray, " chosen"] | None = None, at_once: int = DECODED_AT_ONCE
) -> Iterator[list[bytes]]:
    """All images of a set, or these rows (ascending), so many at a time. Of a set whose table of images was verified
    already, where that lies."""
    place = images.verified(IMAGES_FILE) if isinstance(images, Result) else images
    each = blobs(encoded_images(place, rows))
    while piece := list(islice(each, at_once)):
        yield piece


def decoded(
    images: Result | UPath,
    *,
    size: int,
    rows: Int64[np.ndarray, " chosen"] | None = None,
    at_once: int = DECODED_AT_ONCE,
) -> Iterator[UInt8[Tensor, "_ 3 s s"]]:
    """Pixels of what `encoded` gives. While one piece is used, the next is decoded."""
    with ThreadPoolExecutor(1) as ahead:
        waiting = None
        for piece in encoded(images, rows=rows, at_once=at_once):
            following = ahead.submit(decode_all, piece, size=size)
            if waiting:
                yield waiting.result()
            waiting = following
        if waiting:
            yield waiting.result()


class Scratched(Protocol):
    """A run, or part of one."""

    @property
    def title(self) -> str: ...
    @property
    def scratch(self) -> Path: ...


def pixel_file(
    run: Scratched, sets: Sequence[tuple[Result, Int64[np.ndarray, " chosen"] | None]], *, size: int
) -> PixelFile:
    """The pixels of sets, or of these rows of them, one after the other in a file of the run. Raises BadInput where
    there is no room for it."""
    count = sum(images.numbers["images"] if rows is None else len(rows) for images, rows in sets)
    needed, free = count * 3 * size * size, shutil.disk_usage(run.scratch).free
    if needed > free:
        raise BadInput(
            f"{run.title} decodes {count:,} images to {needed / 1e9:,.1f} GB in {run.scratch.parent}, where "
            f"{free / 1e9:,.1f} GB are free: make room there, or lower `encoder.image_size`"
        )
    pieces = (piece for images, rows in sets for piece in decoded(images, size=size, rows=rows))
    return PixelFile.write(run.scratch, pieces, size=size)


def chosen_images(images: Result, rows: Int64[np.ndarray, " chosen"]) -> list[bytes]:
    """The encoded images of these rows of a set, in their order."""
    own, place = np.unique(rows, return_inverse=True)
    found = [image for piece in encoded(images, rows=own) for image in piece]
    return [found[k] for k in place]
