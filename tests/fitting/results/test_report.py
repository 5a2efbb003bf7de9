"""Reports: what lmfit prints, numbers that can be read back, JSON, values to their digits."""

import json
import math
import re
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lmtorch import CurveFit, curve_fit
from lmtorch.fitting.results.table import with_error

from ..setting import INF, UNDETERMINED, T, decay, line, noise, noisy

# https://lmfit.github.io/lmfit-py/examples/documentation/parameters_basic.html
WAVE_X = np.linspace(0, 15, 301)
WAVE_Y = 5 * np.sin(2 * WAVE_X - 0.1) * np.exp(-(WAVE_X**2) * 0.025) + np.random.RandomState(
    2021
).normal(0, 0.2, 301)
PRINTED_BY_LMFIT = """
[[Fit Statistics]]
    # data points      = 301
    # variables        = 4
    chi-square         = 12.1867036
    reduced chi-square = 0.04103267
    Akaike info crit   = -957.236198
    Bayesian info crit = -942.407756
[[Variables]]
    amp:    5.03088059 +/- 0.04005824 (0.80%) (init = 10)
    decay:  0.02495457 +/- 4.5396e-04 (1.82%) (init = 0.1)
    omega:  2.00026310 +/- 0.00326183 (0.16%) (init = 3)
    shift: -0.10264952 +/- 0.01022294 (9.96%) (init = 0)
[[Correlations]] (unreported correlations are < 0.100)
    C(omega, shift) = -0.7852
    C(amp, decay)   = +0.5840
    C(amp, shift)   = -0.1179
"""


def damped_wave(x: Any, amp: Any, decay: Any, omega: Any, shift: Any) -> Any:
    return amp * torch.sin(x * omega + shift) * torch.exp(-(x**2) * decay)


def wave() -> CurveFit:
    return curve_fit(damped_wave, WAVE_X, WAVE_Y, [10, 0.1, 3, 0])


def statistics(text: str) -> dict[str, float]:
    """`name = number` lines."""
    pairs = re.findall(r"^    (?:# )?([a-zA-Z][\w -]*?) *= (\S+)$", text, re.MULTILINE)
    return {name: float(value) for name, value in pairs if re.match(r"[-+\d.]", value)}


def variables(text: str) -> dict[str, list[float]]:
    """Value, error and start of each parameter."""
    lines = re.findall(
        r"^    ([\w\[\]]+): +(\S+) \+/- (\S+) \(\S+%\).* ?\(init = (\S+)\)$", text, re.MULTILINE
    )
    return {name: [float(number) for number in numbers] for name, *numbers in lines}


def correlations(text: str) -> dict[frozenset[str], float]:
    pairs = re.findall(r"^    C\((\S+), (\S+)\) *= (\S+)$", text, re.MULTILINE)
    return {frozenset(names): float(value) for *names, value in pairs}


def test_the_statistics_are_those_that_lmfit_prints() -> None:
    ours, theirs = statistics(wave().report()), statistics(PRINTED_BY_LMFIT)
    assert len(theirs) == 6
    for name, value in theirs.items():
        assert ours[name] == pytest.approx(value, rel=5e-8), name  # eight digits


def test_the_variables_are_those_that_lmfit_prints() -> None:
    ours, theirs = variables(wave().report()), variables(PRINTED_BY_LMFIT)
    assert list(ours) == list(theirs) == ["amp", "decay", "omega", "shift"]
    for name in theirs:
        # lmfit's finite differences
        np.testing.assert_allclose(ours[name], theirs[name], rtol=2e-5)


def test_the_correlations_are_those_that_lmfit_prints() -> None:
    ours, theirs = correlations(wave().report()), correlations(PRINTED_BY_LMFIT)
    assert len(theirs) == 3
    assert ours.keys() == theirs.keys()
    assert all(ours[pair] == pytest.approx(theirs[pair], abs=1.01e-4) for pair in theirs)


def test_the_numbers_of_a_report_are_those_of_the_fit() -> None:
    fit = curve_fit(decay, T, noisy(), [2, 1, 0.1])
    read = variables(fit.report())
    for i, name in enumerate(fit.names):
        np.testing.assert_allclose(
            read[name], [fit.popt[i], fit.stderr[i], [2, 1, 0.1][i]], rtol=1e-5
        )
    assert statistics(fit.report())["R-squared"] == pytest.approx(fit.rsquared, rel=1e-7)


