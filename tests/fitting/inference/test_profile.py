"""Profiles: t intervals for linear models, scipy's scans for others, what R and lmfit print."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib import pyplot
from matplotlib.figure import Figure
from scipy import stats
from scipy.optimize import brentq

from lmtorch import CurveFit, InputError, curve_fit
from lmtorch.fitting.inference.profile import _crossing as crossing

from ..setting import (
    CONCENTRATION,
    INF,
    RATE,
    UNDETERMINED,
    T,
    decay,
    design,
    line,
    michaelis_menten,
    noise,
    noisy,
    scipys,
    solved,
)

X = np.linspace(0, 5, 12)


def scanned(
    f: Callable[..., Any],
    x: np.ndarray,
    y: np.ndarray,
    fit: CurveFit,
    name: str,
    side: int,
    *,
    held: int = 0,
    **options: Any,
) -> float:
    """Where S(θ) − S = t² s², by scipy's refits with it fixed; `held` others are at bounds."""
    place, n = fit.names.index(name), len(fit.names) - held
    limit = stats.t.ppf(0.975, len(y) - n)
    points, best = torch.as_tensor(x), np.asarray(fit.popt)
    least = float(np.sum((f(points, *best).numpy() - y) ** 2))

    def beyond(theta: float) -> float:
        def rest(x: Any, *q: Any) -> Any:
            return f(x, *q[:place], theta, *q[place:])

        q, _ = scipys(rest, x, y, np.delete(best, place), **options)
        rise = float(np.sum((rest(points, *q).numpy() - y) ** 2)) - least
        return np.sqrt(max(0, rise) * (len(y) - n) / least) - limit

    step = side * fit.stderr[place] * limit / 2
    end = best[place] + step
    while beyond(end) < 0:
        end += step
    return brentq(beyond, end - step, end, xtol=1e-12, rtol=1e-12)


# ---- linear --------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", [0.5, 0.95, 0.999])
@pytest.mark.parametrize("absolute", [False, True])
def test_of_a_linear_model_the_intervals_are_those_of_student_and_gauss(
    level: float, absolute: bool
) -> None:
    y, sigma = 1.5 * X + 2 + noise(12, 0.4), np.linspace(0.3, 0.5, 12)
    profile = curve_fit(line, X, y, sigma=sigma, absolute_sigma=absolute).profile(level=level)
    solution, inverse, chisqr = solved(design(X), y, 1 / sigma)
    half = (
        stats.norm.ppf((1 + level) / 2)
        if absolute
        else stats.t.ppf((1 + level) / 2, 10) * np.sqrt(chisqr / 10)
    )
    half = half * np.sqrt(np.diag(inverse))
    for name, value, width in zip(("slope", "intercept"), solution, half, strict=True):
        np.testing.assert_allclose(
            profile.intervals[name], (value - width, value + width), rtol=1e-8
        )


def test_of_a_linear_model_tau_is_a_straight_line() -> None:
    y = 1.5 * X + 2 + noise(12, 0.4)
    profile = curve_fit(line, X, y).profile()
    solution, inverse, chisqr = solved(design(X), y)
    for name, value, error in zip(
        profile.tau, solution, np.sqrt(chisqr / 10 * np.diag(inverse)), strict=True
    ):
        np.testing.assert_allclose(
            profile.tau[name], (profile.values[name] - value) / error, rtol=1e-7, atol=1e-7
        )


def test_correlated_errors_are_in_the_profile() -> None:
    mixed = noise((12, 12), seed=3)
    sigma = np.eye(12) + mixed @ mixed.T / 12
    y = 1.5 * X + 2 + noise(12, 0.4)
    fit = curve_fit(line, X, y, sigma=sigma)
    weights, A = np.linalg.inv(sigma), design(X)
    inverse = np.linalg.inv(A.T @ weights @ A)
    solution = inverse @ A.T @ weights @ y
    left = y - A @ solution
    half = stats.t.ppf(0.975, 10) * np.sqrt(left @ weights @ left / 10 * np.diag(inverse))
    profile = fit.profile()
    for name, value, width in zip(fit.names, solution, half, strict=True):
        np.testing.assert_allclose(
            profile.intervals[name], (value - width, value + width), rtol=1e-8
        )


def test_masked_points_stay_out() -> None:
    y = noisy()
    kept = np.arange(40) % 3 != 0
    y[~kept] += 5
    masked, shorter = (
        curve_fit(decay, T, y, mask=kept).profile(),
        curve_fit(decay, T[kept], y[kept]).profile(),
    )
    for name in masked.intervals:
        np.testing.assert_allclose(masked.intervals[name], shorter.intervals[name], rtol=1e-8)


