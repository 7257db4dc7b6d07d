import math

import numpy as np
import ot
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sava_ops import BadInput
from sava_ops.ot.sinkhorn import Problem, Transport, solve, uniform

EXACT = 1e-11


def problem_of(seed: int, n: int, m: int, dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, ...]:
    """A cost matrix and two positive, non-uniform measures."""
    generator = torch.Generator().manual_seed(seed)
    x, y = (torch.randn(size, 3, generator=generator, dtype=torch.float64) for size in (n, m))
    cost = 0.5 * torch.cdist(x, y).square()
    a, b = (torch.rand(size, generator=generator, dtype=torch.float64) + 0.1 for size in (n, m))
    return tuple(t.to(dtype) for t in (cost, a / a.sum(), b / b.sum()))


def relative_difference(ours: torch.Tensor, theirs: np.ndarray, *, centred: bool) -> float:
    f, g = ours.double().numpy(), np.asarray(theirs)
    if centred:
        f, g = f - f.mean(), g - g.mean()
    return float(np.abs(f - g).max() / np.abs(g).max())


def regularised_cost(transport: Transport, cost, a, b, problem: Problem) -> float:
    """What the problem minimises, at our plan."""
    plan = transport.plan(cost, a, b, problem.epsilon)
    value = (plan * cost).sum() + problem.epsilon * (plan * torch.log(plan / (a[:, None] * b))).sum()
    if math.isfinite(problem.rho):
        columns = plan.sum(0)
        value = value + problem.rho * (columns * torch.log(columns / b) - columns + b).sum()
    return float(value)


@pytest.mark.parametrize("epsilon", [0.05, 0.5, 5.0])
def test_balanced_potentials_and_cost_are_those_of_pot(epsilon):
    cost, a, b = problem_of(0, 30, 20)
    ours = solve(cost, a, b, Problem(epsilon, tolerance=EXACT))
    plan, log = ot.bregman.sinkhorn_log(
        a.numpy(), b.numpy(), cost.numpy(), epsilon, stopThr=1e-13, numItermax=100_000, log=True
    )
    # POT's scalings carry the measures: log_u = f / ε + log a.
    theirs = epsilon * (log["log_u"] - np.log(a.numpy()))
    assert ours.converged
    assert relative_difference(ours.f, theirs, centred=True) < 1e-6
    assert ours.cost == pytest.approx(float((plan * cost.numpy()).sum()), rel=1e-6)


@pytest.mark.parametrize("rho", [0.05, 0.5, 5.0])
@pytest.mark.parametrize("epsilon", [0.1, 1.0])
def test_semi_unbalanced_potentials_and_cost_are_those_of_pot(epsilon, rho):
    cost, a, b = problem_of(1, 25, 35)
    ours = solve(cost, a, b, Problem(epsilon, rho, tolerance=EXACT))
    plan, log = ot.unbalanced.sinkhorn_unbalanced(
        a.numpy(), b.numpy(), cost.numpy(), epsilon, (math.inf, rho),
        reg_type="kl", stopThr=1e-14, numItermax=100_000, log=True,
    )  # fmt: skip
    assert relative_difference(ours.f, epsilon * log["logu"], centred=False) < 1e-6
    assert ours.cost == pytest.approx(float((plan * cost.numpy()).sum()), rel=1e-6)


@pytest.mark.usefixtures("untyped")  # its sweeps are many, and the checks of each are most of the time
def test_small_epsilon_reaches_the_exact_transport_cost():
    cost, a, b = problem_of(2, 12, 15)
    exact = ot.emd2(a.numpy(), b.numpy(), cost.numpy())
    ours = solve(cost, a, b, Problem(1e-3, tolerance=1e-8, max_sweeps=200_000))
    assert ours.converged
    assert exact <= ours.cost + 1e-7
    assert ours.cost == pytest.approx(exact, rel=5e-3)


