"""Steps of finite differences: parameters of any size, zeros, models that round coarsely."""

from typing import Any

import numpy as np
import pytest
import scipy.optimize
import torch

from lmtorch import curve_fit, least_squares

T = np.linspace(0, 4, 40)
NOISE = np.random.default_rng(0).standard_normal(60)
JAC = ["2-point", "3-point"]


def decay(x: Any, t: Any = T) -> Any:
    return x[0] * np.exp(-x[1] * t) + x[2]


Y = decay((2.5, 1.3, 0.3)) + 0.01 * NOISE[:40]


@pytest.mark.parametrize("jac", JAC)
@pytest.mark.parametrize("unit", [1e-150, 1e-10, 1.0, 1e10, 1e150])
def test_units_of_the_parameters_do_not_matter(unit: float, jac: str) -> None:
    t = unit * T
    fit = curve_fit(
        lambda t, tau, c: np.exp(-t / tau) + c,
        t,
        np.exp(-T / 0.8) + 0.1,
        p0=[0.4 * unit, 0],
        jac=jac,
    )
    np.testing.assert_allclose(fit.popt, [0.8 * unit, 0.1], rtol=1e-6)


@pytest.mark.parametrize("jac", JAC)
@pytest.mark.parametrize("bounded", [False, True])
def test_a_parameter_that_starts_at_zero_may_be_of_any_size(jac: str, bounded: bool) -> None:
    g = np.linspace(-5e-10, 5e-10, 60)
    y = 2 * np.exp(-0.5 * ((g - 0.7e-10) / 1e-10) ** 2) + 0.02 * NOISE
    fun = lambda x: x[0] * np.exp(-0.5 * ((g - x[1]) / x[2]) ** 2) - y
    bounds = ([0, -1e-9, 1e-12], [10, 1e-9, 1e-9]) if bounded else (-np.inf, np.inf)
    solution = least_squares(fun, [1.0, 0.0, 1.5e-10], jac, bounds=bounds)
    scaled = lambda x: fun(x * [1, 1e-10, 1e-10])
    reference = scipy.optimize.least_squares(
        scaled, [1, 0, 1.5], "3-point", ftol=1e-15, xtol=1e-15, gtol=1e-15
    )
    assert solution.success
    np.testing.assert_allclose(solution.x, reference.x * [1, 1e-10, 1e-10], rtol=1e-6)


@pytest.mark.parametrize("jac", JAC)
def test_a_rate_that_starts_at_zero_may_be_large(jac: str) -> None:
    solution = least_squares(
        lambda x: x[0] * np.exp(-1e-10 * x[1] * T) - 2.5 * np.exp(-1.3 * T), [2.0, 0.0], jac
    )
    np.testing.assert_allclose(solution.x, [2.5, 1.3e10], rtol=1e-6)


@pytest.mark.parametrize("jac", JAC)
@pytest.mark.parametrize("start", [1e-300, 1e-16, -1e-8, 0.0])
def test_a_start_next_to_zero_does_not_drown_the_difference(start: float, jac: str) -> None:
    solution = least_squares(lambda x: decay(x) - Y, [2.0, 1.0, start], jac)
    reference = scipy.optimize.least_squares(
        lambda x: decay(x) - Y, [2, 1, 0.1], "3-point", ftol=1e-15, xtol=1e-15, gtol=1e-15
    )
    assert solution.success
    np.testing.assert_allclose(solution.x, reference.x, rtol=1e-5)


@pytest.mark.parametrize("jac", JAC)
@pytest.mark.parametrize("diff_step", [None, 1e-5])
# the first step from -1.4 leads to 0, but for round-off
@pytest.mark.parametrize("start", [-1.4, 2e-16])
def test_a_parameter_that_passes_through_zero_keeps_a_step(
    start: float, diff_step: Any, jac: str
) -> None:
    y = 3 * np.exp(-T / 3) + 0.05 * NOISE[:40]
    fun = lambda u: 5 * (np.sin(u[0]) + 1) * np.exp(-T / 3) - y
    solution = least_squares(fun, [start], jac, diff_step=diff_step)
    reference = scipy.optimize.least_squares(
        fun, [-1.4], "3-point", ftol=1e-15, xtol=1e-15, gtol=1e-15
    )
    assert solution.success
    np.testing.assert_allclose(solution.x, reference.x, rtol=1e-6)


@pytest.mark.parametrize("jac", JAC)
def test_a_parameter_that_ends_at_zero_is_found_there(jac: str) -> None:
    solution = least_squares(lambda x: decay(x) - decay((2.5, 1.3, 0.0)), [2.0, 1.0, 0.5], jac)
    assert solution.success
    np.testing.assert_allclose(solution.x, [2.5, 1.3, 0], rtol=1e-7, atol=1e-10)


SINGLE = {
    "of its parameters": lambda x: (
        decay(x.astype(np.float32), T.astype(np.float32)).astype(np.float64) - Y
    ),
    "of its result": lambda x: decay(x).astype(np.float32) - Y,
}


@pytest.mark.parametrize("jac", JAC)
@pytest.mark.parametrize("name", SINGLE)
def test_a_model_in_single_precision_determines_what_it_does_in_double(name: str, jac: str) -> None:
    solution = least_squares(SINGLE[name], [2.0, 1.0, 0.1], jac)
    reference = least_squares(lambda x: decay(x) - Y, [2.0, 1.0, 0.1], jac)
    assert solution.success
    assert not solution.lost.any()
    np.testing.assert_allclose(solution.x, reference.x, rtol=1e-4)
    # differences over ε^½ of single precision: 3e-4 of a column, ten times that where it is a small
    # one
    np.testing.assert_allclose(solution.jac, reference.jac, rtol=5e-3, atol=5e-3)


@pytest.mark.parametrize("jac", JAC)
def test_a_parameter_without_influence_is_looked_for_and_left_alone(jac: str) -> None:
    solution = least_squares(lambda x: x[0] * np.exp(-T) - 2.5 * np.exp(-T), [2.0, 7.0], jac)
    assert solution.success
    np.testing.assert_allclose(solution.x, [2.5, 7], rtol=1e-8)


def test_on_tensors_too() -> None:
    t = 1e-10 * torch.as_tensor(T)
    fun = lambda x: torch.exp(-t / x[0]) + x[1] - torch.exp(-t / 0.8e-10) - 0.1
    solution = least_squares(fun, torch.tensor([0.4e-10, 0], dtype=torch.float64), "2-point")
    torch.testing.assert_close(
        solution.x, torch.tensor([0.8e-10, 0.1], dtype=torch.float64), rtol=1e-6, atol=0
    )
