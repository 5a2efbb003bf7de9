"""Powers and roots of zero: f is a number there, and its exact derivatives are none."""

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import curve_fit as scipys

from lmtorch import NotConvergedError, curve_fit
from lmtorch._errors import FallbackWarning

T = np.linspace(0, 10, 40)  # zero is the first
Y = 2 * np.exp(-((T / 3) ** 0.6)) + 0.01 * np.random.default_rng(0).normal(size=40)
SAID = r"not finite at x = 0, where f itself is"


def stretched(t: Any, a: Any, tau: Any, beta: Any) -> Any:
    return a * torch.exp(-((t / tau) ** beta))


def of_numpy(t: Any, a: Any, tau: Any, beta: Any) -> Any:
    return a * np.exp(-((t / tau) ** beta))


EXPECTED, COVARIANCE = scipys(of_numpy, T, Y, [2, 3, 0.6], ftol=1e-14, xtol=1e-14)


@pytest.mark.parametrize("beta", [0.5, 1.0, 1.5])  # only below one is the slope infinite at once
@pytest.mark.parametrize("options", [{}, {"bounds": (0, [9, 99, 3])}], ids=["free", "bounds"])
def test_a_stretched_exponential_is_fitted_from_time_zero_on(beta: float, options: Any) -> None:
    for _ in range(2):
        with pytest.warns(FallbackWarning, match=SAID):
            fit = curve_fit(stretched, T, Y, [1, 1, beta], **options)
        assert fit.success
        np.testing.assert_allclose(fit.popt, EXPECTED, rtol=1e-6)
        np.testing.assert_allclose(fit.pcov, COVARIANCE, rtol=1e-4)  # both by differences


def test_a_batch_is_fitted_from_time_zero_on() -> None:
    curves = np.stack([Y, 3 * Y, -Y])
    with pytest.warns(FallbackWarning, match=SAID):
        fit = curve_fit(stretched, T, curves, [1, 1, 0.5])
    assert fit.success.all()
    np.testing.assert_allclose(fit.popt[:, 0], EXPECTED[0] * np.array([1, 3, -1]), rtol=1e-6)
    np.testing.assert_allclose(fit.popt[:, 1:], np.tile(EXPECTED[1:], (3, 1)), rtol=1e-6)


def test_a_fit_that_came_to_an_end_keeps_its_digits_beside_one_that_has_not() -> None:
    compressed = 2 * np.exp(-((T / 3) ** 1.5))  # whose slopes are finite all the way
    alone = curve_fit(stretched, T, compressed[None] + 0.1 * Y, [1, 2, 1.4])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        both = curve_fit(stretched, T, np.stack([compressed + 0.1 * Y, Y]), [1, 2, 1.4])
    assert both.success.tolist() == [True, False]
    np.testing.assert_allclose(both.popt[0], alone.popt[0], rtol=1e-12)


def test_what_is_asked_of_the_fit_afterwards_is_answered() -> None:
    with pytest.warns(FallbackWarning, match=SAID):
        fit = curve_fit(stretched, T, Y, [1, 1, 0.5])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        low, high = fit.profile("beta").intervals["beta"]
        assert low < EXPECTED[2] < high
        np.testing.assert_allclose(fit.predict(T), of_numpy(T, *fit.popt), rtol=1e-12)


def test_without_the_point_at_zero_derivatives_are_exact() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit = curve_fit(stretched, T[1:], Y[1:], [1, 1, 0.5])
    expected, _ = scipys(of_numpy, T[1:], Y[1:], [2, 3, 0.6], ftol=1e-14, xtol=1e-14)
    np.testing.assert_allclose(fit.popt, expected, rtol=1e-6)


def test_who_insists_on_a_way_to_derivatives_has_it() -> None:
    with pytest.raises(NotConvergedError, match="not finite"):
        curve_fit(stretched, T, Y, [1, 1, 0.5], jac="forward")


def test_where_differences_end_nowhere_the_first_run_is_told() -> None:
    """At a whole exponent a power of negative numbers is one, and a little off it is none."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(NotConvergedError, match="where x is negative"):
            curve_fit(lambda x, a, b: a * x**b, T - 10.1, Y, [1, 1])
