"""Fits of `lmtorch.models`: what a model brings to a fit, and what the call says against it."""

import math
import warnings
from collections.abc import Callable
from typing import Any

import lmfit
import numpy as np
import pytest
import torch

from lmtorch import FallbackWarning, InputError, curve_fit, models, odr
from lmtorch.compiling.keys import key_of

from .setting import T, decay, noise, noisy

X = np.linspace(0, 10, 81)
TWO = models.Gaussian("g") + models.Gaussian("h") + models.Linear()
TRUTH = {
    "g_amplitude": 10.0, "g_center": 3.0, "g_sigma": 0.5,
    "h_amplitude": 5.0, "h_center": 7.0, "h_sigma": 0.4, "slope": 0.3, "intercept": 2.0,
}  # fmt: skip
Y = TWO(X, **TRUTH) + noise(81, 0.1)


def lmfits(**rules: dict[str, Any]) -> Any:
    """The fit of lmfit from the true values, with rules by name."""
    model = (
        lmfit.models.GaussianModel(prefix="g_")
        + lmfit.models.GaussianModel(prefix="h_")
        + lmfit.models.LinearModel()
    )
    params = model.make_params(**TRUTH)
    for name, rule in rules.items():
        params[name].set(**rule)
    return model.fit(Y, params, x=X)


def agree(fit: Any, theirs: Any) -> None:
    """The optimum of lmfit, and its errors, to the digits that its finite differences have."""
    for name in fit.names:
        assert fit[name] == pytest.approx(theirs.params[name].value, rel=1e-5), name
        error = theirs.params[name].stderr or 0.0
        assert fit.errors[name] == pytest.approx(error, rel=2e-3, abs=1e-12), name


# ---- what the model brings -----------------------------------------------------------------------


def test_a_sum_is_fitted_from_its_guess_to_lmfits_optimum() -> None:
    agree(curve_fit(TWO, X, Y), lmfits())


def test_ties_as_text_and_fixed_values_of_the_model_hold() -> None:
    model = TWO.with_ties("h_center = g_center + 4").with_fixed(g_sigma=0.52)
    fit = curve_fit(model, X, Y)
    assert fit.nvarys == 6
    agree(fit, lmfits(h_center={"expr": "g_center + 4"}, g_sigma={"value": 0.52, "vary": False}))
    assert fit.errors["h_center"] == pytest.approx(fit.errors["g_center"])


def test_a_tie_to_a_fixed_value_is_fixed_without_error() -> None:
    fit = curve_fit(TWO.with_fixed(g_sigma=0.5).with_ties("h_sigma = 0.8 * g_sigma"), X, Y)
    assert fit["h_sigma"] == pytest.approx(0.4, rel=1e-15)
    assert fit.errors["h_sigma"] == 0.0
    assert fit.nvarys == 6


def test_errors_of_tied_parameters_follow_from_those_of_the_others() -> None:
    fit = curve_fit(TWO.with_ties("h_sigma = exp(g_sigma) / 4"), X, Y)
    expected = fit.errors["g_sigma"] * math.exp(fit["g_sigma"]) / 4
    assert fit.errors["h_sigma"] == pytest.approx(expected, rel=1e-8)


