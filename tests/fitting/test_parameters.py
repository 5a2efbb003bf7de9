"""Parameters: their names, where they start, and what fixes, ties, transforms or bounds them."""

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import Bounds, OptimizeWarning

from lmtorch import InputError, curve_fit

from .setting import DIFFERENCED, INF, T, decay, line, noise, noisy, scipys

Y = noisy()


def starts(fit: Any) -> list[float]:
    return [parameter["start"] for parameter in fit.to_dict()["parameters"].values()]


# ---- names and starts ----------------------------------------------------------------------------


def test_names_are_those_of_the_signature() -> None:
    fit = curve_fit(decay, T, Y)
    assert fit.names == ["a", "b", "c"]
    assert [fit[name] for name in "abc"] == fit.popt.tolist()


def test_parameters_of_a_star_are_numbered() -> None:
    fit = curve_fit(lambda t, *p: p[0] * torch.exp(-p[1] * t) + p[2], T, Y, [1, 1, 1])
    assert fit.names == ["p0", "p1", "p2"]
    np.testing.assert_allclose(fit.popt, curve_fit(decay, T, Y).popt, rtol=1e-10)


def test_a_star_after_names_continues_the_count() -> None:
    assert curve_fit(lambda t, a, *p: decay(t, a, p[0], p[1]), T, Y, [1, 1, 1]).names == [
        "a",
        "p1",
        "p2",
    ]


def test_what_a_partial_has_bound_is_no_parameter() -> None:
    fit = curve_fit(partial(lambda scale, t, a, b, c: decay(t, scale * a, b, c), 2.0), T, Y)
    assert fit.names == ["a", "b", "c"]
    np.testing.assert_allclose(fit.popt, curve_fit(decay, T, Y).popt / [2, 1, 1], rtol=1e-9)


def test_keyword_only_arguments_are_no_parameters() -> None:
    def scaled(t: Any, a: Any, b: Any, c: Any, *, scale: float = 2.0) -> Any:
        return decay(t, scale * a, b, c)

    assert curve_fit(scaled, T, Y).names == ["a", "b", "c"]


@pytest.mark.parametrize("option", [True, "linear", None, np.ones(3)], ids=repr)
def test_a_default_that_is_no_number_makes_an_option(option: Any) -> None:
    def f(t: Any, a: Any, b: Any, kind: Any = option, c: Any = 0.25) -> Any:
        assert kind is option
        return decay(t, a, b, c)

    for p0 in (None, {"a": 2.0}):
        fit = curve_fit(f, T, Y, p0)
        assert fit.names == ["a", "b", "c"]
        np.testing.assert_allclose(fit.popt, curve_fit(decay, T, Y).popt, rtol=1e-9)
    both = curve_fit(f, [T, T], [Y, 2 * Y], shared=["b"])
    assert both.names == ["a[0]", "a[1]", "b", "c[0]", "c[1]"]
    assert both.success


def test_p0_says_how_many_parameters_there_are() -> None:
    def f(t: Any, a: Any, b: Any, c: Any = 0.4, kind: Any = True, d: Any = None) -> Any:
        assert kind is True
        return decay(t, a, b, c) if d is None else decay(t, a, b, c) + d * t

    for count, names in ((2, ["a", "b"]), (3, ["a", "b", "c"])):
        fit = curve_fit(f, T, Y, [1.0] * count)
        assert fit.names == names
        np.testing.assert_allclose(fit.popt, scipys(f, T, Y, [1.0] * count)[0], rtol=1e-8)
    named = curve_fit(f, T, Y, {"a": 1.0, "d": 0.0})
    assert named.names == ["a", "b", "c", "d"]
    np.testing.assert_allclose(
        named.popt,
        scipys(lambda t, a, b, c, d: decay(t, a, b, c) + d * t, T, Y, [1, 1, 1, 0])[0],
        rtol=1e-7,
    )


def test_an_optional_parameter_is_one_where_p0_reaches_it() -> None:
    def f(t: Any, a: Any, b: Any, c: Any = None) -> Any:
        return decay(t, a, b, 0.4 if c is None else c)

    assert curve_fit(f, T, Y).names == ["a", "b"]
    fit = curve_fit(f, T, Y, [1, 1, 1])
    np.testing.assert_allclose(fit.popt, scipys(decay, T, Y, [1, 1, 1])[0], rtol=1e-8)


@DIFFERENCED
def test_of_a_ufunc_p0_says_how_many_parameters_there_are() -> None:
    x = T + 1
    y = x**1.7 + noise(40, 0.01)
    fit = curve_fit(np.power, x, y, p0=[1.0])
    np.testing.assert_allclose(fit.popt, scipys(lambda x, k: x**k, x, y, [1.0])[0], rtol=1e-7)