# ---- nonlinear -----------------------------------------------------------------------------------


# the curve through the points at which τ was computed leaves some 1e-6 of a standard error
INTERPOLATED = 1e-5


@pytest.mark.parametrize("side", [0, 1], ids=["lower", "upper"])
@pytest.mark.parametrize("name", ["a", "b", "c"])
def test_the_ends_are_where_scipys_refits_come_to_the_limit(name: str, side: int) -> None:
    t = np.linspace(0, 1, 8)
    y = 2.5 * np.exp(-1.3 * t) + 0.5 + noise(8, 0.03)
    fit = curve_fit(decay, t, y, [2.5, 1.3, 0.5])
    end = scanned(decay, t, y, fit, name, 2 * side - 1)
    error = fit.stderr[fit.names.index(name)]
    assert fit.profile(name).intervals[name][side] == pytest.approx(end, abs=INTERPOLATED * error)


@pytest.mark.parametrize("side", [0, 1], ids=["lower", "upper"])
@pytest.mark.parametrize("name", ["v_max", "k"])
def test_of_puromycin_the_ends_are_where_scipys_refits_come_to_the_limit(
    name: str, side: int
) -> None:
    fit = curve_fit(michaelis_menten, CONCENTRATION, RATE, [200, 0.1])
    end = scanned(michaelis_menten, CONCENTRATION, RATE, fit, name, 2 * side - 1)
    error = fit.stderr[fit.names.index(name)]
    assert fit.profile(name).intervals[name][side] == pytest.approx(end, abs=INTERPOLATED * error)


def test_of_puromycin_the_intervals_are_those_that_r_prints() -> None:
    # confint(nls(rate ~ Vm * conc / (K + conc))); its own interpolation is good to some four digits
    profile = curve_fit(michaelis_menten, CONCENTRATION, RATE, [200, 0.1]).profile()
    np.testing.assert_allclose(profile.intervals["v_max"], (197.30212848, 229.29006490), rtol=2e-4)
    np.testing.assert_allclose(profile.intervals["k"], (0.04692517, 0.08615995), rtol=2e-4)


def test_of_two_exponentials_the_intervals_are_those_that_lmfit_prints() -> None:
    # https://lmfit.github.io/lmfit-py/examples/documentation/confidence_advanced.html
    x = np.linspace(1, 10, 250)
    y = 3 * np.exp(-x / 2) - 5 * np.exp(-(x - 0.1) / 10) + 0.1 * np.random.RandomState(0).randn(250)

    def two(x: Any, a1: Any, a2: Any, t1: Any, t2: Any) -> Any:
        return a1 * torch.exp(-x / t1) + a2 * torch.exp(-(x - 0.1) / t2)

    fit = curve_fit(two, x, y, [3, -4, 1.3, 12])
    printed = {
        "a1": (2.98622, -0.27285, -0.14165, 0.16354, 0.36343),
        "a2": (-4.33526, -0.30440, -0.13219, 0.10689, 0.19684),
        "t1": (1.30994, -0.23392, -0.12494, 0.14660, 0.32369),
        "t2": (11.82403, -1.01937, -0.48813, 0.46045, 0.90439),
    }
    two_sigma, one_sigma = (fit.profile(level=2 * stats.norm.cdf(s) - 1) for s in (2, 1))
    for name, (best, *ends) in printed.items():
        low, high = two_sigma.intervals[name]
        inner = one_sigma.intervals[name]
        np.testing.assert_allclose(fit[name], best, atol=6e-6)
        # as printed
        np.testing.assert_allclose(np.array([low, *inner, high]) - fit[name], ends, atol=2e-5)


def test_tau_has_the_sign_of_its_side_and_vanishes_at_the_fit() -> None:
    fit = curve_fit(decay, T, noisy())
    profile = fit.profile()
    for name in fit.names:
        assert np.all(np.diff(profile.values[name]) > 0)
        side = np.sign(profile.values[name] - profile.best[name])
        np.testing.assert_array_equal(np.sign(profile.tau[name]), side)
        assert profile.best[name] == fit[name]


def test_a_transform_changes_no_interval() -> None:
    y = noisy()
    plain = curve_fit(decay, T, y).profile()
    turned = curve_fit(
        decay, T, y, transforms={"a": "positive", "b": (0.0, 3.0), "c": (-INF, 2.0)}
    ).profile()
    for name, error in zip(plain.intervals, curve_fit(decay, T, y).stderr, strict=True):
        np.testing.assert_allclose(
            turned.intervals[name], plain.intervals[name], rtol=0, atol=INTERPOLATED * error
        )


