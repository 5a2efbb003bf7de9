"""Data that are no plain arrays: tables, dates, decimals, text. What has a meaning is fitted."""

from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch

from lmtorch import FallbackWarning, InputError, curve_fit, odr

from ..setting import DIFFERENCED, T, decay, line, noise, noisy, scipys, solved

Y = noisy()
DAYS = np.datetime64("2026-01-01") + np.arange(40) * np.timedelta64(1, "D")


def known() -> np.ndarray:
    return scipys(decay, T, Y, [1, 1, 1])[0]


# ---- numbers of other kinds ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind",
    [
        lambda v: [Decimal(repr(float(x))) for x in v],
        lambda v: [Fraction(float(x)) for x in v],
        lambda v: [repr(float(x)) for x in v],
        lambda v: np.array([repr(float(x)) for x in v]),
        lambda v: v.astype(object),
        lambda v: [torch.as_tensor(x) for x in v],
    ],
    ids=["Decimal", "Fraction", "digits", "array of digits", "objects", "tensors"],
)
@pytest.mark.parametrize("where", ["xdata", "ydata", "sigma"])
def test_numbers_of_any_kind_are_numbers(kind: Callable[[np.ndarray], Any], where: str) -> None:
    arguments = {"xdata": T, "ydata": Y, "sigma": np.ones(40)}
    fit = curve_fit(decay, **arguments | {where: kind(arguments[where])})
    np.testing.assert_allclose(fit.popt, known(), rtol=1e-8)


def test_tensors_in_a_list_keep_their_gradients() -> None:
    t, y = torch.as_tensor(T), torch.as_tensor(Y).requires_grad_()
    columns = np.stack([T, np.ones(40)], 1)
    fit = curve_fit(
        lambda x, a, b: a * x[0] + b * x[1], [t, torch.ones_like(t)], [2 * value for value in y]
    )
    (gradient,) = torch.autograd.grad(fit.popt[0], y)
    np.testing.assert_allclose(gradient, 2 * np.linalg.pinv(columns)[0], atol=1e-12)


def test_none_among_numbers_is_one_that_is_missing() -> None:
    x, y = [None, *T[1:]], [*Y[:-1], None]
    with pytest.raises(InputError, match=r"ydata has NaN or infinity, first at \(39,\)"):
        curve_fit(decay, T, y)
    fit = curve_fit(decay, x, y, nan_policy="omit")
    np.testing.assert_allclose(fit.popt, scipys(decay, T[1:-1], Y[1:-1], [1, 1, 1])[0], rtol=1e-8)


# ---- what is no number ---------------------------------------------------------------------------


@DIFFERENCED
def test_dates_are_fitted_by_a_function_that_takes_them() -> None:
    days = np.arange(40.0)
    fit = curve_fit(lambda x, a, b: a * ((x - DAYS[0]) / np.timedelta64(1, "D")) + b, DAYS, Y)
    np.testing.assert_allclose(fit.popt, np.polyfit(days, Y, 1), rtol=1e-6)
    later = DAYS[:3] + np.timedelta64(100, "D")
    np.testing.assert_allclose(fit(later), np.polyval(fit.popt, days[:3] + 100), rtol=1e-9)


