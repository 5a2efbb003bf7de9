"""A model by itself: names, calls, rules, and what it is as plain values."""

import inspect
import json
import math
import operator
from collections.abc import Callable
from typing import Any

import lmfit
import numpy as np
import pytest
import torch

from lmtorch import InputError, curve_fit, models

X = np.linspace(-1.0, 6.0, 57)


def bent(x: Any, height: Any, rate: Any = 0.5) -> Any:
    return height * torch.exp(-rate * x)


def of_arrays(x: Any, height: Any) -> Any:
    return height * np.exp(-x.astype(float))  # a tensor has no astype


# ---- names and calls -----------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["g", "g_"])
def test_a_prefix_stands_before_all_names(prefix: str) -> None:
    assert models.Gaussian(prefix).names == ["g_amplitude", "g_center", "g_sigma"]


@pytest.mark.parametrize("prefix", ["1", "a b", "_", "g-1", "ä;"])
def test_a_prefix_that_makes_no_names_is_refused(prefix: str) -> None:
    with pytest.raises(InputError, match="makes no names"):
        models.Gaussian(prefix)


def test_a_model_without_a_formula_says_what_it_needs() -> None:
    class Empty(models.Model):
        parameters = ("height",)

    with pytest.raises(NotImplementedError, match=r"Empty has no formula.*formula\(x, \*values\)"):
        Empty()(X, height=1.0)


def test_values_are_lmfits() -> None:
    values = {"amplitude": 3.0, "center": 2.2, "sigma": 0.7}
    ours = models.Gaussian()(X, **values)
    np.testing.assert_allclose(ours, lmfit.models.GaussianModel().eval(x=X, **values), rtol=1e-14)
    line = {"slope": -2.0, "intercept": 0.3}
    np.testing.assert_allclose(
        models.Linear()(X, **line), lmfit.models.LinearModel().eval(x=X, **line), rtol=1e-14
    )


def test_values_by_position_are_in_the_order_of_the_names() -> None:
    model = models.Linear("b") + models.Gaussian("g")
    assert model.names == ["b_slope", "b_intercept", "g_amplitude", "g_center", "g_sigma"]
    by_name = model(X, g_sigma=0.5, g_center=1.0, g_amplitude=2.0, b_intercept=4.0, b_slope=3.0)
    np.testing.assert_array_equal(model(X, 3.0, 4.0, 2.0, 1.0, 0.5), by_name)
    np.testing.assert_array_equal(model(X, 3.0, 4.0, 2.0, g_center=1.0, g_sigma=0.5), by_name)


