"""Sound files of every kind that may arrive."""

import functools
import gzip
import io
import tarfile
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from safetensors.torch import save
from torch import nn, zeros
from torch import save as torch_save

from sava_assets.formats.image_table import image_schema
from sava_ops.images.encoder import METADATA_KEY
from sava_ops.images.kinds import HEIC
from tests.pictures import encoded, noise, png, png_that_claims

OTHERS = [
    b"",
    b"\0",
    b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\nshowpage\n",
    b"%PDF-1.7\n",
    b"<html></html>",
    b'<?xml version="1.0"?><svg xmlns="x"/>',
    b"\0\0\0\x18ftypheic\0\0\0\0",
    b"\xff\x0a\0\0",
    b"II*\0",
    b"RIFF\0\0\0\0WEBP",
    b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
    b"\x89PNG\r\n\x1a\n",
    b"\xff\xd8\xff\xe0",
]


@functools.cache
def images() -> list[bytes]:
    """One file of every format that is opened, in its modes; and a few that are not."""
    rgb, frames = Image.fromarray(noise(12, 9)), [Image.fromarray(noise(8, 8, seed)) for seed in range(3)]
    rgba, grey = rgb.convert("RGBA"), rgb.convert("L")
    wide = Image.fromarray(np.arange(63, dtype=np.uint16).reshape(9, 7) * 1_000)
    text, exif = PngInfo(), Image.Exif()
    text.add_text("note", "x" * 40, zip=True)
    exif[0x0112] = 6
    made = [
        (rgb, kind, {}) for kind in ("png", "jpeg", "webp", "gif", "bmp", "dib", "tiff", "avif", "ico", "ppm", "tga")
    ]
    made += [(rgb, "heif", {})] if HEIC else []
    made += [(rgb, "jpeg2000", {}), (rgb.convert("CMYK"), "jpeg", {}), (grey, "jpeg", {"progressive": True})]
    made += [(rgb, "jpeg", {"exif": exif}), (rgb, "png", {"pnginfo": text}), (rgba, "png", {}), (grey, "png", {})]
    made += [(wide, "png", {}), (rgb.convert("P"), "png", {"transparency": 0}), (rgb.convert("1"), "png", {})]
    made += [(rgba, "webp", {"lossless": True}), (rgba, "tga", {"compression": "tga_rle"}), (wide, "tiff", {})]
    made += [(rgb, "tiff", {"compression": how}) for how in ("tiff_lzw", "jpeg", "packbits", "tiff_adobe_deflate")]
    made += [
        (frames[0], kind, {"save_all": True, "append_images": frames[1:]}) for kind in ("gif", "webp", "png", "mpo")
    ]
    return [encoded(image, kind, **more) for image, kind, more in made] + [png_that_claims(20_000, 20_000), *OTHERS]


@functools.cache
def tables() -> list[bytes]:
    """Tables of images, in the codecs and layouts that occur."""
    struct = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    names = ["east", "north"]
    rows = [{"bytes": png(noise(seed=seed)), "path": f"{seed}.png"} for seed in range(4)]
    labels = [0, 1, 0, 1]
    plain = pa.table({"image": pa.array(rows, struct), "label": pa.array(labels, pa.int64())}, image_schema(names))
    bare = pa.table({"image": [row["bytes"] for row in rows], "label": [names[label] for label in labels]})
    coded = bare.set_column(1, "label", bare["label"].dictionary_encode())
    return [
        *(_parquet(table, compression=how) for table in (plain, bare, coded) for how in ("zstd", "none")),
        _parquet(plain, compression="snappy", row_group_size=2, data_page_version="2.0"),
        _parquet(bare, compression="gzip", use_dictionary=False, write_page_index=True),
        _parquet(bare.slice(0, 0)),
    ]


@functools.cache
def archives() -> list[bytes]:
    """Tars of images as WebDataset has them, a zip; also with members that lead out of their folder."""
    members = {
        f"{row:06}.{suffix}": data for row in range(2) for suffix, data in (("png", png(noise())), ("cls", b"1"))
    }
    plain, outside = _tar(members), _tar({"../../up.png": png(noise()), "/root.png": b"x"})
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w") as file:
        file.writestr("east/0.png", png(noise()))
    return [plain, outside, gzip.compress(plain), zipped.getvalue()]


@functools.cache
def checkpoints() -> list[bytes]:
    """Small files of weights: safetensors with and without a format of ours, and PyTorch's own."""
    weights = {"conv1.weight": zeros(4, 3, 3, 3), "bn1.bias": zeros(4)}
    ours = '{"image_size": 8, "stem": "tiny", "mean": [1.0, 1.0, 1.0], "std": [1.0, 1.0, 1.0]}'
    files = [save(weights), save(weights, {METADATA_KEY: ours})]
    for content in (weights, {"state_dict": weights, "epoch": 3}, nn.Linear(2, 2)):
        written = io.BytesIO()
        torch_save(content, written)
        files.append(written.getvalue())
    return files


def _parquet(table: pa.Table, **options: object) -> bytes:
    written = io.BytesIO()
    pq.write_table(table, written, **options)
    return written.getvalue()


def _tar(members: dict[str, bytes]) -> bytes:
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w") as file:
        for name, data in members.items():
            about = tarfile.TarInfo(name)
            about.size = len(data)
            file.addfile(about, io.BytesIO(data))
    return written.getvalue()
