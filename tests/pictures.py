"""Real image files, made on the spot."""

import io
import struct
import zlib

import numpy as np
import torch
from PIL import Image


def encoded(image: Image.Image, kind: str = "png", **options) -> bytes:
    data = io.BytesIO()
    image.save(data, format=kind, **options)
    return data.getvalue()


def noise(height: int = 8, width: int = 8, seed: int = 0) -> np.ndarray:
    """Pixels (height, width, 3)."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def png(pixels: np.ndarray) -> bytes:
    return encoded(Image.fromarray(pixels))


def png_that_claims(width: int, height: int) -> bytes:
    """A valid PNG header for an image of this size, and almost no data."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


def scan(label: int, seed: int) -> np.ndarray:
    """An 8 × 8 picture of which a bright block tells the class (0..3)."""
    pixels = noise(seed=seed) // 4
    row, column = divmod(label, 2)
    pixels[4 * row : 4 * row + 4, 4 * column : 4 * column + 4] += 150
    return pixels


def scans(count: int, *, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Pictures (count, 3, 8, 8) and their classes (count,)."""
    labels = np.arange(count) % 4
    images = np.stack([scan(label, seed * 10_000 + k) for k, label in enumerate(labels)])
    return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(), torch.from_numpy(labels)
