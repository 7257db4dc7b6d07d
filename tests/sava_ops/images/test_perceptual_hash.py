"""The hash of what an image looks like: its bits from the definition, and what leaves them as they are."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy.fft import dctn

from sava_ops.decisions.near_copies import as_hashes, distances
from sava_ops.images.decode import decode
from sava_ops.images.perceptual_hash import (
    _LOWEST,
    CUT,
    HASH_BYTES,
    LEAST_SIDE,
    SIDE,
    VIEWS,
    _interpolation,
    perceptual_hash,
)
from tests.pictures import encoded, noise


def photograph(seed: int = 0, height: int = 120, width: int = 160) -> np.ndarray:
    """Soft shapes, as photographs have them: noise of few pixels, enlarged."""
    coarse = Image.fromarray(noise(12, 16, seed=seed))
    return np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC))


def apart(one: np.ndarray, other: np.ndarray) -> int:
    first, second = (as_hashes([perceptual_hash(np.ascontiguousarray(p)) or b""]) for p in (one, other))
    return int(distances(first, second)[0, 0])


def bits(pixels: np.ndarray, view: int = 0) -> np.ndarray:
    return np.unpackbits(np.frombuffer(perceptual_hash(pixels) or b"", dtype=np.uint8)).reshape(VIEWS, -1)[view]


@given(st.integers(0, 50))
def test_the_bits_are_the_signs_of_the_lowest_cosines(seed):
    grey = noise(SIDE, SIDE, seed=seed)[:, :, :1].repeat(3, axis=2)
    expected = np.asarray(dctn(grey[:, :, 0].astype(float)))[_LOWEST[:, 0], _LOWEST[:, 1]] > 0
    assert bits(grey).tolist() == expected.tolist()


def test_either_half_has_its_lowest_frequencies_once_and_never_the_mean():
    even, odd = (set(map(tuple, half)) for half in np.split(_LOWEST, 2))
    assert len(even) == len(odd) == 64
    assert {v % 2 for _, v in even} == {0}
    assert {v % 2 for _, v in odd} == {1}
    assert (0, 0) not in even
    for half, parity in ((even, 0), (odd, 1)):
        left_out = {(u, v) for u in range(32) for v in range(parity, 32, 2)} - half - {(0, 0)}
        assert max(u + v for u, v in half) <= min(u + v for u, v in left_out)


@given(st.integers(0, 50))
def test_a_mirrored_image_has_the_complement_of_the_odd_half_and_no_distance(seed):
    grey = noise(SIDE, SIDE, seed=seed)
    mirrored = np.ascontiguousarray(grey[:, ::-1])
    assert (bits(grey) ^ bits(mirrored)).tolist() == [0] * 64 + [1] * 64
    for view, other in ((1, 2), (3, 4)):  # cut at the left, cut at the right
        assert (bits(grey, view) ^ bits(mirrored, other)).tolist() == [0] * 64 + [1] * 64
    assert apart(grey, mirrored) == 0


@pytest.mark.parametrize("seed", range(5))
def test_resized_recompressed_and_slightly_cut_images_are_near_and_others_far(seed):
    image = photograph(seed)
    picture = Image.fromarray(image)
    smaller = np.asarray(picture.resize((80, 60), Image.Resampling.BICUBIC))
    squeezed = np.asarray(picture.resize((100, 100), Image.Resampling.BILINEAR))
    assert max(apart(image, smaller), apart(image, squeezed)) <= 10
    assert apart(image, decode(encoded(picture, "jpeg", quality=50))) <= 10
    assert apart(image, decode(encoded(Image.fromarray(smaller[:, ::-1]), "jpeg", quality=80))) <= 12
    assert apart(image, image[3:-3, 4:-4]) <= 32
    assert min(apart(image, photograph(seed + k)) for k in range(10, 30)) > 40


@given(
    seed=st.integers(0, 20), box=st.sampled_from([(5, 5, 100, 100), (0, 5, 95, 100), (5, 0, 100, 95), (0, 0, 95, 95)])
)
def test_an_image_cut_at_any_corner_has_the_bits_of_that_view_and_is_near_the_whole_one(seed, box):
    image = photograph(seed, 200, 200)
    cut = np.asarray(Image.fromarray(image).crop(tuple(2 * side for side in box)))
    view = 1 + 2 * (box[1] == 0) + (box[0] == 0)
    assert (bits(image, view) != bits(cut)).sum() <= 8
    assert apart(image, cut) <= 8
    assert apart(cut, image[:, ::-1]) <= 8


def test_a_view_is_the_picture_between_its_edges():
    values = np.tile(np.arange(32.0) + 0.5, (32, 1))
    for start, end in ((0.0, 1.0), (CUT, 1.0), (0.0, 1 - CUT)):
        expected = np.clip(32 * (start + (end - start) * (np.arange(32) + 0.5) / 32), 0.5, 31.5)
        np.testing.assert_allclose(values @ _interpolation(start, end).T, np.tile(expected, (32, 1)))


def test_lighter_and_flatter_images_look_alike():
    image = photograph()
    assert apart(image, image // 2) <= 3
    assert apart(image, image // 4 + 128) <= 6


@pytest.mark.parametrize("level", [0, 17, 255])
def test_an_image_without_structure_has_no_hash(level):
    flat = np.full((40, 50, 3), level, dtype=np.uint8)
    assert perceptual_hash(flat) is None
    flat[:20] = level ^ 1  # half a grey level about the mean
    assert perceptual_hash(flat) is None
    flat[:20] = level ^ 8
    assert len(perceptual_hash(flat) or b"") == HASH_BYTES


@pytest.mark.parametrize("shape", [(LEAST_SIDE, LEAST_SIDE), (LEAST_SIDE, 40), (40, LEAST_SIDE), (17, 500)])
def test_every_shape_has_a_hash_of_the_same_length(shape):
    assert len(perceptual_hash(noise(*shape)) or b"") == HASH_BYTES


@pytest.mark.parametrize("shape", [(1, 1), (8, 8), (LEAST_SIDE - 1, 40), (40, LEAST_SIDE - 1), (1, 500)])
def test_an_image_with_fewer_pixels_than_its_frequencies_need_has_no_hash(shape):
    assert perceptual_hash(noise(*shape)) is None
    assert _LOWEST.max() + 1 == LEAST_SIDE


def test_what_is_zero_in_a_symmetric_image_is_no_matter_of_rounding():
    half = photograph(3)[:, :80]
    image = np.concatenate([half, half[:, ::-1]], axis=1)
    assert not bits(image)[64:].any()
    assert apart(image, np.ascontiguousarray(image[:, ::-1])) == 0
