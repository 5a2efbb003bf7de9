"""What scipy's tests of `least_squares` ask for, in our words, with scipy's answers."""

import copy
import inspect
import pickle
from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import pytest
import scipy.optimize
import torch
from torch import Tensor

import lmtorch
from lmtorch import FallbackWarning, InputError, Solution, Status, least_squares
from lmtorch.minimising.solution import Later

from .setting import F64, Counted, lifted, lifted_jacobian, rosenbrock, rosenbrock_jacobian

# the exact ways, finite differences, and the user's own
JACOBIANS = [None, "auto", "forward", "reverse", "autograd", "2-point", "3-point", lifted_jacobian]
# NumPy code, which is the point
DIFFERENCED = pytest.mark.filterwarnings("ignore::lmtorch.FallbackWarning")
# options of scipy that choose nothing
IGNORED = pytest.mark.filterwarnings("ignore:.* is ignored:UserWarning")


def cubic_soft_l1(z: np.ndarray) -> np.ndarray:
    """A user's loss in scipy's form, (3, m)."""
    t = 1 + z
    return np.stack([3 * (t ** (1 / 3) - 1), t ** (-2 / 3), -2 / 3 * t ** (-5 / 3)])


LOSSES = ["linear", "huber", "soft_l1", "cauchy", "arctan", cubic_soft_l1]


def test_the_signature_begins_with_scipys_in_its_order() -> None:
    theirs = list(inspect.signature(scipy.optimize.least_squares).parameters)
    ours = inspect.signature(least_squares).parameters
    assert list(ours)[: len(theirs)] == theirs
    assert all(
        ours[name].kind is inspect.Parameter.KEYWORD_ONLY for name in list(ours)[len(theirs) :]
    )


def test_the_result_has_scipys_fields() -> None:
    theirs = scipy.optimize.least_squares(lifted, 2.0)
    ours = least_squares(lifted, 2.0)
    assert set(theirs) <= set(ours)


def test_a_solution_is_used_as_scipys_result_is() -> None:
    fields = {
        "x": np.linspace(-1, 1, 30),
        "cost": 2.0,
        "jac": np.ones((20, 2)),
        "message": "a minimum",
        "success": True,
        "within": {"fun": np.array([np.inf, -np.inf, np.nan]), "x": 1},
    }
    theirs, ours = scipy.optimize.OptimizeResult(fields), Solution(fields)
    assert repr(ours) == repr(theirs)
    assert set(dir(theirs)) <= set(dir(ours))
    for result in (theirs, ours, copy.copy(ours), pickle.loads(pickle.dumps(ours))):
        result.cost = 3.0
        result["extra"] = 4
        del result.success
        assert result["cost"] == result.cost == 3.0
        assert result.extra == 4
        assert list(result) == ["x", "cost", "jac", "message", "within", "extra"]
        with pytest.raises(AttributeError, match="success"):
            result.success  # noqa: B018
        with pytest.raises(KeyError, match="success"):
            result["success"]


@pytest.mark.parametrize("jac", JACOBIANS)
def test_args_and_kwargs_reach_the_function_and_its_jacobian(jac: Any) -> None:
    for given in ({"args": (3.0,)}, {"kwargs": {"a": 3.0}}, {"args": 3.0}):
        solution = least_squares(lifted, 2.0, jac, **given)
        np.testing.assert_allclose(solution.x, 3.0, rtol=1e-4)


@pytest.mark.parametrize("given", [{"args": (3, 4)}, {"kwargs": {"kaboom": 3}}], ids=str)
def test_arguments_that_the_function_does_not_take_are_its_own_type_error(
    given: dict[str, Any],
) -> None:
    with pytest.raises(TypeError, match="argument"):
        least_squares(lifted, 2.0, **given)


@pytest.mark.parametrize("jac", JACOBIANS)
def test_every_way_to_the_jacobian_finds_the_minimum(jac: Any) -> None:
    np.testing.assert_allclose(least_squares(lifted, 2.0, jac).x, 0, atol=1e-4)


@pytest.mark.parametrize("max_nfev", [None, 20, 20.0])
def test_max_nfev_may_be_none_or_a_whole_number(max_nfev: Any) -> None:
    np.testing.assert_allclose(least_squares(lifted, 2.0, max_nfev=max_nfev).x, 0, atol=1e-4)


