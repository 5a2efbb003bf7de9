"""Doses and their logarithms, which are mistaken for each other: what is said of it, and when."""

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import OptimizeWarning

from lmtorch import InputError, NotConvergedError, curve_fit, models

LOG = np.arange(-9.0, -4.9, 0.5)
RESPONSE = 2 + 98 / (1 + 10 ** (1.2 * (-7.1 - LOG))) + np.random.default_rng(1).normal(size=9)


def hill(x: Any, bottom: Any, top: Any, ec50: Any, slope: Any) -> Any:
    return bottom + (top - bottom) / (1 + (ec50 / x) ** slope)


def drc(x: Any, b: Any, c: Any, d: Any, e: Any) -> Any:
    return c + (d - c) / (1 + torch.exp(b * (torch.log(x) - torch.log(e))))


def of_logarithm(x: Any, bottom: Any, top: Any, log_ec50: Any, slope: Any) -> Any:
    return bottom + (top - bottom) / (1 + 10 ** (slope * (log_ec50 - x)))


def test_logarithms_given_to_a_power_are_told() -> None:
    """The power is a number at the start, where the exponent is one; its slope is none."""
    with pytest.raises(NotConvergedError, match=r"9 of 9 points where x is negative.*10\*\*x"):
        curve_fit(hill, LOG, RESPONSE, [0, 100, 1e-7, 1])


def test_logarithms_given_to_a_logarithm_are_told() -> None:
    with pytest.raises(InputError, match=r"9 of 9 points where x is negative.*10\*\*x"):
        curve_fit(drc, LOG, RESPONSE, [-1, 0, 100, 1e-7])


def test_logarithms_of_which_some_are_positive_are_told() -> None:
    with pytest.raises(InputError, match=r"6 of 9 points where x is negative"):
        curve_fit(hill, LOG + 6, RESPONSE, [0, 100, 0.1, 1.5])


def test_other_functions_that_are_no_number_are_not_explained_so() -> None:
    x = np.linspace(-1, 1, 9)
    with pytest.raises(InputError) as told:
        curve_fit(lambda x, a, b: a * torch.log(b - x), x, x, [1, 0.5])
    assert "negative" not in str(told.value)
    assert "keep the parameters where the model is defined" in str(told.value)


def test_where_f_is_no_number_at_the_sizes_of_x_either_nothing_is_said_of_doses() -> None:
    """The root needs x ≥ 0, which the points have that are left; its logarithm fails at |x| too."""
    x = np.linspace(-2, 1, 13)
    with pytest.raises(InputError) as told:
        curve_fit(lambda x, a, b: a * torch.sqrt(x) + torch.log(b - x), x, x, [1, 1.5])
    assert "where x is negative" not in str(told.value)


def test_doses_given_to_a_curve_of_their_logarithm_are_told() -> None:
    # its slope grows without end, whose first 10⁶ were a success in a valley
    with pytest.raises(NotConvergedError, match=r"give log10\(x\)"):
        curve_fit(of_logarithm, 10**LOG, RESPONSE, [0, 100, -7, 1])


def test_a_hill_curve_of_negative_doses_is_told() -> None:
    with pytest.warns(OptimizeWarning) as told:
        curve_fit(models.Hill("a_") + models.Constant("b_"), LOG, RESPONSE)
    assert "9 of 9 x are negative" in str(told[0].message)
    assert "Logistic4" in str(told[0].message)


def test_doses_and_logarithms_in_their_place_are_fitted_without_a_word() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        right = curve_fit(of_logarithm, LOG, RESPONSE, [0, 100, -7, 1])
        doses = curve_fit(models.Hill(), 10**LOG, RESPONSE)
        curve = curve_fit(models.Logistic4(), LOG, RESPONSE)
    # all three are one curve
    assert doses["ec50"] == pytest.approx(10 ** right["log_ec50"], rel=1e-6)
    assert curve["center"] == pytest.approx(right["log_ec50"], rel=1e-6)
    assert curve["sigma"] == pytest.approx(1 / (np.log(10) * right["slope"]), rel=1e-6)
