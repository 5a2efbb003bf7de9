"""What the data say nothing about has no error: shapes that are not there, and what ran away."""

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import OptimizeWarning

from lmtorch import curve_fit, models, odr

X = np.linspace(0, 10, 101)
FLAT = np.full(101, 3.0)
DECAY = models.Exponential() + models.Constant()


def own(x: Any, a: Any, t: Any, c: Any) -> Any:
    return a * torch.exp(-x / t) + c


@pytest.mark.parametrize(
    ("model", "options", "unknown"),
    [
        (DECAY, {}, {"decay"}),
        (DECAY, {"sigma": 0.01}, {"decay"}),
        (DECAY, {"loss": "huber"}, {"decay"}),
        (own, {"p0": [1, 1, 1]}, {"t"}),
        (models.Lorentzian() + models.Linear(), {}, {"center", "sigma"}),
        (models.Gaussian() + models.Constant(), {}, {"center", "sigma"}),
        (models.Sine() + models.Constant(), {}, {"frequency", "shift"}),
    ],
)
def test_what_belongs_to_an_amplitude_of_nothing_is_undetermined(
    model: Any, options: dict[str, Any], unknown: set[str]
) -> None:
    """The amplitude ends at 1e-16 of the data: the decay beside it had an error of zero."""
    for _ in range(3):  # the third is a fit of a kind that is remembered
        with pytest.warns(OptimizeWarning, match="infinite in part"):
            fit = curve_fit(model, X, FLAT, **options)
        assert {name for name, error in fit.errors.items() if np.isinf(error)} == unknown


def test_it_is_so_in_batches_and_in_each_of_their_fits() -> None:
    curves = np.stack([FLAT, 2 * np.exp(-X / 3) + 1, FLAT / 7])
    fits = curve_fit(DECAY, X, curves)
    assert np.isinf(fits.errors["decay"]).tolist() == [True, False, True]
    assert (fits.errors["c"] < 1e-12).all()
    assert (fits.errors["amplitude"] < 1e-12).all()
    assert np.isinf(fits.at(0).errors["decay"])
    assert fits.at(1).errors["decay"] < 1e-12


def test_it_is_so_with_errors_in_x() -> None:
    x = np.linspace(0.5, 8, 25)
    with pytest.warns(OptimizeWarning, match="changing 1·decay does not"):
        fit = odr(DECAY, x, np.full(25, 3.0), sx=0.05, sy=0.03)
    assert np.isinf(fit.errors["decay"])
    assert np.isfinite(fit.errors["amplitude"])
    assert np.isfinite(fit.errors["c"])


@pytest.mark.parametrize("unit", [1e-120, 1e-16, 1.0, 1e120])
def test_what_is_small_is_not_nothing(unit: float) -> None:
    """Data that are met to the last digit determine all, whatever their unit."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit = curve_fit(models.Exponential(), X, unit * np.exp(-X / 3))
        line = curve_fit(models.Linear(), X, 2 * X)  # an intercept of zero is determined
        peak = curve_fit(
            models.Gaussian() + models.Constant(), X, unit * models.Gaussian()(X, 1, 5, 1)
        )
    assert np.isfinite(fit.stderr).all()
    assert np.isfinite(line.stderr).all()
    assert np.isfinite(peak.stderr).all()


def test_all_that_goes_along_with_what_is_undetermined_is_infinite() -> None:
    """A line by exp: amplitude and offset were infinite, and the decay between them ±0.13."""
    with pytest.warns(OptimizeWarning, match=r"amplitude.*decay.*c does not change"):
        fit = curve_fit(DECAY, X, 2 * X + 1)
    assert np.isinf(fit.stderr).all()
    assert np.allclose(fit.best_fit, 2 * X + 1, atol=1e-4)


def test_growth_is_found_from_the_start_of_a_decay_with_errors_in_x() -> None:
    rng = np.random.default_rng(8)
    x = np.linspace(0.5, 8, 25)
    y = 2 * np.exp(x / 3) + 0.01 * rng.standard_normal(25)
    fit = odr(lambda x, a, t: a * torch.exp(-x / t), x, y, p0=[1, 1], sx=0.01, sy=0.01)
    assert abs(fit["t"] + 3) < 5 * fit.errors["t"]
    fit = odr(own, x, np.exp(x / 9) + 2, p0=[1, 5, 0], sx=0.01, sy=0.01)
    assert fit["t"] == pytest.approx(-9, rel=1e-4)


def test_an_error_a_thousand_times_the_value_is_told() -> None:
    """A peak of noise, narrower than the spacing of the points: any width will do."""
    y = 0.1 * np.random.default_rng(0).standard_normal((2, 101))[1]
    with pytest.warns(OptimizeWarning, match="the data hardly determine amplitude, sigma"):
        fit = curve_fit(models.Voigt() + models.Constant(), X, y)
    assert fit.errors["sigma"] > 1000 * fit["sigma"]


def test_a_factor_that_has_settled_takes_nothing_away() -> None:
    x = torch.linspace(1, 2, 20, dtype=torch.float64)
    with pytest.warns(OptimizeWarning, match="changing 1·u does not change the curve"):
        # at u = 0 all of it vanishes, but that is another curve
        fit = curve_fit(lambda x, b, u: b * x * torch.tanh(1e9 * u), x, 3 * x, p0=[1.0, 1.0])
    assert torch.isfinite(fit.stderr).tolist() == [True, False]
