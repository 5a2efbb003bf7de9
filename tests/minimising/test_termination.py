"""Every status on a problem that naturally leads there, and success of minima alone."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from lmtorch import Status, least_squares

from ..nist import PROBLEMS
from ..problems import CLASSICAL, freudenstein_roth
from ..references import scipy_solution
from .setting import F64, Counted, T, decay, noisy, rosenbrock, rosenbrock_jacobian

START = torch.tensor([2.0, 1.0, 0.1], dtype=F64)
Y = noisy()
JACOBIANS = pytest.mark.parametrize("jac", [None, "2-point", "3-point"])


def residual(x: Tensor) -> Tensor:
    return decay(x) - Y


def test_a_vanishing_gradient_is_said_of_a_linear_fit() -> None:
    solution = least_squares(lambda x: x[0] + x[1] * T - Y, [0.0, 0.0])
    assert solution.status is Status.GRADIENT
    assert solution.status == 1
    assert "largest cosine between the residuals and a column of J" in solution.message
    cosine = (
        np.abs(solution.jac.T @ solution.fun)
        / np.linalg.norm(solution.jac, axis=0)
        / np.linalg.norm(solution.fun)
    )
    assert cosine.max() <= 1e-10


def test_a_cost_that_changes_no_more_is_said_of_a_nonlinear_fit() -> None:
    solution = least_squares(residual, START, gtol=None, xtol=None)
    assert solution.status is Status.COST
    assert solution.status == 2
    assert float(solution.cost) == pytest.approx(scipy_solution(residual, START).cost, rel=1e-10)


def test_a_step_that_changes_nothing_is_said_where_only_steps_count() -> None:
    # smaller steps change the cost by less than its round-off where residuals remain
    solution = least_squares(residual, START, gtol=None, ftol=None, xtol=1e-5)
    assert solution.status is Status.STEP
    assert solution.status == 3
    np.testing.assert_allclose(solution.x, scipy_solution(residual, START).x, rtol=1e-7)


def test_residuals_of_zero_are_said_of_a_root() -> None:
    solution = least_squares(lambda x: x - 3, torch.tensor([1.0, 2.0], dtype=F64))
    assert solution.status is Status.ZERO
    assert solution.status == 5
    assert solution.cost == 0


@JACOBIANS
@pytest.mark.parametrize("budget", [1, 2, 5])
def test_a_spent_budget_is_said_so_and_is_no_success(budget: int, jac: Any) -> None:
    start = torch.tensor(CLASSICAL["osborne_1"].start, dtype=F64)
    solution = least_squares(CLASSICAL["osborne_1"].residual, start, jac, max_nfev=budget, polish=0)
    assert solution.status is Status.EVALUATIONS
    assert solution.status == 0
    assert not solution.success
    assert solution.nfev == budget


def test_trials_are_counted_and_differences_are_not() -> None:
    function = Counted(rosenbrock)
    derivatives = Counted(rosenbrock_jacobian)
    solution = least_squares(function, [-1.2, 1.0], derivatives, polish=0)
    assert len(derivatives.points) == solution.njev
    assert len(function.points) == solution.nfev == solution.calls
    assert solution.njev <= solution.nfev


def test_a_callback_that_stops_is_said_so() -> None:
    def stop(iterate: Any) -> None:
        if iterate.nit == 3:
            raise StopIteration

    solution = least_squares(residual, START, callback=stop)
    assert solution.status is Status.STOPPED
    assert solution.status == -2
    assert not solution.success
    assert solution.nfev == 4


def test_tolerances_below_round_off_end_at_a_minimum_that_is_certified() -> None:
    solution = least_squares(residual, START, ftol=0, xtol=0, gtol=0)
    assert solution.status is Status.MINIMUM
    assert solution.success
    assert float(solution.promise) < 1e-20
    np.testing.assert_allclose(solution.x, scipy_solution(residual, START).x, rtol=1e-9)


@pytest.mark.parametrize("tolerance", [1e-20, 1e-16, 0.0])
def test_single_precision_stalls_rather_than_run_on_where_no_tolerance_can_be_met(
    tolerance: float,
) -> None:
    t, y = T.float(), Y.float()
    solution = least_squares(
        lambda x: x[0] * torch.exp(-x[1] * t) + x[2] - y,
        START.float(),
        ftol=tolerance,
        xtol=tolerance,
        gtol=tolerance,
    )
    assert solution.status is Status.MINIMUM
    assert solution.nfev < 50
    np.testing.assert_allclose(solution.x, scipy_solution(residual, START).x, rtol=1e-3)


@JACOBIANS
def test_a_start_at_which_nothing_has_an_influence_is_flat_and_no_success(jac: Any) -> None:
    # so far off that the bump and its slope underflow
    fun = lambda x: torch.exp(-((T - x[0]) ** 2)) - 1
    solution = least_squares(fun, torch.tensor([1e3], dtype=F64), jac, second_opinion=False)
    assert solution.status is Status.FLAT
    assert solution.status == -6
    assert not solution.success


def test_a_run_onto_a_plateau_is_flat_and_no_success() -> None:
    # the residual decreases to 1 as x goes to infinity, until its slope underflows
    solution = least_squares(lambda x: 1 + torch.exp(-x), torch.tensor([700.0], dtype=F64))
    assert not solution.success


@JACOBIANS
def test_residuals_that_never_move_in_single_precision_are_no_success(jac: Any) -> None:
    # scipy's issue 12991, where the step of the differences vanishes: the
    # function rounds its argument
    def rounded(x: Tensor) -> Tensor:
        return (
            (x.to(torch.bfloat16).to(F64) - 1.5) + 0 * x
            if jac is None
            else x.to(torch.bfloat16).to(F64) - 1.5
        )

    solution = least_squares(rounded, torch.tensor([1.0], dtype=F64), jac)
    assert solution.x[0] != 1.0 or not solution.success


def test_nan_in_one_problem_of_a_batch_is_said_of_that_one() -> None:
    y = torch.stack([Y, Y, Y])
    y[1, 0] = math.inf
    solution = least_squares(lambda x, y: decay(x) - y, START, args=(y,), in_dims=(None, 0))
    assert solution.reasons[1] is Status.NOT_FINITE
    assert solution.status[1] == -5
    assert solution.success.tolist() == [True, False, True]


def test_a_derivative_that_is_not_finite_is_no_success() -> None:
    solution = least_squares(
        lambda x: x - 1, torch.zeros(2, dtype=F64), lambda x: torch.diag(1 / x)
    )
    assert solution.status is Status.NOT_FINITE
    assert not solution.success


@JACOBIANS
def test_a_wall_of_nan_is_not_run_into(jac: Any) -> None:
    # log(x) is NaN beyond zero, whence the first Gauss–Newton step goes
    solution = least_squares(lambda x: torch.log(x) + 5, torch.tensor([30.0], dtype=F64), jac)
    assert solution.success
    np.testing.assert_allclose(solution.x, math.exp(-5), rtol=1e-6)


def test_a_start_at_the_minimum_stays_there() -> None:
    minimum = least_squares(residual, START, ftol=1e-15, xtol=1e-15, gtol=1e-15).x
    solution = least_squares(residual, minimum)
    assert solution.success
    assert solution.nfev <= 3
    np.testing.assert_allclose(solution.x, minimum, rtol=1e-10)


def test_a_start_at_a_root_is_zero_at_once() -> None:
    solution = least_squares(rosenbrock, [1.0, 1.0], rosenbrock_jacobian)
    assert solution.status is Status.ZERO
    assert solution.njev == 1
    np.testing.assert_array_equal(solution.x, [1, 1])


@pytest.mark.parametrize("name", ["gtol", "ftol", "xtol"])
def test_a_looser_tolerance_ends_earlier(name: str) -> None:
    tight = {"ftol": None, "xtol": None, "gtol": None}
    counts = [
        least_squares(residual, START, polish=0, **(tight | {name: value})).nfev
        for value in (1e-2, 1e-5, 1e-11)
    ]
    assert counts == sorted(counts)
    assert counts[0] < counts[-1]


def test_a_tolerance_of_none_switches_its_test_off() -> None:
    solution = least_squares(residual, START, ftol=None, xtol=None, gtol=1e-3)
    assert solution.status is Status.GRADIENT
    solution = least_squares(residual, START, ftol=1e-3, xtol=None, gtol=None)
    assert solution.status is Status.COST


def test_a_local_minimum_is_a_success_too() -> None:
    solution = least_squares(freudenstein_roth, torch.tensor([0.5, -2.0], dtype=F64))
    assert solution.success
    assert float(solution.cost) == pytest.approx(24.49212683962, rel=1e-12)


def gain(function: Any, x: Tensor) -> float:
    """The share of the cost that the best Gauss–Newton step of any length would save."""
    J, r = torch.func.jacfwd(function)(x), function(x)
    scaled = J / J.norm(dim=0).clamp(min=1e-300)
    best = torch.linalg.lstsq(scaled, -r[:, None], driver="gelsd").solution[:, 0]
    return float(1 - (scaled @ best + r).square().sum() / r.square().sum())


@pytest.mark.parametrize("unit", [1.0, 1e-3, 1e-12, 1e6])
def test_a_parameter_without_influence_at_the_start_does_not_set_the_length_of_the_others(
    unit: float,
) -> None:
    y = unit * torch.randn(len(T), dtype=F64, generator=torch.Generator().manual_seed(0))
    # with an amplitude of zero the rate, 1, has none: in its units steps of 1e-12 in
    # the amplitude are nothing
    function = lambda x: (
        x[0] * torch.exp(x[1] * T) + unit * torch.log(x[2] + 5) * torch.cos(3 * T) - y
    )
    solution = least_squares(function, torch.tensor([0.0, 1.0, 0.0], dtype=F64))
    assert solution.success
    assert gain(function, solution.x) < 1e-8


def test_a_run_against_a_pole_is_no_success() -> None:
    y = torch.randn(len(T), dtype=F64, generator=torch.Generator().manual_seed(0))
    # the logarithm is tried for what only the exponential can mend: x₂ → −5,
    # where ‖D x‖ has no bound
    function = lambda x: x[0] * torch.exp(x[1] * T) + torch.log(x[2] + 5) * torch.cos(3 * T) - y
    solution = least_squares(function, torch.tensor([1.0, 2.0, 0.0], dtype=F64))
    assert not (solution.success and gain(function, solution.x) > 1e-3)


curves = st.tuples(
    st.floats(-1e3, 1e3), st.floats(-5, 5), st.floats(-10, 10), st.sampled_from([1e-12, 1e-3, 1e6]),
    st.integers(0, 9)
)  # fmt: skip


@pytest.mark.slow
@given(curves)
@pytest.mark.filterwarnings("ignore::lmtorch.FallbackWarning")
def test_a_success_is_never_said_of_numbers_that_are_not_finite_or_of_a_worse_point(
    drawn: Any,
) -> None:
    a, b, c, unit, seed = drawn
    generator = torch.Generator().manual_seed(seed)
    y = unit * torch.randn(len(T), dtype=F64, generator=generator)
    start = torch.tensor([a * unit, b, c], dtype=F64)
    function = lambda x: x[0] * torch.exp(x[1] * T) + unit * x[2] * torch.cos(3 * T) - y
    begun = function(start)
    if not begun.isfinite().all():
        return
    solution = least_squares(function, start, max_nfev=300)
    assert solution.x.isfinite().all()
    assert float(solution.cost) <= float(begun.square().sum() / 2) * (1 + 1e-12)
    assert solution.status != Status.RUNNING
    if solution.success:
        assert math.isfinite(float(solution.cost))
        assert gain(function, solution.x) <= 1e-3 or float(solution.cost) <= 1e-20 * unit**2


@pytest.mark.parametrize("seed", range(8))
def test_data_that_are_met_exactly_end_the_run_at_round_off(seed: int) -> None:
    # what is left of the residuals is round-off, which every step changes and none lowers for long
    rng = np.random.default_rng(seed)
    x = rng.permutation(np.arange(-8, 9))[:9].astype(float)
    slope, offset = rng.integers(-2, 3), rng.integers(-1, 2)
    weight = 1 / rng.uniform(0.1, 10, 9)
    points, weights = torch.from_numpy(x), torch.from_numpy(weight)
    found = least_squares(
        lambda p: weights * (p[0] * points + p[1] - (slope * points + offset)),
        torch.ones(2, dtype=torch.float64),
    )
    assert found.success
    assert found.nfev < 100
    torch.testing.assert_close(
        found.x, torch.tensor([slope, offset], dtype=torch.float64), rtol=1e-14, atol=1e-14
    )


BUDGETS = (1, 2, 3, 5, 9, 17, 33, 60)
WAYS = {
    "one": {},
    "steps of Gauss and Newton alone": {"solver": "svd", "damping": "nielsen"},
    "a black box": {"jac": "2-point"},
    "a scale in turn": {"loss": "soft_l1", "f_scale": "mad"},
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ["bard", "brown_dennis", "jennrich_sampson", "osborne_1"])
def test_no_run_takes_more_evaluations_than_were_allowed(name: str, way: str) -> None:
    problem, seen = CLASSICAL[name], set()
    start = torch.tensor(problem.start, dtype=F64)
    for budget in BUDGETS:
        for factor in (1, 10):
            solution = least_squares(problem.residual, factor * start, max_nfev=budget, **WAYS[way])
            assert solution.nfev <= budget
            seen.add(solution.status)
    assert Status.EVALUATIONS in seen


def test_steps_that_newton_takes_on_the_way_are_within_what_was_allowed() -> None:
    bennett = PROBLEMS["Bennett5"]  # from the near start such steps fail twice
    needed = least_squares(bennett.residual, bennett.starts[1]).nfev
    for budget in (*range(15, 40), needed - 1, needed):
        solution = least_squares(bennett.residual, bennett.starts[1], max_nfev=budget)
        assert solution.nfev <= budget
        assert solution.success or solution.status is Status.EVALUATIONS


def test_no_problem_of_a_batch_takes_more_evaluations_than_were_allowed() -> None:
    problem = CLASSICAL["osborne_2"]
    shares = torch.linspace(0.5, 2, 6, dtype=F64)
    starts = shares[:, None] * torch.tensor(problem.start, dtype=F64)
    for budget in (1, 21, 40):
        for options in ({}, {"loss": "soft_l1", "f_scale": "mad"}):
            found = least_squares(
                problem.residual, starts, max_nfev=budget, in_dims=(0,), **options
            )
            assert int(torch.as_tensor(found.nfev).max()) <= budget
