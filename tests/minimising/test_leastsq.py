"""`leastsq` beside scipy's: what goes in, what comes out, and what each calls a success."""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.optimize
import torch

import lmtorch
from lmtorch import InputError
from lmtorch.minimising.leastsq import NUMBERS, OTHER, SUCCESS

T = np.linspace(0, 4, 40)
Y = 2.5 * np.exp(-1.3 * T) + 0.03 * np.random.default_rng(0).standard_normal(40)
START = (1.0, 1.0)


def in_numpy(p: Any, t: Any, y: Any) -> Any:
    return p[0] * np.exp(-p[1] * t) - y


def in_torch(p: Any, t: Any, y: Any) -> Any:
    return p[0] * torch.exp(-p[1] * t) - y


def slopes(p: Any, t: Any, y: Any) -> Any:
    e = np.exp(-p[1] * t)
    return np.stack([e, -p[0] * t * e], 1)


WAYS: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "torch": (in_torch, {}),
    "Dfun": (in_numpy, {"Dfun": slopes}),
    "col_deriv": (in_numpy, {"Dfun": lambda *a: slopes(*a).T, "col_deriv": 1}),
    "epsfcn": (in_numpy, {"epsfcn": 1e-12}),
    "epsfcn below round-off": (in_numpy, {"epsfcn": 0.0}),
    "factor and diag": (in_numpy, {"Dfun": slopes, "factor": 0.1, "diag": (1, 2)}),
}


@pytest.mark.parametrize("way", WAYS)
def test_it_returns_what_scipy_s_returns(way: str) -> None:
    func, options = WAYS[way]
    x, cov, info, message, ier = lmtorch.leastsq(func, START, (T, Y), full_output=True, **options)
    there = scipy.optimize.leastsq(in_numpy, START, (T, Y), Dfun=slopes, full_output=True)
    # both end where the sum changes by less than 1.5e-8 of it, which is 1e-4 of an error bar
    assert np.allclose(x, there[0], rtol=0, atol=1e-4 * np.sqrt(np.diag(there[1])) * 0.03)
    assert np.allclose(cov, there[1], rtol=1e-4)
    assert ier in (1, 2, 3, 4)
    assert isinstance(message, str)
    assert set(info) == set(there[2]) - (set() if "Dfun" in options else {"njev"})
    assert np.allclose(info["fvec"], in_numpy(x, T, Y))
    assert (info["ipvt"] == there[2]["ipvt"]).all()
    assert info["fjac"].shape == there[2]["fjac"].shape
    R = np.triu(info["fjac"].T[:2])
    J = slopes(x, T, Y)[:, info["ipvt"]]
    assert np.allclose(R.T @ R, J.T @ J, rtol=1e-5)
    # Rᵀ(Qᵀr) = Jᵀr, which vanishes at the end but for round-off and the differences
    assert np.allclose(R.T @ info["qtf"], J.T @ info["fvec"], atol=1e-6)


def test_without_full_output_x_and_ier_come_back() -> None:
    x, ier = lmtorch.leastsq(lambda x: 2 * (x - 3) ** 2 + 1, 0)
    assert (x.shape, ier in (1, 2, 3, 4)) == ((1,), True)
    assert abs(x[0] - 3) < 1e-3  # the sum is flat: a parabola squared


def test_tensors_go_in_and_come_out() -> None:
    start = torch.ones(2, dtype=torch.float64)
    given = (torch.as_tensor(T), torch.as_tensor(Y))
    x, cov, info, *_ = lmtorch.leastsq(in_torch, start, given, full_output=True)
    assert all(isinstance(value, torch.Tensor) for value in (x, cov, *info.values()) if value is
               not info["nfev"])  # fmt: skip
    there = scipy.optimize.leastsq(in_numpy, START, (T, Y), Dfun=slopes, full_output=True)
    assert np.allclose(cov, there[1], rtol=1e-4)


def test_x_is_flat_and_one_further_argument_needs_no_tuple() -> None:
    seen = []

    def func(x: Any, a: Any) -> Any:
        seen.append(x.shape)
        return (x - a) * np.arange(1, 5)

    x, _ = lmtorch.leastsq(func, np.zeros((2, 2)), 2.0, epsfcn=1e-12)
    assert set(seen) == {(4,)}
    assert np.allclose(x, 2)


def test_no_covariance_where_parameters_depend_on_each_other() -> None:
    def func(x: Any) -> Any:
        return (x[0] + x[1]) * torch.linspace(1, 2, 5, dtype=torch.float64) - 1

    _, cov, *_, ier = lmtorch.leastsq(func, START, full_output=True)
    assert cov is None
    assert ier in (1, 2, 3, 4)


