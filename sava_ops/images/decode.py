"""From bytes as they arrived to uint8 pixels, or a named reason for quarantine."""

import hashlib
import io
import struct
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from sava_ops.images.kinds import HEIC, OPENED, why_not_opened
from sava_ops.images.perceptual_hash import perceptual_hash
from sava_ops.images.quality import quality

if HEIC:
    from pillow_heif import register_heif_opener  # pyright: ignore[reportMissingImports]

    register_heif_opener(thumbnails=False)

MAX_PIXELS = 100_000_000
SMALL_BYTES = 4_096
"""Encoded size below which one thread decodes faster than several: most of the work is then Python's."""
TURN = 32
"""Images that a thread takes at once."""
Pixels = UInt8[np.ndarray, "height width 3"]
Made = TypeVar("Made")


class Undecodable(Exception):
    """Why an image goes to quarantine, in a few plain words."""


def decode(data: bytes) -> Pixels:
    """RGB pixels of an encoded image: upright (EXIF), first frame, transparency on white, 16-bit grey scaled to 8.

    Only the formats of `kinds.OPENED` are opened, whatever the file is called; colour profiles are not applied.

    Safe to call from many threads. Raises Undecodable with the reason.
    """
    if not data:
        raise Undecodable("empty file")
    with _without_warnings():
        image = _open(data)
        if image.width * image.height > MAX_PIXELS:  # known from the header, before memory is spent on it
            raise Undecodable(_too_large())
        if image.mode == "F":
            raise Undecodable("pixels are floating-point numbers")
        try:
            image.load()
            return np.array(_to_rgb(_upright(image)))
        except (MemoryError, Undecodable):
            raise
        except Exception as error:  # Pillow's plugins raise whatever their parser met
            raise Undecodable(_damage(error)) from error


def pixel_hash(pixels: Pixels) -> str:
    """SHA-256 of shape and pixels, in hex: equal for equal pixels, whatever file they came in."""
    return hashlib.sha256(repr(pixels.shape).encode() + np.ascontiguousarray(pixels).tobytes()).hexdigest()


@dataclass(frozen=True)
class ImageFacts:
    width: int
    height: int
    pixel_hash: str
    brightness: float
    """This and the following two: see `sava_ops.images.quality`."""
    information: float
    sharpness: float
    perceptual_hash: bytes | None
    """None of an image without structure, or too small to have it."""


def inspect_all(blobs: Sequence[bytes]) -> list[ImageFacts | str]:
    """Of each image its facts, or the reason why it goes to quarantine; in order."""
    return list(in_order(_inspect, blobs))


def fit(pixels: Pixels, size: int) -> UInt8[np.ndarray, "{size} {size} 3"]:
    """Shorter side to `size` px (bilinear, antialiased), then the centre square."""
    if pixels.shape[:2] == (size, size):
        return pixels
    return np.array(ImageOps.fit(Image.fromarray(pixels), (size, size), method=Image.Resampling.BILINEAR))


def decode_all(blobs: Sequence[bytes], *, size: int) -> UInt8[Tensor, "n 3 {size} {size}"]:
    """Decode and fit images, in order.

    Raises Undecodable for the first that does not decode: meant for images that `decode` has accepted before.
    """
    images = np.empty((len(blobs), 3, size, size), dtype=np.uint8)
    for row, pixels in enumerate(in_order(lambda blob: fit(decode(blob), size), blobs)):
        images[row] = pixels.transpose(2, 0, 1)
    return torch.from_numpy(images)


def in_order(call: Callable[[bytes], Made], blobs: Sequence[bytes]) -> Iterator[Made]:
    """What is made of each image: on threads where they are large (Pillow releases the interpreter lock)."""
    if sum(map(len, blobs)) < SMALL_BYTES * len(blobs):
        yield from map(call, blobs)
        return
    with ThreadPoolExecutor() as pool:
        turns = (blobs[start : start + TURN] for start in range(0, len(blobs), TURN))
        for made in pool.map(lambda turn: [call(blob) for blob in turn], turns):
            yield from made


def _open(data: bytes) -> Image.Image:
    try:
        return Image.open(io.BytesIO(data), formats=OPENED)
    except UnidentifiedImageError as error:
        raise Undecodable(why_not_opened(data)) from error
    except Image.DecompressionBombError as error:  # Pillow's own limit, at twice its MAX_IMAGE_PIXELS
        raise Undecodable(_too_large()) from error
    except Exception as error:  # a broken header: likewise whatever the plugin's parser met
        raise Undecodable(_damage(error)) from error


def _damage(error: Exception) -> str:
    """In words. Of texts (PNG) Pillow unpacks a megabyte each and 64 in all, lest they fill the memory."""
    too_long = "MAX_TEXT_CHUNK" in str(error) or "Too much memory used in text chunks" in str(error)
    return "text or colour profile too long to unpack" if too_long else "truncated or damaged"


def _too_large() -> str:
    return f"larger than {MAX_PIXELS // 1_000_000} megapixels"


def _inspect(data: bytes) -> ImageFacts | str:
    try:
        pixels = decode(data)
    except Undecodable as reason:
        return str(reason)
    height, width = pixels.shape[:2]
    return ImageFacts(width, height, pixel_hash(pixels), *quality(pixels), perceptual_hash(pixels))


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except (SyntaxError, struct.error, LookupError, TypeError, ValueError):
        return image  # EXIF that cannot be read does not say how the picture was held; its pixels are sound


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16-bit grey; Pillow's own conversion would clip at 255
        wide = np.asarray(image, dtype=np.int64)
        if wide.min() < 0 or wide.max() > 65_535:
            raise Undecodable("pixels beyond 16 bits")
        return Image.fromarray(((wide + 128) // 257).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
    return image.convert("RGB")


_lock = threading.Lock()
_filters = ExitStack()
_threads_inside = 0


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Pillow warns of what we check ourselves (size) and of harmless metadata.

    `warnings.catch_warnings` belongs to the process and not to a thread, so the first thread in opens it and the last
    one out closes it: each opening its own would leave the filters of another in place.
    """
    global _threads_inside
    with _lock:
        if _threads_inside == 0:
            _filters.enter_context(warnings.catch_warnings())
            warnings.simplefilter("ignore")
        _threads_inside += 1
    try:
        yield
    finally:
        with _lock:
            _threads_inside -= 1
            if _threads_inside == 0:
                _filters.close()
