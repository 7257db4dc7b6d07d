import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sava_ops.decisions.copies import groups_of, of_several, representatives, under_two_labels

CODES = st.lists(st.integers(0, 9), min_size=0, max_size=30)


def ints(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int64)


def test_groups_are_numbered_by_their_first_point_and_who_is_alone_has_none():
    assert groups_of(ints(7, 3, 7, 1, 3, 3)).tolist() == [0, 1, 0, -1, 1, 1]
    assert groups_of(ints(5)).tolist() == [-1]
    assert groups_of(ints()).tolist() == []


@given(codes=CODES)
def test_points_are_in_one_group_exactly_if_their_codes_are_equal(codes):
    groups = groups_of(ints(*codes))
    for i, one in enumerate(codes):
        assert (groups[i] == -1) == (codes.count(one) == 1)
        for j, other in enumerate(codes):
            if i != j:
                assert (groups[i] == groups[j] != -1) == (one == other)


@pytest.mark.parametrize(
    ("groups", "labels", "mixed"),
    [
        ([0, 0, 1, 1, -1, -1], ["a", "b", "c", "c", "a", "b"], [True, True, False, False, False, False]),
        ([0, 1, 0, 1, 0], ["a", "a", "a", "b", "a"], [False, True, False, True, False]),
        ([-1, -1], ["a", "b"], [False, False]),
        ([], [], []),
    ],
)
def test_copies_under_two_labels_are_all_named_and_others_are_not(groups, labels, mixed):
    assert under_two_labels(ints(*groups), np.array(labels, dtype=object)).tolist() == mixed


def test_least_evidence_stands_for_a_group_then_most_pixels_then_the_first():
    groups = ints(0, 0, -1, 1, 1, 1, 2, 2)
    evidence = np.array([2.0, 1.0, 9.0, 3.0, 3.0, 3.0, 0.0, 0.0])
    pixels = ints(9, 1, 1, 4, 8, 8, 5, 5)
    order = np.lexsort((np.arange(8), -pixels, evidence))
    assert representatives(groups, order).tolist() == [1, 1, 2, 4, 4, 4, 6, 6]


@given(codes=CODES, seed=st.integers(0, 9))
def test_every_group_has_one_representative_of_its_own(codes, seed):
    groups = groups_of(ints(*codes))
    evidence = np.random.default_rng(seed).normal(size=len(codes))
    standing = representatives(groups, np.argsort(evidence))
    assert (standing[standing] == standing).all()
    assert len(set(standing.tolist())) == (groups == -1).sum() + groups.max(initial=-1) + 1
    assert (groups[standing] == groups).all()
    assert (evidence[standing] <= evidence).all()


def test_groups_of_one_code_are_none():
    groups, codes = ints(0, 1, -1, 0, 1, 2, 2, -1, 2), ints(7, 8, 8, 7, 9, 7, 7, 1, 8)
    assert of_several(groups, codes).tolist() == [-1, 0, -1, -1, 0, 1, 1, -1, 1]
    assert of_several(ints(-1, -1), ints(1, 1)).tolist() == [-1, -1]
    assert of_several(ints(), ints()).tolist() == []
