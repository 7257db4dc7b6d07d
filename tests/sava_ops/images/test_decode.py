import os
import struct
import subprocess
import warnings

import numpy as np
import pytest
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from sava_ops.images import decode as images_module
from sava_ops.images import kinds
from sava_ops.images.decode import ImageFacts, Undecodable, decode, decode_all, fit, inspect_all, pixel_hash
from sava_ops.images.kinds import OPENED
from sava_ops.images.perceptual_hash import perceptual_hash
from sava_ops.images.quality import quality
from tests.pictures import encoded, noise, png, png_that_claims

PIXELS = noise(6, 9)


@pytest.mark.parametrize("kind", ["png", "bmp", "tiff", "webp"])
def test_lossless_formats_give_back_their_pixels(kind):
    options = {"lossless": True} if kind == "webp" else {}
    np.testing.assert_array_equal(decode(encoded(Image.fromarray(PIXELS), kind, **options)), PIXELS)


def test_jpeg_is_close():
    smooth = np.full((16, 16, 3), [200, 100, 50], dtype=np.uint8)
    assert np.abs(decode(encoded(Image.fromarray(smooth), "jpeg")).astype(int) - smooth).max() <= 3


def test_photos_are_turned_upright():
    exif = Image.Exif()
    exif[0x0112] = 6  # "turn clockwise"
    np.testing.assert_array_equal(decode(encoded(Image.fromarray(PIXELS), "png", exif=exif)), np.rot90(PIXELS, k=-1))


def test_transparency_is_laid_on_white():
    clear = np.zeros((4, 4, 4), dtype=np.uint8)
    assert (decode(encoded(Image.fromarray(clear))) == 255).all()


def test_palettes_and_grey_become_rgb():
    grey = Image.fromarray(PIXELS[..., 0])
    np.testing.assert_array_equal(decode(encoded(grey)), np.repeat(PIXELS[..., :1], 3, axis=2))
    palette = Image.fromarray(PIXELS).quantize(16)
    np.testing.assert_array_equal(decode(encoded(palette)), np.array(palette.convert("RGB")))


def test_sixteen_bit_grey_is_scaled_and_not_clipped():
    wide = np.array([[0, 257, 32896, 65535]], dtype=np.uint16)
    assert decode(encoded(Image.fromarray(wide)))[0, :, 0].tolist() == [0, 1, 128, 255]