def test_defaults_of_the_arguments_are_the_start() -> None:
    def f(t: Any, a: Any, b: Any = 3, c: Any = 0.25) -> Any:
        return decay(t, a, b, c)

    assert starts(curve_fit(f, T, Y)) == [1, 3, 0.25]
    assert starts(curve_fit(f, T, Y, {"a": 2, "b": 1.5})) == [2, 1.5, 0.25]
    assert starts(curve_fit(f, T, Y, [2, 1, 1])) == [2, 1, 1]


def test_defaults_go_before_the_middle_of_bounds() -> None:
    def f(t: Any, a: Any, b: Any = 3) -> Any:
        return decay(t, a, b, 0.5)

    assert starts(curve_fit(f, T, Y, bounds={"a": (0, 4), "b": (1, 7)})) == [2, 3]


def test_a_dict_starts_by_name_and_the_rest_at_one() -> None:
    assert starts(curve_fit(decay, T, Y, {"c": 0.3, "a": 2})) == [2, 1, 0.3]


@pytest.mark.parametrize(
    "p0", [[2.0, 1.0, 0.5], (2, 1, 0.5), np.array([2, 1, 0.5]), torch.tensor([2, 1, 0.5])], ids=type
)
def test_a_start_may_be_any_sequence(p0: Any) -> None:
    assert starts(curve_fit(decay, T, Y, p0)) == [2, 1, 0.5]


@pytest.mark.filterwarnings("ignore:the curve passes the data by")
def test_an_unknown_name_is_refused() -> None:
    fit = curve_fit(line, T, Y)
    with pytest.raises(InputError, match="there is no parameter 'offset'"):
        fit["offset"]


# ---- fixed ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("fixed", [["c"], ("c",), {"c"}, {"c": 0.5}], ids=str)
def test_fixed_parameters_stay_at_their_start_or_value(fixed: Any) -> None:
    fit = curve_fit(decay, T, Y, [1, 1, 0.5], fixed=fixed)
    popt, _ = scipys(lambda t, a, b: decay(t, a, b, 0.5), T, Y, [1, 1])
    assert fit["c"] == 0.5
    assert fit.nvarys == 2
    np.testing.assert_allclose(fit.popt[:2], popt, rtol=1e-8)


def test_a_value_of_a_fixed_parameter_goes_before_its_start() -> None:
    assert curve_fit(decay, T, Y, [1, 1, 0.1], fixed={"c": 0.5})["c"] == 0.5


@pytest.mark.filterwarnings("ignore:the curve passes the data by")
def test_a_fixed_parameter_may_be_outside_its_bounds() -> None:
    assert curve_fit(decay, T, Y, fixed={"c": -0.1}, bounds=(0, 10))["c"] == -0.1


# ---- ties ----------------------------------------------------------------------------------------


def test_a_tie_holds_at_the_solution() -> None:
    fit = curve_fit(decay, T, Y, ties={"c": lambda p: p["a"] / 5})
    popt, _ = scipys(lambda t, a, b: decay(t, a, b, a / 5), T, Y, [1, 1])
    assert fit["c"] == pytest.approx(fit["a"] / 5, rel=1e-15)
    np.testing.assert_allclose(fit.popt[:2], popt, rtol=1e-8)


@pytest.mark.parametrize("order", ["bc", "cb"])
def test_ties_may_ask_for_each_other_in_any_order(order: str) -> None:
    ties = {"b": lambda p: p["a"] / 2, "c": lambda p: p["b"] / 3}
    fit = curve_fit(decay, T, Y, ties={name: ties[name] for name in order})
    popt, _ = scipys(lambda t, a: decay(t, a, a / 2, a / 6), T, Y, [1])
    np.testing.assert_allclose(fit.popt, popt * [1, 1 / 2, 1 / 6], rtol=1e-8)


def test_a_tie_may_ask_for_what_is_fixed_or_transformed() -> None:
    fit = curve_fit(
        lambda t, a, b, c, k: decay(t, a, b, c), T, Y, {"k": 0.2},
        fixed=["k"], ties={"c": lambda p: p["k"] * p["a"]}, transforms={"a": "positive"},
    )  # fmt: skip
    popt, _ = scipys(lambda t, a, b: decay(t, a, b, 0.2 * a), T, Y, [1, 1])
    np.testing.assert_allclose(fit.popt[:2], popt, rtol=1e-8)


def test_a_tie_may_be_a_number() -> None:
    fit = curve_fit(decay, T, Y, ties={"c": lambda p: 0.5})
    np.testing.assert_allclose(fit.popt, curve_fit(decay, T, Y, fixed={"c": 0.5}).popt, rtol=1e-9)


