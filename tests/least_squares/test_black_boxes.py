"""Functions that torch cannot differentiate, and what comes back in which type."""

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.sparse
import torch
from scipy.sparse.linalg import aslinearoperator
from torch import Tensor

from lmtorch import FallbackWarning, InputError, least_squares

from ..references import scipy_solution
from .setting import F64, Counted, T, decay, noisy

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


def warned(function: Callable[..., Any], start: Any, *args: Any, **options: Any) -> tuple[Any, list[str]]:
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
    np.testing.assert_allclose(solution.x, EXPECTED, rtol=1e-6 if jac == "2-point" else 1e-8)


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
    "math and float()": lambda x: x[0] * torch.exp(-math.exp(float(x[1])) * T) - 2 * torch.exp(-1.5 * T),
    ".item()": lambda x: x[0] * torch.exp(-x[1].exp().item() * T) - 2 * torch.exp(-1.5 * T),
    ".detach()": lambda x: x[0] * torch.exp(-x.detach()[1].exp() * T) - 2 * torch.exp(-1.5 * T),
    ".numpy()": lambda x: (
        x[0] * torch.from_numpy(np.exp(-np.exp(x.detach().numpy()[1]) * T.numpy())) - 2 * torch.exp(-1.5 * T)
    ),
    "a tensor made anew": lambda x: (
        x[0] * torch.exp(-torch.tensor([float(x[1])], dtype=F64).exp() * T) - 2 * torch.exp(-1.5 * T)
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
        least_squares(lambda x: torch.cat([(x["a"] - 1)[None], x["rates"][:1] - 2, x["rates"].detach()[1:] - 3]), start)


@pytest.mark.parametrize("start", [[0.0, 1.0], [1.0, 0.0]])
def test_a_start_where_a_derivative_vanishes_is_no_black_box(start: list[float]) -> None:
    # x² at 0, cos at 0: nothing is lost, the slope is zero there
    _, messages = warned(lambda x: torch.stack([x[0] ** 2 - 2, x[1].cos() - 0.5]), torch.tensor(start, dtype=F64))
    assert messages == []


def test_a_parameter_without_influence_is_left_as_it_is() -> None:
    solution, messages = warned(lambda x: x[:1] - 3, torch.tensor([1.0, 7.0], dtype=F64))
    assert messages == []
    assert solution.x.tolist() == [3.0, 7.0]


def test_a_parameter_that_another_one_switches_on_is_no_black_box() -> None:
    solution, messages = warned(
        lambda x: x[0] * torch.sin(x[1] * T) - 0.5 * torch.sin(1.2 * T), torch.tensor([0.0, 1.0], dtype=F64)
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
    np.testing.assert_allclose(solution.x, EXPECTED, rtol=1e-8)


def test_a_jacobian_of_a_tree_may_be_a_tree_of_columns() -> None:
    start = {"a": torch.tensor(2.0, dtype=F64), "rest": torch.tensor(START[1:], dtype=F64)}
    function = lambda x: residual(torch.cat([x["a"][None], x["rest"]]))
    solution = least_squares(function, start, torch.func.jacrev(function))
    np.testing.assert_allclose(torch.cat([solution.x["a"][None], solution.x["rest"]]), EXPECTED, rtol=1e-8)


WRONG: dict[str, tuple[Callable[[np.ndarray], Any], str]] = {
    "a row too many": (lambda x: np.vstack([jacobian(x), jacobian(x)[:1]]), r"is \(41, 3\); 40 residuals and 3 param"),
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
    solution = least_squares(lambda x: x[0] * np.exp(-x[1] * t) + x[2] - y, np.array(START, dtype=np.float32), jac)
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
    for start in (np.array(START), torch.tensor(START, dtype=F64), torch.tensor(START, dtype=F64, requires_grad=True)):
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
    solution = least_squares(lambda x: x[0] * torch.exp(1j * x[1] * T) - z, torch.tensor([0.5, 1.0], dtype=F64))
    np.testing.assert_allclose(solution.x, [1, 1.3], rtol=1e-8)
    assert solution.fun.shape == (80,)


def test_numpy_code_with_complex_residuals_is_fitted_too() -> None:
    t = T.numpy()
    solution = least_squares(lambda x: x[0] * np.exp(1j * x[1] * t) - np.exp(1.3j * t), [0.5, 1.0], "3-point")
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

    solution = least_squares(function, [1.0, 1.0], args=("linear", {"goal": 3.0}), kwargs={"flag": True})
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

    options: dict[str, Any] = {"argument": {"args": (y,)}, "keyword": {"kwargs": {"y": y}}, "closure": {}}[way]
    solution = least_squares(f, START, derivatives if jac else None, **options)
    kept = torch.as_tensor(~left_out)
    known = scipy_solution(lambda x: residual(x)[kept], START)
    np.testing.assert_allclose(solution.x, known.x, rtol=1e-7)
    assert not solution.fun[left_out].any()
    assert not solution.jac[left_out].any()


def test_the_number_of_calls_is_what_the_counts_say() -> None:
    # one to look, at x0; 7 for a central Jacobian of 3 parameters, two of them at the end, for the certificate and for
    # the result; one for a trial
    function = Counted(in_numpy)
    solution = least_squares(function, START, "3-point", polish=0)
    assert len(function.points) == 1 + (solution.nfev - 1) + 7 * solution.njev + 2 * 7 + 1


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
