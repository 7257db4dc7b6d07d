"""Many problems side by side against each of them alone."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sava_ops.ot import side_by_side as module
from sava_ops.ot import sinkhorn
from sava_ops.ot.cost import feature_cost
from sava_ops.ot.side_by_side import Transports, bytes_of_problem, solve_side_by_side
from sava_ops.ot.sinkhorn import Problem, Transport, solve

pytestmark = pytest.mark.long
EASY = Problem(epsilon=0.1, tolerance=1e-3)
HARD = Problem(epsilon=0.01, tolerance=1e-4)
Drawn = list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]
"""Cost, a and b of each problem."""


def drawn(sizes: list[tuple[int, int]], *, seed: int, dtype: torch.dtype = torch.float64) -> Drawn:
    generator = torch.Generator().manual_seed(seed)

    def points(count: int) -> tuple[torch.Tensor, torch.Tensor]:
        mass = 0.1 + torch.rand(count, generator=generator, dtype=dtype)
        return torch.randn(count, 2, generator=generator, dtype=dtype), mass / mass.sum()

    sides = [(points(n), points(m)) for n, m in sizes]
    # Some far apart, so that they need more sweeps than others.
    return [(feature_cost(x, y + number % 4), a, b) for number, ((x, a), (y, b)) in enumerate(sides)]


def together(problems: Drawn, problem: Problem) -> Transports:
    """All of them in tables that have room for the largest, and for a point more."""
    n, m = (1 + max(cost.shape[side] for cost, _, _ in problems) for side in (0, 1))
    like = problems[0][0]
    cost, a, b = like.new_empty(n, m, len(problems)), like.new_zeros(n, len(problems)), like.new_zeros(m, len(problems))
    for number, (own, own_a, own_b) in enumerate(problems):
        rows, columns = torch.arange(n).clamp(max=len(own_a) - 1), torch.arange(m).clamp(max=len(own_b) - 1)
        cost[:, :, number] = own[rows][:, columns]
        a[: len(own_a), number], b[: len(own_b), number] = own_a, own_b
    return solve_side_by_side(cost, a, b, problem)


def assert_same(found: Transports, alone: list[Transport]) -> None:
    like = found.cost
    assert found.sweeps.tolist() == [transport.sweeps for transport in alone]
    torch.testing.assert_close(
        found.cost, like.new_tensor([transport.cost for transport in alone]), rtol=1e-9, atol=1e-12
    )
    errors = like.new_tensor([transport.marginal_error for transport in alone])
    torch.testing.assert_close(found.marginal_error, errors, rtol=1e-6, atol=1e-9)


SIZES = st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=12)


@given(sizes=SIZES, seed=st.integers(0, 99), rho=st.sampled_from([0.3, math.inf]))
def test_each_problem_takes_the_sweeps_and_has_the_cost_that_it_has_alone(sizes, seed, rho):
    problems, problem = drawn(sizes, seed=seed), replace(EASY, rho=rho)
    alone = [solve(*own, problem) for own in problems]
    assert_same(together(problems, problem), alone)


@pytest.mark.parametrize(("reach", "setback"), [(0.3, 5.0), (2.0, 5.0), (25.0, 0.5), (1.0, 0.8)])
def test_steps_that_went_wrong_are_mended_as_alone(monkeypatch, reach, setback):
    """Small limits, so that kernels are built anew and the acceleration pauses, in some problems and not in others."""
    for home in (sinkhorn, module):
        monkeypatch.setattr(home, "SAFE_LOG_SCALING", reach)
        monkeypatch.setattr(home, "MOST_SETBACK", setback)
    problems = drawn([(1 + k % 5, 1 + k % 7) for k in range(40)], seed=1)
    alone = [solve(*own, EASY) for own in problems]
    assert len({transport.sweeps for transport in alone}) > 3
    assert_same(together(problems, EASY), alone)


@pytest.mark.parametrize(("dtype", "problem"), [(torch.float64, HARD), (torch.float32, Problem(0.03, tolerance=1e-3))])
def test_hard_problems_agree_within_their_tolerance(dtype, problem):
    """Over hundreds of sweeps rounding may change the number of them, and nothing else."""
    problems = drawn([(5 + k % 5, 3 + k % 9) for k in range(12)], seed=2, dtype=dtype)
    found, alone = together(problems, problem), [solve(*own, problem) for own in problems]
    assert max(transport.sweeps for transport in alone) > 50
    assert float(found.marginal_error.max()) <= problem.tolerance
    for cost, transport, (own, _, _) in zip(found.cost.tolist(), alone, problems, strict=True):
        assert cost == pytest.approx(transport.cost, abs=problem.tolerance * float(own.max()))


def test_a_converged_problem_stands_still_beside_one_that_goes_on():
    problems = drawn([(4, 4)] * 3 + [(9, 9)] * 2, seed=3)
    found = together(problems, HARD)
    easy = int(found.sweeps.argmin())
    alone = together([problems[easy]], HARD)
    assert int(found.sweeps.max()) > 2 * int(found.sweeps[easy])
    torch.testing.assert_close(found.cost[easy], alone.cost[0], rtol=1e-13, atol=0)
    assert float(found.marginal_error[easy]) == pytest.approx(float(alone.marginal_error), rel=1e-6)


def test_what_is_not_solved_in_the_sweeps_allowed_says_so():
    problems = drawn([(1, 1), (9, 9), (8, 9)], seed=4)
    found = together(problems, replace(HARD, max_sweeps=3))
    assert found.sweeps.tolist() == [1, 3, 3]
    assert (found.marginal_error > HARD.tolerance).tolist() == [False, True, True]
    alone = [solve(*own, replace(HARD, max_sweeps=3)).cost for own in problems]
    torch.testing.assert_close(found.cost, torch.tensor(alone, dtype=torch.float64), rtol=1e-9, atol=1e-12)


def test_points_that_coincide_cost_nothing():
    cost, mass = torch.zeros(3, 2, 2), torch.tensor([[1.0, 0.5], [0.0, 0.5], [0.0, 0.0]])
    found = solve_side_by_side(cost, mass, mass[:2], EASY)
    assert found.cost.tolist() == [0.0, 0.0]
    assert found.sweeps.tolist() == [1, 1]


@given(n=st.integers(1, 300), m=st.integers(1, 300))
def test_a_problem_holds_at_least_its_tables(n, m):
    assert bytes_of_problem(n, m, 8) > 3 * 8 * n * m
    assert bytes_of_problem(n, m, 4) < bytes_of_problem(n, m, 8)
