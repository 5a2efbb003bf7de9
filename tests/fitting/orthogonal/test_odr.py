"""Errors in x and y: scipy.odr's answers, closed forms, and bad input."""

import json
import math
import warnings
from typing import Any

import numpy as np
import pytest
import torch

import lmtorch

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # it is going away: a reason for ours
    from scipy import odr as scipy_odr

# scipy.odr takes derivatives by finite differences: some 1e-8 of the parameters
DIFFERENCES = 3e-7


def decay(x: Any, a: Any, k: Any) -> Any:
    return a * torch.exp(-k * x)


def simulated(
    m: int = 60, seed: int = 1, sx: float = 0.05, sy: float = 0.02
) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    t = np.linspace(0.2, 3, m)
    return t + sx * rng.standard_normal(m), 2 * np.exp(-t) + sy * rng.standard_normal(m)


def by_scipy(f: Any, x: Any, y: Any, p0: Any, sx: Any, sy: Any) -> Any:
    data = scipy_odr.RealData(x, y, sx=sx, sy=sy)
    return scipy_odr.ODR(
        data, scipy_odr.Model(f), beta0=p0, sstol=1e-15, partol=1e-15, maxit=500
    ).run()


@pytest.mark.parametrize(("sx", "sy"), [(0.05, 0.02), (0.5, 0.02), (0.05, 0.2)])
def test_a_decay_is_fitted_as_by_scipy(sx: float, sy: float) -> None:
    x, y = simulated()
    fit = lmtorch.odr(decay, x, y, p0=[1.0, 1.0], sx=sx, sy=sy)
    known = by_scipy(lambda b, t: b[0] * np.exp(-b[1] * t), x, y, [1.0, 1.0], sx, sy)
    assert fit.success
    np.testing.assert_allclose(fit.popt, known.beta, rtol=DIFFERENCES)
    np.testing.assert_allclose(fit.stderr, known.sd_beta, rtol=DIFFERENCES)
    np.testing.assert_allclose(fit.pcov, known.cov_beta * known.res_var, rtol=10 * DIFFERENCES)
    np.testing.assert_allclose(fit.chisqr, known.sum_square, rtol=1e-12)  # a minimum is flat
    np.testing.assert_allclose(fit.delta, known.delta, atol=DIFFERENCES)
    np.testing.assert_allclose(fit.eps, known.eps, atol=DIFFERENCES)
    np.testing.assert_allclose(fit.x_fit, known.xplus, atol=DIFFERENCES)
    np.testing.assert_allclose(fit.best_fit, known.y, atol=DIFFERENCES)


def test_two_predictors_with_errors_of_their_own() -> None:
    rng = np.random.default_rng(0)
    x = rng.uniform(1, 2, (2, 50))
    y = 1.5 * x[0] * x[1] ** 0.7 + 0.05 * rng.standard_normal(50)
    x = x + np.array([[0.03], [0.02]]) * rng.standard_normal((2, 50))
    fit = lmtorch.odr(lambda x, a, k: a * x[0] * x[1] ** k, x, y, sx=[[0.03], [0.02]], sy=0.05)
    known = by_scipy(
        lambda b, x: b[0] * x[0] * x[1] ** b[1], x, y, [1.0, 1.0], np.array([0.03, 0.02]), 0.05
    )
    np.testing.assert_allclose(fit.popt, known.beta, rtol=DIFFERENCES)
    np.testing.assert_allclose(fit.stderr, known.sd_beta, rtol=DIFFERENCES)
    np.testing.assert_allclose(fit.delta, known.delta, atol=DIFFERENCES)


def test_a_straight_line_of_equal_errors_is_the_principal_axis() -> None:
    rng = np.random.default_rng(3)
    t = np.linspace(-2, 2, 40)
    x, y = t + 0.1 * rng.standard_normal(40), 1 + 0.7 * t + 0.1 * rng.standard_normal(40)
    fit = lmtorch.odr(lambda x, a, b: a + b * x, x, y, sx=0.1, sy=0.1)
    sxx, syy, sxy = np.var(x), np.var(y), np.cov(x, y, bias=True)[0, 1]
    slope = (syy - sxx + math.hypot(syy - sxx, 2 * sxy)) / (2 * sxy)  # Deming
    np.testing.assert_allclose(fit["b"], slope, rtol=1e-12)
    np.testing.assert_allclose(fit["a"], y.mean() - slope * x.mean(), rtol=1e-11)


