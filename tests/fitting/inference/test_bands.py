"""Confidence and prediction bands: textbook formulas, and how often they hold the truth."""

from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from lmtorch import InputError, curve_fit

from ..setting import INF, UNDETERMINED, T, decay, design, line, noise, noisy, scipys, solved

X = np.linspace(0, 5, 12)
NEW = np.array([-3.0, 0.0, 2.5, 4.0, 40.0])


@pytest.mark.parametrize("level", [0.5, 0.683, 0.95, 0.999])
def test_of_a_straight_line_they_are_the_textbooks(level: float) -> None:
    y = 1.5 * X + 2 + noise(12, 0.4)
    fit = curve_fit(line, X, y)
    slope, intercept = np.polyfit(X, y, 1)
    s = np.sqrt(np.sum((slope * X + intercept - y) ** 2) / 10)
    distance = 1 / 12 + (NEW - X.mean()) ** 2 / np.sum((X - X.mean()) ** 2)
    t = stats.t.ppf((1 + level) / 2, 10)
    for band, spread in ((fit.confidence_band, distance), (fit.prediction_band, 1 + distance)):
        curve, lower, upper = band(NEW, level)
        np.testing.assert_allclose(curve, slope * NEW + intercept, rtol=1e-11)
        np.testing.assert_allclose(upper - curve, t * s * np.sqrt(spread), rtol=1e-10)
        np.testing.assert_allclose(curve - lower, t * s * np.sqrt(spread), rtol=1e-10)


def test_absolute_errors_have_the_quantile_of_the_normal_distribution() -> None:
    y, sigma = 1.5 * X + 2 + noise(12, 0.4), np.linspace(0.2, 0.6, 12)
    fit = curve_fit(line, X, y, sigma=sigma, absolute_sigma=True)
    _, inverse, _ = solved(design(X), y, 1 / sigma)
    variance = ((design(NEW) @ inverse) * design(NEW)).sum(1)
    curve, _, upper = fit.confidence_band(NEW, 0.9)
    np.testing.assert_allclose(upper - curve, stats.norm.ppf(0.95) * np.sqrt(variance), rtol=1e-10)
    curve, _, upper = fit.prediction_band(NEW, 0.9, sigma=0.3)
    np.testing.assert_allclose(
        upper - curve, stats.norm.ppf(0.95) * np.sqrt(variance + 0.09), rtol=1e-10
    )


def test_a_prediction_may_have_an_error_for_each_point() -> None:
    y, sigma = 1.5 * X + 2 + noise(12, 0.4), np.linspace(0.2, 0.6, 12)
    fit = curve_fit(line, X, y, sigma=sigma)  # relative errors: σ is to be multiplied by s
    _, inverse, chisqr = solved(design(X), y, 1 / sigma)
    errors = np.array([0.1, 0.2, 0.3, 0.4, 0.5])
    variance = chisqr / 10 * (((design(NEW) @ inverse) * design(NEW)).sum(1) + errors**2)
    curve, _, upper = fit.prediction_band(NEW, sigma=errors)
    np.testing.assert_allclose(
        upper - curve, stats.t.ppf(0.975, 10) * np.sqrt(variance), rtol=1e-10
    )


def test_of_a_nonlinear_model_they_are_by_the_delta_method() -> None:
    y = noisy()
    fit = curve_fit(decay, T, y)
    popt, pcov = scipys(decay, T, y, [1, 1, 1])
    a, b, c = popt
    e = np.exp(-b * NEW[1:])
    slopes = np.stack([e, -a * NEW[1:] * e, np.ones(4)], 1)
    curve, _, upper = fit.confidence_band(NEW[1:])
    half = stats.t.ppf(0.975, 37) * np.sqrt(((slopes @ pcov) * slopes).sum(1))
    np.testing.assert_allclose(curve, a * e + c, rtol=1e-8)
    np.testing.assert_allclose(upper - curve, half, rtol=1e-7)


def test_a_transform_changes_no_band() -> None:
    y = noisy()
    one = curve_fit(decay, T, y).confidence_band(NEW[1:])
    other = curve_fit(decay, T, y, transforms={"a": "positive", "b": (0.0, 9.0)}).confidence_band(
        NEW[1:]
    )
    for mine, theirs in zip(one, other, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-8)