def test_bounds_of_the_model_hold() -> None:
    model = TWO.with_bounds(g_sigma=(0.6, 1.0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a bound is touched
        fit = curve_fit(model, X, Y)
    assert fit["g_sigma"] == 0.6


def test_a_bound_that_excludes_the_guess_moves_it_inside() -> None:
    bounds = {"g_center": (6.0, 8.0), "h_center": (2.0, 4.0)}  # the other way round
    model = TWO.with_bounds(**bounds)
    for name, (low, high) in bounds.items():
        assert low < model.guess(X, Y)[name] < high
    fit = curve_fit(model, X, Y)
    assert fit["g_center"] == pytest.approx(curve_fit(TWO, X, Y)["h_center"], rel=1e-6)


def test_a_model_that_divides_and_a_function_join_in() -> None:
    def hill(x: Any, top: Any = 1.0, half: Any = 1.0) -> Any:
        return top * x / (half + x)

    model = models.Gaussian("g") + hill
    y = models.Gaussian()(X, 4.0, 6.0, 0.6) + 3 * X / (2 + X) + noise(81, 0.02)
    fit = curve_fit(model, X, y)
    np.testing.assert_allclose(fit.popt, [4, 6, 0.6, 3, 2], rtol=0.05)


def test_components_add_up_to_the_curve() -> None:
    fit = curve_fit(TWO - models.from_function(lambda x, k: k * x**2, prefix="q"), X, Y)
    for x in (None, X[::3]):
        parts = fit.components(x)
        assert list(parts) == ["g", "h", "Linear", "q"]
        whole = fit.best_fit if x is None else fit(x)
        np.testing.assert_allclose(sum(parts.values()), whole, rtol=1e-9)


def test_components_of_a_batch_are_those_of_its_fits() -> None:
    fit = curve_fit(TWO, X, np.stack([Y, 2 * Y]))
    parts = fit.components(X[:5])
    assert parts["g"].shape == (2, 5)
    np.testing.assert_allclose(parts["g"][1], fit.at(1).components(X[:5])["g"], rtol=1e-12)


def test_a_plain_function_has_no_components() -> None:
    with pytest.raises(InputError, match="from_function"):
        curve_fit(decay, T, noisy()).components()


# ---- what the call says --------------------------------------------------------------------------


def test_arguments_of_the_call_win() -> None:
    model = TWO.with_fixed(g_sigma=0.6).with_ties("h_sigma = g_sigma").with_start(g_center=3.1)
    fit = curve_fit(model, X, Y, fixed={"g_sigma": 0.55}, ties=["h_sigma = 0.5 * g_sigma"])
    assert (fit["g_sigma"], fit["h_sigma"]) == (0.55, 0.275)
    bounded = curve_fit(TWO.with_bounds(slope=(0.0, 0.1)), X, Y, bounds={"slope": (-1.0, 1.0)})
    np.testing.assert_allclose(bounded.popt, curve_fit(TWO, X, Y).popt, rtol=1e-6)
    assert curve_fit(TWO, X, Y, transforms={"g_sigma": "positive"}).success
    # another role of the same parameter, too
    assert curve_fit(model, X, Y, fixed={"h_sigma": 0.45})["h_sigma"] == 0.45
    assert curve_fit(model, X, Y, ties=["g_sigma = 0.5"])["g_sigma"] == 0.5
    freed = curve_fit(model, X, Y, transforms={"g_sigma": (0.1, 0.9)})
    assert freed["g_sigma"] == freed["h_sigma"] != 0.6


def starts(fit: Any) -> dict[str, float]:
    return {name: entry["start"] for name, entry in fit.to_dict()["parameters"].items()}


def test_a_start_by_name_is_completed_by_the_guess() -> None:
    model = TWO.with_start(intercept=1.5)
    fit = curve_fit(model, X, Y, {"g_center": 2.9})
    assert (starts(fit)["g_center"], starts(fit)["intercept"]) == (2.9, 1.5)
    assert starts(fit)["h_center"] == pytest.approx(model.guess(X, Y)["h_center"])
    whole = [9.0, 3.0, 0.5, 4.0, 7.0, 0.5, 0.0, 2.0]
    assert list(starts(curve_fit(model, X, Y, whole)).values()) == whole


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"fixed": {"g_sigma": -1.0}}, "fixed at -1.0, outside its bounds"),
        ({"ties": ["g_width = 2"]}, "no parameter"),
        ({"ties": ["g_sigma = h_sigma", "h_sigma = g_sigma"]}, "circle"),
        ({"bounds": {"h_sigma": (0, 1)}}, "is tied"),
        ({"p0": {"g_centre": 1.0}}, "p0 names"),
        ({"p0": [1.0, 2.0]}, "8 parameters"),
        ({"p0": {"g_sigma": -1.0}}, "starts outside its bounds"),
    ],
)
def test_what_cannot_hold_is_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        curve_fit(TWO.with_ties("h_sigma = 0.8 * g_sigma"), X, Y, **options)


def test_a_tie_that_leaves_the_bounds_of_its_formula_is_told() -> None:
    model = models.Gaussian().with_ties("sigma = center - 3.6")
    y = models.Gaussian()(X, 5.0, 3.0, 0.6)  # of which −0.6 is as good a width as 0.6
    with pytest.warns(UserWarning, match="a tie has led to 'sigma' = -0.6"):
        curve_fit(model, X, -y, p0={"amplitude": 4.0, "center": 3.05})


# ---- ties as text of plain functions -------------------------------------------------------------


@pytest.mark.parametrize("ties", ["c = 0.2 * a", ["c = 0.2 * a"], {"c": "0.2 * a"}], ids=str)
def test_ties_as_text_are_those_as_functions(ties: Any) -> None:
    fit = curve_fit(decay, T, noisy(), ties=ties)
    other = curve_fit(decay, T, noisy(), ties={"c": lambda p: 0.2 * p["a"]})
    np.testing.assert_array_equal(fit.popt, other.popt)
    np.testing.assert_allclose(fit.pcov, other.pcov, rtol=1e-12)


