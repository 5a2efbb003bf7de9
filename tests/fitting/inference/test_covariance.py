"""What pcov says: closed forms for linear models, infinity and NaN where nothing is known."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.optimize import OptimizeWarning

from lmtorch import curve_fit

from ..setting import INF, UNDETERMINED, T, decay, design, line, noise, noisy, scipys, solved

SMALL = st.integers(-8, 8).map(float)


def cubic(x: Any, a: Any, b: Any, c: Any, d: Any) -> Any:
    return ((a * x + b) * x + c) * x + d


@given(
    x=arrays(float, 9, elements=SMALL, unique=True),
    y=arrays(float, 9, elements=SMALL),
    sigma=arrays(float, 9, elements=st.floats(0.1, 10)),
)
@pytest.mark.parametrize("absolute", [False, True])
def test_of_a_linear_model_it_is_the_closed_form(
    absolute: bool, x: np.ndarray, y: np.ndarray, sigma: np.ndarray
) -> None:
    popt, pcov = curve_fit(line, x, y, sigma=sigma, absolute_sigma=absolute)
    solution, inverse, chisqr = solved(design(x), y, 1 / sigma)
    scale = 1.0 if absolute else chisqr / 7
    np.testing.assert_allclose(popt, solution, rtol=1e-9, atol=1e-10)
    # of y = 0 numbers below the smallest normal one are left; of data on a line, χ² is round-off
    # for both, a few ε of the weighted data, squared
    rounding = 0.0 if absolute else (1e-15 * np.linalg.norm(y / sigma)) ** 2 * abs(inverse).max()
    np.testing.assert_allclose(
        pcov, scale * inverse, rtol=1e-9, atol=max(1e-12 * scale, rounding, np.finfo(float).tiny)
    )


def test_of_a_polynomial_it_is_the_closed_form() -> None:
    x = np.linspace(-2, 3, 30)
    y = cubic(x, 0.5, -1.0, 2.0, 3.0) + noise(30)
    popt, pcov = curve_fit(cubic, x, y)
    solution, inverse, chisqr = solved(design(x, 3), y)
    np.testing.assert_allclose(popt, solution, rtol=1e-11)
    np.testing.assert_allclose(pcov, chisqr / 26 * inverse, rtol=1e-11)


def test_stderr_and_correlation_are_made_of_it() -> None:
    fit = curve_fit(decay, T, noisy())
    np.testing.assert_allclose(fit.stderr, np.sqrt(np.diag(fit.pcov)), rtol=1e-14)
    np.testing.assert_allclose(
        fit.correlation, fit.pcov / np.outer(fit.stderr, fit.stderr), rtol=1e-14
    )


@given(factor=st.floats(1e-3, 1e3))
def test_absolute_errors_scale_with_sigma_and_relative_ones_do_not(factor: float) -> None:
    y, sigma = noisy(), 0.05 + 0.01 * T
    for absolute, expected in ((True, factor), (False, 1.0)):
        one, other = (
            curve_fit(decay, T, y, sigma=s, absolute_sigma=absolute)
            for s in (sigma, factor * sigma)
        )
        np.testing.assert_allclose(other.stderr, expected * one.stderr, rtol=1e-8)


def test_parameters_in_other_units_have_errors_in_other_units() -> None:
    y, units = noisy(), np.array([1e-6, 1e3, 1e9])
    one = curve_fit(decay, T, y)
    other = curve_fit(
        lambda t, a, b, c: decay(t, a / units[0], b / units[1], c / units[2]), T, y, p0=units
    )
    np.testing.assert_allclose(other.popt, units * one.popt, rtol=1e-8)
    np.testing.assert_allclose(other.stderr, units * one.stderr, rtol=1e-8)


# ---- undetermined --------------------------------------------------------------------------------


@UNDETERMINED
def test_a_parameter_without_influence_is_infinite_and_the_others_are_right() -> None:
    y = noisy()
    _, pcov = curve_fit(lambda t, a, b, c, idle: decay(t, a, b, c), T, y)
    # one degree of freedom less, by the count of parameters
    theirs = scipys(decay, T, y, [1, 1, 1])[1] * 37 / 36
    assert np.isinf(pcov[3]).all()
    assert np.isinf(pcov[:, 3]).all()
    np.testing.assert_allclose(pcov[:3, :3], theirs, rtol=1e-7)


@UNDETERMINED
def test_of_two_parameters_that_count_as_their_sum_both_are_infinite_and_the_third_is_right() -> (
    None
):
    x = np.arange(8.0)
    y = 2 * x + 1 + noise(8, 0.3)
    fit = curve_fit(lambda x, a, b, slope: a + b + slope * x, x, y)
    _, inverse, chisqr = solved(design(x), y)
    assert np.isinf(fit.stderr[:2]).all()
    np.testing.assert_allclose(fit.stderr[2] ** 2, chisqr / 5 * inverse[0, 0], rtol=1e-10)


def parsed(text: str) -> dict[str, float]:
    """1·a -0.5·b as numbers by name."""
    parts = (term.partition("·") for term in text.split())
    return {name: float(number) for number, _, name in parts}


@UNDETERMINED
@pytest.mark.parametrize(
    ("f", "p0", "words"),
    [
        (lambda x, a, b, c: a + b + c * x, [1, 1, 1], {"a": 1.0, "b": -1.0}),
        (lambda x, a, b, c: a + 2 * b + c * x, [1, 1, 1], {"a": 1.0, "b": -0.5}),
        (lambda x, a, b, c: a * x + c, [1, 1, 1], {"b": 1.0}),
    ],
    ids=["sum", "weighted sum", "idle"],
)
def test_undetermined_names_the_combination(
    f: Any, p0: list[float], words: dict[str, float]
) -> None:
    x = np.arange(8.0)
    (text,) = curve_fit(f, x, 2 * x + 1 + noise(8), p0).undetermined
    terms = parsed(text)
    sign = terms[min(terms)]  # a direction has two
    assert {name: value * np.sign(sign) for name, value in terms.items()} == words


@UNDETERMINED
def test_undetermined_names_the_combination_at_the_solution_of_a_nonlinear_model() -> None:
    fit = curve_fit(
        lambda t, a, b, c: a * b * torch.exp(-c * t), T, 6 * np.exp(-T) + noise(40, 0.01), [2, 3, 1]
    )
    (text,) = fit.undetermined
    terms = parsed(text)
    assert set(terms) == {"a", "b"}
    a, b, _ = fit.popt
    assert terms["a"] * b + terms["b"] * a == pytest.approx(0, abs=0.01)  # three digits are printed


def test_of_a_determined_fit_nothing_is_undetermined() -> None:
    fit = curve_fit(decay, T, noisy())
    assert fit.undetermined == []
    assert fit.notes == []


def test_the_warning_says_which_combination_has_no_error() -> None:
    with pytest.warns(
        OptimizeWarning, match="infinite in part: undetermined: changing .*a.*b.* does not change"
    ):
        curve_fit(lambda x, a, b: (a + b) * x, [1, 2, 3, 4], [1, 2, 3, 5])


def test_the_warning_points_to_the_users_line() -> None:
    with pytest.warns(OptimizeWarning) as caught:
        curve_fit(lambda x, a, b: (a + b) * x, [1, 2, 3, 4], [1, 2, 3, 5])
    assert caught[0].filename == __file__


@UNDETERMINED
def test_without_degrees_of_freedom_absolute_errors_are_known() -> None:
    x, y, sigma = np.array([1.0, 3.0]), np.array([2.0, 5.0]), np.array([0.1, 0.2])
    fit = curve_fit(line, x, y, sigma=sigma, absolute_sigma=True)
    np.testing.assert_allclose(fit.pcov, solved(design(x), y, 1 / sigma)[1], rtol=1e-10)


def test_without_degrees_of_freedom_a_note_says_so() -> None:
    with pytest.warns(OptimizeWarning, match="no degrees of freedom"):
        fit = curve_fit(line, [1.0, 3.0], [2.0, 5.0])
    assert any("as many parameters as points" in note for note in fit.notes)


@UNDETERMINED
def test_without_degrees_of_freedom_what_is_fixed_has_no_error() -> None:
    fit = curve_fit(decay, [0, 1], [3, 2], [1, 1, 0], fixed=["c"])
    assert fit.stderr.tolist() == [INF, INF, 0]


# ---- bounds --------------------------------------------------------------------------------------


def test_a_parameter_at_its_bound_has_no_error_and_the_others_are_those_with_it_fixed() -> None:
    y = noisy()
    fit = curve_fit(decay, T, y, bounds={"c": (0.6, 2.0)})
    popt, pcov = scipys(lambda t, a, b: decay(t, a, b, 0.6), T, y, [1, 1])
    assert fit["c"] == 0.6
    assert np.isnan(fit.pcov[2]).all()
    np.testing.assert_allclose(fit.popt[:2], popt, rtol=1e-8)
    np.testing.assert_allclose(fit.pcov[:2, :2], pcov, rtol=1e-7)


@pytest.mark.parametrize("way", ["at a bound", "equal bounds", "fixed"])
def test_a_parameter_that_is_held_takes_no_degree_of_freedom_however_it_is_held(way: str) -> None:
    options: dict[str, Any] = {
        "at a bound": {"p0": [1, 1, 1], "bounds": {"c": (0.6, 2.0)}},
        "equal bounds": {"p0": [1, 1, 0.6], "bounds": {"c": (0.6, 0.6)}},
        "fixed": {"fixed": {"c": 0.6}},
    }[way]
    y = noisy()
    fit = curve_fit(decay, T, y, **options)
    popt, pcov = scipys(lambda t, a, b: decay(t, a, b, 0.6), T, y, [1, 1])
    chisqr = float(np.sum((decay(torch.as_tensor(T), *popt, 0.6).numpy() - y) ** 2))
    assert fit.nfree == 38
    assert fit.redchi == pytest.approx(chisqr / 38, rel=1e-9)
    np.testing.assert_allclose(fit.pcov[:2, :2], pcov, rtol=1e-7)
    # whoever fits c may find it at its bound, and pays for the choice
    assert fit.nvarys == (3 if way == "at a bound" else 2)
    assert fit.aic == pytest.approx(40 * np.log(chisqr / 40) + 2 * fit.nvarys, rel=1e-9)


def test_fits_that_end_at_a_bound_scatter_by_the_points_less_the_others() -> None:
    x = np.linspace(1, 2, 6)
    # half of them end there
    fits = curve_fit(line, x, 3 * x + noise((2000, 6)), bounds={"intercept": (0, INF)})
    held = fits["intercept"] == 0
    for chosen, freedom in ((held, 5), (~held, 4)):
        assert 800 < chosen.sum() < 1200
        assert set(fits.nfree[chosen]) == {freedom}
        # four standard errors of the mean of χ², whose variance is twice the degrees of freedom
        assert abs(fits.chisqr[chosen].mean() - freedom) < 4 * np.sqrt(2 * freedom / chosen.sum())


def test_a_note_says_who_ended_at_a_bound() -> None:
    fit = curve_fit(decay, T, noisy(), bounds={"c": (0.6, 2.0)})
    (note,) = fit.notes
    assert note.startswith("c ended at a bound: no error is given for it")


def test_bounds_that_are_not_reached_change_nothing() -> None:
    y = noisy()
    one, other = curve_fit(decay, T, y), curve_fit(decay, T, y, bounds=([0, 0, 0], [10, 10, 10]))
    np.testing.assert_allclose(one.popt, other.popt, rtol=1e-9)
    np.testing.assert_allclose(one.pcov, other.pcov, rtol=1e-8)


def test_equal_bounds_fix_a_parameter_without_error() -> None:
    y = noisy()
    fit = curve_fit(decay, T, y, [1, 1, 0.5], bounds={"c": (0.5, 0.5)})
    popt, _ = scipys(lambda t, a, b: decay(t, a, b, 0.5), T, y, [1, 1])
    assert fit["c"] == 0.5
    assert fit.pcov[2].tolist() == [0, 0, 0]
    assert fit.notes == []
    np.testing.assert_allclose(fit.popt[:2], popt, rtol=1e-8)


# ---- fixed, tied, transformed --------------------------------------------------------------------


def test_a_fixed_parameter_has_no_error_and_the_others_are_those_of_the_smaller_model() -> None:
    y = noisy()
    fit = curve_fit(decay, T, y, fixed={"c": 0.5})
    popt, pcov = scipys(lambda t, a, b: decay(t, a, b, 0.5), T, y, [1, 1])
    assert fit.pcov[2].tolist() == [0, 0, 0]
    np.testing.assert_allclose(fit.popt[:2], popt, rtol=1e-8)
    np.testing.assert_allclose(fit.pcov[:2, :2], pcov, rtol=1e-7)


def test_a_tied_parameter_has_the_error_of_its_tie() -> None:
    y = noisy((2.5, 1.3, 2.6))
    fit = curve_fit(decay, T, y, ties={"c": lambda p: 2 * p["b"]})
    popt, pcov = scipys(lambda t, a, b: decay(t, a, b, 2 * b), T, y, [1, 1])
    slopes = np.array([[1, 0], [0, 1], [0, 2]])
    np.testing.assert_allclose(fit.popt, slopes @ popt, rtol=1e-8)
    np.testing.assert_allclose(fit.pcov, slopes @ pcov @ slopes.T, rtol=1e-7)


def test_a_tie_that_is_not_linear_has_its_error_by_the_delta_method() -> None:
    y = noisy((2.5, 1.3, 1.69))
    fit = curve_fit(decay, T, y, ties={"c": lambda p: p["b"] ** 2})
    popt, pcov = scipys(lambda t, a, b: decay(t, a, b, b**2), T, y, [1, 1])
    slopes = np.array([[1, 0], [0, 1], [0, 2 * popt[1]]])
    np.testing.assert_allclose(fit.pcov, slopes @ pcov @ slopes.T, rtol=1e-7)


@pytest.mark.parametrize(
    "transform", ["positive", (0.0, 5.0), (1.0, 1.5), (0.5, INF), (-INF, 1.5), (-INF, INF)], ids=str
)
def test_a_transform_changes_neither_fit_nor_errors(transform: Any) -> None:
    y = noisy()
    popt, pcov = scipys(decay, T, y, [1, 1, 1])
    fit = curve_fit(decay, T, y, [2, 1.2, 1], transforms={"b": transform})
    np.testing.assert_allclose(fit.popt, popt, rtol=1e-8)
    np.testing.assert_allclose(fit.pcov, pcov, rtol=1e-7)


@UNDETERMINED
def test_what_is_fixed_is_certain_beside_what_is_undetermined_and_what_is_at_a_bound() -> None:
    fit = curve_fit(
        lambda t, a, b, c, idle: decay(t, a, b, c),
        T,
        noisy(),
        [1, 1, 0.7, 1],
        fixed={"a": 2.5},
        bounds={"c": (0.6, 2)},
    )
    assert fit.pcov[0].tolist() == [0, 0, 0, 0]
    assert np.isnan(fit.pcov[2, 1:]).all()
    assert np.isinf(fit.pcov[3, [1, 3]]).all()
    assert np.isfinite(fit.stderr[1])