def test_a_fixed_parameter_adds_nothing() -> None:
    y = noisy()
    one = curve_fit(decay, T, y, fixed={"c": 0.5}).confidence_band(NEW[1:])
    other = curve_fit(lambda t, a, b: decay(t, a, b, 0.5), T, y).confidence_band(NEW[1:])
    for mine, theirs in zip(one, other, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-8)


def test_calling_the_fit_is_the_curve() -> None:
    fit = curve_fit(decay, T, noisy())
    np.testing.assert_allclose(fit(T), fit.best_fit, rtol=1e-13)
    np.testing.assert_allclose(fit(NEW[1:]), decay(torch.as_tensor(NEW[1:]), *fit.popt), rtol=1e-14)


@pytest.mark.parametrize("x", [2.5, 2, [2.5], np.array([2.5]), np.float64(2.5)], ids=repr)
def test_one_point_may_come_as_a_number_or_a_list(x: Any) -> None:
    fit = curve_fit(line, X, 1.5 * X + 2 + noise(12, 0.4))
    np.testing.assert_allclose(fit(x), fit["slope"] * np.ravel(x) + fit["intercept"], rtol=1e-14)


def test_where_the_curve_is_infinite_it_says_so() -> None:
    fit = curve_fit(lambda x, a, b: a / x + b, X[1:], 3 / X[1:] + noise(11, 0.1))
    curve = fit(np.array([0.0, 1.0]))
    assert curve[0] == INF
    assert curve[1] == pytest.approx(fit["a"] + fit["b"], rel=1e-14)


@UNDETERMINED
def test_a_band_is_finite_only_where_the_data_determine_the_curve() -> None:
    x, y = np.full(6, 2.0), 3 + noise(6)
    fit = curve_fit(line, x, y)
    curve, lower, upper = fit.confidence_band([1.0, 2.0, 3.0])
    assert (lower[0], upper[0], lower[2], upper[2]) == (-INF, INF, -INF, INF)
    half = stats.t.ppf(0.975, 4) * np.sqrt(np.sum((y - y.mean()) ** 2) / 4 / 6)
    assert upper[1] - curve[1] == pytest.approx(half, rel=1e-10)


@UNDETERMINED
def test_without_degrees_of_freedom_a_band_is_infinite() -> None:
    _, lower, upper = curve_fit(line, [0.0, 1.0], [1.0, 2.0]).confidence_band(NEW)
    assert (lower == -INF).all()
    assert (upper == INF).all()


@UNDETERMINED
def test_what_no_parameter_moves_is_certain_even_then() -> None:
    curve, lower, upper = curve_fit(lambda x, a: a * x, [2.0], [6.0]).confidence_band([0.0, 1.0])
    assert (lower[0], curve[0], upper[0]) == (0, 0, 0)
    assert upper[1] == INF


# ---- coverage ------------------------------------------------------------------------------------

COUNT = 4000


def binomial(level: float) -> float:
    """Four deviations of the share that COUNT draws have."""
    return 4 * float(np.sqrt(level * (1 - level) / COUNT))


@pytest.mark.parametrize("level", [0.68, 0.95])
@pytest.mark.parametrize("absolute", [False, True])
def test_they_hold_the_truth_as_often_as_they_say(level: float, absolute: bool) -> None:
    x, new = np.linspace(0, 1, 6), np.array([0.0, 0.4, 1.7])
    truth = 2 * new + 1
    fits = curve_fit(
        line, x, 2 * x + 1 + noise((COUNT, 6), 0.3), sigma=0.3, absolute_sigma=absolute
    )
    _, lower, upper = fits.confidence_band(new, level)
    np.testing.assert_allclose(
        ((lower < truth) & (truth < upper)).mean(0), level, atol=binomial(level)
    )
    _, lower, upper = fits.prediction_band(new, level, sigma=0.3)
    measured = truth + noise((COUNT, 3), 0.3, seed=1)
    np.testing.assert_allclose(
        ((lower < measured) & (measured < upper)).mean(0), level, atol=binomial(level)
    )


def test_of_a_mildly_nonlinear_model_they_hold_the_truth_as_often_as_they_say() -> None:
    new = np.array([0.0, 1.0, 3.0])
    fits = curve_fit(decay, T, noisy() - noise(40, 0.05) + noise((COUNT, 40), 0.02, seed=5))
    _, lower, upper = fits.confidence_band(new)
    truth = 2.5 * np.exp(-1.3 * new) + 0.5
    np.testing.assert_allclose(
        ((lower < truth) & (truth < upper)).mean(0), 0.95, atol=binomial(0.95)
    )