@pytest.mark.parametrize("x0", [[], (), np.empty(0), torch.empty(0, dtype=F64)], ids=repr)
@pytest.mark.parametrize("loss", ["linear", "huber"])
def test_nothing_to_fit_is_a_success_as_in_scipy(x0: Any, loss: str) -> None:
    ours = least_squares(lambda x: torch.tensor([1.0, -2.0], dtype=F64), x0, loss=loss)
    theirs = scipy.optimize.least_squares(lambda x: np.array([1.0, -2.0]), [], loss=loss)
    for name in (
        "x",
        "cost",
        "fun",
        "grad",
        "optimality",
        "active_mask",
        "nfev",
        "njev",
        "status",
        "success",
    ):
        np.testing.assert_array_equal(ours[name], theirs[name])
    assert ours.jac.shape == (2, 0)  # scipy's is (2, 0), too, with plain least squares
    assert type(ours.x) is type(
        least_squares(lambda x: x - 1, torch.ones(1) if isinstance(x0, Tensor) else [1.0]).x
    )


def test_nothing_to_fit_in_a_batch_is_a_cost_for_each_problem() -> None:
    y = torch.arange(6.0, dtype=F64).reshape(3, 2).requires_grad_()
    solution = least_squares(
        lambda x, y: 1.0 * y, torch.empty(0, dtype=F64), args=(y,), in_dims=(None, 0)
    )
    torch.testing.assert_close(solution.cost, y.square().sum(-1) / 2)
    assert solution.success.tolist() == [True] * 3
    assert solution.x.shape == (3, 0)
    solution.cost.sum().backward()
    torch.testing.assert_close(y.grad, y.detach())


@pytest.mark.parametrize(
    "x_scale", [1.0, [0.5], np.array([0.5]), "jac", "more", "marquardt", "levenberg", None]
)
def test_x_scale_may_be_a_number_an_array_or_a_rule(x_scale: Any) -> None:
    np.testing.assert_allclose(least_squares(lifted, 2.0, x_scale=x_scale).x, 0, atol=1e-8)


@pytest.mark.parametrize("diff_step", [None, 1e-1, [1e-3], -1e-4])
def test_diff_step_is_the_relative_step_of_finite_differences(diff_step: Any) -> None:
    function = Counted(lambda x: lifted(np.asarray(x)))
    solution = least_squares(function, 2.0, "2-point", diff_step=diff_step)
    np.testing.assert_allclose(solution.x, 0, atol=1e-2)
    first = next(float(x[0]) for x in function.points if x[0] != 2.0)
    relative = 2**-26 if diff_step is None else abs(np.ravel(diff_step)[0])
    # h is made exact as (x + h) - x: rounded to the spacing of numbers about 2
    assert abs(first - 2.0) == pytest.approx(2.0 * relative, rel=1e-7)


def test_options_in_a_dict_are_refused_by_python() -> None:
    with pytest.raises(TypeError, match="options"):
        least_squares(lifted, 2.0, options={"max_nfev": 100})


@pytest.mark.parametrize("jac", [lifted_jacobian, None])
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("f_scale", [1.0, 6.0, 10.0, 20.0])
def test_one_evaluation_gives_scipys_fields(loss: Any, f_scale: float, jac: Any) -> None:
    theirs = scipy.optimize.least_squares(
        lifted, 2.0, lifted_jacobian, loss=loss, f_scale=f_scale, max_nfev=1
    )
    ours = least_squares(lifted, 2.0, jac, loss=loss, f_scale=f_scale, max_nfev=1)
    for name in ("x", "fun", "active_mask", "nfev", "njev", "status", "success"):
        np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)
    for name in ("cost", "grad", "optimality"):  # a few operations in another order
        np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-14, err_msg=name)
    # beyond the inflection of ρ the curvature is not positive, and what stands in its place
    # is each one's own choice
    if theirs.jac[0, 0] > 1e-6:
        np.testing.assert_allclose(ours.jac, theirs.jac, rtol=1e-14)
    else:
        assert ours.jac[0, 0] > 0
    assert ours.status is Status.EVALUATIONS


def test_the_end_of_a_fit_has_scipys_fields() -> None:
    t = np.linspace(0, 3, 12)
    y = np.exp(-t) + 0.3 * np.exp(-0.2 * t)

    def residual(x: Any) -> Any:
        return x[0] / (1 + x[1] * torch.as_tensor(t)) - torch.as_tensor(y)

    def plain(x: np.ndarray) -> np.ndarray:
        return x[0] / (1 + x[1] * t) - y

    theirs = scipy.optimize.least_squares(
        plain, [1.0, 1.0], "3-point", ftol=1e-15, xtol=1e-15, gtol=1e-15
    )
    ours = least_squares(residual, [1.0, 1.0])
    for name in ("x", "cost", "fun", "jac"):
        np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-6, atol=1e-9, err_msg=name)
    assert ours.success
    assert ours.status > 0
    assert ours.optimality < 1e-9
    np.testing.assert_array_equal(ours.active_mask, 0)
    np.testing.assert_allclose(ours.grad, ours.jac.T @ ours.fun, atol=1e-15)
    assert ours.cost == pytest.approx(0.5 * (ours.fun**2).sum(), rel=1e-14)