def test_ties_as_text_name_the_copies_of_a_global_fit() -> None:
    y = [noisy(), noisy((2.0, 1.3, 0.5), seed=1)]
    fit = curve_fit(decay, [T, T], y, shared=["b"], ties=["c[1] = c[0]"])
    assert fit["c[1]"] == fit["c[0]"]
    assert fit.nvarys == 4


# ---- shapes, dtypes, ways of computing -----------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_tensors_give_tensors_of_their_dtype(dtype: torch.dtype) -> None:
    x, y = torch.from_numpy(X).to(dtype), torch.from_numpy(Y).to(dtype)
    fit = curve_fit(TWO, x, y)
    assert fit.popt.dtype == dtype
    np.testing.assert_allclose(fit.popt, curve_fit(TWO, X, Y).popt, rtol=2e-3)


def test_a_batch_is_its_fits_one_by_one() -> None:
    many = np.stack([Y, 3 * Y + X, Y[::-1]]).reshape(3, 1, 81)
    model = TWO.with_ties("h_sigma = 0.8 * g_sigma")
    fit = curve_fit(model, X, many)
    for i in range(3):
        one = curve_fit(model, X, many[i, 0])
        np.testing.assert_allclose(fit.popt[i, 0], one.popt, rtol=1e-5)


def test_each_curve_may_have_its_own_x_in_any_order() -> None:
    order = np.random.default_rng(0).permutation(81)
    xs, ys = np.stack([X, X[order] + 5]), np.stack([Y, Y[order]])
    fit = curve_fit(TWO, xs, ys, each_x=True)
    np.testing.assert_allclose(fit["g_center"][1] - 5, fit["g_center"][0], rtol=1e-6)


@pytest.mark.parametrize("hide", [np.nan, 1e6], ids=str)
def test_points_that_are_left_out_do_not_count_for_the_guess(hide: float) -> None:
    spoiled = np.where(np.arange(81) % 9 == 4, hide, Y)
    mask = spoiled == Y
    whole = curve_fit(TWO, X[mask], Y[mask])
    single = curve_fit(TWO, X, spoiled, mask=mask, check_finite=False)
    many = curve_fit(TWO, X, np.stack([spoiled, Y]), mask=np.stack([mask, mask | True]))
    np.testing.assert_allclose(single.popt, whole.popt, rtol=1e-6)
    assert starts(single) == pytest.approx(starts(whole), rel=1e-9)
    np.testing.assert_allclose(many.popt[0], whole.popt, rtol=1e-5)


ONE = models.Gaussian("g") + models.Linear()
RULES = {"free": ONE, "tied": ONE.with_ties("intercept = 4 * g_sigma")}


@pytest.mark.slow  # each compiles its code
@pytest.mark.filterwarnings("error")  # no other way of computing is taken
@pytest.mark.parametrize("many", [True, False])
@pytest.mark.parametrize("rule", RULES)
def test_compiled_fits_are_the_same(rule: str, many: bool) -> None:
    y = ONE(X, 10.0, 3.0, 0.5, 0.3, 2.0) + noise((3, 81) if many else (81,), 0.1)
    compiled = curve_fit(RULES[rule], X, y, compile=True)
    np.testing.assert_allclose(compiled.popt, curve_fit(RULES[rule], X, y).popt, rtol=1e-6)


def test_compiled_code_is_not_used_for_other_constants() -> None:
    def times(factor: float) -> Any:
        return models.from_function(lambda x, k: factor * k * x)

    different = [
        ONE,
        2 * ONE,
        3 * ONE,
        models.Gaussian("g") - models.Linear(),
        models.Gaussian("h") + models.Linear(),
        times(2.0),
        times(3.0),
    ]
    assert len({key_of(model) for model in different}) == len(different)
    assert key_of(2 * (models.Gaussian("g") + models.Linear())) == key_of(2 * ONE)
    ties = [ONE.with_ties(f"slope = {k} * g_sigma").ties["slope"] for k in (1, 2)]
    assert key_of(ties[0]) != key_of(ties[1])


def test_code_of_arrays_is_fitted_by_differences_with_a_warning() -> None:
    def f(x: Any, k: Any) -> Any:
        return np.exp(-k * x)

    with pytest.warns(FallbackWarning):
        fit = curve_fit(
            models.Gaussian("g") + f, X, models.Gaussian()(X, 5, 4, 0.6) + np.exp(-0.3 * X)
        )
    np.testing.assert_allclose(fit.popt, [5, 4, 0.6, 0.3], rtol=1e-4)