# ---- batches, data sets, modules -----------------------------------------------------------------


@pytest.mark.parametrize("lead", [(3,), (2, 3)], ids=str)
def test_a_batch_has_the_bands_of_each(lead: tuple[int, ...]) -> None:
    y = 1.5 * X + 2 + noise((*lead, 12), 0.4)
    fits = curve_fit(line, X, y)
    for name in ("confidence_band", "prediction_band"):
        band = getattr(fits, name)(NEW)
        for index in np.ndindex(*lead):
            one = getattr(curve_fit(line, X, y[index]), name)(NEW)
            for mine, theirs in zip(band, one, strict=True):
                assert mine.shape == (*lead, 5)
                np.testing.assert_allclose(mine[index], theirs, rtol=1e-9)


def test_a_global_fit_has_a_band_for_each_data_set() -> None:
    y = [2 * X + 1 + noise(12, 0.3), 2 * X[:7] - 4 + noise(7, 0.3, seed=1)]
    fit = curve_fit(line, [X, X[:7]], y, shared=["slope"])
    columns = np.zeros((19, 3))  # slope, and an intercept for each
    columns[:, 0] = np.concatenate([X, X[:7]])
    columns[:12, 1], columns[12:, 2] = 1, 1
    solution, inverse, chisqr = solved(columns, np.concatenate(y))
    for place in (0, 1):
        rows = np.stack([NEW, np.full(5, place == 0), np.full(5, place == 1)], 1).astype(float)
        half = stats.t.ppf(0.975, 16) * np.sqrt(chisqr / 16 * ((rows @ inverse) * rows).sum(1))
        curve, lower, upper = fit.confidence_band(NEW, dataset=place)
        np.testing.assert_allclose(curve, rows @ solution, rtol=1e-10)
        np.testing.assert_allclose(upper - lower, 2 * half, rtol=1e-9)


def test_of_a_global_fit_the_data_set_must_be_named() -> None:
    fit = curve_fit(line, [X, X], [X, 2 * X + noise(12)], shared=["slope"])
    with pytest.raises(InputError, match="name one with dataset="):
        fit.confidence_band(NEW)


def test_predictors_in_rows_come_in_rows() -> None:
    x = noise((2, 20))
    y = 2 * x[0] - x[1] + 0.5 + noise(20, 0.1, seed=1)
    fit = curve_fit(lambda x, a, b, c: a * x[0] + b * x[1] + c, x, y)
    new = noise((2, 7), seed=2)
    solution, inverse, chisqr = solved(np.column_stack([*x, np.ones(20)]), y)
    rows = np.column_stack([*new, np.ones(7)])
    curve, _, upper = fit.confidence_band(new)
    half = stats.t.ppf(0.975, 17) * np.sqrt(chisqr / 17 * ((rows @ inverse) * rows).sum(1))
    np.testing.assert_allclose(curve, rows @ solution, rtol=1e-10)
    np.testing.assert_allclose(upper - curve, half, rtol=1e-9)


def test_a_modules_samples_come_in_rows() -> None:
    x = noise((20, 3))
    y = x @ [2.0, -1.0, 0.5] + 0.3 + noise(20, 0.1, seed=1)
    model = nn.Linear(3, 1, dtype=torch.float64)
    fit = curve_fit(model, x, y)
    new = noise((7, 3), seed=2)
    solution, inverse, chisqr = solved(np.column_stack([x, np.ones(20)]), y)
    rows = np.column_stack([new, np.ones(7)])
    curve, _, upper = fit.confidence_band(new)
    half = stats.t.ppf(0.975, 16) * np.sqrt(chisqr / 16 * ((rows @ inverse) * rows).sum(1))
    np.testing.assert_allclose(curve, rows @ solution, rtol=1e-10)
    np.testing.assert_allclose(upper - curve, half, rtol=1e-9)


@pytest.mark.parametrize("level", [0, 1, 95, -0.5])
def test_a_level_is_a_probability(level: float) -> None:
    fit = curve_fit(line, X, X + noise(12))
    with pytest.raises(InputError, match="must be a probability between 0 and 1"):
        fit.confidence_band(NEW, level)