def test_what_is_fixed_or_tied_stays_so_along_the_profile() -> None:
    y = noisy()
    tied = curve_fit(decay, T, y, fixed={"a": 2.5}, ties={"c": lambda p: p["b"] / 2.6}).profile()
    smaller = curve_fit(lambda t, b: decay(t, 2.5, b, b / 2.6), T, y).profile()
    assert list(tied.intervals) == ["b"]
    np.testing.assert_allclose(tied.intervals["b"], smaller.intervals["b"], rtol=1e-9)


def test_a_global_fit_has_a_profile_of_what_is_shared() -> None:
    y = [2 * X + 1 + noise(12, 0.3), 2 * X[:7] - 4 + noise(7, 0.3, seed=1)]
    fit = curve_fit(line, [X, X[:7]], y, shared=["slope"])
    columns = np.zeros((19, 3))
    columns[:, 0] = np.concatenate([X, X[:7]])
    columns[:12, 1], columns[12:, 2] = 1, 1
    solution, inverse, chisqr = solved(columns, np.concatenate(y))
    half = stats.t.ppf(0.975, 16) * np.sqrt(chisqr / 16 * inverse[0, 0])
    interval = fit.profile("slope").intervals["slope"]
    np.testing.assert_allclose(interval, (solution[0] - half, solution[0] + half), rtol=1e-8)


# ---- open, bounded -------------------------------------------------------------------------------


def test_an_interval_is_open_where_the_data_set_no_limit() -> None:
    # beyond some rate the decay is over before the second point
    t = np.arange(6.0)
    y = np.array([1.0, 0.05, -0.04, 0.02, -0.03, 0.01])
    fit = curve_fit(lambda t, a, rate: a * torch.exp(-rate * t), t, y)
    low, high = fit.profile("rate").intervals["rate"]
    assert high == INF
    assert low == pytest.approx(
        scanned(lambda t, a, rate: a * torch.exp(-rate * t), t, y, fit, "rate", -1), rel=1e-4
    )


def test_an_end_that_is_far_beyond_the_linear_interval_is_found() -> None:
    t = np.arange(6.0)
    y = np.array([1.0, 0.1, -0.04, 0.02, -0.03, 0.01])

    def f(t: Any, a: Any, rate: Any) -> Any:
        return a * torch.exp(-rate * t)

    fit = curve_fit(f, t, y)
    profile = fit.profile("rate")
    end = scanned(f, t, y, fit, "rate", 1)
    assert end - fit["rate"] > 2 * profile.limit * fit.stderr[1]
    # points lie four times as far apart out there
    assert profile.intervals["rate"][1] == pytest.approx(end, rel=1e-4)


@UNDETERMINED
def test_an_undetermined_parameter_has_an_interval_open_on_both_sides() -> None:
    y = 1.5 * X + 2 + noise(12, 0.4)
    profile = curve_fit(lambda x, a, b, c: (a + b) * x + c, X, y).profile()
    assert profile.intervals["a"] == (-INF, INF)
    assert profile.intervals["b"] == (-INF, INF)
    _, inverse, chisqr = solved(design(X), y)
    low, high = profile.intervals["c"]
    half = stats.t.ppf(0.975, 9) * np.sqrt(chisqr / 9 * inverse[1, 1])
    assert (high - low) / 2 == pytest.approx(half, rel=1e-7)


def test_bounds_that_are_far_change_nothing() -> None:
    y = noisy()
    plain, boxed = curve_fit(decay, T, y), curve_fit(decay, T, y, bounds=([0, 0, 0], [9, 9, 9]))
    for name in "abc":
        np.testing.assert_allclose(
            boxed.profile().intervals[name], plain.profile().intervals[name], rtol=1e-8
        )


def test_an_interval_ends_at_a_bound() -> None:
    y = noisy()
    free = curve_fit(decay, T, y).profile("c")
    middle = (free.intervals["c"][0] + free.best["c"]) / 2
    low, high = curve_fit(decay, T, y, bounds={"c": (middle, 2.0)}).profile("c").intervals["c"]
    assert low == pytest.approx(middle, rel=1e-12)
    assert high == pytest.approx(free.intervals["c"][1], rel=1e-6)


def test_of_a_parameter_at_its_bound_the_interval_begins_there() -> None:
    y = noisy()
    fit = curve_fit(decay, T, y, bounds={"c": (0.6, 2.0)})
    assert fit["c"] == 0.6
    low, high = fit.profile("c").intervals["c"]
    assert low == 0.6
    assert 0.6 < high < 0.7