@DIFFERENCED
@pytest.mark.parametrize(
    "x0", [[-2, 1], (-2, 1), np.array([-2.0, 1.0]), np.array([-2, 1]), torch.tensor([-2.0, 1.0])]
)
def test_x0_may_be_a_list_a_tuple_an_array_or_a_tensor(x0: Any) -> None:
    solution = least_squares(rosenbrock, x0)
    np.testing.assert_allclose(np.asarray(solution.x), [1, 1], rtol=1e-4)


@DIFFERENCED
@IGNORED
@pytest.mark.parametrize(
    ("jac", "x_scale", "tr_solver"),
    [
        *product(
            ["2-point", "3-point", None, rosenbrock_jacobian],
            [1.0, [1.0, 0.2], "jac"],
            ["exact", "lsmr"],
        )
    ],
)
def test_rosenbrocks_valley_is_followed_to_its_end(jac: Any, x_scale: Any, tr_solver: str) -> None:
    solution = least_squares(rosenbrock, [-2, 1], jac, x_scale=x_scale, tr_solver=tr_solver)
    np.testing.assert_allclose(solution.x, [1, 1])  # scipy's tolerance, 1e-7
    assert solution.success


@pytest.mark.parametrize("jac", ["2-point", "3-point", lambda x: rosenbrock_jacobian(x)[0]])
def test_one_residual_of_two_parameters_is_brought_to_zero(jac: Any) -> None:
    solution = least_squares(lambda x: rosenbrock(x)[:1], [-2, 1], jac)
    np.testing.assert_allclose(solution.cost, 0, atol=1e-14)


def test_residuals_of_any_shape_are_flattened_in_order() -> None:
    solution = least_squares(lambda x: torch.stack([x, x**2, x**3]), [2.0, 3.0], max_nfev=1)
    np.testing.assert_array_equal(solution.fun, [2, 3, 4, 9, 8, 27])
    assert solution.jac.shape == (6, 2)


def test_parameters_of_any_shape_keep_it() -> None:
    goal = torch.arange(6, dtype=torch.float64).view(2, 3)
    solution = least_squares(lambda x: x - goal, np.ones((2, 3)))
    assert solution.x.shape == (2, 3)
    assert solution.jac.shape == (6, 6)
    np.testing.assert_allclose(solution.x, goal, atol=1e-12)


def test_a_hundred_unknowns_of_a_boundary_value_problem() -> None:
    n = 10

    def residual(x: np.ndarray) -> np.ndarray:
        u = np.zeros((n + 2, n + 2))
        u[1:-1, 1:-1] = x.reshape(n, n)
        x = u[1:-1, 1:-1]
        return (u[:-2, 1:-1] + u[2:, 1:-1] + u[1:-1, :-2] + u[1:-1, 2:] - 4 * x + x**3).ravel()

    solution = least_squares(residual, np.ones(n**2), "2-point", ftol=1e-2, max_nfev=100)
    assert solution.nfev < 100
    assert solution.cost < 0.5


@pytest.mark.parametrize(
    "tolerances", [(1e-8, None, None), (None, 1e-8, None), (None, None, 1e-8)], ids=str
)
def test_one_tolerance_suffices(tolerances: tuple[Any, ...]) -> None:
    ftol, xtol, gtol = tolerances
    solution = least_squares(
        rosenbrock, [-2, 1], rosenbrock_jacobian, ftol=ftol, xtol=xtol, gtol=gtol
    )
    np.testing.assert_allclose(solution.x, [1, 1])


@pytest.mark.parametrize("name", ["tr_solver", "tr_options", "jac_sparsity", "workers"])
def test_an_option_of_scipys_that_chooses_nothing_says_so_and_changes_nothing(name: str) -> None:
    value: Any = {
        "tr_solver": "lsmr",
        "tr_options": {"btol": 1e-10},
        "jac_sparsity": np.eye(1),
        "workers": 2,
    }[name]
    plain = least_squares(lifted, 2.0)
    with pytest.warns(UserWarning, match=f"{name} is ignored"):
        solution = least_squares(lifted, 2.0, **{name: value})
    np.testing.assert_array_equal(solution.x, plain.x)
    assert solution.nfev == plain.nfev