def test_correlations_below_the_limit_are_left_out() -> None:
    fit = wave()
    assert len(correlations(fit.report(min_correl=0.5))) == 2
    assert correlations(fit.report(min_correl=1)) == {}


def test_statistics_are_their_formulas() -> None:
    y, sigma = noisy(), 0.05 + 0.01 * T
    fit = curve_fit(decay, T, y, sigma=sigma)
    r = (decay(torch.as_tensor(T), *fit.popt).numpy() - y) / sigma
    chisqr = np.sum(r**2)
    mean = np.average(y, weights=sigma**-2)
    expected = {
        "chisqr": chisqr,
        "redchi": chisqr / 37,
        "rsquared": 1 - chisqr / np.sum(((y - mean) / sigma) ** 2),
        "aic": 40 * np.log(chisqr / 40) + 6,
        "bic": 40 * np.log(chisqr / 40) + 3 * np.log(40),
        "ndata": 40,
        "nvarys": 3,
        "nfree": 37,
    }
    for name, value in expected.items():
        assert getattr(fit, name) == pytest.approx(value, rel=1e-12), name
    np.testing.assert_allclose(fit.residual, r, rtol=1e-10, atol=1e-13)
    np.testing.assert_allclose(fit.best_fit, decay(torch.as_tensor(T), *fit.popt), rtol=1e-13)


def test_under_a_covariance_r_squared_is_beside_the_best_constant() -> None:
    mixed = noise((40, 40), seed=2)
    sigma = np.eye(40) + mixed @ mixed.T / 40
    y = noisy()
    fit = curve_fit(decay, T, y, sigma=sigma)
    weights, one = np.linalg.inv(sigma), np.ones(40)
    mean = one @ weights @ y / (one @ weights @ one)
    assert fit.rsquared == pytest.approx(
        1 - fit.chisqr / ((y - mean) @ weights @ (y - mean)), rel=1e-9
    )


def test_masked_points_are_not_counted() -> None:
    y, kept = noisy(), np.arange(40) % 4 != 0
    masked, shorter = curve_fit(decay, T, y, mask=kept), curve_fit(decay, T[kept], y[kept])
    for name in ("ndata", "nfree", "chisqr", "redchi", "rsquared", "aic", "bic"):
        assert getattr(masked, name) == pytest.approx(getattr(shorter, name), rel=1e-9), name
    assert np.isnan(masked.best_fit[~kept]).all()
    assert (masked.residual[~kept] == 0).all()


# ---- roles and notes -----------------------------------------------------------------------------


def line_of(text: str, name: str) -> str:
    return next(row for row in text.splitlines() if row.strip().startswith(f"{name}:"))


def test_a_report_says_who_is_fixed_tied_or_transformed() -> None:
    fit = curve_fit(
        lambda t, a, b, c, d: decay(t, a, b, c + d), T, noisy(), [2.5, 1, 0.2, 0.2],
        fixed=["c"], ties={"d": lambda p: p["b"] / 5}, transforms={"a": "positive", "b": (0.5, 2)},
    )  # fmt: skip
    text = fit.report()
    assert line_of(text, "c").endswith("0.2 (fixed)")
    assert line_of(text, "d").endswith("(tied)")
    assert "(positive) (init = 2.5)" in line_of(text, "a")
    assert "(within (0.5, 2)) (init = 1)" in line_of(text, "b")


@UNDETERMINED
def test_a_report_says_what_is_undetermined() -> None:
    text = curve_fit(lambda x, a, b, c: (a + b) * x + c, T, T + noise(40)).report()
    assert line_of(text, "a").endswith("+/- inf (undetermined) (init = 1)")
    assert "[[Notes]]" in text
    assert "undetermined: changing" in text


def test_a_report_says_who_is_at_a_bound() -> None:
    text = curve_fit(decay, T, noisy(), bounds={"c": (0.6, 2.0)}).report()
    assert "0.6 (at its bound)" in line_of(text, "c")
    assert "c ended at a bound" in text


@UNDETERMINED
def test_without_degrees_of_freedom_a_report_has_no_reduced_chi_square() -> None:
    assert "reduced chi-square = none" in curve_fit(line, [0.0, 1.0], [1.0, 2.0]).report()


