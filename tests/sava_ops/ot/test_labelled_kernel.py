"""The compact kernel against the plain one: the same problem, the same answer."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sava_ops import ValuationConfig, value_points
from sava_ops.decomposition import log_class_masses
from sava_ops.ot import labelled_kernel as module
from sava_ops.ot.cost import Points, feature_cost, ground_cost, label_costs
from sava_ops.ot.labelled_kernel import ColumnSide, LabelledKernel, Room, RowSide
from sava_ops.ot.sinkhorn import DenseKernel, Problem, solve, sweep, uniform
from tests.toy import clouds, mislabelled

pytestmark = pytest.mark.long
CLASSES, EPSILON, WEIGHT = 4, 0.4, 1.5
DISTANCES = torch.rand(CLASSES, CLASSES, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
LABEL_COSTS = label_costs(DISTANCES, WEIGHT)


def points(count: int, seed: int, classes: int = CLASSES) -> Points:
    drawn = Points(*map(torch.from_numpy, clouds(count, classes=classes, seed=seed)))
    return drawn.take(drawn.labels.argsort(stable=True))


def plain_cost(train: Points, reference: Points) -> torch.Tensor:
    return ground_cost(train, reference, label_distances=DISTANCES, label_weight=WEIGHT)


def compact(train: Points, reference: Points, b: torch.Tensor, **more) -> LabelledKernel:
    rows = RowSide.of(train, label_costs=LABEL_COSTS, epsilon=EPSILON)
    return LabelledKernel(rows, ColumnSide.of(reference, b, classes=CLASSES, epsilon=EPSILON), epsilon=EPSILON, **more)


def random_measure(size: int, seed: int) -> torch.Tensor:
    b = 0.1 + torch.rand(size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return b / b.sum()


@given(
    seed=st.integers(0, 99), n=st.integers(1, 12), m=st.integers(1, 12),
    classes=st.integers(1, CLASSES), rho=st.sampled_from([0.3, float("inf")]),
)  # fmt: skip
def test_potentials_and_cost_are_those_of_the_cost_matrix(seed, n, m, classes, rho):
    train, reference, b = points(n, seed), points(m, seed + 1, classes), random_measure(m, seed)
    problem = Problem(EPSILON, rho, tolerance=1e-11)
    expected = solve(plain_cost(train, reference), uniform(n, b), b, problem)
    found = sweep([compact(train, reference, b)], problem, [torch.zeros_like(b)])[0]
    assert found.converged
    plans = [t.plan(plain_cost(train, reference), uniform(n, b), b, EPSILON) for t in (found, expected)]
    torch.testing.assert_close(*plans, rtol=1e-7, atol=1e-10)
    assert found.cost == pytest.approx(expected.cost, rel=1e-8, abs=1e-10)
    if rho < float("inf"):
        torch.testing.assert_close(found.f, expected.f, rtol=1e-7, atol=1e-8)


@given(seed=st.integers(0, 99), block=st.sampled_from([1, 17, 10_000]))
def test_masses_by_class_are_those_of_the_cost_matrix(seed, block):
    train, reference, b = points(9, seed), points(11, seed + 1), random_measure(11, seed)
    absorbed, g = torch.randn(2, 11, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    itself = torch.tensor([2, 7]), torch.tensor([5, 0])
    images = feature_cost(train.features, reference.features)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "BLOCK_ENTRIES", block)
        for pairs in (None, itself):
            kernel = compact(train, reference, b, itself=pairs)
            kernel.absorb(absorbed)
            if pairs:
                images[pairs] = torch.inf
            expected = log_class_masses(images, g, b.log(), reference.labels, classes=CLASSES, epsilon=EPSILON)
            torch.testing.assert_close(kernel.log_class_masses(g), expected, rtol=1e-9, atol=1e-9)


def test_the_log_domain_sweep_is_that_of_the_cost_matrix():
    train, reference, b = points(9, 0), points(11, 1), random_measure(11, 2)
    f = torch.randn(9, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    dense = DenseKernel(plain_cost(train, reference), uniform(9, b), b, EPSILON)
    torch.testing.assert_close(compact(train, reference, b).log_columns(f), dense.log_columns(f))


def test_a_start_far_from_the_answer_only_costs_sweeps():
    train, reference, b = points(20, 0), points(30, 1), random_measure(30, 2)
    problem = Problem(EPSILON, 0.5, tolerance=1e-10)
    near = sweep([compact(train, reference, b)], problem, [torch.zeros_like(b)])[0]
    # Scalings of e^100 leave the safe range: the log domain has to help.
    start = 100 * EPSILON * torch.randn(30, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    far = sweep([compact(train, reference, b)], problem, [start])[0]
    assert far.converged
    torch.testing.assert_close(far.f, near.f, rtol=1e-7, atol=1e-7)


def test_the_number_format_decides_where_it_serves():
    costs = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    assert LabelledKernel.holds(costs, 1 / 36)
    assert not LabelledKernel.holds(costs, 1 / 37)
    assert LabelledKernel.holds(costs.double(), 1 / 340)


def noisy_clouds(dtype) -> tuple[np.ndarray, ...]:
    features, labels = clouds(400, classes=CLASSES, seed=5)
    reference, known = clouds(200, classes=CLASSES, seed=6)
    return features.astype(dtype), mislabelled(labels, share=0.3, classes=CLASSES)[0], reference.astype(dtype), known


def test_fast_float32_values_are_the_slow_plain_ones_in_float64(monkeypatch):
    """Within 1e-4 of the spread of the values: far below what could change a ranking. Converged, because two plans
    within a wider tolerance need not be the same; without the regression, whose steps end by another rounding."""
    config = replace(ValuationConfig(), batch_size=100, tolerance=1e-6, classifier_weight=0.0, class_shares="reference")
    fast = value_points(*noisy_clouds(np.float32), config=config)
    monkeypatch.setattr(LabelledKernel, "holds", staticmethod(lambda *_: False))
    slow = value_points(*noisy_clouds(np.float64), config=config)
    for name in ("values", "feature_values", "label_values"):
        ours, plain = getattr(fast, name), getattr(slow, name)
        spread = np.subtract(*np.quantile(plain, [0.75, 0.25]))
        assert np.abs(ours - plain).max() < 1e-4 * spread, name


def three_problems() -> tuple[list[LabelledKernel], list[torch.Tensor]]:
    """Kernels of one training batch with reference batches of different sizes, classes and measures, and starts of
    different worth: the last leaves the range of the number format."""
    train, generator = points(10, 0), torch.Generator().manual_seed(5)
    sides = [(7, 1, CLASSES, 0.0), (12, 2, 1, 0.1), (9, 3, CLASSES, 100 * EPSILON)]
    kernels = [
        compact(train, points(size, seed, classes), random_measure(size, seed)) for size, seed, classes, _ in sides
    ]
    draw = [torch.randn(size, generator=generator, dtype=torch.float64) for size, *_ in sides]
    return kernels, [worth * g for (*_, worth), g in zip(sides, draw, strict=True)]


@pytest.mark.parametrize("rho", [0.3, float("inf")])
def test_kernels_in_step_are_solved_as_each_alone(rho):
    problem = Problem(EPSILON, rho, tolerance=1e-6)
    kernels, starts = three_problems()
    together = sweep(kernels, problem, starts)
    assert len({pair.sweeps for pair in together}) == 3
    for pair, kernel, start in zip(together, *three_problems(), strict=True):
        alone = sweep([kernel], problem, [start])[0]
        assert torch.equal(pair.f, alone.f)
        assert torch.equal(pair.g, alone.g)
        assert (pair.cost, pair.sweeps, pair.marginal_error) == (alone.cost, alone.sweeps, alone.marginal_error)
        assert pair.converged


def test_a_problem_without_time_does_not_stop_its_neighbours():
    kernels, starts = three_problems()
    found = sweep(kernels, Problem(EPSILON, 0.3, tolerance=1e-9, max_sweeps=15), starts)
    assert [pair.converged for pair in found] == [True, False, False]
    assert [pair.sweeps for pair in found] == [15, 15, 15]


def test_no_number_is_below_the_normal_ones():
    train, reference = points(6, 0), points(8, 1)
    far = replace(reference, features=reference.features + 40 * torch.arange(8)[:, None])
    kernel = compact(train, far, uniform(8, far.features), itself=(torch.tensor([0]), torch.tensor([0])))
    kernel.absorb(torch.zeros(8, dtype=torch.float64))
    assert kernel.entries[0, 0] == 0
    kernel.entries[0, 0] = 1
    assert float(kernel.entries.min()) >= torch.finfo(torch.float64).tiny
    assert float(kernel.entries.min()) < 1e-307


def test_a_room_serves_one_kernel_after_the_other():
    room, like = Room(), torch.zeros(1)
    assert room.bytes == 0
    first, second = room.tables(3, [4, 1], like)
    assert (first.shape, second.shape) == ((3, 4), (3, 1))
    assert second.data_ptr() == first.data_ptr() + first.nbytes
    assert room.tables(2, [5], like)[0].data_ptr() == first.data_ptr()
    assert room.bytes == 60
    assert room.tables(4, [4], like)[0].shape == (4, 4)
    assert room.bytes == 64
    assert room.tables(2, [2], like.double())[0].dtype == torch.float64