def test_hidden_permutation_is_found():
    generator = torch.Generator().manual_seed(0)
    points = 10 * torch.randn(20, 3, generator=generator, dtype=torch.float64)
    order = torch.randperm(20, generator=generator)
    cost = 0.5 * torch.cdist(points, points[order]).square()
    a = uniform(20, cost)
    plan = solve(cost, a, a, Problem(0.05, tolerance=1e-9)).plan(cost, a, a, 0.05)
    assert torch.equal(plan.argmax(1)[order], torch.arange(20))


def test_rho_towards_zero_is_the_soft_nearest_neighbour():
    cost, a, b = problem_of(3, 10, 14)
    ours = solve(cost, a, b, Problem(0.3, 1e-9, tolerance=1e-10))
    nearest = -0.3 * torch.logsumexp(b.log() - cost / 0.3, 1)
    torch.testing.assert_close(ours.f, nearest, rtol=1e-6, atol=1e-6)


def test_rho_towards_infinity_is_balanced():
    cost, a, b = problem_of(4, 10, 14)
    balanced = solve(cost, a, b, Problem(0.3, tolerance=EXACT))
    nearly = solve(cost, a, b, Problem(0.3, 1e6, tolerance=EXACT))
    assert nearly.cost == pytest.approx(balanced.cost, rel=1e-5)


@given(st.integers(0, 10_000), st.integers(1, 12), st.integers(1, 12), st.sampled_from([0.3, 3.0, math.inf]))
def test_marginals_hold(seed, n, m, rho):
    cost, a, b = problem_of(seed, n, m)
    problem = Problem(0.2, rho, tolerance=1e-9)
    ours = solve(cost, a, b, problem)
    plan = ours.plan(cost, a, b, problem.epsilon)
    torch.testing.assert_close(plan.sum(1), a, rtol=1e-9, atol=1e-12)
    assert float((plan.sum(0) - problem.column_marginal(b, ours.g)).abs().sum()) <= 2e-9
    assert float(plan.sum()) == pytest.approx(1.0)
    assert ours.cost == pytest.approx(float((plan * cost).sum()), rel=1e-6, abs=1e-9)


@given(st.integers(0, 10_000), st.sampled_from([0.5, math.inf]))
def test_one_point_a_side_costs_its_distance(seed, rho):
    cost, a, b = problem_of(seed, 1, 1)
    ours = solve(cost, a, b, Problem(0.1, rho, tolerance=1e-9))
    assert ours.cost == pytest.approx(float(cost))


@pytest.mark.parametrize("rho", [0.5, math.inf])
def test_permuting_points_permutes_potentials(rho):
    cost, a, b = problem_of(5, 15, 12)
    order, problem = torch.randperm(15, generator=torch.Generator().manual_seed(1)), Problem(0.2, rho, EXACT)
    straight, permuted = solve(cost, a, b, problem), solve(cost[order], a[order], b, problem)
    torch.testing.assert_close(
        permuted.f - permuted.f.mean(), (straight.f - straight.f.mean())[order], rtol=1e-7, atol=1e-9
    )