@pytest.mark.parametrize("side", [0, 1], ids=["lower", "upper"])
def test_others_are_kept_inside_their_bounds(side: int) -> None:
    y = noisy()
    fit = curve_fit(decay, T, y, bounds={"c": (0.52, 2.0)})
    assert fit["c"] == 0.52
    end = scanned(decay, T, y, fit, "b", 2 * side - 1, held=1, bounds=([-INF, 0.52], [INF, 2.0]))
    found = fit.profile("b").intervals["b"][side]
    # c leaves its bound on one side, where τ has a kink; scipy approaches a bound from within
    assert found == pytest.approx(end, abs=1e-4 * fit.stderr[1])


@pytest.mark.parametrize("side", [-1.0, 1.0])
@pytest.mark.parametrize(
    ("tau", "between"),
    [
        ([0.0, 1.0, 2.0, 3.0], (1.0, 2.0)),
        ([0.0, 1.2, 0.9, 3.0], (1.0, 3.0)),  # another branch of refits, which is a little worse
        ([0.0, 1.0, 1.0, 3.0], (1.0, 3.0)),
        ([0.0, 2.5, 2.2, 2.9], (0.0, 1.0)),  # the first crossing counts
        ([0.0, 0.5, 1.0, 1.4], (INF, INF)),
    ],
    ids=str,
)
def test_a_tau_that_is_not_monotonic_has_a_crossing_where_it_first_comes_to_the_limit(
    tau: list[float], between: tuple[float, float], side: float
) -> None:
    theta = np.arange(4.0)
    pairs = np.stack([side * theta, side * np.array(tau)], 1)
    found = side * crossing(pairs[np.argsort(pairs[:, 0])], side * 1.5)
    assert between[0] <= found <= between[1]


# ---- asking --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "expected"), [(None, "abc"), ("b", "b"), (["c", "a"], "ca")], ids=str
)
def test_parameters_may_be_named(names: Any, expected: str) -> None:
    profile = curve_fit(decay, T, noisy()).profile(names)
    assert list(profile.intervals) == list(expected)


def test_more_points_are_more_points() -> None:
    fit = curve_fit(line, X, X + noise(12))
    few, many = (fit.profile("slope", points=k) for k in (4, 20))
    assert (len(few.tau["slope"]), len(many.tau["slope"])) == (9, 41)


def test_a_profile_of_tensors_is_that_of_arrays() -> None:
    y = noisy()
    arrays = curve_fit(decay, T, y).profile()
    tensors = curve_fit(decay, torch.as_tensor(T), torch.as_tensor(y)).profile()
    for name in arrays.intervals:
        np.testing.assert_allclose(tensors.intervals[name], arrays.intervals[name], rtol=1e-10)


def test_a_picture_has_an_axis_for_each_parameter() -> None:
    figure = curve_fit(decay, T, noisy()).profile().plot()
    assert isinstance(figure, Figure)
    assert [axis.get_xlabel() for axis in figure.axes] == ["a", "b", "c"]
    pyplot.close(figure)


@pytest.mark.parametrize("name", ["c", "nobody"])
def test_who_does_not_vary_has_no_profile(name: str) -> None:
    fit = curve_fit(decay, T, noisy(), fixed={"c": 0.5})
    said = f"{name!r} does not vary" if name == "c" else f"there is no parameter {name!r}"
    with pytest.raises(InputError, match=said):
        fit.profile(name)


@pytest.mark.parametrize("level", [0, 1, 95])
def test_a_level_is_a_probability(level: float) -> None:
    with pytest.raises(InputError, match="must be a probability"):
        curve_fit(line, X, X + noise(12)).profile(level=level)


def test_a_robust_loss_has_no_profile() -> None:
    with pytest.raises(InputError, match="a profile needs a likelihood"):
        curve_fit(line, X, X + noise(12), loss="huber").profile()


def test_a_batch_has_no_profile_but_its_fits_have() -> None:
    fits = curve_fit(line, X, X + noise((2, 12)))
    with pytest.raises(InputError, match=r"choose it first, fit.at\(index\).profile"):
        fits.profile()
    one = curve_fit(line, X, (X + noise((2, 12)))[1]).profile()
    np.testing.assert_allclose(
        fits.at(1).profile().intervals["slope"], one.intervals["slope"], rtol=1e-8
    )


@UNDETERMINED
def test_without_degrees_of_freedom_there_is_no_profile() -> None:
    with pytest.raises(InputError, match="no degrees of freedom are left"):
        curve_fit(line, [0.0, 1.0], [1.0, 2.0]).profile()
