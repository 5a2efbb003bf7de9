"""Boxes: minima in them and on their walls, and no evaluation outside."""

import re
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
import scipy.optimize
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from lmtorch import InputError, Solution, Status, least_squares

from ..bounded import BOUNDED, PUBLISHED
from ..references import scipy_solution
from .setting import (
    F64,
    INF,
    Counted,
    decay,
    lifted,
    lifted_jacobian,
    noisy,
    rosenbrock,
    rosenbrock_jacobian,
)

SAME = 1e-8  # relative difference of costs that counts as the same minimum
ZERO = 1e-16  # the cost that counts as zero


@cache
def ours(name: str) -> Solution:
    problem = BOUNDED[name]
    return least_squares(
        problem.residual, torch.tensor(problem.start, dtype=F64), bounds=problem.bounds
    )


@cache
def theirs(name: str) -> float:
    """The cost of scipy's trf with its default scaling and budget."""
    problem = BOUNDED[name]
    return float(
        scipy_solution(
            problem.residual, problem.start, bounds=problem.bounds, x_scale=1.0, max_nfev=None
        ).cost
    )


def solved(cost: float, best: float) -> bool:
    return cost <= best * (1 + SAME) + ZERO


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_problems_are_solved_to_the_printed_digits(name: str) -> None:
    problem = PUBLISHED[name]
    solution = ours(name)
    assert solution.success
    if problem.published is not None:
        # six digits are printed
        assert float(solution.cost) == pytest.approx(problem.published, rel=1e-5, abs=ZERO)
    if problem.cost is not None:
        assert float(solution.cost) == pytest.approx(problem.cost, rel=SAME, abs=ZERO)


def test_as_many_problems_are_solved_by_default_as_by_scipys_trf_at_its_tightest() -> None:
    best = {name: min(float(ours(name).cost), theirs(name)) for name in BOUNDED}
    mine = [name for name in BOUNDED if solved(float(ours(name).cost), best[name])]
    scipys_own = [name for name in BOUNDED if solved(theirs(name), best[name])]
    assert len(mine) >= len(scipys_own), (set(scipys_own) - set(mine), set(mine) - set(scipys_own))
    assert len(mine) == len(BOUNDED)


@pytest.mark.parametrize("name", BOUNDED)
def test_every_fit_ends_where_the_conditions_of_karush_kuhn_and_tucker_hold(name: str) -> None:
    problem, solution = BOUNDED[name], ours(name)
    assert solution.success or solution.status is Status.STALLED
    x = solution.x
    lower, upper = (torch.tensor(side, dtype=F64) for side in problem.bounds)
    assert ((lower <= x) & (x <= upper)).all()
    mask = solution.active_mask
    assert torch.equal(mask, torch.where(x == lower, -1, torch.where(x == upper, 1, 0)))
    jacobian = torch.func.jacfwd(problem.residual)
    J, r = jacobian(x), problem.residual(x)
    gradient = J.T @ r
    # descent would leave the box through the walls that are active; 1e-3 of the gradient's natural
    # size ‖J e_j‖ ‖r‖ is what the default tolerance of 1e-10 on the cost leaves, cos² = 1e3 · 1e-10
    # at most. Powell's hybrid problem has a column that vanishes at the minimum: its size is that
    # at the start
    size = (
        torch.maximum(J.norm(dim=0), jacobian(torch.tensor(problem.start, dtype=F64)).norm(dim=0))
        * r.norm()
    )
    slack = 1e-3 * size if solution.cost > ZERO else size  # round-off of zero has any direction
    assert (gradient[mask == 0].abs() <= slack[mask == 0]).all(), gradient / size
    assert (gradient[mask == -1] >= -slack[mask == -1]).all()
    assert (gradient[mask == 1] <= slack[mask == 1]).all()


boxed = st.integers(1, 4).flatmap(
    lambda n: st.tuples(st.just(n), st.integers(1, 8), st.integers(0, 2**31))
)