@pytest.mark.parametrize("method", ["trf", "dogbox", "lm", "auto"])
def test_scipys_methods_mean_the_same_loop(method: str) -> None:
    assert least_squares(lifted, 2.0, method=method).x == least_squares(lifted, 2.0).x


@pytest.mark.parametrize("loss", LOSSES)
def test_the_residuals_of_a_robust_fit_are_not_rescaled(loss: Any) -> None:
    solution = least_squares(lifted, 2.0, loss=loss)
    np.testing.assert_allclose(solution.x, 0, atol=1e-9)
    np.testing.assert_array_equal(solution.fun, lifted(solution.x))


@DIFFERENCED
@pytest.mark.parametrize("stop", [False, True], ids=["goes on", "stops"])
@pytest.mark.parametrize("bounds", [(-np.inf, np.inf), (-8.0, 8.0)], ids=str)
@pytest.mark.parametrize("form", ["intermediate_result", "x"])
def test_a_callback_sees_every_iteration_and_may_stop_the_run(
    form: str, bounds: Any, stop: bool
) -> None:
    seen: list[Any] = []

    def by_result(intermediate_result: Any) -> None:
        by_x(intermediate_result["x"])

    def by_x(x: Any) -> None:
        seen.append(x)
        if stop:
            raise StopIteration

    callback = by_result if form == "intermediate_result" else by_x
    solution = least_squares(rosenbrock, [-2.0, 1.0], bounds=bounds, callback=callback, polish=0)
    assert (solution.status == -2) == stop
    assert (len(seen) == 1) == stop
    np.testing.assert_array_equal(seen[-1], solution.x)


def test_single_precision_residuals_of_a_double_start_are_differenced_by_their_own_round_off() -> (
    None
):
    # scipy's issue 12991: a step for float64 vanished in float32, J was zero, and x0 was called a
    # success
    rng = np.random.default_rng(1978)
    x = np.linspace(0, 1, 100, dtype=np.float32)
    y = rng.random(size=100, dtype=np.float32)

    def residual(p: np.ndarray) -> np.ndarray:
        return ((p[0] + p[1] * x).astype(np.float32) - y).astype(np.float32)

    solution = least_squares(residual, [-1.0, -1.0], "2-point")
    exact = np.linalg.lstsq(np.stack([np.ones(100), x.astype(float)], 1), y.astype(float))[0]
    assert solution.nfev > 2
    np.testing.assert_allclose(solution.x, exact, atol=9e-5)  # scipy's tolerance


def test_single_precision_data_and_a_double_start_end_in_success() -> None:
    # torch computes float64 numbers times float32 vectors in float32: round-off
    # is that of the residuals
    t = torch.linspace(0, 1, 100)
    y = torch.rand(100)
    exact = least_squares(lambda p: p[0] + p[1] * t.double() - y.double(), [1.0, 1.0])
    solution = least_squares(lambda p: p[0] + p[1] * t - y, [1.0, 1.0])
    assert solution.fun.dtype == np.float32
    assert solution.success
    assert solution.nfev <= exact.nfev + 2  # it is polished, which the other need not be
    np.testing.assert_allclose(solution.x, exact.x, rtol=1e-5)


def test_a_start_near_the_solution_is_not_left_for_a_worse_point() -> None:
    answer, start = 1e-12, 1.1e-12  # scipy's issues 18793 and 19351
    solution = least_squares(lambda x: (x - answer) ** 2, start, gtol=1e-15, bounds=(0, np.inf))
    assert abs(solution.x[0] - answer) <= abs(start - answer)


def test_a_start_on_its_bound_is_left_to_the_inside() -> None:
    # scipy's issue 19103, on counts of a growing signal
    y = np.array([0.0] * 66 + [
        1, 0, 0, 0, 0, 0, 1, 1, 0, 0, 1, 1, 1, 1, 0, 0, 0, 1, 0, 0, 2, 1, 0, 3, 1, 6, 5, 0, 0, 2,
        8, 4, 4, 6, 9, 7, 2, 7, 8, 2, 13, 9, 8, 11, 10, 13, 14, 19, 11, 15, 18, 26, 19, 32, 29, 28,
        36, 32, 35, 36, 43, 52, 32, 58, 56, 52, 67, 53, 72, 88, 77, 95, 94, 84, 86, 101, 107, 108,
        118, 96, 115, 138, 137,
    ])  # fmt: skip
    x = np.arange(y.size) * 0.1

    def residual(p: np.ndarray) -> np.ndarray:
        return p[0] * np.exp(p[1] * (x - p[2])) - y

    bounds = ([0.01, 0, 0], [np.inf, 10, 20.9])
    solution = least_squares(residual, [0.01, 1.0, 5.0], "2-point", bounds=bounds)
    theirs = scipy.optimize.least_squares(
        residual, [0.01, 1.0, 5.0], bounds=bounds, x_scale="jac", max_nfev=10_000
    )
    assert solution.success
    assert solution.cost <= theirs.cost * (1 + 1e-6)


