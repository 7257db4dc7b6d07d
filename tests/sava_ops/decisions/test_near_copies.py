"""Nearly equal images: distances against the definition, pairs against all pairs, and thresholds with known answers."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sava_ops import BadInput
from sava_ops.decisions import near_copies
from sava_ops.decisions.near_copies import (
    FARTHEST,
    DistanceCounts,
    as_hashes,
    clusters,
    difference_threshold,
    distance_counts,
    distances,
    leaders,
    near_forest,
    nearest,
)


def hashes(count: int, seed: int = 0, *, changed: int = 128) -> np.ndarray:
    """Random ones (count, 5, 2); with `changed`, all views within that many bits of the first image's, some of them
    mirrored."""
    rng = np.random.default_rng(seed)
    if changed == 128:
        return rng.integers(0, 2**64, (count, 5, 2), dtype=np.uint64)
    bits = np.tile(rng.integers(0, 2, (5, 128), dtype=np.uint8), (count, 1, 1))
    for image in bits[1:]:
        for view in image:
            view[rng.choice(128, size=rng.integers(0, changed + 1), replace=False)] ^= 1
        image[:, 64:] ^= rng.integers(0, 2, dtype=np.uint8)
    return as_hashes([image.tobytes() for image in np.packbits(bits, axis=2)])


def whole(words: np.ndarray) -> np.ndarray:
    """Hashes (n, 5, 2) of images of which the whole ones look like this (n, 2), and no cut one like another."""
    made = hashes(len(words), seed=77)
    made[:, 0] = words
    return made


def plain(one: np.ndarray, other: np.ndarray) -> int:
    """Of one pair, as the definition says."""
    (first, *cut), (second, *also_cut) = one.tolist(), other.tolist()
    near = [(first, second)]
    if between(first, second) <= 48:
        near += [(each, second) for each in cut] + [(first, each) for each in also_cut]
    return min(between(a, b) for a, b in near)


def between(one: list[int], other: list[int]) -> int:
    even, odd = (int(a ^ b).bit_count() for a, b in zip(one, other, strict=True))
    return even + min(odd, 64 - odd)


def joined(count: int, pairs, far, within: int) -> list[int]:
    return clusters(count, pairs[far <= within]).tolist()


def all_pairs(points: np.ndarray, within: int) -> np.ndarray:
    near = [p for p in combinations(range(len(points)), 2) if plain(points[p[0]], points[p[1]]) <= within]
    return np.array(near, dtype=np.int64).reshape(-1, 2)


@given(seed=st.integers(0, 9), changed=st.sampled_from([128, 30, 60]))
def test_distances_are_those_of_the_definition_and_those_of_mirror_images(seed, changed):
    one, other = hashes(7, seed, changed=changed), hashes(5, seed + 100)
    other[:2] = hashes(7, seed, changed=changed)[:2, ::-1]
    found = distances(one, other)
    assert found.tolist() == [[plain(a, b) for b in other] for a in one]
    assert (found == distances(other, one).T).all()
    mirrored = one ^ np.array([0, 2**64 - 1], dtype=np.uint64)
    assert (distances(mirrored, other) == found).all()
    assert not np.diagonal(distances(one, mirrored)).any()


def test_neither_threads_nor_how_much_is_looked_at_at_once_change_what_is_near(monkeypatch, request):
    one, other = hashes(40, changed=30), hashes(30, changed=30)
    known = [near_forest(one, other, block=7), near_forest(one, block=7), nearest(one, other, block=7)]
    monkeypatch.setattr(near_copies, "CUT_PAIRS", 5)
    request.getfixturevalue("three_threads")
    asked = [near_forest(one, other, block=7), near_forest(one, block=7), nearest(one, other, block=7)]
    for before, after in zip(known, asked, strict=True):
        assert all(a.tolist() == b.tolist() for a, b in zip(before, after, strict=True))
    assert distances(one, other).tolist() == [[plain(a, b) for b in other] for a in one]


def test_an_image_that_was_cut_at_a_corner_is_near_the_whole_one_if_that_looks_a_little_like_it():
    one, other = hashes(2), hashes(2, seed=1)
    other[:, 0] = one[:, 3]  # what the first ones look like without a corner
    one[0, 0] = other[0, 0] ^ np.array([2**24 - 1, 2**24 - 1], dtype=np.uint64)
    one[1, 0] = other[1, 0] ^ np.array([2**24 - 1, 2**25 - 1], dtype=np.uint64)
    assert np.diagonal(distances(one, other)).tolist() == [0, 49]
    assert np.diagonal(distances(other, one)).tolist() == [0, 49]


@given(seed=st.integers(0, 20), block=st.integers(1, 30), changed=st.integers(0, 30))
def test_the_forest_joins_what_all_pairs_join_at_every_threshold(seed, block, changed):
    points = np.concatenate([hashes(9, seed, changed=changed), hashes(9, seed + 50, changed=changed), hashes(4, seed)])
    pairs, far = near_forest(points, within=40, block=block)
    assert len(pairs) < len(points)
    assert [plain(points[a], points[b]) for a, b in pairs] == far.tolist()
    assert (pairs[:, 0] < pairs[:, 1]).all()
    for within in (0, 3, 12, 25, 40):
        assert joined(len(points), pairs, far, within) == clusters(len(points), all_pairs(points, within)).tolist()


@given(seed=st.integers(0, 20), cut=st.integers(0, 20), block=st.integers(1, 30))
def test_a_new_set_costs_its_own_pairs_and_together_they_say_what_all_say(seed, cut, block):
    points = np.concatenate([hashes(10, seed, changed=12), hashes(10, seed + 50, changed=20)])
    points = points[np.random.default_rng(seed).permutation(20)]
    old, new = points[:cut], points[cut:]
    parts = [near_forest(old, block=block), near_forest(old, new, block=block), near_forest(new, block=block)]
    shifts = ([0, 0], [0, cut], [cut, cut])
    pairs = np.concatenate([pairs + shift for (pairs, _), shift in zip(parts, shifts, strict=True)])
    far = np.concatenate([far for _, far in parts])
    for within in (0, 5, 15, FARTHEST):
        assert joined(20, pairs, far, within) == clusters(20, all_pairs(points, within)).tolist()


def test_many_images_that_look_alike_need_no_memory_for_their_pairs(monkeypatch):
    monkeypatch.setattr(near_copies, "MOST_PAIRS", 50)
    points = np.concatenate([hashes(60, changed=2), hashes(60, changed=2)])
    pairs, far = near_forest(points, block=16)
    assert len(pairs) == 119
    assert far.max() <= 4
    across, _ = near_forest(points[:60], points[60:], block=16)
    assert len(across) < 120
    assert clusters(120, across + np.array([0, 60])).max() == 0


@pytest.mark.parametrize("sizes", [(0, 3), (3, 0), (0, 0)])
def test_an_empty_side_has_no_pairs(sizes):
    pairs, far = near_forest(*(hashes(size) for size in sizes))
    assert (pairs.shape, far.shape) == ((0, 2), (0,))
    assert near_forest(hashes(0))[0].shape == (0, 2)


@given(seed=st.integers(0, 9), block=st.integers(1, 20))
def test_the_nearest_is_the_first_of_the_nearest(seed, block):
    one, other = hashes(8, seed, changed=20), np.concatenate([hashes(6, seed, changed=20), hashes(6, seed, changed=20)])
    rows, far = nearest(one, other, block=block)
    every = distances(one, other)
    assert rows.tolist() == every.argmin(1).tolist()
    assert far.tolist() == every.min(1).tolist()


def test_nothing_is_nearest_in_an_empty_set():
    with pytest.raises(BadInput, match="`other` has no image: nothing is nearest"):
        nearest(hashes(2), hashes(0))
    assert nearest(hashes(0), hashes(2))[0].shape == (0,)


def test_clusters_join_through_others_whatever_the_order_of_the_pairs():
    pairs = np.array([[4, 6], [1, 2], [2, 4], [0, 7]])
    assert clusters(8, pairs).tolist() == [0, 1, 1, -1, 1, -1, 1, 0]
    assert clusters(8, pairs[::-1, ::-1]).tolist() == clusters(8, pairs).tolist()
    assert clusters(3, np.empty((0, 2), dtype=np.int64)).tolist() == [-1, -1, -1]


def test_one_stands_only_for_those_that_are_near_itself():
    # A chain: each 10 bits from the next one.
    chain = np.array([[2 ** (10 * k) - 1, 0] for k in range(6)] + [[0, 0]], dtype=np.uint64)
    chain = whole(chain)
    groups = np.array([0] * 6 + [-1])
    order = np.arange(7)
    assert leaders(groups, order, chain, within=10).tolist() == [0, 0, 2, 2, 4, 4, 6]
    assert leaders(groups, order, chain, within=50).tolist() == [0] * 6 + [6]
    assert leaders(groups, order[::-1].copy(), chain, within=10).tolist() == [1, 1, 3, 3, 5, 5, 6]
    assert leaders(groups, np.array([3, 0, 1, 2, 4, 5, 6]), chain, within=10).tolist() == [0, 0, 3, 3, 3, 5, 6]
    two = np.array([0, 1, 0, 1, 0, 1, -1])
    assert leaders(two, order, chain, within=20).tolist() == [0, 1, 0, 1, 4, 5, 6]


@given(seed=st.integers(0, 9), block=st.integers(1, 40))
def test_every_pair_is_counted_once_by_whether_it_is_of_one_class(seed, block):
    points, labels = hashes(23, seed), np.random.default_rng(seed).choice(np.array(["a", "b", "c"], dtype=object), 23)
    known = distance_counts(points, labels, block=block)
    assert known.images == 23
    for found, alike in ((known.different, False), (known.same, True)):
        pairs = [p for p in combinations(range(23), 2) if (labels[p[0]] == labels[p[1]]) == alike]
        expected = np.bincount([plain(points[a], points[b]) for a, b in pairs], minlength=129)
        assert found.tolist() == expected.tolist()


def test_of_many_images_some_are_compared(monkeypatch):
    points = hashes(9)
    assert distance_counts(hashes(1), np.zeros(1)).same.sum() == distance_counts(hashes(0), np.zeros(0)).same.sum() == 0
    monkeypatch.setattr(near_copies, "MOST_REFERENCES", 5)
    some, those = distance_counts(points, np.zeros(9)), distance_counts(points[::2], np.zeros(5))
    assert (some.images, some.same.tolist()) == (those.images, those.same.tolist()) == (5, those.same.tolist())


def counted(**at: int) -> np.ndarray:
    counts = np.zeros(129, dtype=np.int64)
    for place, number in at.items():
        counts[int(place[1:])] = number
    return counts


def known(images: int = 100, same: np.ndarray | None = None, **at: int) -> DistanceCounts:
    """Pairs of two classes at these distances, and of one class."""
    return DistanceCounts(images, counted(**at), counted() if same is None else same)


def test_the_threshold_continues_the_line_through_the_smallest_distances():
    # Ten times as many for 4 bits more: 10 pairs at 20, 100 up to 24, 10⁶ in all.
    counts = known(_20=10, _24=90, _60=999_900)
    # P(20) = 1e-5; where 1e-6, 1e-7, 1e-8 is allowed, 4, 8, 12 bits below.
    for among, expected in ((100, 23), (1_000, 16), (10_000, 12), (100_000, 8)):
        assert difference_threshold(counts, among=among, rate=0.001 * 1.0001) == expected
    assert difference_threshold(counts, among=10**12) == -1
    # Where more is allowed than the tenth pair, what was seen holds, and never more than the bound.
    assert difference_threshold(counts, among=50, rate=0.01) == FARTHEST
    assert difference_threshold(known(_20=10, _25=90, _60=999_900), among=50, rate=0.004) == 24


def test_pairs_of_one_class_count_but_for_as_many_as_a_hundredth_of_the_images():
    among_classes = {"_28": 10, "_34": 90, "_60": 999_900}
    alone = difference_threshold(known(1_000, **among_classes), among=900)
    assert alone == 22
    for alike, expected in (
        (counted(_3=10), alone),  # copies in the reference set
        (counted(_3=5, _9=5), alone),
        (counted(_3=20, _7=90, _60=1_000), -1),  # 10 of 20 are none: a class whose images look alike
        (counted(_3=10, _12=10, _18=90), 6),
    ):
        assert difference_threshold(known(1_000, alike, **among_classes), among=900) == expected
    # Of a single class, too.
    one = DistanceCounts(1_000, counted(), counted(_3=10, **among_classes))
    assert difference_threshold(one, among=900) == alone


def test_a_larger_pool_never_has_a_larger_threshold():
    counts = distance_counts(hashes(200), np.arange(200) % 5)
    found = [difference_threshold(counts, among=among) for among in (1, 10, 100, 10_000, 10**6, 10**9)]
    assert found == sorted(found, reverse=True)
    assert found[2] > 20


@given(seed=st.integers(0, 200), among=st.integers(1, 10**9), more=st.integers(0, 10**9))
def test_nothing_is_near_in_a_large_pool_that_is_not_in_a_small_one(seed, among, more):
    rng = np.random.default_rng(seed)
    counts = DistanceCounts(*rng.integers(0, 500, 1), *rng.poisson(10.0 ** rng.uniform(-2, 3, (2, 129))))
    small, large = (difference_threshold(counts, among=each) for each in (among, among + more))
    assert -1 <= large <= small <= FARTHEST


def test_of_random_hashes_no_more_than_the_stated_share_has_one_as_near_as_the_threshold():
    counts = distance_counts(hashes(400), np.arange(400) % 4)
    threshold = difference_threshold(counts, among=3_000, rate=0.05)
    _, far = nearest(hashes(2_000, seed=1), hashes(3_000, seed=2))
    assert threshold > 15
    assert (far <= threshold).mean() <= 0.05


def test_where_the_images_of_a_class_look_alike_none_is_taken_for_a_copy():
    # 10 classes of 30 images, each up to 20 bits from the first of its class.
    reference = np.concatenate([hashes(30, seed, changed=20) for seed in range(10)])
    labels = np.repeat(np.arange(10), 30)
    assert difference_threshold(distance_counts(reference, labels), among=1_000) == -1
    assert difference_threshold(distance_counts(hashes(300), labels), among=1_000) > 15


@pytest.mark.parametrize("counts", [{}, {"_60": 9}, {"_60": 99}, {"_40": 10, "_60": 89}, {"_5": 100_000}])
def test_too_few_images_known_to_be_different_tell_no_copy_from_chance(counts):
    assert difference_threshold(known(**counts), among=10) == -1


@pytest.mark.parametrize("rate", [0.0, 1.0, -0.1, float("nan")])
def test_a_rate_that_is_no_share_is_refused(rate):
    with pytest.raises(BadInput, match=f"`rate` is {rate}: it must be above 0 and below 1"):
        difference_threshold(known(_60=1_000), among=10, rate=rate)


def test_an_image_is_compared_with_at_least_one():
    with pytest.raises(BadInput, match="`among` is 0: it must be at least 1"):
        difference_threshold(known(_60=1_000), among=0)
