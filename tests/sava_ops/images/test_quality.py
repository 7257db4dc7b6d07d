"""Brightness, information and sharpness: exact answers, and what makes each of them fall."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageFilter

from sava_ops.images.quality import PIXELS, quality
from tests.pictures import noise


def grey(values: np.ndarray) -> np.ndarray:
    """Pixels of one luma each."""
    return np.repeat(np.asarray(values, dtype=np.uint8)[..., None], 3, axis=2)


def picture(size: int = 64, seed: int = 0) -> np.ndarray:
    """Patches of different colours, with edges and some noise: 20 … 230."""
    generator = np.random.default_rng(seed)
    patches = generator.integers(40, 210, (8, 8, 3)).repeat(size // 8, 0).repeat(size // 8, 1)
    return (patches + generator.integers(-20, 20, patches.shape)).astype(np.uint8)


def blurred(pixels: np.ndarray, radius: float) -> np.ndarray:
    return np.array(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(radius)))


@pytest.mark.parametrize("value", [0, 51, 255])
@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (2, 2), (5, 7), (600, 400)])
def test_a_flat_image_has_its_brightness_and_nothing_else(value, shape):
    assert quality(grey(np.full(shape, value))) == (value / 255, 0.0, np.log(1 / 4))


@pytest.mark.parametrize("levels", [2, 4, 256])
def test_equally_frequent_values_have_the_log_of_their_number_as_information(levels):
    found = quality(grey(np.arange(levels).repeat(256 // levels).reshape(16, 16) * (255 // (levels - 1))))
    assert found.information == pytest.approx(np.log2(levels))


def test_the_luma_weighs_colours_as_rec_601_does():
    for channel, weight in enumerate((0.299, 0.587, 0.114)):
        pixels: np.ndarray = np.zeros((4, 4, 3), dtype=np.uint8)
        pixels[..., channel] = 255
        assert quality(pixels).brightness == pytest.approx(weight, abs=0.5 / 255)


def test_sharpness_of_a_board_a_step_and_a_ramp():
    board = np.indices((32, 32)).sum(0) % 2 * 200
    assert quality(grey(board)).sharpness == pytest.approx(np.log(8), abs=1e-4)
    stripes = np.indices((32, 32))[1] % 2 * 200
    assert quality(grey(stripes)).sharpness == pytest.approx(np.log(4), abs=1e-4)
    ramp = np.indices((32, 64))[1] * 4
    assert quality(grey(ramp)).sharpness == pytest.approx(-np.log(4 + 16))


@given(st.integers(0, 99))
def test_blur_lowers_sharpness(seed):
    for pixels in (picture(seed=seed), noise(32, 32, seed)):
        sharp, soft, softer, *rest = (
            quality(blurred(pixels, r) if r else pixels).sharpness for r in (0, 0.7, 1.4, 3, 8)
        )
        assert sharp > soft > softer
        assert max(rest) < soft  # so little is left that rounding counts


@given(st.integers(0, 99), st.floats(0.2, 0.9))
def test_darkening_lowers_brightness_and_does_not_blur(seed, factor):
    bright = picture(seed=seed)
    dark = (bright * factor).astype(np.uint8)
    assert quality(dark).brightness == pytest.approx(factor * quality(bright).brightness, abs=1.5 / 255)
    assert quality(dark).sharpness == pytest.approx(quality(bright).sharpness, abs=0.15)
    assert quality(dark).information < quality(bright).information


@given(st.integers(0, 99))
def test_turned_and_mirrored_images_have_the_same_quality(seed):
    pixels = noise(12, 20, seed)
    for other in (pixels[::-1], pixels[:, ::-1], np.rot90(pixels)):
        np.testing.assert_allclose(quality(np.ascontiguousarray(other)), quality(pixels), atol=1e-12)


def test_scale_means_nothing_above_the_common_one_and_blurs_below_it():
    side = int(PIXELS**0.5)
    large = picture(side)
    for times in (2, 3):
        np.testing.assert_allclose(quality(large.repeat(times, 0).repeat(times, 1)), quality(large), atol=1e-12)
    small = picture(32)
    enlarged = np.array(Image.fromarray(small).resize((96, 96), Image.Resampling.BICUBIC))
    assert quality(enlarged).sharpness < quality(small).sharpness - 1
    assert quality(enlarged).brightness == pytest.approx(quality(small).brightness, abs=0.01)


@pytest.mark.parametrize("shape", [(1, 200_000), (3, 90_000)])
def test_what_is_long_and_thin_is_measured_too(shape):
    assert np.isfinite(quality(grey(np.arange(np.prod(shape)).reshape(shape) % 256))).all()
