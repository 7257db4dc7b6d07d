import numpy as np
import ot
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sava_ops.ot import label_distance as module
from sava_ops.ot.cost import Points, feature_cost, mean_feature_cost
from sava_ops.ot.label_distance import EPSILON, FEWEST, SIMILAR, TOLERANCE, blocks, class_samples, label_distances
from sava_ops.ot.side_by_side import bytes_of_problem
from sava_ops.ot.sinkhorn import Problem, solve, uniform
from tests.toy import clouds


def samples(count: int = 60, *, classes: int = 3, seed: int = 0) -> dict[int, torch.Tensor]:
    features, labels = clouds(count, classes=classes, seed=seed)
    points = Points(torch.from_numpy(features), torch.from_numpy(labels))
    return class_samples(points, cap=1_000, seed=0)


def ragged(sizes: dict[int, int], *, seed: int, dtype: torch.dtype = torch.float64) -> dict[int, torch.Tensor]:
    """Classes of these sizes, far from the origin."""
    generator = torch.Generator().manual_seed(seed)
    return {
        label: 7 + label % 3 + torch.randn(size, 4, generator=generator, dtype=torch.float64).to(dtype)
        for label, size in sizes.items()
    }


def one_by_one(rows: dict[int, torch.Tensor], columns: dict[int, torch.Tensor], classes: int) -> torch.Tensor:
    """W before it is made a divergence, from one problem after the other."""
    scale = mean_feature_cost(torch.cat(list(rows.values())), torch.cat(list(columns.values())))
    problem = Problem(EPSILON * scale, tolerance=TOLERANCE)
    distances = torch.full((classes, classes), torch.nan, dtype=next(iter(rows.values())).dtype)
    for row, x in rows.items():
        for column, y in columns.items():
            transport = solve(feature_cost(x, y), uniform(len(x), x), uniform(len(y), y), problem)
            distances[row, column] = 2 * transport.cost
    return distances


TRAIN, REFERENCE = {0: 1, 1: 40, 2: 3, 4: 2, 5: 41, 8: 17}, {8: 30, 1: 1, 5: 9, 0: 2, 3: 10, 6: 90}
"""Unequal classes; neither side has all, and none has class 7."""


@pytest.mark.parametrize("divergence", [True, False])
@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float64, 1e-9), (torch.float32, TOLERANCE)])
def test_all_pairs_at_once_are_the_pairs_one_by_one(monkeypatch, divergence, dtype, rtol):
    train, reference = ragged(TRAIN, seed=0, dtype=dtype), ragged(REFERENCE, seed=1, dtype=dtype)
    found = label_distances(train, reference, classes=9, divergence=divergence)
    monkeypatch.setattr(module, "_distances", one_by_one)
    expected = label_distances(train, reference, classes=9, divergence=divergence)
    torch.testing.assert_close(found, expected, rtol=rtol, atol=rtol, equal_nan=True)
    known = torch.zeros(9, 9, dtype=torch.bool)
    known[sorted(TRAIN.keys() | REFERENCE.keys() if divergence else TRAIN)] = True
    known[:, [label for label in range(9) if label not in REFERENCE]] = False
    assert torch.equal(torch.isfinite(found), known)


@pytest.mark.parametrize("divergence", [True, False])
def test_other_ids_for_the_classes_permute_w(divergence):
    train, reference = ragged(TRAIN, seed=0), ragged(REFERENCE, seed=1)
    ids = torch.randperm(9, generator=torch.Generator().manual_seed(2)).tolist()
    renamed = [{ids[label]: sample for label, sample in side.items()} for side in (train, reference)]
    found = label_distances(*renamed, classes=9, divergence=divergence)
    expected = label_distances(train, reference, classes=9, divergence=divergence)
    torch.testing.assert_close(found[ids][:, ids], expected, rtol=1e-9, atol=1e-9, equal_nan=True)


@pytest.mark.parametrize("budget", [1, 200_000, 10_000_000])
def test_w_does_not_depend_on_what_is_solved_side_by_side(monkeypatch, budget):
    sides = ragged(TRAIN, seed=0), ragged(REFERENCE, seed=1)
    expected = label_distances(*sides, classes=9, divergence=False)
    monkeypatch.setattr(module, "BLOCK_BYTES", budget)
    found = label_distances(*sides, classes=9, divergence=False)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12, equal_nan=True)