def test_a_report_has_the_scale_of_a_robust_loss() -> None:
    text = curve_fit(line, T, T + noise(40), loss="huber", f_scale=0.7).report()
    assert statistics(text)["scale of the loss"] == 0.7


def test_the_report_of_a_batch_has_quantiles() -> None:
    fits = curve_fit(line, T, 2 * T + 1 + noise((50, 40)))
    text = fits.report()
    assert "[[50 Fits]]" in text
    rows = {name: line_of(text, name).split()[1:] for name in fits.names}
    for i, name in enumerate(fits.names):
        expected = [*np.quantile(fits.popt[:, i], (0.05, 0.5, 0.95)), np.median(fits.stderr[:, i])]
        np.testing.assert_allclose([float(word) for word in rows[name]], expected, rtol=1e-2)


# ---- one line ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (2.5031, 0.0049, "2.503(5)"),
        (2.5031, 0.0095, "2.50(1)"),
        (213.4, 6.9, "213(7)"),
        (-0.064123, 0.00828, "-0.064(8)"),
        (1.0, 0.6, "1.0(6)"),
        (1234.5, 67.0, "1230(70)"),
        (1936.15, 200.0, "1900(200)"),
        (5.1e9, 3e7, "5.1e+09 ± 3e+07"),
        (1.5e-12, 2e-14, "1.5e-12 ± 2e-14"),
        (3.0, 0.0, "3"),
        (3.25, INF, "3.25"),
        (3.25, math.nan, "3.25"),
        (math.nan, 0.1, "nan"),
    ],
    ids=str,
)
def test_a_value_is_written_to_the_digits_that_its_error_leaves(
    value: float, error: float, text: str
) -> None:
    assert with_error(value, error) == text


@given(value=st.floats(-1e6, 1e6), exponent=st.floats(-7, 0.9))
def test_what_is_written_is_within_half_a_unit_of_the_error(value: float, exponent: float) -> None:
    error = 10**exponent
    text = with_error(value, error)
    match = re.fullmatch(r"(-?[\d.]+)\((\d)\)", text)
    assert match is not None
    number, digit = match.groups()
    unit = 10.0 ** -len(number.partition(".")[2])
    assert abs(float(number) - value) <= 0.5 * unit * (1 + 1e-6) + 1e-9 * abs(value)
    assert abs(int(digit) * unit - error) <= 0.5 * unit * (1 + 1e-9)


def test_a_fit_in_one_line_has_values_with_errors() -> None:
    assert repr(wave()) == "CurveFit(amp=5.03(4), decay=0.0250(5), omega=2.000(3), shift=-0.10(1))"


def test_a_batch_in_one_line_has_its_size() -> None:
    text = repr(curve_fit(line, T, T + noise((2, 3, 40))))
    assert re.fullmatch(r"CurveFit\(line\(.*\).*, \(2, 3\) fits, 6 converged\)", text)


# ---- dict and JSON -------------------------------------------------------------------------------


def test_a_dict_has_values_errors_starts_roles_and_bounds() -> None:
    fit = curve_fit(
        decay,
        T,
        noisy(),
        [2.5, 1, 0.5],
        fixed=["c"],
        bounds={"a": (0, 10)},
        transforms={"b": "positive"},
    )
    parameters = fit.to_dict()["parameters"]
    assert list(parameters) == ["a", "b", "c"]
    assert [p["role"] for p in parameters.values()] == ["free", "positive", "fixed"]
    assert [p["start"] for p in parameters.values()] == pytest.approx([2.5, 1, 0.5], rel=1e-15)
    assert [p["value"] for p in parameters.values()] == fit.popt.tolist()
    assert [p["stderr"] for p in parameters.values()] == fit.stderr.tolist()
    assert parameters["a"]["bounds"] == [0, 10]
    assert parameters["b"]["bounds"] == [None, None]


@UNDETERMINED
@pytest.mark.parametrize("lead", [(), (3,)], ids=str)
def test_json_comes_back_as_the_dict(lead: tuple[int, ...]) -> None:
    y = 2 * T + 1 + noise((*lead, 40))
    fit = curve_fit(lambda x, a, b, idle: a * x + b, T, y, bounds={"b": (2.0, 3.0)})
    assert json.loads(fit.to_json(indent=1)) == fit.to_dict()