@pytest.mark.parametrize("epsfcn", [None, 0.0, 1e-12])
@pytest.mark.filterwarnings("ignore:.*finite differences")
def test_a_variable_that_ends_at_zero_but_for_round_off_has_its_covariance(epsfcn: Any) -> None:
    t = np.linspace(-3.5, 3.5, 15)
    y = np.exp(-(t**2) / 2) / np.sqrt(2 * np.pi)
    y = y.round(4)  # More, Garbow & Hillstrom's Gaussian: an even function, and so is the fit

    def bell(p: Any) -> Any:
        return p[0] * np.exp(-p[1] * (t - p[2]) ** 2 / 2) - y

    x, cov, *_ = lmtorch.leastsq(bell, (0.4, 1.0, 0.0), full_output=True, epsfcn=epsfcn)
    e, away = np.exp(-x[1] * (t - x[2]) ** 2 / 2), t - x[2]
    J = np.stack([e, -x[0] * e * away**2 / 2, x[0] * e * x[1] * away], 1)
    assert np.allclose(cov, np.linalg.inv(J.T @ J), rtol=1e-4, atol=1e-5)


def test_calls_are_counted_and_maxfev_ends_the_run() -> None:
    calls = 0

    def func(p: Any, t: Any, y: Any) -> Any:
        nonlocal calls
        calls += 1
        return in_numpy(p, t, y)

    _, cov, info, message, ier = lmtorch.leastsq(
        func, START, (T, Y), epsfcn=1e-12, maxfev=6, full_output=True
    )
    assert (info["nfev"], ier, cov) == (calls, 5, None)
    assert calls <= 6 + 3  # a step takes a trial and a difference for each parameter
    assert "maxfev" in message
    with pytest.warns(RuntimeWarning, match="maxfev"):
        lmtorch.leastsq(func, START, (T, Y), epsfcn=1e-12, maxfev=6)


def test_a_saddle_is_no_success() -> None:
    # the sum is 1 at (0, 0), where its slope vanishes, and 0 at (±1, 0)
    def func(x: Any) -> Any:
        return np.array([x[0] ** 2 - 1, x[1]])

    def exact(x: Any) -> Any:
        return np.array([[2 * x[0], 0.0], [0.0, 1.0]])

    there, ier = scipy.optimize.leastsq(func, (0.0, 0.0), Dfun=exact)
    assert (there == 0).all()
    assert ier in (1, 2, 3, 4)
    x, ier = lmtorch.leastsq(func, (0.0, 0.0), Dfun=exact)
    assert abs(abs(x[0]) - 1) < 1e-6
    assert ier in (1, 2, 3, 4)


def test_an_end_that_is_no_minimum_has_a_number_of_its_own_and_warns() -> None:
    # the sum falls for ever towards x → ∞, where x has no influence any more
    def runaway(x: Any) -> Any:
        return torch.stack([torch.exp(-x[0]) + 1, x[1] - 1])

    with pytest.warns(RuntimeWarning, match="no minimum"):
        assert lmtorch.leastsq(runaway, (0.0, 0.0))[1] == 9


def test_success_there_is_success_here() -> None:
    for status in lmtorch.Status:
        assert (NUMBERS.get(status, OTHER) in SUCCESS) == status.converged, status


@pytest.mark.parametrize("diag", [(1.0, 100.0), (100.0, 1.0)])
def test_the_first_step_is_no_longer_than_factor_and_diag_allow(diag: tuple[float, float]) -> None:
    seen = []

    def func(x: Any, *args: Any) -> Any:
        seen.append(np.array(x))
        return in_numpy(x, *args)

    lmtorch.leastsq(func, START, (T, Y), Dfun=slopes, factor=0.1, diag=diag)
    first = next(x for x in seen if (x != START).any())
    # the region is met to a tenth, as MINPACK's is
    allowed = 1.1 * 0.1 * np.linalg.norm(np.multiply(diag, START))
    assert np.linalg.norm(np.multiply(diag, first - START)) <= allowed


def test_more_parameters_than_residuals_are_solved_and_have_no_covariance() -> None:
    x, cov, *_, ier = lmtorch.leastsq(lambda x: x.sum().reshape(1) - 1, START, full_output=True)
    assert abs(x.sum() - 1) < 1e-8
    assert cov is None
    assert ier in (1, 2, 3, 4)


@pytest.mark.parametrize("columns", [False, True])
def test_a_jacobian_of_the_wrong_shape_is_refused(columns: bool) -> None:
    def wrong(*a: Any) -> Any:
        return slopes(*a) if columns else slopes(*a).T

    with pytest.raises(InputError, match="Jacobian"):
        lmtorch.leastsq(in_numpy, START, (T, Y), Dfun=wrong, col_deriv=columns)


def test_numpy_code_without_derivatives_warns_of_differences() -> None:
    with pytest.warns(lmtorch.FallbackWarning, match="difference"):
        lmtorch.leastsq(in_numpy, START, (T, Y))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        lmtorch.leastsq(in_numpy, START, (T, Y), epsfcn=1e-12)
