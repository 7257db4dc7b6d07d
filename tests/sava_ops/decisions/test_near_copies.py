import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from sava_ops import BadInput
from sava_ops.decisions.near_copies import clusters, difference_threshold, near_pairs, near_pairs_within

DEGREE = math.pi / 180


def directions(*degrees: float) -> Tensor:
    """Unit vectors of the plane."""
    angles = torch.tensor(degrees, dtype=torch.float64) * DEGREE
    return torch.stack([angles.cos(), angles.sin()], dim=1)


def unlike(count: int, *, seed: int = 0) -> Tensor:
    """Directions in so many dimensions that no two are near."""
    return torch.randn(count, 256, generator=torch.Generator().manual_seed(seed))


def test_planted_copies_are_found_exactly():
    points = unlike(90)
    planted = [(3, 71), (10, 88), (20, 21)]
    noise = unlike(90, seed=1)
    for k, (one, other) in enumerate(planted):
        # Of other length, and turned a little: cosine 1 / sqrt(1 + t²) with noise of length t at a right angle.
        across = noise[k] - (noise[k] @ points[one]) / points[one].square().sum() * points[one]
        points[other] = (k + 0.5) * (points[one] + 0.1 * across * points[one].norm() / across.norm())
    pairs, cosines = near_pairs_within(points, threshold=0.9)
    assert [tuple(pair) for pair in pairs.tolist()] == planted
    assert cosines == pytest.approx(np.full(3, 1 / math.sqrt(1.01)), abs=1e-5)
    assert near_pairs_within(points, threshold=0.999)[0].tolist() == []


@given(block=st.integers(1, 40), other=st.integers(1, 40), seed=st.integers(0, 5))
def test_the_size_of_blocks_changes_nothing(block, other, seed):
    angles = np.random.default_rng(seed).uniform(0, 360, size=37).tolist()
    one, beside = directions(*angles[:20]), directions(*angles[20:])
    for found, again in (
        (near_pairs(one, beside, threshold=0.7, block=block), near_pairs(one, beside, threshold=0.7, block=other)),
        (near_pairs_within(one, threshold=0.7, block=block), near_pairs_within(one, threshold=0.7, block=other)),
    ):
        assert found[0].tolist() == again[0].tolist()
        assert found[1] == pytest.approx(again[1], abs=1e-6)


@given(seed=st.integers(0, 9), block=st.integers(1, 9))
def test_pairs_are_those_of_the_definition_and_symmetric(seed, block):
    angles = np.random.default_rng(seed).uniform(0, 360, size=24)
    one, other = directions(*angles[:10]), directions(*angles[10:])
    apart = np.abs((angles[:10, None] - angles[None, 10:] + 180) % 360 - 180)
    pairs = near_pairs(one, other, threshold=math.cos(40 * DEGREE), block=block)[0]
    assert pairs.tolist() == np.argwhere(apart <= 40).tolist()
    turned = near_pairs(other, one, threshold=math.cos(40 * DEGREE), block=block)[0]
    assert {tuple(pair) for pair in turned[:, ::-1].tolist()} == {tuple(pair) for pair in pairs.tolist()}


def test_a_new_set_costs_its_own_pairs_and_together_they_are_those_of_all():
    points = directions(*np.random.default_rng(0).uniform(0, 360, size=30))
    old, new = points[:18], points[18:]
    parts = [
        near_pairs_within(old, threshold=0.95)[0],
        near_pairs(old, new, threshold=0.95)[0] + [0, 18],
        near_pairs_within(new, threshold=0.95)[0] + 18,
    ]
    every = near_pairs_within(points, threshold=0.95)[0]
    assert sorted(map(tuple, np.concatenate(parts).tolist())) == [tuple(pair) for pair in every.tolist()]


def test_equal_points_count_as_equal_and_those_without_length_are_near_nothing():
    points = torch.cat([unlike(1), 3 * unlike(1), torch.zeros(2, 256)]).half()
    pairs, cosines = near_pairs_within(points, threshold=1.0)
    assert pairs.tolist() == [[0, 1]]
    assert cosines.max() <= 1.0


@pytest.mark.parametrize("sizes", [(0, 3), (3, 0), (0, 0)])
def test_an_empty_side_has_no_pairs(sizes):
    pairs, cosines = near_pairs(*(torch.zeros(size, 4) for size in sizes), threshold=0.5)
    assert (pairs.shape, cosines.shape) == ((0, 2), (0,))
    assert near_pairs_within(torch.zeros(0, 4), threshold=0.5)[0].shape == (0, 2)


def test_clusters_join_through_others_whatever_the_order_of_the_pairs():
    pairs = np.array([[4, 6], [1, 2], [2, 4], [0, 7]])
    assert clusters(8, pairs).tolist() == [0, 1, 1, -1, 1, -1, 1, 0]
    assert clusters(8, pairs[::-1, ::-1]).tolist() == clusters(8, pairs).tolist()
    assert clusters(3, np.empty((0, 2), dtype=np.int64)).tolist() == [-1, -1, -1]


def test_the_threshold_is_the_quantile_of_the_nearest_of_another_class():
    # Degrees to the nearest of another class; those of the own class do not count.
    reference = directions(0, 1, 60, 80, 110)
    labels = np.array(["a", "a", "a", "b", "c"], dtype=object)
    nearest = np.cos(np.array([80, 79, 20, 20, 30]) * DEGREE)
    for rate in (0.01, 0.25, 0.5):
        found = difference_threshold(reference, labels, rate=rate)
        assert found == pytest.approx(np.quantile(nearest, 1 - rate), abs=1e-6)
        assert difference_threshold(5 * reference, labels, rate=rate, block=2) == pytest.approx(found, abs=1e-6)


def test_classes_at_right_angles_or_apart_leave_a_threshold_that_can_be_used():
    threshold = difference_threshold(directions(0, 180), np.array([0, 1]))
    assert 0 < threshold < 1e-4
    assert near_pairs(directions(0), directions(180, 10), threshold=threshold)[0].tolist() == [[0, 1]]


@pytest.mark.parametrize("threshold", [0.0, -0.5, 1.01, math.nan])
def test_a_threshold_that_is_no_similarity_is_refused(threshold):
    for call in (lambda: near_pairs(unlike(2), unlike(2), threshold=threshold),
                 lambda: near_pairs_within(unlike(2), threshold=threshold)):  # fmt: skip
        with pytest.raises(BadInput, match=f"`threshold` is {threshold}: it must be above 0 and at most 1"):
            call()


@pytest.mark.parametrize("rate", [0.0, 1.0, -0.1, math.nan])
def test_a_rate_that_is_no_share_is_refused(rate):
    with pytest.raises(BadInput, match=f"`rate` is {rate}: it must be above 0 and below 1"):
        difference_threshold(unlike(4), np.array([0, 1, 0, 1]), rate=rate)


def test_images_of_one_class_are_not_known_to_be_different():
    with pytest.raises(BadInput, match="the reference images are of one class: what is different is known from two"):
        difference_threshold(unlike(3), np.array([1, 1, 1]))
