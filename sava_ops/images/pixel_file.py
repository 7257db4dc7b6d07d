"""Decoded images in a file, of which a training holds no more than the batch it draws."""

import os
import tempfile
import weakref
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor


class Nameless:
    """An open file that nobody else can see, and that is gone when nobody refers to it, or the process has died."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 (the finalizer closes it)
        weakref.finalize(self, self.file.close)


@dataclass(frozen=True)
class PixelFile:
    """Images of one size, drawn by row as from a tensor (n, 3, s, s), which gives the same pixels.

    Read and not mapped: the pages of a mapped file count as memory of the process.
    """

    pixels: Nameless
    """Of one image after the other, each (3, s, s)."""
    size: int
    """Height and width, px."""
    rows: Int64[Tensor, " n"]
    """Which images of the file these are."""

    @classmethod
    def write(cls, folder: Path, images: Iterable[UInt8[Tensor, "_ 3 s s"]], *, size: int) -> "PixelFile":
        """All images, piece by piece, into a file of this folder."""
        pixels, count = Nameless(folder), 0
        for piece in images:
            pixels.file.write(piece.contiguous().numpy().data)
            count += len(piece)
        pixels.file.flush()
        return cls(pixels, size, torch.arange(count))

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return len(self), 3, self.size, self.size

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, rows: Int64[Tensor, " some"]) -> UInt8[Tensor, "some 3 s s"]:
        """The pixels of these rows. Raises EOFError where the file ends before them."""
        pixels = np.empty((len(rows), *self.shape[1:]), dtype=np.uint8)
        for image, row in zip(pixels, self.rows[rows].tolist(), strict=True):
            if os.preadv(self.pixels.file.fileno(), [image.data], row * image.nbytes) != image.nbytes:
                raise EOFError(f"the file of pixels in {self.pixels.folder} ends before image {row}")
        return torch.from_numpy(pixels)

    def part(self, rows: Int64[Tensor, " some"]) -> "PixelFile":
        """These rows alone; no pixel is read."""
        return PixelFile(self.pixels, self.size, self.rows[rows])

    def split(self, count: int) -> Iterator[UInt8[Tensor, "_ 3 s s"]]:
        """All images, `count` at a time."""
        for rows in torch.arange(len(self)).split(count):
            yield self[rows]