def test_first_frame_of_an_animation():
    frames = [Image.fromarray(noise(seed=s)).quantize(8) for s in (0, 1)]
    data = encoded(frames[0], "gif", save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(decode(data), np.array(frames[0].convert("RGB")))


def texted(size: int, *, packed: bool) -> bytes:
    """A PNG with a text of this size, which unpacks to that from little if it is packed."""
    info = PngInfo()
    info.add_text("comment", "x" * size, zip=packed)
    return encoded(Image.fromarray(PIXELS), "png", pnginfo=info)


def test_long_texts_are_no_fault_and_what_unpacks_to_too_much_is():
    np.testing.assert_array_equal(decode(texted(3_000_000, packed=False)), PIXELS)
    with pytest.raises(Undecodable, match=r"^text or colour profile too long to unpack$"):
        decode(texted(3_000_000, packed=True))
    with pytest.raises(Undecodable, match=r"^text or colour profile too long to unpack$"):
        decode(encoded(Image.fromarray(PIXELS), "png", icc_profile=bytes(3_000_000)))


@pytest.mark.parametrize("kind", ["jpeg", "png", "webp"])
def test_pixels_beside_damaged_exif_are_as_they_lie(kind):
    junk = b"Exif\0\0" * (kind == "jpeg") + b"no such thing"
    options = {"lossless": True} if kind == "webp" else {}
    turned, plain = (decode(encoded(Image.fromarray(PIXELS), kind, **options, **more)) for more in ({"exif": junk}, {}))
    np.testing.assert_array_equal(turned, plain)


@pytest.mark.parametrize("kind", ["avif", "jpeg2000", "ico", "tga", "ppm", "mpo", "gif"])
def test_other_formats_of_pictures_are_opened(kind):
    side = Image.fromarray(np.full((16, 16, 3), [200, 100, 50], dtype=np.uint8))
    assert np.abs(decode(encoded(side, kind)).astype(int) - [200, 100, 50]).max() <= 3


@pytest.mark.parametrize("kind", ["webp", "png", "avif", "tiff"])
def test_first_frame_of_other_animations(kind):
    frames = [Image.fromarray(np.full((16, 16, 3), level, dtype=np.uint8)) for level in (200, 20)]
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
    assert abs(decode(data).astype(int) - 200).max() <= 2


def test_inks_become_rgb_and_colour_profiles_are_not_applied():
    inks = Image.fromarray(PIXELS).convert("CMYK")
    assert np.abs(decode(encoded(inks, "tiff")).astype(int) - np.array(inks.convert("RGB"))).max() == 0
    np.testing.assert_array_equal(decode(encoded(Image.fromarray(PIXELS), "png", icc_profile=b"junk" * 99)), PIXELS)


def drawing(before: bytes = b"") -> bytes:
    """PostScript, as a scraper may find it under any name."""
    return before + encoded(Image.fromarray(PIXELS), "eps")


def dos_drawing() -> bytes:
    return b"\xc5\xd0\xd3\xc6" + struct.pack("<II", 32, len(drawing())) + bytes(20) + drawing()


@pytest.mark.parametrize("data", [drawing(), drawing(b" \n"), dos_drawing()], ids=["plain", "after blanks", "DOS"])
def test_postscript_is_handed_to_no_other_program(data, monkeypatch):
    def called(*arguments, **options):
        raise AssertionError(f"started {arguments} {options}")

    monkeypatch.setattr(subprocess, "Popen", called)
    monkeypatch.setattr(os, "system", called)
    with pytest.raises(Undecodable, match=r"^PostScript is not opened: convert it to JPEG or PNG$"):
        decode(data)


def test_only_what_is_named_is_opened():
    """None of these starts another program; all others that Pillow knows are refused by their kind."""
    Image.init()
    assert set(OPENED) <= set(Image.OPEN)
    assert not set(OPENED) & {"EPS", "WMF", "PSD", "FITS", "HDF5", "GRIB", "BUFR", "IPTC"}
    for kind, name in {"pdf": "PDF", "pcx": "PCX", "sgi": "SGI", "dds": "DirectDraw Surface", "qoi": "QOI"}.items():
        with pytest.raises(Undecodable, match=rf"^{name} is not opened: convert it to JPEG or PNG$"):
            decode(encoded(Image.fromarray(PIXELS), kind))


BROKEN = {
    "empty file": b"",
    "not an image": b"no image",
    "not an image but a web page": b"\n<!DOCTYPE html><title>404</title>",
    "not an image but a ZIP archive": b"PK\x03\x04 and more",
    "not an image but a pointer of git-lfs: fetch the file itself": b"version https://git-lfs.github.com/spec/v1",
    "JPEG XL is not opened: convert it to JPEG or PNG": b"\xff\x0a" + bytes(64),
    "SVG is not opened: convert it to JPEG or PNG": b"\xef\xbb\xbf<?xml version='1.0'?>\n<svg/>",
    "pixels beyond 16 bits": encoded(Image.fromarray(np.array([[0, 70_000]], dtype=np.int32)), "tiff"),
    "truncated or damaged": png(noise(64, 64))[:1_000],
    "larger than 100 megapixels": png_that_claims(20_000, 6_000),
    "pixels are floating-point numbers": encoded(Image.fromarray(np.zeros((2, 2), dtype=np.float32)), "tiff"),
}


@pytest.mark.parametrize("reason", BROKEN)
def test_what_does_not_decode_has_a_named_reason(reason):
    with pytest.raises(Undecodable, match=f"^{reason}$"):
        decode(BROKEN[reason])


@pytest.mark.parametrize("brand", [b"heic", b"hevx", b"mif1"])
def test_heic_is_opened_with_its_extra_alone(brand, monkeypatch):
    header = b"\0\0\0\x18ftyp" + brand + b"\0\0\0\0mif1heic" + bytes(64)
    monkeypatch.setattr(kinds, "HEIC", False)
    monkeypatch.setattr(images_module, "OPENED", kinds.PILLOW)
    needs = r"^HEIC needs the extra `heic`: pip install 'sava-assets\[heic\]', or convert it to JPEG or PNG$"
    with pytest.raises(Undecodable, match=needs):
        decode(header)
    monkeypatch.setattr(kinds, "HEIC", True)
    with pytest.raises(Undecodable, match=r"^truncated or damaged$"):
        decode(header)


def test_heic_pixels():
    """Upright, the first image, transparency on white; as photographs of telephones come."""
    pytest.importorskip("pillow_heif")
    plain = np.full((64, 96, 3), (200, 100, 50), dtype=np.uint8)
    image = Image.fromarray(plain)
    assert np.abs(decode(encoded(image, "heif", quality=95)).astype(int) - plain).max() <= 3
    clear = Image.new("RGBA", image.size, (0, 0, 0, 0))
    assert decode(encoded(clear, "heif", quality=95)).min() >= 252
    data = encoded(image, "heif", save_all=True, append_images=[Image.fromarray(plain // 4)])
    assert decode(data).mean() > 100
    for size in (40, 100, len(data) // 2):
        with pytest.raises(Undecodable, match=r"^truncated or damaged$"):
            decode(data[:size])


def test_a_decompression_bomb_costs_no_memory():
    with pytest.raises(Undecodable, match="larger than 100 megapixels"):
        decode(png_that_claims(60_000, 60_000))


def test_damaged_jpeg_is_not_filled_with_grey():
    data = encoded(Image.fromarray(noise(64, 64)), "jpeg")
    with pytest.raises(Undecodable, match="truncated or damaged"):
        decode(data[: len(data) // 2])


@pytest.fixture(params=[0, 10**9], ids=["threads", "one thread"])
def small_bytes(request, monkeypatch):
    """Any image is large, or every one is small; two to a turn."""
    monkeypatch.setattr(images_module, "SMALL_BYTES", request.param)
    monkeypatch.setattr(images_module, "TURN", 2)


def facts_of(pixels: np.ndarray) -> ImageFacts:
    height, width = pixels.shape[:2]
    return ImageFacts(width, height, pixel_hash(pixels), *quality(pixels), perceptual_hash(pixels))


@pytest.mark.usefixtures("small_bytes")
def test_inspection_keeps_the_order_and_goes_on_after_a_broken_image():
    facts = inspect_all([png(PIXELS), b"", png(noise(seed=1))])
    assert facts == [facts_of(PIXELS), "empty file", facts_of(noise(seed=1))]


def test_hash_is_of_pixels_and_shape_and_not_of_the_file():
    fast, small = (encoded(Image.fromarray(PIXELS), "png", compress_level=level) for level in (0, 9))
    assert fast != small
    assert pixel_hash(decode(fast)) == pixel_hash(decode(small))
    assert pixel_hash(PIXELS) != pixel_hash(PIXELS.reshape(9, 6, 3))
    changed = PIXELS.copy()
    changed[0, 0, 0] ^= 1
    assert pixel_hash(changed) != pixel_hash(PIXELS)


def test_fit_takes_the_centre_square():
    wide = np.zeros((4, 12, 3), dtype=np.uint8)
    wide[:, 4:8] = 200
    np.testing.assert_array_equal(fit(wide, 4), np.full((4, 4, 3), 200))
    np.testing.assert_array_equal(fit(PIXELS[:6, :6], 6), PIXELS[:6, :6])


@pytest.mark.usefixtures("small_bytes")
def test_decode_all_is_decode_and_fit_of_each_as_channels_first():
    blobs = [png(noise(6 + k, 9, seed=k)) for k in range(5)]
    images = decode_all(blobs, size=6)
    assert images.dtype == torch.uint8
    for blob, image in zip(blobs, images, strict=True):
        np.testing.assert_array_equal(image.permute(1, 2, 0).numpy(), fit(decode(blob), 6))
    assert decode_all([], size=6).shape == (0, 3, 6, 6)
    with pytest.raises(Undecodable, match="empty file"):
        decode_all([blobs[0], b""], size=6)


@pytest.mark.usefixtures("small_bytes")
def test_warning_filters_are_left_as_they_were():
    before = list(warnings.filters)
    inspect_all([png(noise(seed=s)) for s in range(64)])
    assert warnings.filters == before