def test_without_errors_in_x_it_is_curve_fit() -> None:
    x, y = simulated()
    fit, plain = (
        lmtorch.odr(decay, x, y, sx=0.0, sy=0.02),
        lmtorch.curve_fit(decay, x, y, sigma=0.02),
    )
    np.testing.assert_allclose(fit.popt, plain.popt, rtol=1e-13)
    np.testing.assert_allclose(fit.pcov, plain.pcov, rtol=1e-10)
    assert not fit.delta.any()


def test_some_exact_x_stay_where_they_are() -> None:
    x, y = simulated()
    sx = np.where(np.arange(60) % 3 == 0, 0.0, 0.05)
    fit = lmtorch.odr(decay, x, y, sx=sx, sy=0.02)
    assert not fit.delta[::3].any()
    assert fit.delta[1::3].all()


@pytest.mark.parametrize("what", ["x", "y", "sx", "sy"])
def test_points_that_are_masked_might_as_well_be_absent(what: str) -> None:
    x, y = simulated()
    left_out = np.arange(60) % 7 == 0
    given: dict[str, Any] = {"x": x, "y": y, "sx": 0.05 + 0.01 * x, "sy": np.full(60, 0.02)}
    known = lmtorch.odr(decay, **{name: value[~left_out] for name, value in given.items()})
    fit = lmtorch.odr(
        decay, **given | {what: np.ma.array(np.where(left_out, -999, given[what]), mask=left_out)}
    )
    np.testing.assert_allclose(fit.popt, known.popt, rtol=1e-9)
    np.testing.assert_allclose(fit.pcov, known.pcov, rtol=1e-7)
    assert fit.ndata == known.ndata
    assert np.isnan(fit.eps[left_out]).all()
    assert np.isnan(fit.x_fit[left_out]).all()
    np.testing.assert_allclose(fit.x_fit[~left_out], known.x_fit, rtol=1e-9)
    assert not fit.delta[left_out].any()


def test_a_point_is_left_out_if_any_of_its_predictors_is_masked() -> None:
    rng = np.random.default_rng(0)
    x = np.ma.array(rng.uniform(1, 2, (2, 50)))
    y = 1.5 * x.data[0] * x.data[1] ** 0.7 + 0.05 * rng.standard_normal(50)
    x[1, 3] = np.ma.masked
    sx = np.ma.array(np.full((2, 50), 0.03), mask=np.zeros((2, 50)))
    sx[0, 5] = np.ma.masked
    kept = ~np.isin(np.arange(50), [3, 5])
    f = lambda x, a, k: a * x[0] * x[1] ** k
    fit, known = (
        lmtorch.odr(f, x, y, sx=sx, sy=0.05),
        lmtorch.odr(f, x.data[:, kept], y[kept], sx=0.03, sy=0.05),
    )
    np.testing.assert_allclose(fit.popt, known.popt, rtol=1e-9)


def test_a_column_of_y_is_one_curve() -> None:
    x, y = simulated()
    fit = lmtorch.odr(decay, x, y[:, None], sx=0.05, sy=np.full((60, 1), 0.02))
    np.testing.assert_allclose(
        fit.popt, lmtorch.odr(decay, x, y, sx=0.05, sy=0.02).popt, rtol=1e-12
    )


def test_numpy_code_is_fitted_by_differences_after_a_warning() -> None:
    x, y = simulated()
    with pytest.warns(lmtorch.FallbackWarning, match="finite differences"):
        fit = lmtorch.odr(lambda x, a, k: a * np.exp(-k * x), x, y, sx=0.05, sy=0.02)
    np.testing.assert_allclose(fit.popt, lmtorch.odr(decay, x, y, sx=0.05, sy=0.02).popt, rtol=1e-7)


def test_tensors_in_tensors_out() -> None:
    x, y = (torch.as_tensor(v) for v in simulated())
    fit = lmtorch.odr(decay, x, y, sx=0.05, sy=0.02)
    popt, pcov = fit
    assert popt.dtype == pcov.dtype == fit.delta.dtype == torch.float64
    assert fit.delta.shape == x.shape