@given(
    rows=st.lists(st.integers(1, 300), min_size=1, max_size=30),
    columns=st.lists(st.integers(1, 300), min_size=1, max_size=30),
    budget=st.sampled_from([1, 10**5, 10**6, 10**8]), itemsize=st.sampled_from([4, 8]),
)  # fmt: skip
def test_blocks_hold_every_pair_once_within_the_memory_given(rows, columns, budget, itemsize):
    sides = [dict(enumerate(sizes)) for sizes in (rows, columns)]
    planned = list(blocks(*sides, itemsize=itemsize, budget=budget))
    pairs = [(row, column) for some, others in planned for row in some for column in others]
    assert sorted(pairs) == [(row, column) for row in sides[0] for column in sides[1]]
    for labels in planned:
        here = [[sizes[label] for label in own] for sizes, own in zip(sides, labels, strict=True)]
        assert all(max(own) <= SIMILAR * min(own) for own in here)
        count = len(here[0]) * len(here[1])
        assert count == 1 or count * bytes_of_problem(max(here[0]), max(here[1]), itemsize) <= budget


def test_few_large_problems_are_solved_one_by_one():
    """As many small ones as make the same bytes share a block."""
    sizes, budget = dict.fromkeys(range(10), 50), FEWEST * bytes_of_problem(50, 50, 4)
    assert len(list(blocks(sizes, sizes, itemsize=4, budget=budget - 1))) == 100
    assert len(list(blocks(sizes, sizes, itemsize=4, budget=budget))) <= 5
    assert len(list(blocks(sizes, sizes, itemsize=4, budget=100 * budget))) == 1


def test_classes_of_one_point_are_as_far_as_their_points():
    train = {0: torch.tensor([[0.0, 0.0]]), 1: torch.tensor([[3.0, 4.0]])}
    reference = {0: torch.tensor([[0.0, 1.0]]), 1: torch.tensor([[3.0, 4.0]])}
    distances = label_distances(train, reference, classes=2, divergence=False)
    torch.testing.assert_close(distances, torch.tensor([[1.0, 25.0], [18.0, 0.0]]))


def test_published_distance_is_the_transport_cost_of_pot():
    train, reference = samples(seed=0), samples(seed=1)
    distances = label_distances(train, reference, classes=3, divergence=False)
    epsilon = EPSILON * mean_feature_cost(torch.cat(list(train.values())), torch.cat(list(reference.values())))
    for c in range(3):
        for d in range(3):
            cost = feature_cost(train[c], reference[d]).numpy()
            a, b = np.full(len(train[c]), 1 / len(train[c])), np.full(len(reference[d]), 1 / len(reference[d]))
            plan = ot.sinkhorn(a, b, cost, epsilon, method="sinkhorn_log", stopThr=1e-12, numItermax=10_000)
            assert float(distances[c, d]) == pytest.approx(2 * float((plan * cost).sum()), rel=1e-2)


def test_a_class_has_its_distance_by_global_id_whatever_else_is_missing():
    train, reference = samples(seed=0), samples(seed=1)
    whole = label_distances(train, reference, classes=4, divergence=False)
    part = label_distances({2: train[2], 0: train[0]}, {1: reference[1]}, classes=4, divergence=False)
    known = torch.zeros(4, 4, dtype=torch.bool)
    known[[0, 2], [1, 1]] = True
    assert torch.equal(torch.isfinite(part), known)
    # The scale of ε follows what is there, so the distances agree to within the entropic smoothing.
    torch.testing.assert_close(part[known], whole[known], rtol=0.05, atol=0.0)


def test_divergence_charges_nothing_for_the_spread_inside_a_class():
    distances = label_distances(samples(seed=0), samples(seed=1), classes=3, divergence=True)
    assert torch.equal(distances.diagonal(), torch.zeros(3, dtype=torch.float64))
    assert float(distances.min()) >= 0.0


def test_divergence_prices_a_mismatch_like_a_foreign_image():
    reference = samples(seed=1)
    distances = label_distances(samples(seed=0), reference, classes=3, divergence=True)
    features = torch.cat(list(reference.values()))
    assert float(0.5 * distances.sum() / 6) == pytest.approx(mean_feature_cost(features, features), rel=1e-9)


def test_divergence_knows_training_classes_that_the_reference_lacks():
    train, reference = samples(seed=0), samples(seed=1)
    del reference[1]
    distances = label_distances(train, reference, classes=3, divergence=True)
    assert torch.isfinite(distances[:, [0, 2]]).all()
    assert torch.isnan(distances[:, 1]).all()


def test_one_class_has_no_mismatch():
    distances = label_distances(samples(classes=1), samples(classes=1, seed=1), classes=1, divergence=True)
    assert float(distances) == 0.0


def test_sample_of_a_class_is_capped_and_seeded():
    features, labels = clouds(100)
    points = Points(torch.from_numpy(features), torch.from_numpy(labels))
    one, again, other = (class_samples(points, cap=10, seed=seed) for seed in (0, 0, 1))
    assert {label: len(sample) for label, sample in one.items()} == {0: 10, 1: 10, 2: 10}
    assert all(torch.equal(one[c], again[c]) for c in one)
    assert not torch.equal(one[0], other[0])
    own = {tuple(row) for row in features[labels == 2].tolist()}
    assert {tuple(row) for row in one[2].tolist()} <= own
