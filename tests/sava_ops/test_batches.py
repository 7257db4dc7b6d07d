import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sava_ops import BadInput
from sava_ops.batches import split_batches

LABELS = st.lists(st.integers(0, 4), min_size=1, max_size=60).map(lambda labels: np.array(labels, dtype=np.int64))


@given(LABELS, st.integers(1, 70), st.integers(0, 5), st.sampled_from(["stratified", "random"]))
def test_batches_are_a_partition_with_sizes_that_differ_by_at_most_one(labels, size, seed, batching):
    batches = split_batches(labels, batch_size=size, seed=seed, batching=batching)
    sizes = [len(rows) for rows in batches]
    assert sorted(np.concatenate(batches)) == list(range(len(labels)))
    assert max(sizes) - min(sizes) <= 1
    assert max(sizes) <= size
    assert len(batches) == -(-len(labels) // size)
    assert all((np.diff(rows) > 0).all() for rows in batches)


@given(LABELS, st.integers(1, 70), st.integers(0, 5))
def test_stratified_batches_share_every_class_to_within_one_point(labels, size, seed):
    batches = split_batches(labels, batch_size=size, seed=seed)
    counts = np.array([np.bincount(labels[rows], minlength=5) for rows in batches])
    assert np.ptp(counts, axis=0).max() <= 1


def test_class_order_of_the_points_does_not_make_batches_of_one_class():
    for batching in ("stratified", "random"):
        batches = split_batches(np.repeat(np.arange(4), 50), batch_size=50, seed=0, batching=batching)
        assert all(len(np.unique(rows // 50)) == 4 for rows in batches)


def test_seed_decides_the_split():
    labels = np.zeros(40, dtype=np.int64)
    one, again, other = (split_batches(labels, batch_size=10, seed=seed) for seed in (1, 1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(one, again, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.usefixtures("untyped")
def test_bad_arguments_are_refused():
    labels = np.zeros(4, dtype=np.int64)
    with pytest.raises(BadInput, match="`batch_size` is 0: pass a whole number of at least 1"):
        split_batches(labels, batch_size=0, seed=0)
    with pytest.raises(BadInput, match="`batching` is 'sorted': pass 'stratified' or 'random'"):
        split_batches(labels, batch_size=2, seed=0, batching="sorted")  # type: ignore[arg-type]