def test_a_parameter_for_each_curve_gives_curves_and_not_points() -> None:
    centers = np.linspace(0, 5, len(X))  # as many as points
    curves = models.Gaussian()(X, 2.0, centers, 0.5)
    assert curves.shape == (len(X), len(X))
    np.testing.assert_allclose(curves[7], models.Gaussian()(X, 2.0, centers[7], 0.5), rtol=1e-14)
    tensors = models.Gaussian()(torch.from_numpy(X), 2.0, torch.from_numpy(centers), 0.5)
    np.testing.assert_allclose(tensors, curves, rtol=1e-14)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_tensors_stay_tensors_of_their_dtype(dtype: torch.dtype) -> None:
    model = models.Gaussian("g") + 2 * models.Linear()
    values = torch.tensor([2.0, 1.0, 0.5, 3.0, 4.0], dtype=dtype)
    curve = model(torch.from_numpy(X).to(dtype), *values)
    assert isinstance(curve, torch.Tensor)
    assert curve.dtype == dtype
    np.testing.assert_allclose(curve, model(X, *values.tolist()), rtol=2e-5)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda m: m(X, 1.0, 2.0), "missing for \\['sigma'\\]"),
        (lambda m: m(X, 1.0, 2.0, 3.0, 4.0), "4 values"),
        (lambda m: m(X, 1.0, 2.0, sigma=1.0, center=2.0), "by position and by name"),
        (lambda m: m(X, 1.0, 2.0, sigma=1.0, width=2.0), "no parameters \\['width'\\]"),
    ],
)
def test_a_call_with_wrong_names_is_refused(call: Callable[[Any], Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        call(models.Gaussian())


def test_fixed_tied_and_started_values_need_not_be_given() -> None:
    model = models.Gaussian("a") + models.Gaussian("b")
    model = model.with_ties("b_sigma = 2 * a_sigma").with_fixed(a_center=1.0)
    model = model.with_start(b_center=3.0)
    given = {"a_amplitude": 1.0, "a_sigma": 0.4, "b_amplitude": 2.0}
    np.testing.assert_array_equal(model(X, **given), model(X, 1.0, 1.0, 0.4, 2.0, 3.0, 0.8))


# ---- sums ----------------------------------------------------------------------------------------

VALUES = {"g_amplitude": 3.0, "g_center": 2.2, "g_sigma": 0.7, "slope": 0.5, "intercept": 2.0}


@pytest.mark.parametrize("sign", [operator.add, operator.sub, operator.mul, operator.truediv])
def test_signs_are_those_of_the_curves(sign: Callable[[Any, Any], Any]) -> None:
    g, line = models.Gaussian("g"), models.Linear()
    peak = g(X, 3.0, 2.2, 0.7)
    np.testing.assert_allclose(sign(g, line)(X, **VALUES), sign(peak, line(X, 0.5, 2.0)))
    np.testing.assert_allclose(sign(2.0, g)(X, 3.0, 2.2, 0.7), sign(2.0, peak))
    np.testing.assert_allclose(sign(g, 2)(X, 3.0, 2.2, 0.7), sign(peak, 2.0))
    np.testing.assert_allclose(sign(np.float64(2), g)(X, 3.0, 2.2, 0.7), sign(2.0, peak))
    np.testing.assert_allclose(sign(torch.tensor(2.0), g)(X, 3.0, 2.2, 0.7), sign(2.0, peak))


def test_functions_join_from_both_sides() -> None:
    for model in (models.Gaussian() + bent, bent + models.Gaussian()):
        given = {"amplitude": 3.0, "center": 2.2, "sigma": 0.7, "height": 2.0, "rate": 0.1}
        expected = models.Gaussian()(X, 3.0, 2.2, 0.7) + 2 * np.exp(-0.1 * X)
        np.testing.assert_allclose(model(X, **given), expected)
        tensors = {name: torch.tensor(value, dtype=torch.float64) for name, value in given.items()}
        np.testing.assert_allclose(model(torch.from_numpy(X), **tensors), expected)


def test_a_function_that_is_written_for_arrays_gets_arrays() -> None:
    model = models.from_function(of_arrays) + models.Linear()
    np.testing.assert_allclose(model(X, 2.0, 0.5, 1.0), 2 * np.exp(-X) + 0.5 * X + 1)


def test_sum_of_a_list() -> None:
    model = sum([models.Gaussian("a"), models.Gaussian("b"), models.Linear()])
    assert isinstance(model, models.Model)
    assert list(model.terms) == ["a", "b", "Linear"]


def test_the_components_of_a_sum_make_the_whole() -> None:
    model = (models.Gaussian("a") - models.Gaussian("b")) - (
        models.Linear() - 2.0 * models.from_function(bent)
    )
    values = dict(zip(model.names, [3.0, 1.0, 0.5, 2.0, 4.0, 0.6, 0.3, 1.0, 2.0, 0.2], strict=True))
    parts = model.components(X, **values)
    assert list(parts) == ["a", "b", "Linear", "2 * bent"]
    np.testing.assert_allclose(sum(parts.values()), model(X, **values), rtol=1e-12)
    assert (parts["b"] <= 0).all()  # it is subtracted
    assert all(part.shape == X.shape for part in parts.values())


def test_brackets_are_written_where_they_are_needed() -> None:
    a, b, c = (models.Linear(name) for name in "abc")
    assert repr(a - (b + c)) == "Linear('a') - (Linear('b') + Linear('c'))"
    assert repr((a - b) * c) == "(Linear('a') - Linear('b')) * Linear('c')"
    assert (a * b + c).label == "a * b + c"
    assert repr(-a) == "-1 * Linear('a')"


@pytest.mark.parametrize(
    "make",
    [
        lambda: models.Gaussian() + models.Gaussian(),
        lambda: models.Gaussian("g") * models.Gaussian("g"),
        # prefixes that differ, and names that do not
        lambda: models.Gaussian("g") + models.from_function(lambda x, g_center: g_center * x),
        lambda: models.from_function(bent, "a") + models.from_function(bent, "a"),
    ],
)
def test_equal_names_are_refused_in_words_that_help(make: Callable[[], Any]) -> None:
    with pytest.raises(InputError, match="give them prefixes"):
        make()


def test_terms_that_could_not_be_told_apart_are_refused() -> None:
    with pytest.raises(InputError, match="several terms"):
        _ = models.from_function(lambda x, a: a * x) + (lambda x, b: b + 0 * x)


@pytest.mark.parametrize("other", ["Linear", None, [1.0], True])
def test_what_is_no_model_does_not_add(other: Any) -> None:
    with pytest.raises(TypeError):
        _ = models.Gaussian() + other


class Ripple(torch.nn.Module):
    """A network that was trained before, in float32; its size is fitted."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = torch.nn.Linear(1, 1)

    def forward(self, x: Any, size: Any = 1.0) -> Any:
        return size * torch.sin(self.net(x[:, None]))


def test_a_module_that_is_held_joins_in_with_the_arguments_of_its_forward() -> None:
    module = Ripple().requires_grad_(False)
    model = models.Gaussian("g") + module
    assert repr(model) == "Gaussian('g') + Ripple(x, size=1.0)"
    assert model.names == ["g_amplitude", "g_center", "g_sigma", "size"]
    values = {"g_amplitude": 3.0, "g_center": 4.0, "g_sigma": 0.5, "size": 2.0}
    y = model(X, **values)
    seen = module(torch.tensor(X, dtype=torch.float32), 2.0)[:, 0].numpy()
    np.testing.assert_allclose(y, models.Gaussian()(X, 3.0, 4.0, 0.5) + seen, rtol=1e-6)
    fit = curve_fit(model, X, y)
    np.testing.assert_allclose(fit.popt, list(values.values()), rtol=1e-3)
    assert list(fit.components(X)) == ["g", "Ripple"]


def test_a_module_that_waits_to_be_fitted_does_not_add() -> None:
    with pytest.raises(InputError, match=r"net\.weight.*requires_grad_\(False\)"):
        _ = models.Gaussian() + Ripple()


@pytest.mark.parametrize(
    "layer", [torch.nn.Dropout(0.1), torch.nn.BatchNorm1d(1)], ids=["Dropout", "BatchNorm1d"]
)
def test_a_module_that_changes_from_call_to_call_does_not_add(layer: torch.nn.Module) -> None:
    module = Ripple()
    module.net = torch.nn.Sequential(module.net, layer).requires_grad_(False)
    with pytest.raises(InputError, match=rf"'net\.1', {type(layer).__name__}, .*eval\(\)"):
        _ = models.Gaussian() + module
    assert models.Gaussian() + module.eval()


def test_a_column_is_taken_for_the_curve_that_it_is() -> None:
    # with a row beside it there would be a matrix of all with all
    model = models.Linear() + (lambda x, a: a * x[:, None] ** 2)
    np.testing.assert_allclose(model(X, 0.0, 1.0, 2.0), 1 + 2 * X**2)
    curve_fit(model, X, model(X, 3.0, 1.0, 2.0))


def test_a_parameter_called_x_is_none_of_the_points() -> None:
    def f(t: Any, x: Any, self: Any) -> Any:
        return x * t + self

    model = models.from_function(f) + models.Gaussian("g")
    assert model.names[:2] == ["x", "self"]
    assert list(inspect.signature(model).parameters)[1:] == model.names
    np.testing.assert_allclose(models.from_function(f)(X, x=2.0, self=1.0), 2 * X + 1)


def test_a_constant_curve_has_a_value_for_each_point() -> None:
    assert models.from_function(lambda x, c: c)(torch.zeros(7), torch.tensor(2.0)).shape == (7,)


# ---- rules ---------------------------------------------------------------------------------------


def test_a_rule_makes_another_model() -> None:
    part = models.Gaussian("g")
    model = part + models.Linear()
    part.with_bounds(g_center=(0, 1))
    model.with_fixed(g_sigma=1.0)
    assert part.bounds == model.bounds == {"g_sigma": (0.0, math.inf)}
    assert model.fixed == part.fixed == {}


def test_a_sum_has_the_rules_of_its_parts() -> None:
    part = models.Gaussian("g").with_bounds(g_center=(0, 5)).with_fixed(g_sigma=1.0)
    model = (part + models.Linear().with_start(slope=1.0)).with_bounds(g_center=(1, None))
    assert model.bounds == {"g_sigma": (0.0, math.inf), "g_center": (1.0, math.inf)}
    assert model.fixed == {"g_sigma": 1.0}
    assert model.starts == {"slope": 1.0}
    free = model.with_free("g_center", "g_sigma")
    assert free.bounds == {"g_sigma": (0.0, math.inf)}
    assert free.fixed == {}


def test_the_last_of_fixed_and_tied_holds() -> None:
    model = models.Gaussian().with_fixed(center=1.0).with_ties("center = 2 * sigma")
    assert (model.fixed, list(model.ties)) == ({}, ["center"])
    model = model.with_fixed("center")
    assert (model.fixed, model.ties) == ({"center": None}, {})


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (lambda m: m.with_bounds(centre=(0, 1)), "\\['centre'\\], which the model does not have"),
        (lambda m: m.with_bounds(center=(2, 1)), "above its upper bound"),
        (lambda m: m.with_bounds(center=3), "give a pair"),
        (lambda m: m.with_bounds(center=(0, "one")), "no number"),
        (lambda m: m.with_bounds(center=(math.nan, 1)), "not finite"),
        (lambda m: m.with_fixed(sigma=-1), "outside its bounds, 0.0 to inf"),
        (lambda m: m.with_fixed(sigma=2).with_bounds(sigma=(0, 1)), "fixed at 2.0, outside"),
        (lambda m: m.with_start(sigma=-1), "starts at -1.0, outside"),
        (lambda m: m.with_start(sigma=math.inf), "not finite"),
        (lambda m: m.with_fixed("width"), "\\['width'\\]"),
        (lambda m: m.with_free("width"), "\\['width'\\]"),
        (lambda m: m.with_ties(center=3), "is int"),
        (lambda m: m.with_bounds(center=(0, 1)).with_ties("center = sigma"), "tied and has bounds"),
        (lambda m: m.with_ties("center = sigma", center="2 * sigma"), "tied twice"),
    ],
)
def test_rules_that_cannot_hold_are_refused(rule: Callable[[Any], Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        rule(models.Gaussian())


# ---- plain values --------------------------------------------------------------------------------


def through_json(model: models.Model) -> models.Model:
    return models.from_spec(json.loads(json.dumps(model.to_spec(), allow_nan=False)))


def test_a_model_comes_back_from_json() -> None:
    model = 2 * models.Gaussian("a") - models.Gaussian("b") / models.from_function(bent, "c")
    model = model.with_ties("b_center = a_center + 1").with_bounds(a_center=(None, 5))
    model = model.with_fixed("b_sigma", a_sigma=0.5).with_start(c_height=2)
    again = through_json(model)
    assert repr(again) == repr(model)
    assert (again.bounds, again.fixed, again.starts) == (model.bounds, model.fixed, model.starts)
    assert again.ties == model.ties
    given = dict.fromkeys(model.names, 0.7)
    np.testing.assert_array_equal(again(X, **given), model(X, **given))


def test_code_that_cannot_be_imported_is_not_saved() -> None:
    with pytest.raises(InputError, match="cannot be saved"):
        models.from_function(lambda x, a: a * x).to_spec()


@pytest.mark.parametrize(
    "spec",
    [
        {},
        {"model": "Gaussion"},
        {"model": "json:loads"},
        {"model": "no.such.module:f"},
        {"model": "+", "left": {"model": "Linear"}},
        {"model": "function", "function": "math:pi"},
    ],
)
def test_what_is_no_model_is_not_read(spec: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        models.from_spec(spec)


@pytest.mark.parametrize("times", [np.arange(57).astype("datetime64[s]"), 57 * [np.timedelta64(1)]])
def test_dates_and_times_are_refused_as_they_have_no_unit_that_could_be_meant(times: Any) -> None:
    model = models.Gaussian()
    curve = model(X, 3.0, 2.0, 0.5)
    for use in (
        lambda: model(times, 3.0, 2.0, 0.5),
        lambda: model.guess(times, curve),
        lambda: model.guess(X, times),
        lambda: curve_fit(model, times, curve),
        lambda: curve_fit(model, X, curve).predict(times),
    ):
        with pytest.raises(InputError, match=r"timedelta64\(1, 's'\)"):
            use()