def linear(
    n: int, m: int, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """A, b and a box with walls at all distances, some infinite, some equal, and a start inside."""
    rng = np.random.default_rng(seed)
    A, b = rng.normal(size=(m + n, n)), rng.normal(size=m + n)
    lower = rng.normal(size=n)
    upper = lower + rng.choice([0.0, 0.1, 1.0, np.inf], n)
    lower = np.where((rng.random(n) < 0.2) & (lower < upper), -np.inf, lower)
    inside = np.where(np.isfinite(lower), lower, np.where(np.isfinite(upper), upper, 0.0))
    width = np.where(np.isfinite(upper - lower), upper - lower, 1.0)
    sign = np.where(np.isfinite(lower), 1.0, -1.0)
    return (
        A,
        b,
        lower,
        upper,
        np.clip(inside + sign * rng.choice([0.0, 0.3, 1.0], n) * width, lower, upper),
    )


@given(boxed)
@pytest.mark.parametrize("jac", [None, "2-point", pytest.param("3-point", marks=pytest.mark.slow)])
def test_a_linear_problem_in_a_box_has_the_minimum_of_bounded_linear_least_squares(
    jac: Any, drawn: Any
) -> None:
    A, b, lower, upper, start = linear(*drawn)
    moved = lower < upper  # lsq_linear refuses a wall met in one point
    rest = b - A[:, ~moved] @ lower[~moved]
    expected = lower.copy()
    if moved.any():
        found = scipy.optimize.lsq_linear(
            A[:, moved], rest, (lower[moved], upper[moved]), method="bvls", tol=1e-15
        )
        expected[moved] = found.x
    function = Counted(lambda x: (torch.as_tensor(A) @ torch.as_tensor(x)) - torch.as_tensor(b))
    solution = least_squares(function, start, jac, bounds=(lower, upper))
    # differences of linear functions are exact but for round-off, ε^½ of them
    # where there are two points
    np.testing.assert_allclose(solution.x, expected, rtol=1e-6, atol=1e-6)
    for x in function.points:
        assert (lower <= np.asarray(x)).all()
        assert (np.asarray(x) <= upper).all()


@given(st.integers(0, 2**31))
@pytest.mark.parametrize("jac", ["2-point", "3-point"])
@pytest.mark.parametrize("diff_step", [None, 0.1, -1e3])
def test_finite_differences_stay_inside_a_box_narrower_than_their_step(
    jac: str, diff_step: Any, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    lower = rng.normal(size=2) * 10 ** rng.uniform(-12, 3, 2)
    upper = lower + 10 ** rng.uniform(-13, -3, 2)
    start = np.clip(lower + (upper - lower) * rng.choice([0.0, 0.3, 0.999, 1.0], 2), lower, upper)
    function = Counted(lambda x: np.array([x[0] - 1, x[1] + x[0], np.sin(x[1])]))
    least_squares(function, start, jac, bounds=(lower, upper), diff_step=diff_step, max_nfev=4)
    points = np.array(function.points)
    assert (points >= lower).all()
    assert (points <= upper).all()


@pytest.mark.parametrize("jac", [None, "2-point", "3-point"])
def test_a_function_that_is_undefined_outside_the_box_is_not_asked_there(jac: Any) -> None:
    def residual(x: Tensor) -> Tensor:
        if not bool(((x >= 0) & (x <= 1)).all()):
            raise ValueError("outside")
        return torch.stack([(x[0] - 2).abs() + x[1], 3 * (x[1] + 1), (x[0] - 1) ** 2])

    # at (1, 0): the probe of the third residual must not walk beyond 1 either
    for start in ([1.0, 0.0], [0.0, 1.0], [0.4, 0.6]):
        solution = least_squares(residual, torch.tensor(start, dtype=F64), jac, bounds=(0, 1))
        assert solution.x.tolist() == [1.0, 0.0]
        assert solution.success


@pytest.mark.parametrize("jac", [None, "2-point", "3-point", lifted_jacobian])
def test_a_wall_before_the_minimum_holds_the_solution(jac: Any) -> None:
    free = least_squares(lifted, 2.0, jac, bounds=(-1.0, 3.0))
    np.testing.assert_allclose(free.x, 0, atol=1e-4)
    np.testing.assert_array_equal(free.active_mask, [0])
    held = least_squares(lifted, 2.0, jac, bounds=(0.5, 3.0))
    np.testing.assert_array_equal(held.x, [0.5])
    np.testing.assert_array_equal(held.active_mask, [-1])
    assert held.success


FORMS: dict[str, Callable[[Any, Any], Any]] = {
    "pair": lambda lower, upper: (lower, upper),
    "list": lambda lower, upper: [lower, upper],
    "scipy": scipy.optimize.Bounds,
    "tensors": lambda lower, upper: (torch.tensor(lower), torch.tensor(upper)),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("lower", "upper", "expected"),
    [
        (0.5, [2.0, 2.0], [0.5, 0.5]),
        ([0.3, 0.2], 3.0, [0.3, 0.2]),
        ([-1.0, 0.5], [1.0, 3.0], [0.0, 0.5]),
        ([-INF, -INF], [INF, INF], [0.0, 0.0]),
        ([-INF, 0.5], [INF, INF], [0.0, 0.5]),
    ],
    ids=str,
)
def test_bounds_may_be_numbers_arrays_and_scipys_object(
    form: str, lower: Any, upper: Any, expected: Any
) -> None:
    solution = least_squares(lambda x: 1 * x, [1.0, 1.0], bounds=FORMS[form](lower, upper))
    np.testing.assert_allclose(solution.x, expected, atol=1e-12)


def test_bounds_may_be_one_array_of_two_rows() -> None:
    solution = least_squares(
        lambda x: 1 * x, [1.0, 1.0], bounds=np.array([[0.5, -1.0], [2.0, 2.0]])
    )
    np.testing.assert_allclose(solution.x, [0.5, 0.0], atol=1e-12)


@pytest.mark.parametrize(
    ("bounds", "start", "expected"),
    [
        (scipy.optimize.Bounds(), 0.5, 0.0),
        (scipy.optimize.Bounds(lb=1.0), 3.0, 1.0),
        (scipy.optimize.Bounds(lb=-1.0, ub=1.0), 0.5, 0.0),
        (scipy.optimize.Bounds(ub=-1.0), -3.0, -1.0),
        ((None, 2.0), 1.0, 0.0),
    ],
    ids=str,
)
def test_a_side_may_be_left_open(bounds: Any, start: float, expected: float) -> None:
    np.testing.assert_allclose(least_squares(lifted, start, bounds=bounds).x, expected, atol=1e-4)


@pytest.mark.parametrize("bounds", [((-INF, 0.0), (INF, 0.0)), {"a": 1}], ids=["array", "tree"])
def test_equal_bounds_fix_a_variable(bounds: Any) -> None:
    y = noisy()
    if isinstance(bounds, dict):
        start: Any = {"a": torch.tensor(2.0, dtype=F64), "b": torch.tensor([1.0, 0.3], dtype=F64)}
        lower = {"a": torch.tensor(2.0), "b": torch.tensor([-INF, -INF])}
        upper = {"a": torch.tensor(2.0), "b": torch.tensor([INF, INF])}

        def residual(x: Any) -> Tensor:
            return decay(torch.cat([x["a"][None], x["b"]])) - y

        x = least_squares(residual, start, bounds=(lower, upper)).x
        found = torch.cat([x["a"][None], x["b"]])
    else:
        found = least_squares(
            lambda x: decay(x) - y,
            torch.tensor([2.0, 1.0, 0.0], dtype=F64),
            bounds=([2, -INF, -INF], [2, INF, INF]),
        ).x
    expected = scipy_solution(
        lambda v: decay(torch.cat([torch.tensor([2.0], dtype=F64), v])) - y, [1.0, 0.0]
    )
    assert found[0] == 2
    np.testing.assert_allclose(found[1:], expected.x, rtol=1e-7)


def test_a_variable_between_equal_walls_is_active_on_the_side_that_descent_would_leave() -> None:
    solution = least_squares(lambda x: x - torch.tensor([3.0, -3.0]), [1.0, 1.0], bounds=(1.0, 1.0))
    np.testing.assert_array_equal(solution.active_mask, [1, -1])


def test_with_every_variable_fixed_the_start_is_the_solution() -> None:
    solution = least_squares(lambda x: x - 3, [1.0, 2.0], bounds=([1.0, 2.0], [1.0, 2.0]))
    np.testing.assert_array_equal(solution.x, [1.0, 2.0])
    assert solution.status is Status.GRADIENT
    assert solution.optimality == 0


@pytest.mark.parametrize("start", [[2.0, 0.5], [0.5, -0.1], [2.0, -0.1]])
def test_a_start_outside_its_bounds_is_refused_by_the_first_name(start: list[float]) -> None:
    where = 0 if start[0] > 1 else 1
    with pytest.raises(InputError, match=rf"infeasible: outside its bounds at x0\[{where}\]"):
        least_squares(lambda x: 1 * x, start, bounds=(0, 1))


@pytest.mark.parametrize("jac", ["2-point", "3-point", rosenbrock_jacobian])
@pytest.mark.parametrize("x_scale", [1.0, [1.0, 0.5], "jac"], ids=str)
@pytest.mark.parametrize(
    ("start", "bounds"),
    [
        ([-2.0, 1.0], ([-INF, -1.5], INF)),
        ([2.0, 2.0], ([-INF, 1.5], INF)),
        ([-2.0, 2.0], ([-INF, 1.5], INF)),
        ([0.0, 2.0], ([-INF, 1.5], [1.0, INF])),
        ([2.0, 2.0], ([1.0, 1.5], [3.0, 3.0])),
        ([-1.2, 1.0], ([-50.0, 0.0], [0.5, 100])),
    ],
    ids=str,
)
def test_scipys_bounded_valleys_end_where_the_gradient_of_the_free_variables_vanishes(
    start: Any, bounds: Any, jac: Any, x_scale: Any
) -> None:
    solution = least_squares(rosenbrock, start, jac, bounds=bounds, x_scale=x_scale)
    np.testing.assert_allclose(solution.optimality, 0.0, atol=1e-5)  # scipy's tolerance


def test_optimality_is_the_largest_gradient_of_the_variables_that_may_move() -> None:
    solution = least_squares(
        lambda x: x - torch.tensor([3.0, 0.5], dtype=F64), [0.0, 0.0], bounds=(0, 1), max_nfev=1
    )
    # at (0, 0) nothing is active: the gradient, (-3, -0.5), leads inside
    assert solution.optimality == 3
    np.testing.assert_array_equal(solution.active_mask, [-1, -1])


@pytest.mark.parametrize("loss", ["soft_l1", "cauchy", "tukey"])
def test_bounds_and_robust_losses_go_together(loss: str) -> None:
    y = noisy()
    y[::7] += 2
    residual = lambda x: decay(x) - y
    bounds = ([-INF, -INF, 0.4], INF)
    solution = least_squares(
        residual, torch.tensor([2.0, 1.0, 0.5], dtype=F64), bounds=bounds, loss=loss, f_scale=0.2
    )
    assert solution.active_mask.tolist() == [0, 0, -1]
    bound = torch.tensor([0.4], dtype=F64)
    held = least_squares(
        lambda v: decay(torch.cat([v, bound])) - y, solution.x[:2] + 0.05, loss=loss, f_scale=0.2
    )
    torch.testing.assert_close(solution.x[:2], held.x, rtol=1e-5, atol=1e-7)


def test_the_message_tells_the_cosine_of_variables_that_may_move() -> None:
    # the second residual is never met: its variable is held at a wall, and alone would be a cosine
    # of nearly one
    residual = lambda x: torch.stack([x[0] - 1, x[1] - 2])
    solution = least_squares(residual, torch.zeros(2, dtype=F64), bounds=(-INF, [INF, 1.0]))
    assert solution.active_mask.tolist() == [0, 1]
    assert solution.success
    told = re.search(r"a column of J (\S+?),", solution.message)
    assert told is not None, solution.message
    assert float(told[1]) < 1e-8