def test_surfaces_have_two_coordinates() -> None:
    def plane(x: Any, across: Any, along: Any, level: Any) -> Any:
        return across * x[0] + along * x[1] + level

    def spot(x: Any, height: Any, column: Any, row: Any, sigma: Any) -> Any:
        away = (x[0] - column) ** 2 + (x[1] - row) ** 2
        return height * torch.exp(-away / (2 * sigma**2))

    def brightest(x: Any, y: Any) -> dict[str, Any]:
        at = y.argmax(-1)
        return {"height": y.amax(-1), "column": x[0][at], "row": x[1][at], "sigma": 0.5}

    x = np.stack(np.meshgrid(np.arange(9.0), np.arange(7.0))).reshape(2, -1)
    model = models.from_function(spot, guess=brightest) + plane
    given = (5.0, 4.2, 3.1, 1.2, 0.1, -0.2, 1.0)
    fit = curve_fit(model, x, model(x, *given) + noise(63, 0.01))
    np.testing.assert_allclose(fit.popt, given, atol=0.05)


def test_functions_take_x_of_any_kind_with_a_start() -> None:
    def plane(x: Any, a: Any, b: Any) -> Any:
        return a * x["u"] + b * x["v"]

    given = {"u": X, "v": X**2}
    model = models.from_function(plane) + (lambda x, c: c + 0 * x["u"])
    fit = curve_fit(model, given, 3 * X + X**2 + 2, p0={"a": 1, "b": 1, "c": 1})
    np.testing.assert_allclose(fit.popt, [3, 1, 2], rtol=1e-8)
    with pytest.raises(
        InputError, match="guesses its start from xdata that are numbers in one array"
    ):
        curve_fit(model, given, X)
    held = (model + models.Linear()).with_fixed(slope=0.0, intercept=1.0)
    with pytest.raises(InputError, match="takes numbers as x, not dict"):
        curve_fit(held, given, X, p0=dict.fromkeys("abc", 1.0))


@pytest.mark.parametrize(
    "kind", [list, lambda x: x[:, None], torch.from_numpy], ids=["list", "column", "tensor"]
)
def test_x_comes_as_a_list_a_column_or_a_tensor(kind: Callable[[Any], Any]) -> None:
    fit = curve_fit(TWO, kind(X), Y)
    np.testing.assert_allclose(fit.popt, curve_fit(TWO, X, Y).popt, rtol=1e-7)


@pytest.mark.filterwarnings("ignore:the curve passes the data by")
def test_a_repeated_fit_keeps_to_the_rules_of_its_own_model() -> None:
    free = models.Linear()
    y = 3 * X + 1 + noise(81, 0.1)
    for _ in range(3):  # fits of a kind are remembered
        fit = curve_fit(free, X, y, p0=[1.0, 1.0])
        bounded = curve_fit(free.with_bounds(slope=(0, 2)), X, y, p0=[1.0, 1.0])
        held = curve_fit(free.with_fixed(intercept=0.0), X, y, p0=[1.0, 1.0])
        assert fit["slope"] == pytest.approx(3, abs=0.1)
        assert (bounded["slope"], held["intercept"]) == (2.0, 0.0)


def test_a_global_fit_of_models_guesses_each_data_set() -> None:
    model = TWO.with_ties("h_sigma = 0.8 * g_sigma").with_bounds(slope=(0, 1)).with_fixed("slope")
    fit = curve_fit(model, [X, X + 1], [Y, 2 * Y], shared=["g_sigma"])
    assert fit["g_center[1]"] - fit["g_center[0]"] == pytest.approx(1, abs=0.03)
    assert fit["h_sigma[1]"] == fit["h_sigma[0]"] == pytest.approx(0.8 * fit["g_sigma"])
    assert list(fit.components(dataset=1)) == ["g", "h", "Linear"]
    np.testing.assert_allclose(
        sum(fit.components(X, dataset=1).values()), fit(X, dataset=1), rtol=1e-9
    )
    with pytest.raises(InputError, match="say which"):
        fit.components()


def test_errors_in_x_start_from_the_guess_too() -> None:
    fit = odr(models.Gaussian("g") + models.Linear(), X, Y - TWO(X, **{**TRUTH, "g_amplitude": 0.0})
              + 0.3 * X + 2, sx=0.01, sy=0.1)  # fmt: skip
    np.testing.assert_allclose(fit.popt[:3], [10, 3, 0.5], rtol=0.05)


def test_counts_are_guessed_as_they_are() -> None:
    mean = TWO(X, **{**TRUTH, "g_amplitude": 300.0, "h_amplitude": 200.0})
    counts = np.random.default_rng(0).poisson(mean)
    fit = curve_fit(TWO, X, counts, likelihood="poisson")
    np.testing.assert_allclose(fit.popt[[1, 4]], [3, 7], atol=0.1)
