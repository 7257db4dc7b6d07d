"""Which kinds of image files are opened, and what other kinds are called.

Pillow would open more, some by handing a stranger's file to another program (PostScript to Ghostscript).
"""

from collections.abc import Mapping
from importlib.util import find_spec

HEIC = find_spec("pillow_heif") is not None
"""Whether HEIC is decoded too (inside this process, by libheif): the extra `heic` is installed."""
PILLOW = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "AVIF", "JPEG2000", "ICO", "PPM", "TGA")
"""What Pillow alone opens of them."""
OPENED = (*PILLOW, "HEIF") if HEIC else PILLOW
"""Pillow's names of the formats of photographs and pictures; each is decoded inside this process."""

_CONVERT = "is not opened: convert it to JPEG or PNG"
NEEDS_HEIC = "HEIC needs the extra `heic`: pip install 'sava-assets[heic]', or convert it to JPEG or PNG"
_PICTURES = {
    b"%!": "PostScript",
    b"\xc5\xd0\xd3\xc6": "PostScript",
    b"%PDF": "PDF",
    b"\xff\x0a": "JPEG XL",
    b"\0\0\0\x0cJXL ": "JPEG XL",
    b"8BPS": "Photoshop",
    b"\xd7\xcd\xc6\x9a": "Windows Metafile",
    b"SIMPLE  =": "FITS",
    b"\x89HDF": "HDF5",
    b"DDS ": "DirectDraw Surface",
    b"icns": "Apple's icon format",
    b"qoif": "QOI",
    b"\x01\xda": "SGI",
    b"\x0a\x05\x01\x08": "PCX",
    b"<svg": "SVG",
}
_OTHERS = {
    b"PK\x03\x04": "a ZIP archive",
    b"\x1f\x8b": "a gzip archive",
    b"7z\xbc\xaf\x27\x1c": "a 7-Zip archive",
    b"Rar!": "a RAR archive",
    b"PAR1": "a Parquet file",
    b"version https://git-lfs": "a pointer of git-lfs: fetch the file itself",
    b"<!doctype html": "a web page",
    b"<html": "a web page",
}
_HEIF = {b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1"}
_HEAD = 2_048
"""Bytes in which a text says what it is."""


def why_not_opened(data: bytes) -> str:
    """What a file is that Pillow does not know, or may not open, by its first bytes."""
    if data[4:8] == b"ftyp" and data[8:12] in _HEIF:
        return "truncated or damaged" if HEIC else NEEDS_HEIC
    text = data[:_HEAD].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if text.startswith(b"<?xml") and b"<svg" in text:
        return f"SVG {_CONVERT}"
    if picture := _begins(data, text, _PICTURES):
        return f"{picture} {_CONVERT}"
    other = _begins(data, text, _OTHERS)
    return f"not an image but {other}" if other else "not an image"


def _begins(data: bytes, text: bytes, signatures: Mapping[bytes, str]) -> str:
    """By the bytes as they are, or as text in small letters."""
    return next((kind for start, kind in signatures.items() if data.startswith(start) or text.startswith(start)), "")