@pytest.mark.parametrize("rho", [0.5, math.inf])
def test_scaling_costs_and_regularisation_scales_the_answer(rho):
    cost, a, b = problem_of(6, 15, 12)
    one = solve(cost, a, b, Problem(0.2, rho, EXACT))
    hundred = solve(100 * cost, a, b, Problem(20.0, 100 * rho, EXACT))
    assert hundred.cost == pytest.approx(100 * one.cost, rel=1e-8)
    torch.testing.assert_close(hundred.f - hundred.f.mean(), 100 * (one.f - one.f.mean()), rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("rho", [0.5, math.inf])
def test_potential_is_the_derivative_of_the_transport_cost(rho):
    """Moving mass h onto point k from all others changes the optimum by h times the calibrated potential (Eq. 6)."""
    cost, a, b = problem_of(7, 6, 8)
    problem, h = Problem(0.3, rho, tolerance=1e-13), 1e-5
    f = solve(cost, a, b, problem).f
    for k in range(6):
        direction = torch.full((6,), -1 / 5, dtype=torch.float64)
        direction[k] = 1.0
        up, down = (
            regularised_cost(solve(cost, moved, b, problem), cost, moved, b, problem)
            for moved in (a + h * direction, a - h * direction)
        )
        assert (up - down) / (2 * h) == pytest.approx(float(f @ direction), rel=1e-5, abs=1e-7)


def test_warm_start_gives_the_same_answer_in_fewer_sweeps():
    cost, a, b = problem_of(8, 40, 40)
    problem = Problem(0.05, 1.0, tolerance=1e-9)
    cold = solve(cost, a, b, problem)
    warm = solve(cost, a, b, problem, start=cold.g)
    torch.testing.assert_close(warm.f, cold.f, rtol=1e-6, atol=1e-8)
    assert warm.sweeps < cold.sweeps


@pytest.mark.parametrize("rho", [0.5, math.inf])
def test_float32_agrees_with_float64(rho):
    wide = problem_of(9, 40, 30)
    narrow = tuple(t.float() for t in wide)
    problem = Problem(0.1, rho, tolerance=1e-5)
    exact, single = solve(*wide, problem), solve(*narrow, problem)
    assert single.converged
    assert single.f.dtype == torch.float32
    torch.testing.assert_close(
        single.f.double() - single.f.double().mean(), exact.f - exact.f.mean(), rtol=1e-3, atol=1e-3
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("rho", [5.0, math.inf])
def test_costs_far_beyond_the_range_of_exp_stay_finite(dtype, rho):
    cost, a, b = problem_of(10, 20, 20, dtype)
    ours = solve(1e4 * cost, a, b, Problem(0.5, rho, tolerance=1e-2, max_sweeps=500))
    assert torch.isfinite(ours.f).all()
    assert torch.isfinite(ours.g).all()
    assert math.isfinite(ours.cost)


def test_duplicate_points_have_equal_potentials():
    cost, a, b = problem_of(11, 6, 9)
    doubled = torch.cat([cost, cost])
    ours = solve(doubled, torch.cat([a, a]) / 2, b, Problem(0.2, tolerance=EXACT))
    torch.testing.assert_close(ours.f[:6], ours.f[6:])
    assert ours.cost == pytest.approx(solve(cost, a, b, Problem(0.2, tolerance=EXACT)).cost, rel=1e-8)


def test_zero_cost_moves_nothing():
    a = torch.full((4,), 0.25, dtype=torch.float64)
    assert solve(torch.zeros(4, 4, dtype=torch.float64), a, a, Problem(0.1)).cost == 0.0


def test_too_few_sweeps_are_a_stated_outcome():
    cost, a, b = problem_of(12, 30, 30)
    ours = solve(cost, a, b, Problem(1e-3, tolerance=1e-12, max_sweeps=1), start=torch.zeros(30, dtype=torch.float64))
    assert not ours.converged
    assert ours.sweeps == 1
    plan = ours.plan(cost, a, b, 1e-3)
    assert ours.marginal_error == pytest.approx(float((plan.sum(0) - b).abs().sum()), rel=1e-6)


def test_inputs_are_not_written_to_and_runs_repeat_bit_for_bit():
    given_tensors = problem_of(13, 20, 25)
    before = [t.clone() for t in given_tensors]
    first, second = (solve(*given_tensors, Problem(0.1, 0.5)) for _ in range(2))
    assert all(torch.equal(t, b) for t, b in zip(given_tensors, before, strict=True))
    assert torch.equal(first.f, second.f)
    assert first.cost == second.cost


@pytest.mark.parametrize("name", ["epsilon", "rho", "tolerance"])
@pytest.mark.parametrize("value", [0.0, -1.0, math.nan])
def test_problem_refuses_what_is_not_positive(name, value):
    with pytest.raises(BadInput, match=f"`{name}` is {value}: pass a number above 0"):
        Problem(**{"epsilon": 0.1, name: value})


def test_problem_refuses_no_sweeps():
    with pytest.raises(BadInput, match="`max_sweeps` is 0: pass a whole number of at least 1"):
        Problem(0.1, max_sweeps=0)
