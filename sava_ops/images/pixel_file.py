"""Decoded images in a file, of which a training holds no more than the batch it draws."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor


@dataclass(frozen=True)
class PixelFile:
    """Images of one size, drawn by row as from a tensor (n, 3, s, s), which gives the same pixels.

    Read and not mapped: the pages of a mapped file count as memory of the process.
    """

    path: Path
    """Pixels of one image after the other, each (3, s, s)."""
    size: int
    """Height and width, px."""
    rows: Int64[Tensor, " n"]
    """Which images of the file these are."""

    @classmethod
    def write(cls, path: Path, images: Iterable[UInt8[Tensor, "_ 3 s s"]], *, size: int) -> "PixelFile":
        """All images, piece by piece, into a new file."""
        count = 0
        with path.open("xb") as out:
            for piece in images:
                out.write(piece.contiguous().numpy().data)
                count += len(piece)
        return cls(path, size, torch.arange(count))

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return len(self), 3, self.size, self.size

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, rows: Int64[Tensor, " some"]) -> UInt8[Tensor, "some 3 s s"]:
        """The pixels of these rows. Raises EOFError where the file ends before them."""
        pixels = np.empty((len(rows), *self.shape[1:]), dtype=np.uint8)
        with self.path.open("rb", buffering=0) as file:
            for image, row in zip(pixels, self.rows[rows].tolist(), strict=True):
                if os.preadv(file.fileno(), [image.data], row * image.nbytes) != image.nbytes:
                    raise EOFError(f"{self.path} ends before image {row}")
        return torch.from_numpy(pixels)

    def part(self, rows: Int64[Tensor, " some"]) -> "PixelFile":
        """These rows alone; no pixel is read."""
        return PixelFile(self.path, self.size, self.rows[rows])

    def split(self, count: int) -> Iterator[UInt8[Tensor, "_ 3 s s"]]:
        """All images, `count` at a time."""
        for rows in torch.arange(len(self)).split(count):
            yield self[rows]