@UNDETERMINED
def test_infinity_and_nan_become_null() -> None:
    fit = curve_fit(
        lambda x, a, b, idle: a * x + b, T, 2 * T + 1 + noise(40, 0.1), bounds={"b": (2.0, 3.0)}
    )
    parameters = json.loads(fit.to_json())["parameters"]
    assert np.isnan(fit.stderr[1])
    assert np.isinf(fit.stderr[2])
    assert [p["stderr"] is None for p in parameters.values()] == [False, True, True]
    assert "NaN" not in fit.to_json()
    assert "Infinity" not in fit.to_json()


def test_a_dict_of_tensors_is_that_of_arrays() -> None:
    y = noisy()
    arrays = curve_fit(decay, T, y).to_dict()
    tensors = curve_fit(decay, torch.as_tensor(T), torch.as_tensor(y)).to_dict()
    assert tensors.keys() == arrays.keys()
    for key in ("chisqr", "aic", "rsquared"):
        assert tensors[key] == pytest.approx(arrays[key], rel=1e-10)
    np.testing.assert_allclose(tensors["covariance"], arrays["covariance"], rtol=1e-8)


def test_a_dict_has_the_message_and_the_status() -> None:
    fit = curve_fit(decay, T, noisy())
    record = fit.to_dict()
    assert record["message"] == fit.message
    assert record["status"] == int(fit.status)
    assert record["success"] is True


def test_values_and_errors_have_names() -> None:
    fit = curve_fit(lambda t, a, b: a + b * t, [0.0, 1.0, 2.0, 3.0], [1.0, 2.1, 2.9, 4.2])
    assert fit.params == {"a": fit.popt[0], "b": fit.popt[1]}
    assert fit.errors == {"a": fit.stderr[0], "b": fit.stderr[1]}


def test_a_module_takes_the_values_back() -> None:
    torch.manual_seed(0)
    module, x = torch.nn.Linear(2, 1, dtype=torch.float64), torch.randn(9, 2, dtype=torch.float64)
    y = x @ torch.tensor([1.0, -2.0], dtype=torch.float64) + 0.5
    module.load_state_dict(curve_fit(module, x, y).params)
    torch.testing.assert_close(module(x)[:, 0], y)


def test_annotations_are_no_part_of_a_models_name() -> None:
    def line(t: torch.Tensor, a: float, b: float = 1.0) -> torch.Tensor:
        return a + b * t

    fit = curve_fit(line, [0.0, 1.0, 2.0], [1.0, 2.1, 2.9])
    assert "line(t, a, b=1.0)\n" in fit.report()


def test_a_batch_with_parameters_at_bounds_has_the_errors_of_the_others() -> None:
    t = np.linspace(0, 1, 9)
    rng = np.random.default_rng(0)
    y = np.stack([1 + t, 2 + t, 1.1 + t]) + 0.1 * rng.standard_normal((3, 9))
    fit = curve_fit(lambda t, a, b: a + b * t, t, y, bounds=([0, -5], [1.5, 5]), p0=[1, 0])
    row = next(line for line in fit.report().splitlines() if line.strip().startswith("a:"))
    assert "(1 at a bound or undetermined)" in row
    assert "nan" not in row


def test_a_batch_says_how_many_fits_do_not_determine_which_parameters():
    x = torch.linspace(0, 1, 30, dtype=torch.float64)
    y = 2 * torch.exp(-3 * x) + 0.01 * torch.sin(50 * x)

    def decay(x, a, b):
        return a * torch.exp(-b * x)

    # of a pixel of zeros a is zero, and b is anything
    mixed = curve_fit(decay, x, torch.stack([y, 2 * y, torch.zeros_like(y)]), [1.0, 1.0])
    assert "1 of the 3 fits that converged do not determine b: these" in mixed.report()
    twice = curve_fit(
        lambda x, a, b, c: decay(x, a + b, c), x, torch.stack([y, 2 * y]), [1.0, 1.0, 1.0]
    )
    assert "2 of the 2 fits that converged do not determine a, b: these" in twice.report()
    sound = curve_fit(decay, x, torch.stack([y, 2 * y]), [1.0, 1.0])
    assert "[[Notes]]" not in sound.report()