@pytest.mark.parametrize(
    "ties",
    [
        {"a": lambda p: p["b"], "b": lambda p: p["a"]},
        {"a": lambda p: 2 * p["a"]},
        {"a": lambda p: p["nobody"]},
    ],
    ids=["circle", "itself", "unknown"],
)
def test_ties_that_lead_nowhere_are_refused(ties: Any) -> None:
    with pytest.raises(InputError, match="go in a circle, or name a parameter that is not there"):
        curve_fit(decay, T, Y, ties=ties)


# ---- transforms ----------------------------------------------------------------------------------


def test_a_transform_keeps_a_parameter_inside() -> None:
    def f(t: Any, a: Any, b: Any) -> Any:
        return torch.where(b > 0, a * torch.exp(-b * t), torch.nan)

    fit = curve_fit(
        f, T, 3 * np.exp(-1e-3 * T) + noise(40, 0.01), [1.0, 5.0], transforms={"b": "positive"}
    )
    assert fit.success
    assert fit["b"] > 0


def test_where_the_edge_is_best_a_transform_comes_near_it() -> None:
    with pytest.warns(OptimizeWarning, match="lost: c has no influence any more"):
        fit = curve_fit(decay, T, Y, [1, 1, 0.7], transforms={"c": (0.6, 1.0)}, max_nfev=20_000)
    assert not fit.success
    held, _ = scipys(lambda t, a, b: decay(t, a, b, 0.6), T, Y, [1, 1])
    # the edge itself is infinitely far
    np.testing.assert_allclose(fit.popt, [*held, 0.6], rtol=1e-4)


@pytest.mark.parametrize(
    ("transform", "start"),
    [
        ("positive", 0.0),
        ("positive", -1.0),
        ((1.0, 2.0), 1.0),
        ((1.0, 2.0), 2.0),
        ((1.0, INF), 0.5),
        ((-INF, 1.0), 1.5),
    ],
    ids=str,
)
def test_a_start_outside_of_a_transform_is_refused(transform: Any, start: float) -> None:
    with pytest.raises(InputError, match="'b' starts outside"):
        curve_fit(decay, T, Y, [1, start, 1], transforms={"b": transform})


# ---- bounds --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "bounds",
    [
        ([0, 0, 0.6], [9, 9, 2]),
        [(0, 0, 0.6), (9, 9, 2)],
        (np.array([0, 0, 0.6]), 9),
        {"c": (0.6, 2)},
        {"c": (0.6, INF), "b": (-INF, INF)},
        Bounds([0, 0, 0.6], [9, 9, 2]),
    ],
    ids=["pair", "list", "array and number", "dict", "half open", "Bounds"],
)
def test_bounds_may_come_in_many_ways(bounds: Any) -> None:
    fit = curve_fit(decay, T, Y, [1, 1, 1], bounds=bounds)
    popt, _ = scipys(lambda t, a, b: decay(t, a, b, 0.6), T, Y, [1, 1])
    assert fit["c"] == 0.6
    np.testing.assert_allclose(fit.popt[:2], popt, rtol=1e-8)


def test_bounds_beside_fixed_parameters_are_those_of_the_others() -> None:
    fit = curve_fit(decay, T, Y, [1, 1, 1], bounds=([0, 0, 0.6], [9, 9, 2]), fixed={"a": 2.4})
    popt, _ = scipys(lambda t, b: decay(t, 2.4, b, 0.6), T, Y, [1])
    np.testing.assert_allclose(fit.popt, [2.4, popt[0], 0.6], rtol=1e-8)


def test_all_of_a_kind_may_be_mixed() -> None:
    def f(t: Any, a: Any, b: Any, c: Any, d: Any, e: Any) -> Any:
        return a * torch.exp(-b * t) + c + d * t + e * t**2

    y = 2.5 * np.exp(-1.3 * T) + 0.5 + 0.1 * T + 0.05 * T**2 + noise(40, 0.02)
    fit = curve_fit(
        f, T, y, [2, 1, 0.5, 0.1, 0.05],
        fixed=["c"], ties={"e": lambda p: p["d"] / 2}, transforms={"b": "positive"},
        bounds={"a": (0.0, 2.4)},
    )  # fmt: skip
    popt, _ = scipys(lambda t, b, d: f(t, 2.4, b, 0.5, d, d / 2), T, y, [1, 0.1])
    np.testing.assert_allclose(fit.popt, [2.4, popt[0], 0.5, popt[1], popt[1] / 2], rtol=1e-8)
    assert fit.nvarys == 3


def test_a_bare_string_fixes_one_parameter() -> None:
    t = [0.0, 1.0, 2.0, 3.0]
    fit = curve_fit(lambda t, ab, c: ab + c * t, t, [1.0, 2.1, 2.9, 4.2], p0=[0.5, 1.0], fixed="ab")
    assert fit["ab"] == 0.5
    assert fit.errors["ab"] == 0