@pytest.mark.parametrize(
    ("x", "said"),
    [
        (DAYS, r"xdata of datetime64\[D\] are no numbers, and f cannot use them.* for dates"),
        (DAYS - DAYS[0], r"xdata of timedelta64\[D\] are no numbers"),
        (list(DAYS.astype(object)), "xdata of type list are no numbers"),
        (["a"] * 40, "xdata of type list are no numbers"),
        (["2026-11-26"] * 40, r"xdata of type list are no numbers.*pandas\.to_datetime makes them"),
        ([{}] * 40, "xdata of type list are no numbers"),
        ("abc", "xdata of type str are no numbers"),
        (None, "xdata of type NoneType are no numbers"),
        ({1.0, 2.0}, "xdata of type set are no numbers"),
        ((value for value in T), "xdata of type generator are no numbers"),
        ((T, T[1:]), "xdata is no array of real numbers: .*inhomogeneous.*arrays of one length"),
        (([1.0, 2.0], [3.0]), "xdata is no array of real numbers"),
    ],
    ids=[
        "dates",
        "durations",
        "datetimes",
        "text",
        "dates as text",
        "dicts",
        "a word",
        "None",
        "set",
        "generator",
        "ragged",
        "lists",
    ],
)
def test_of_an_x_that_f_cannot_use_it_is_named(x: Any, said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        curve_fit(decay, x, Y)
    assert isinstance(caught.value, TypeError)


@pytest.mark.parametrize("where", ["ydata", "sigma"])
@pytest.mark.parametrize(
    ("values", "said"),
    [
        (DAYS, r"has datetime64\[D\]: give numbers"),
        (DAYS - DAYS[0], r"has timedelta64\[D\]: give numbers"),
        (["a"] * 40, "is no array of real numbers"),
        ((T, T[1:]), "is no array of real numbers"),
        ((value for value in T), "is no array of real numbers: .*generator"),
    ],
    ids=["dates", "durations", "text", "ragged", "generator"],
)
def test_of_data_that_are_no_numbers_it_is_said_which(where: str, values: Any, said: str) -> None:
    with pytest.raises(TypeError, match=f"{where} {said}"):
        curve_fit(decay, **{"xdata": T, "ydata": Y, where: values})


def test_of_data_sets_the_one_is_named() -> None:
    with pytest.raises(InputError, match=r"xdata\[1\] is no array of real numbers"):
        curve_fit(decay, [T, ([1.0], [1.0, 2.0])], [Y, Y], shared=["b"])
    with pytest.raises(InputError, match=r"ydata\[1\] is no array of real numbers"):
        curve_fit(decay, [T, T], [Y, ["a"] * 40], shared=["b"])


def test_a_type_error_of_f_is_its_own_where_x_is_numbers() -> None:
    def wrong(t: Any, a: Any) -> Any:
        raise TypeError("my own")

    with pytest.raises(TypeError, match="my own") as caught:
        curve_fit(wrong, T, Y)
    assert not isinstance(caught.value, InputError)


# ---- pandas --------------------------------------------------------------------------------------


@pytest.fixture
def pandas() -> Any:
    return pytest.importorskip("pandas")


def test_series_are_numbers_whatever_their_index(pandas: Any) -> None:
    shuffled = np.random.default_rng(0).permutation(40)
    x, y, sigma = (pandas.Series(v, index=shuffled) for v in (T, Y, np.ones(40)))
    other = pandas.Series(y.to_numpy(), index=range(100, 140))
    fit = curve_fit(decay, x, other, sigma=sigma)
    np.testing.assert_allclose(fit.popt, known(), rtol=1e-8)  # they go together by place, as arrays
    assert isinstance(fit.popt, np.ndarray)


def test_columns_with_the_same_labels_in_another_order_warn(pandas: Any) -> None:
    table = pandas.DataFrame({"t": T, "y": Y})
    mixed = table.y.sort_values()
    with pytest.warns(UserWarning, match=r"xdata and ydata have the same labels .*another order"):
        fit = curve_fit(decay, table.t[::-1], table.y)
    turned = curve_fit(decay, T[::-1].copy(), Y)
    np.testing.assert_allclose(fit.popt, turned.popt, rtol=1e-6)  # taken by place all the same
    with pytest.warns(UserWarning, match=r"y\.loc\[x\.index\]"):
        odr(lambda x, a, b: a + b * x, table.t, mixed, sy=0.1, sx=0.01)
    with pytest.warns(UserWarning, match=r"xdata and sigma"):
        curve_fit(decay, table.t, table.y.to_numpy(), sigma=pandas.Series(np.ones(40))[::-1])
    np.testing.assert_allclose(  # what the message says mends it
        curve_fit(decay, table.t, mixed.loc[table.t.index]).popt, known(), rtol=1e-8
    )
    curve_fit(decay, table.t, mixed.to_numpy()[::-1].copy())  # nothing is said of arrays


def test_labels_of_several_levels_are_compared_with_their_like(pandas: Any) -> None:
    deep = pandas.MultiIndex.from_product([range(4), range(10)])
    x, y = pandas.Series(T, index=deep), pandas.Series(Y, index=deep)
    for one, other in ((T, y), (x, y), (x.reset_index(drop=True), y), (x, pandas.Series(Y))):
        fit = curve_fit(decay, one, other)  # warnings are errors here
        np.testing.assert_allclose(fit.popt, known(), rtol=1e-8)
    with pytest.warns(UserWarning, match="another order"):
        curve_fit(decay, x[::-1], y)


@pytest.mark.parametrize("dtype", ["bool", "boolean", "object"])
def test_a_series_of_truth_values_is_a_mask(pandas: Any, dtype: str) -> None:
    kept = pandas.Series(np.arange(40) % 5 != 0, index=np.arange(40)[::-1]).astype(dtype)
    fit = curve_fit(decay, T, Y, mask=kept)
    rest = np.arange(40) % 5 != 0
    np.testing.assert_allclose(fit.popt, scipys(decay, T[rest], Y[rest], [1, 1, 1])[0], rtol=1e-8)


def test_what_is_missing_in_a_series_may_be_omitted(pandas: Any) -> None:
    y = pandas.Series(np.arange(40) * 2 + 1, dtype="Int64")
    y[3] = pandas.NA
    fit = curve_fit(line, T, y, nan_policy="omit")
    np.testing.assert_allclose(fit.popt, np.polyfit(T, np.arange(40) * 2 + 1, 1), rtol=1e-9)
    assert fit.ndata == 39


def test_a_start_with_labels_goes_by_them(pandas: Any) -> None:
    fit = curve_fit(decay, T, Y, pandas.Series({"c": 0.3, "a": 2.0, "b": 1.5}))
    assert fit._inference.fitter.start.tolist() == [2.0, 1.5, 0.3]
    fit = curve_fit(decay, T, Y, pandas.Series([2.0, 1.5, 0.3]))
    assert fit._inference.fitter.start.tolist() == [2.0, 1.5, 0.3]


def test_a_column_of_a_frame_is_one_curve(pandas: Any) -> None:
    frame = pandas.DataFrame({"t": T, "y": Y}, index=DAYS)
    np.testing.assert_allclose(curve_fit(decay, frame["t"], frame[["y"]]).popt, known(), rtol=1e-8)


def frame_of(pandas: Any) -> Any:
    return pandas.DataFrame(
        {"u": T, "v": T**2, "who": ["somebody"] * 40, "gap": [np.nan] * 40}, index=DAYS
    )


def test_f_takes_the_columns_of_a_frame_by_name(pandas: Any) -> None:
    frame, y = frame_of(pandas), 2 * T - 0.5 * T**2 + noise(40, 0.1)
    with pytest.warns(FallbackWarning, match="finite differences"):
        fit = curve_fit(lambda x, a, b: a * x["u"] + b * x.v, frame, y)
    columns = np.stack([T, T**2], 1)
    np.testing.assert_allclose(fit.popt, solved(columns, y)[0], rtol=1e-6)
    np.testing.assert_allclose(fit(frame[:3]), columns[:3] @ fit.popt, rtol=1e-9)


@DIFFERENCED
@pytest.mark.parametrize("way", ["mask", "omit"])
def test_rows_of_a_frame_are_left_out(pandas: Any, way: str) -> None:
    frame, y = frame_of(pandas), 2 * T - 0.5 * T**2 + noise(40, 0.1)
    kept = np.arange(40) % 5 != 0
    options: dict[str, Any] = {"mask": kept} if way == "mask" else {"nan_policy": "omit"}
    fit = curve_fit(
        lambda x, a, b: a * x["u"] + b * x["v"], frame, np.where(kept, y, np.nan), **options
    )
    np.testing.assert_allclose(
        fit.popt, solved(np.stack([T, T**2], 1)[kept], y[kept])[0], rtol=1e-6
    )


def test_in_torch_operations_a_frame_has_exact_derivatives(pandas: Any) -> None:
    def f(x: Any, a: Any, b: Any, c: Any) -> Any:
        return decay(torch.tensor(x["u"].to_numpy()), a, b, c)

    # and no warning
    np.testing.assert_allclose(curve_fit(f, frame_of(pandas), Y).popt, known(), rtol=1e-8)


def test_a_frame_that_f_cannot_use_is_named(pandas: Any) -> None:
    with pytest.raises(
        InputError, match="xdata of type DataFrame are no numbers, and f cannot use them"
    ):
        curve_fit(lambda x, a, b: a * np.exp(x["who"]) + b, frame_of(pandas), Y)
    with pytest.raises(KeyError, match="absent"):
        curve_fit(lambda x, a: a * x["absent"], frame_of(pandas), Y)


def test_a_series_of_dates_is_named(pandas: Any) -> None:
    with pytest.raises(InputError, match=r"xdata of datetime64.* are no numbers"):
        curve_fit(line, pandas.Series(DAYS), Y)
