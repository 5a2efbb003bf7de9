"""Powers and roots of zero: fun is a number there, and its exact derivatives are none."""

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import least_squares as scipys

from lmtorch import Status, least_squares, leastsq
from lmtorch._errors import FallbackWarning

T = np.linspace(0, 10, 40)  # zero is the first
Y = 2 * np.exp(-((T / 3) ** 0.6)) + 0.01 * np.random.default_rng(0).normal(size=40)
START = [1.0, 1.0, 0.5]


def residual(p: Any, t: Any, y: Any) -> Any:
    return p[0] * torch.exp(-((t / p[1]) ** p[2])) - y


def of_numpy(p: Any, t: Any, y: Any) -> Any:
    return p[0] * np.exp(-((t / p[1]) ** p[2])) - y


EXPECTED = scipys(of_numpy, [2, 3, 0.6], args=(T, Y), xtol=1e-14, ftol=1e-14, gtol=1e-14).x


@pytest.mark.parametrize("compiled", [False, "auto"])
@pytest.mark.parametrize("kind", [np.asarray, torch.tensor])
def test_a_stretched_exponential_is_minimised_from_time_zero_on(kind: Any, compiled: Any) -> None:
    given = (torch.tensor(T), torch.tensor(Y))
    for _ in range(2):
        with pytest.warns(FallbackWarning, match="not finite, first of residual 0, where fun"):
            found = least_squares(residual, kind(START), args=given, compile=compiled)
        assert found.success
        np.testing.assert_allclose(np.asarray(found.x), EXPECTED, rtol=1e-6)
        assert np.isfinite(np.asarray(found.jac)).all()


def test_a_root_of_zero_is_no_end() -> None:
    """√(p₀ t) at t = 0 is zero whatever p₀ is; √p₀ and p₁ are those of a line in √t."""
    y = 1 + 2 * np.sqrt(T) + 0.01 * np.random.default_rng(1).normal(size=40)
    t, data = torch.tensor(T), torch.tensor(y)
    with pytest.warns(FallbackWarning, match="residual 0"):
        found = least_squares(lambda p: torch.sqrt(p[0] * t) + p[1] - data, [1.0, 0.0])
    slope, level = np.linalg.lstsq(np.stack([np.sqrt(T), np.ones(40)], -1), y, rcond=None)[0]
    assert found.success
    np.testing.assert_allclose(found.x, [slope**2, level], rtol=1e-6)


def test_a_batch_is_minimised_from_time_zero_on() -> None:
    data = torch.tensor(np.stack([Y, 3 * Y, -Y]))
    with pytest.warns(FallbackWarning, match="residual 0"):
        found = least_squares(
            residual, torch.tensor(START), args=(torch.tensor(T), data), in_dims=(None, None, 0)
        )
    assert found.success.all()
    sizes = torch.tensor([1.0, 3.0, -1.0])
    np.testing.assert_allclose(found.x[:, 0] / sizes, np.full(3, EXPECTED[0]), rtol=1e-5)


def test_leastsq_goes_on_as_well() -> None:
    with pytest.warns(FallbackWarning, match="residual 0"):
        x, ier = leastsq(residual, START, args=(torch.tensor(T), torch.tensor(Y)))
    assert ier in (1, 2, 3, 4)
    np.testing.assert_allclose(x, EXPECTED, rtol=1e-6)


def test_who_insists_on_a_way_to_derivatives_has_it() -> None:
    given = (torch.tensor(T), torch.tensor(Y))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = least_squares(residual, START, jac="forward", args=given)
    assert found.status is Status.NOT_FINITE


def test_derivatives_that_differences_do_not_mend_are_told_by_the_status() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = least_squares(lambda p: torch.sqrt(-(p**2)) + 1, [0.0])
    assert found.status is Status.NOT_FINITE
