"""Functions that torch cannot differentiate, and what comes back in which type."""

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.optimize
import scipy.sparse
import torch
from scipy.sparse.linalg import aslinearoperator
from torch import Tensor

from lmtorch import FallbackWarning, InputError, least_squares

from ..nist import PROBLEMS
from ..problems import CLASSICAL
from ..references import scipy_solution
from .setting import F64, Counted, T, decay, noisy, rosenbrock, rosenbrock_jacobian

START = [2.0, 1.0, 0.1]
Y = noisy()


def residual(x: Any) -> Any:
    """In torch."""
    return decay(x) - Y


def in_numpy(x: np.ndarray) -> np.ndarray:
    return x[0] * np.exp(-x[1] * T.numpy()) + x[2] - Y.numpy()


def jacobian(x: np.ndarray) -> np.ndarray:
    t = T.numpy()
    return np.stack([np.exp(-x[1] * t), -x[0] * t * np.exp(-x[1] * t), np.ones_like(t)], 1)


EXPECTED = scipy_solution(residual, START).x


def warned(
    function: Callable[..., Any], start: Any, *args: Any, **options: Any
) -> tuple[Any, list[str]]:
    """The solution, and what was warned of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", FallbackWarning)
        solution = least_squares(function, start, *args, **options)
    return solution, [str(w.message) for w in caught if issubclass(w.category, FallbackWarning)]


def test_numpy_code_is_fitted_after_one_warning() -> None:
    solution, messages = warned(in_numpy, START)
    assert len(messages) == 1
    assert "finite differences serve" in messages[0]
    np.testing.assert_allclose(solution.x, EXPECTED, rtol=1e-6)
    assert solution.success


@pytest.mark.parametrize("jac", ["2-point", "3-point"])
@pytest.mark.parametrize("function", [in_numpy, residual])
def test_differences_that_were_asked_for_bring_no_warning(function: Any, jac: str) -> None:
    start: Any = np.array(START) if function is in_numpy else torch.tensor(START, dtype=F64)
    solution, messages = warned(function, start, jac)
    assert messages == []
    np.testing.assert_allclose(solution.x, EXPECTED, rtol=1e-6 if jac == "2-point" else 1e-7)


@pytest.mark.parametrize("name", ["auto", "forward", "reverse", "autograd"])
def test_exact_derivatives_of_numpy_code_are_refused_where_they_are_asked_for(name: str) -> None:
    with pytest.raises((InputError, TypeError, RuntimeError)):
        least_squares(in_numpy, START, name)


def test_code_of_operators_alone_has_exact_derivatives_whatever_x0_is() -> None:
    t, y = np.linspace(0, 1, 9), np.linspace(1, 3, 9) ** 2

    def rational(x: Any, t: Any, y: Any) -> Any:
        return x[0] / (1 + x[1] * t) + x[2] * t**2 - y

    begun, messages = warned(rational, [1.0, 0.5, 0.0], args=(t, y), max_nfev=1)
    assert messages == []
    assert isinstance(begun.jac, np.ndarray)
    exact = np.stack([1 / (1 + 0.5 * t), -t / (1 + 0.5 * t) ** 2, t**2], 1)
    np.testing.assert_allclose(begun.jac, exact, rtol=1e-14)


LOST: dict[str, Callable[[Tensor], Tensor]] = {
    "math and float()": lambda x: (
        x[0] * torch.exp(-math.exp(float(x[1])) * T) - 2 * torch.exp(-1.5 * T)
    ),
    ".item()": lambda x: x[0] * torch.exp(-x[1].exp().item() * T) - 2 * torch.exp(-1.5 * T),
    ".detach()": lambda x: x[0] * torch.exp(-x.detach()[1].exp() * T) - 2 * torch.exp(-1.5 * T),
    ".numpy()": lambda x: (
        x[0] * torch.from_numpy(np.exp(-np.exp(x.detach().numpy()[1]) * T.numpy()))
        - 2 * torch.exp(-1.5 * T)
    ),
    "a tensor made anew": lambda x: (
        x[0] * torch.exp(-torch.tensor([float(x[1])], dtype=F64).exp() * T)
        - 2 * torch.exp(-1.5 * T)
    ),
}


@pytest.mark.filterwarnings("ignore:Converting a tensor with requires_grad=True:UserWarning")
@pytest.mark.parametrize("name", LOST)
def test_a_parameter_whose_derivative_gets_lost_on_the_way_is_noticed(name: str) -> None:
    solution, messages = warned(LOST[name], torch.tensor([1.0, 0.0], dtype=F64))
    assert len(messages) == 1
    assert "it depends on x0[1], but no derivative in it does" in messages[0]
    np.testing.assert_allclose(solution.x, [2, math.log(1.5)], rtol=1e-5)


def test_a_leaf_of_a_tree_whose_derivative_gets_lost_is_named() -> None:
    start = {"a": torch.tensor(1.0, dtype=F64), "rates": torch.zeros(2, dtype=F64)}
    with pytest.warns(FallbackWarning, match=r"depends on x0\['rates'\]\[1\]"):
        least_squares(
            lambda x: torch.cat(
                [(x["a"] - 1)[None], x["rates"][:1] - 2, x["rates"].detach()[1:] - 3]
            ),
            start,
        )


@pytest.mark.parametrize("start", [[0.0, 1.0], [1.0, 0.0]])
def test_a_start_where_a_derivative_vanishes_is_no_black_box(start: list[float]) -> None:
    # x² at 0, cos at 0: nothing is lost, the slope is zero there
    _, messages = warned(
        lambda x: torch.stack([x[0] ** 2 - 2, x[1].cos() - 0.5]), torch.tensor(start, dtype=F64)
    )
    assert messages == []


def test_a_parameter_without_influence_is_left_as_it_is() -> None:
    solution, messages = warned(lambda x: x[:1] - 3, torch.tensor([1.0, 7.0], dtype=F64))
    assert messages == []
    assert solution.x.tolist() == [3.0, 7.0]


def test_a_parameter_that_another_one_switches_on_is_no_black_box() -> None:
    solution, messages = warned(
        lambda x: x[0] * torch.sin(x[1] * T) - 0.5 * torch.sin(1.2 * T),
        torch.tensor([0.0, 1.0], dtype=F64),
    )
    assert messages == []
    np.testing.assert_allclose(solution.x, [0.5, 1.2], rtol=1e-8)


JACOBIANS: dict[str, Callable[[np.ndarray], Any]] = {
    "an array": jacobian,
    "a list": lambda x: jacobian(x).tolist(),
    "a tensor": lambda x: torch.from_numpy(jacobian(x)),
    "a sparse array": lambda x: scipy.sparse.csr_array(jacobian(x)),
    "a sparse matrix": lambda x: scipy.sparse.csr_matrix(jacobian(x)),
    "single precision": lambda x: jacobian(x).astype(np.float32),
}


@pytest.mark.parametrize("name", JACOBIANS)
def test_a_jacobian_may_be(name: str) -> None:
    solution, messages = warned(in_numpy, START, JACOBIANS[name])
    assert messages == []
    np.testing.assert_allclose(solution.x, EXPECTED, rtol=1e-7)
    assert isinstance(solution.jac, np.ndarray)


def test_a_jacobian_of_torch_functions_gets_tensors() -> None:
    solution = least_squares(residual, torch.tensor(START, dtype=F64), torch.func.jacrev(residual))
    np.testing.assert_allclose(solution.x, EXPECTED, rtol=1e-7)


def test_a_jacobian_of_a_tree_may_be_a_tree_of_columns() -> None:
    start = {"a": torch.tensor(2.0, dtype=F64), "rest": torch.tensor(START[1:], dtype=F64)}
    function = lambda x: residual(torch.cat([x["a"][None], x["rest"]]))
    solution = least_squares(function, start, torch.func.jacrev(function))
    np.testing.assert_allclose(
        torch.cat([solution.x["a"][None], solution.x["rest"]]), EXPECTED, rtol=1e-7
    )


WRONG: dict[str, tuple[Callable[[np.ndarray], Any], str]] = {
    "a row too many": (
        lambda x: np.vstack([jacobian(x), jacobian(x)[:1]]),
        r"is \(41, 3\); 40 residuals and 3 param",
    ),
    "transposed": (lambda x: jacobian(x).T, r"is \(3, 40\)"),
    "three dimensions": (lambda x: jacobian(x)[None], r"is \(1, 40, 3\)"),
    "an operator": (lambda x: aslinearoperator(jacobian(x)), "products alone"),
    "a word": (lambda x: "no", "not a matrix"),
    "nothing": (lambda x: None, "not a matrix"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_jacobian_is_refused(name: str) -> None:
    function, message = WRONG[name]
    with pytest.raises(InputError, match=message):
        least_squares(in_numpy, START, function)


STARTS: dict[str, tuple[Any, type, Any]] = {
    "numbers": (START, np.ndarray, np.float64),
    "integers": ([2, 1, 0], np.ndarray, np.float64),
    "float64 array": (np.array(START), np.ndarray, np.float64),
    "float32 array": (np.array(START, dtype=np.float32), np.ndarray, np.float32),
    "integer array": (np.array([2, 1, 0]), np.ndarray, np.float64),
    "float64 tensor": (torch.tensor(START, dtype=F64), Tensor, torch.float64),
    "float32 tensor": (torch.tensor(START), Tensor, torch.float32),
    "integer tensor": (torch.tensor([2, 1, 0]), Tensor, torch.float64),
}


@pytest.mark.parametrize("jac", [None, "2-point", "3-point"])
@pytest.mark.parametrize("name", STARTS)
def test_results_have_the_kind_and_the_dtype_of_x0(name: str, jac: Any) -> None:
    start, kind, dtype = STARTS[name]

    def plain(x: Any, t: Any) -> Any:
        return x[0] / (1 + x[1] * t) + x[2] - 3 / (1 + 2 * t)

    t: Any = T.numpy() if kind is np.ndarray else T
    if name.startswith("float32"):
        t = t.astype(np.float32) if kind is np.ndarray else t.float()
    solution = least_squares(plain, start, jac, args=(t,))
    for field in ("x", "fun", "jac", "grad"):
        assert isinstance(solution[field], kind), field
        assert solution[field].dtype == dtype, field
    assert isinstance(solution.active_mask, kind)
    assert isinstance(solution.cost, float if kind is np.ndarray else Tensor)
    assert isinstance(solution.optimality, float if kind is np.ndarray else Tensor)
    assert isinstance(solution.nfev, int)
    assert isinstance(solution.success, bool)
    assert isinstance(solution.message, str)
    rough = dtype in (np.float32, torch.float32)
    np.testing.assert_allclose(solution.x, [3, 2, 0], atol=2e-3 if rough else 1e-6)


@pytest.mark.parametrize("jac", ["2-point", "3-point"])
def test_single_precision_differences_find_the_minimum(jac: str) -> None:
    t = T.numpy().astype(np.float32)
    y = Y.numpy().astype(np.float32)
    solution = least_squares(
        lambda x: x[0] * np.exp(-x[1] * t) + x[2] - y, np.array(START, dtype=np.float32), jac
    )
    assert solution.nfev < 20
    np.testing.assert_allclose(solution.x, EXPECTED, rtol=2e-2)  # J is known to ε^½ = 3e-4


def test_a_number_is_a_vector_of_one_as_in_scipy() -> None:
    for start in (2.0, 2, np.float64(2), np.array(2.0)):
        solution = least_squares(lambda x: x - 3, start)
        assert solution.x.shape == (1,)
        assert isinstance(solution.x, np.ndarray)


def test_a_tensor_without_dimensions_stays_one() -> None:
    solution = least_squares(lambda x: (x - 3)[None], torch.tensor(2.0, dtype=F64))
    assert solution.x.shape == ()
    assert solution.jac.shape == (1, 1)


def test_x0_is_left_as_it_was() -> None:
    for start in (
        np.array(START),
        torch.tensor(START, dtype=F64),
        torch.tensor(START, dtype=F64, requires_grad=True),
    ):
        least_squares(lambda x: x - 1, start)
        assert start.tolist() == START


def test_a_function_may_write_into_what_it_is_given() -> None:
    def careless(x: np.ndarray) -> np.ndarray:
        result = in_numpy(x)
        x[:] = 0
        return result

    np.testing.assert_allclose(least_squares(careless, START, "3-point").x, EXPECTED, rtol=1e-7)


def test_the_last_evaluations_are_not_of_another_point() -> None:
    # what a function returns may be its own buffer, written anew at each call
    buffer = np.empty(len(T))

    def reusing(x: np.ndarray) -> np.ndarray:
        buffer[:] = in_numpy(x)
        return buffer

    np.testing.assert_allclose(least_squares(reusing, START, "3-point").x, EXPECTED, rtol=1e-7)


def test_complex_residuals_count_by_their_real_and_imaginary_parts() -> None:
    z = torch.exp(1j * 1.3 * T)
    solution = least_squares(
        lambda x: x[0] * torch.exp(1j * x[1] * T) - z, torch.tensor([0.5, 1.0], dtype=F64)
    )
    np.testing.assert_allclose(solution.x, [1, 1.3], rtol=1e-8)
    assert solution.fun.shape == (80,)


def test_numpy_code_with_complex_residuals_is_fitted_too() -> None:
    t = T.numpy()
    solution = least_squares(
        lambda x: x[0] * np.exp(1j * x[1] * t) - np.exp(1.3j * t), [0.5, 1.0], "3-point"
    )
    np.testing.assert_allclose(solution.x, [1, 1.3], rtol=1e-6)


def test_residuals_may_come_in_a_tree() -> None:
    def function(x: Tensor) -> dict[str, Any]:
        return {"fit": residual(x), "prior": (0.1 * x, [x[:1] - 2])}

    solution = least_squares(function, torch.tensor(START, dtype=F64))
    assert solution.fun.shape == (44,)
    theirs = scipy_solution(lambda x: torch.cat([residual(x), 0.1 * x, x[:1] - 2]), START)
    np.testing.assert_allclose(solution.x, theirs.x, rtol=1e-7)


def test_arguments_that_are_no_numbers_reach_the_function_as_they_are() -> None:
    def function(x: Any, mode: str, table: dict[str, Any], flag: bool = False) -> Any:
        assert mode == "linear"
        assert flag is True
        return x - table["goal"]

    solution = least_squares(
        function, [1.0, 1.0], args=("linear", {"goal": 3.0}), kwargs={"flag": True}
    )
    np.testing.assert_allclose(solution.x, [3, 3])


@pytest.mark.filterwarnings("ignore::lmtorch.FallbackWarning")
@pytest.mark.parametrize("jac", [None, "given"])
@pytest.mark.parametrize("way", ["argument", "keyword", "closure"])
def test_residuals_that_are_masked_are_left_out(way: str, jac: Any) -> None:
    left_out = np.arange(len(Y)) % 5 == 0
    y = np.ma.array(np.where(left_out, 999, Y.numpy()), mask=left_out)

    def f(x: np.ndarray, y: Any = y) -> Any:
        return x[0] * np.exp(-x[1] * T.numpy()) + x[2] - y

    def derivatives(x: np.ndarray, *y: Any, **named: Any) -> Any:
        return np.ma.array(jacobian(x), mask=np.broadcast_to(left_out[:, None], (len(Y), 3)))

    options: dict[str, Any] = {
        "argument": {"args": (y,)},
        "keyword": {"kwargs": {"y": y}},
        "closure": {},
    }[way]
    solution = least_squares(f, START, derivatives if jac else None, **options)
    kept = torch.as_tensor(~left_out)
    known = scipy_solution(lambda x: residual(x)[kept], START)
    np.testing.assert_allclose(solution.x, known.x, rtol=1e-7)
    assert not solution.fun[left_out].any()
    assert not solution.jac[left_out].any()


@pytest.mark.parametrize(("jac", "each"), [("2-point", 3), ("3-point", 6), (jacobian, 0)])
def test_the_number_of_calls_is_what_the_counts_say(jac: Any, each: int) -> None:
    function = Counted(in_numpy)
    solution = least_squares(function, START, jac)
    assert solution.calls == len(function.points) == solution.nfev + each * solution.njev


@pytest.mark.parametrize("jac", ["2-point", "3-point", jacobian])
@pytest.mark.parametrize(
    "options", [{}, {"polish": 5}, {"f_scale": "mad", "loss": "huber"}, {"bounds": ([0] * 3, 9)}]
)
def test_no_point_is_evaluated_twice(jac: Any, options: Any) -> None:
    function = Counted(in_numpy)
    least_squares(function, START, jac, **options)
    assert len({tuple(x) for x in function.points}) == len(function.points)


@pytest.mark.parametrize("jac", ["2-point", "3-point"])
def test_no_point_of_a_problem_of_a_batch_is_evaluated_twice(jac: Any) -> None:
    points: list[Any] = []

    def counted(x: np.ndarray, shift: Any) -> np.ndarray:
        points.append((float(shift), *x))
        return in_numpy(x) + shift * T.numpy()

    solution = least_squares(
        counted, START, jac, args=(np.array([0.0, 0.3, 3.0]),), in_dims=(None, 0)
    )
    assert len(set(points)) == len(points) == solution.calls


def test_a_random_black_box_ends_where_its_own_values_say() -> None:
    rng = np.random.default_rng(0)
    noisy_values = lambda x: in_numpy(x) + 1e-12 * rng.standard_normal(len(T))
    solution = least_squares(noisy_values, START, jacobian)
    assert solution.cost == pytest.approx(0.5 * (solution.fun**2).sum(), rel=1e-14)


CURVES = np.linspace(-3, 3, 50)
CONCENTRATION = np.array([0.02, 0.02, 0.06, 0.06, 0.11, 0.11, 0.22, 0.22, 0.56, 0.56, 1.1, 1.1])
# puromycin, Bates & Watts (1988)
RATE = np.array([76.0, 47, 97, 107, 123, 139, 159, 152, 191, 201, 207, 200])
MISRA = PROBLEMS["Misra1a"]
MISRA_X, MISRA_Y = MISRA.x.numpy(), MISRA.y.numpy()
PEAK = 3 * np.exp(-0.5 * ((CURVES - 0.4) / 0.8) ** 2) + 0.02 * np.random.default_rng(
    1
).standard_normal(50)


def peak_jacobian(x: np.ndarray) -> np.ndarray:
    z = (CURVES - x[1]) / x[2]
    e = np.exp(-0.5 * z**2)
    return np.stack([e, x[0] * e * z / x[2], x[0] * e * z**2 / x[2]], 1)


# function, its Jacobian, a start that is good, bounds
ORDINARY: dict[str, tuple[Any, Any, Any, Any]] = {
    "exponential decay": (in_numpy, jacobian, START, (-np.inf, np.inf)),
    "exponential decay in a box": (in_numpy, jacobian, START, ([0, 0, 0], [10, 5, 5])),
    "rosenbrock": (rosenbrock, rosenbrock_jacobian, [-1.2, 1.0], (-np.inf, np.inf)),
    "gaussian peak": (
        lambda x: x[0] * np.exp(-0.5 * ((CURVES - x[1]) / x[2]) ** 2) - PEAK,
        peak_jacobian,
        [2.5, 0.2, 1.0],
        (-np.inf, np.inf),
    ),
    "Michaelis-Menten": (
        lambda x: x[0] * CONCENTRATION / (x[1] + CONCENTRATION) - RATE,
        lambda x: np.stack(
            [
                CONCENTRATION / (x[1] + CONCENTRATION),
                -x[0] * CONCENTRATION / (x[1] + CONCENTRATION) ** 2,
            ],
            1,
        ),
        [200.0, 0.1],
        (-np.inf, np.inf),
    ),
    "Misra1a": (
        lambda x: x[0] * (1 - np.exp(-x[1] * MISRA_X)) - MISRA_Y,
        lambda x: np.stack(
            [1 - np.exp(-x[1] * MISRA_X), x[0] * MISRA_X * np.exp(-x[1] * MISRA_X)], 1
        ),
        list(MISRA.starts[1]),
        (-np.inf, np.inf),
    ),
}


@pytest.mark.parametrize("jac", ["2-point", "3-point", "own"])
@pytest.mark.parametrize("name", ORDINARY)
def test_a_black_box_is_called_no_more_often_than_by_scipy(name: str, jac: str) -> None:
    fun, own, start, bounds = ORDINARY[name]
    calls = []
    for fit in (least_squares, scipy.optimize.least_squares):
        function, derivative = Counted(fun), Counted(own)
        found: Any = fit(
            function, np.array(start), derivative if jac == "own" else jac,
            bounds=bounds, ftol=1e-8, xtol=1e-8, gtol=1e-8,
        )  # fmt: skip
        assert found.success
        calls.append((len(function.points), len(derivative.points), found))
    (ours, our_jacobians, solution), (theirs, their_jacobians, reference) = calls
    assert ours <= theirs
    assert our_jacobians <= their_jacobians
    assert solution.cost <= reference.cost * (1 + 1e-8) + 1e-20


def test_the_error_of_one_column_hides_no_slope_of_another() -> None:
    problem = CLASSICAL["chebyquad_8"]
    start = 10 * np.array(problem.start)

    def chebyquad(x: Any) -> Any:
        return problem.residual(torch.as_tensor(x)).numpy()

    found = least_squares(chebyquad, start, "2-point", max_nfev=100)
    # the sum has fallen by a thousandth, and J of the last residuals leads on: that is no minimum
    assert found.cost < 1e-3 * float(np.square(chebyquad(start)).sum() / 2)
    assert not found.success or found.cost < 1e-2


def test_errors_of_the_function_come_out_as_they_are() -> None:
    def broken(x: Any) -> Any:
        raise KeyError("gone")

    for start in ([1.0], torch.tensor([1.0])):
        for jac in (None, "2-point", "auto"):
            with pytest.raises(KeyError, match="gone"):
                least_squares(broken, start, jac)


def test_an_error_in_the_middle_of_a_run_comes_out_as_it_is() -> None:
    function = Counted(in_numpy)

    def broken(x: np.ndarray) -> np.ndarray:
        if len(function.points) > 10:
            raise KeyError("gone")
        return function(x)

    with pytest.raises(KeyError, match="gone"):
        least_squares(broken, START, "2-point")