def test_a_parameter_at_its_bound_is_noted() -> None:
    x, y = simulated()
    fit = lmtorch.odr(decay, x, y, sx=0.05, sy=0.02, bounds=([0, 0], [1.9, 5]))
    held = lmtorch.odr(decay, x, y, sx=0.05, sy=0.02, fixed={"a": 1.9})
    assert fit["a"] == 1.9
    np.testing.assert_allclose(fit["k"], held["k"], rtol=1e-12)
    assert "a ended at a bound" in fit.notes[0]
    assert np.isnan(fit.stderr[0])
    np.testing.assert_allclose(fit.chisqr, held.chisqr, rtol=1e-13)
    np.testing.assert_allclose(fit.stderr[1], held.stderr[1], rtol=1e-12)


def test_absolute_errors_need_no_scaling() -> None:
    x, y = simulated()
    scaled, absolute = (
        lmtorch.odr(decay, x, y, sx=0.05, sy=0.02, absolute_sigma=flag) for flag in (False, True)
    )
    np.testing.assert_allclose(scaled.pcov, absolute.pcov * scaled.redchi, rtol=1e-14)


@pytest.mark.slow
def test_errors_of_the_parameters_are_as_wide_as_their_scatter() -> None:
    found, errors = [], []
    for seed in range(200):
        x, y = simulated(40, seed)
        fit = lmtorch.odr(decay, x, y, p0=[2, 1], sx=0.05, sy=0.02, absolute_sigma=True)
        found.append(fit.popt)
        errors.append(fit.stderr)
    ratio = np.std(found, axis=0, ddof=1) / np.mean(errors, axis=0)
    # four standard errors of a standard deviation
    assert (abs(ratio - 1) < 4 / math.sqrt(2 * 199)).all()


def test_a_thousand_points_are_no_matter() -> None:
    x, y = simulated(5000)
    # J written out would take 5000·2 × 5002 numbers
    fit = lmtorch.odr(decay, x, y, sx=0.05, sy=0.02)
    assert fit.success
    assert abs(fit["k"] - 1) < 4 * fit.stderr[1]


def test_the_report_and_the_dict_speak_of_it() -> None:
    x, y = simulated()
    fit = lmtorch.odr(decay, x, y, sx=0.05, sy=0.02)
    assert "R-squared" not in fit.report()
    assert json.loads(fit.to_json())["rsquared"] is None
    lower, upper = fit.confidence_band([0.5, 1.0])[1:]
    assert (lower < upper).all()


def test_a_picture_has_both_errors() -> None:
    pytest.importorskip("matplotlib").use("Agg")
    x, y = simulated()
    above = lmtorch.odr(decay, x, y, sx=0.05, sy=0.02).plot().axes[0]
    (container,) = above.containers
    assert container.has_xerr
    assert container.has_yerr


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sx": -1.0}, "negative"),
        ({"sx": [1.0, 2.0]}, "does not fit x"),
        ({"sy": 0.0}, "zero, negative"),
        ({"sy": np.eye(60)}, "is a matrix"),
        ({"y": np.ones((2, 60))}, r"f returned \(60,\); of 2 responses"),
        ({"y": np.full(60, np.nan)}, "NaN"),
        ({"x": np.ones(7)}, "as many points as y"),
        ({"p0": [1.0]}, "p0 has 1"),
        ({"p0": [np.nan, 1.0]}, "NaN"),
        ({"bounds": ([3, 0], [1, 1])}, "above its upper"),
        ({"fixed": ["b"]}, "does not have"),
        ({"max_nfev": 0}, "max_nfev=0"),
        ({"x": np.ones(1), "y": np.ones(1)}, "cannot determine"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_bad_input_is_named(change: dict[str, Any], message: str) -> None:
    x, y = simulated()
    with pytest.raises(lmtorch.InputError, match=message):
        lmtorch.odr(**{"f": decay, "x": x, "y": y, "sx": 0.05, "sy": 0.02, **change})


def test_no_minimum_is_an_error() -> None:
    x, y = simulated()
    with pytest.raises(lmtorch.NotConvergedError, match="max_nfev"):
        lmtorch.odr(decay, x, y, p0=[30, 9], sx=0.05, sy=0.02, max_nfev=3)