@pytest.mark.parametrize(
    "jac",
    [None, "2-point", "3-point", lifted_jacobian],
    ids=["exact", "2-point", "3-point", "given"],
)
def test_a_minimum_where_the_jacobian_vanishes_and_residuals_remain_is_a_success(jac: Any) -> None:
    # no cosine tells this point from a plateau where the fit has lost its
    # parameters; its curvature does
    solution = least_squares(lifted, 2.0, jac)
    np.testing.assert_allclose(solution.x, 0, atol=1e-4 if jac == "2-point" else 1e-7)
    assert solution.cost == pytest.approx(12.5, rel=1e-9)
    assert solution.status is Status.MINIMUM
    assert solution.success


def test_a_warning_points_to_the_line_that_called() -> None:
    with pytest.warns(FallbackWarning) as caught:
        least_squares(rosenbrock, [-2.0, 1.0])
    assert caught[0].filename == __file__


def test_input_errors_are_value_errors_as_scipys() -> None:
    assert issubclass(InputError, ValueError)
    assert lmtorch.least_squares is least_squares


@pytest.mark.parametrize("name", ["svd", "qr", "cholesky", "dual"])
def test_a_solver_by_name_does_what_the_object_does(name: str) -> None:
    t = torch.linspace(0, 4, 30, dtype=torch.float64)
    y = 2.5 * torch.exp(-1.3 * t) + 0.01 * torch.cos(7 * t)
    fun = lambda x: x[0] * torch.exp(-x[1] * t) - y
    one, other = (
        lmtorch.least_squares(fun, [1.0, 1.0], solver=solver)
        for solver in (name, lmtorch.choose.SOLVERS[name])
    )
    assert (one.nfev, one.njev, one.x.tolist()) == (other.nfev, other.njev, other.x.tolist())


def test_an_entry_that_waits_is_made_once_however_it_is_asked_for() -> None:
    def waiting() -> tuple[Solution, list[int]]:
        made: list[int] = []
        late = Later(lambda: made.append(1) or "there")
        return Solution(x=1, message=late, cost=2), made

    plain = {"x": 1, "message": "there", "cost": 2}
    ways: list[Callable[[Solution], Any]] = [
        dict,
        copy.copy,
        copy.deepcopy,
        Solution.copy,
        lambda s: {**s},
        lambda s: dict(s.items()),
        lambda s: dict(zip(s, s.values(), strict=True)),
        lambda s: {name: s.get(name) for name in s},
        lambda s: {name: getattr(s, name) for name in s},
        lambda s: {name: s.setdefault(name, 0) for name in s},
        lambda s: {name: s.pop(name) for name in tuple(s)},
        lambda s: dict(reversed([s.popitem() for _ in range(3)])),
    ]
    for way in ways:
        solution, made = waiting()
        assert way(solution) == plain
        assert made == [1]
    solution, made = waiting()
    assert "message" in solution
    assert len(solution) == 3
    assert not made  # nobody has asked yet
    assert repr(solution) == repr(scipy.optimize.OptimizeResult(plain))
    solution, made = waiting()
    solution.message = "set"
    assert (solution.message, made) == ("set", [])


def test_the_messages_of_a_batch_are_those_of_its_problems() -> None:
    starts = torch.tensor([[1.0], [2.0], [4.0]], dtype=F64)
    many = least_squares(lambda x, a: x**2 - a - 3, starts, args=(starts[:, 0],), in_dims=(0, 0))
    each = [least_squares(lambda x, a: x**2 - a - 3, s, args=(s[0],)).message for s in starts]
    assert many.message == each


def test_autocast_round_a_fit_takes_no_digits_from_it():
    torch.manual_seed(0)
    rows = torch.randn(200, 5)
    truth = torch.randn(5)

    def residual(x):
        return rows @ x - rows @ truth

    with torch.autocast("cpu", torch.bfloat16):
        solution = least_squares(residual, torch.zeros(5))
    assert torch.allclose(solution.x, truth, rtol=0, atol=1e-5)  # bfloat16 has three digits
