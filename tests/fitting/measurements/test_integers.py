"""Whole numbers for x: real ones where f takes them, and as they are where it indexes with them."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.optimize
import torch
from torch import Tensor

from lmtorch import curve_fit

F64 = torch.float64
DAYS = torch.arange(1, 21)
Y = 2 * torch.sqrt(DAYS.double() / 3) + 0.3 + 0.01 * torch.sin(9 * DAYS.double())


def root(x: Any, a: Any, b: Any) -> Any:
    return a * torch.sqrt(x / 3) + b


def scipys(y: Tensor) -> Any:
    def curve(x: Any, a: float, b: float) -> Any:
        return a * np.sqrt(x / 3) + b

    return scipy.optimize.curve_fit(curve, DAYS.numpy(), y.numpy(), [1, 0])[0]


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8])
def test_a_curve_of_whole_numbers_has_all_the_digits_of_its_parameters(dtype: torch.dtype) -> None:
    """It had seven, those of float32."""
    fit = curve_fit(root, DAYS.to(dtype), Y, [1.0, 0.0])
    assert fit.success
    # the model is linear: scipy's end has all digits but those that its differences lose
    np.testing.assert_allclose(fit.popt, scipys(Y), rtol=1e-7)
    direct = np.polyfit(np.sqrt(DAYS.numpy() / 3), Y.numpy(), 1)
    np.testing.assert_allclose(fit.popt, direct, rtol=1e-12)
    near = DAYS.double() + 0.5
    torch.testing.assert_close(fit(DAYS), root(DAYS.double(), *fit.popt), rtol=1e-14, atol=0)
    torch.testing.assert_close(fit(near), root(near, *fit.popt), rtol=1e-14, atol=0)


def test_so_have_those_of_a_batch_and_powers_beyond_int64() -> None:
    many = torch.stack([Y, 2 * Y])
    fits = curve_fit(root, DAYS, many, [1.0, 0.0])
    own = curve_fit(root, DAYS.expand(2, -1), many, [1.0, 0.0])
    for found in (fits, own):
        for one, y in zip(found.popt, many, strict=True):
            direct = np.polyfit(np.sqrt(DAYS.numpy() / 3), y.numpy(), 1)
            np.testing.assert_allclose(one, direct, rtol=1e-12)
    high = curve_fit(lambda x, a: a * x**20, DAYS, 3 * DAYS.double() ** 20, [1.0])
    torch.testing.assert_close(high.popt, torch.tensor([3.0], dtype=F64), rtol=1e-12, atol=0)


GROUP = torch.arange(20) % 4
SHIFT = torch.tensor([0.0, 1.0, -2.0, 0.5], dtype=F64)
INDEXED: dict[str, tuple[Any, Callable[..., Any]]] = {
    "an index": (DAYS - 1, lambda x, a, b: a * Y[x] + b),
    "an index among numbers": (
        {"day": DAYS, "group": GROUP},
        lambda x, a, b: a * torch.sqrt(x["day"] / 3) + b * SHIFT[x["group"]],
    ),
    "bits": (DAYS, lambda x, a, b: a * torch.sqrt((x | 0).double()) + b),
    "truth": (DAYS > 9, lambda x, a, b: torch.where(x, a, b) * Y),
}


@pytest.mark.parametrize("name", INDEXED)
def test_what_f_needs_whole_stays_whole(name: str) -> None:
    x, f = INDEXED[name]
    true = torch.tensor([1.5, 0.4], dtype=F64)
    exact = {"day": DAYS.double(), "group": GROUP} if isinstance(x, dict) else x
    fit = curve_fit(f, x, f(exact, *true), [1.0, 0.0])
    assert fit.success
    torch.testing.assert_close(fit.popt, true, rtol=1e-12, atol=0)


def test_float32_has_no_room_for_seconds_since_1970_and_float64_has() -> None:
    began = 1_700_000_000
    x = began + 60 * DAYS
    y = (0.5 * 60 * DAYS + 3).float()
    fit = curve_fit(lambda x, a, b: a * (x - began) + b, x, y, [1.0, 0.0])
    assert fit.popt.dtype == torch.float32
    torch.testing.assert_close(fit.popt, torch.tensor([0.5, 3.0]), rtol=1e-5, atol=0)


def test_a_function_of_numpy_is_asked_no_more_often_than_by_arrays() -> None:
    def counted(x: Any) -> int:
        calls = []

        def curve(x: Any, a: Any, b: Any) -> Any:
            if not isinstance(a, Tensor):  # a look whether torch can follow it ends before it runs
                calls.append(1)
            return np.asarray(a * np.sqrt(x / 3) + b)

        with pytest.warns(UserWarning, match="finite differences"):
            fit = curve_fit(curve, x, Y.numpy(), [1.0, 0.0])
        assert fit.success
        return len(calls)

    assert counted(DAYS) <= counted(DAYS.numpy())


def test_a_jacobian_that_indexes_keeps_x_whole() -> None:
    def slopes(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
        return torch.stack([Y[x - 1], torch.ones_like(Y)], -1)

    def curve(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
        return a * Y[x.long() - 1] + b

    fit = curve_fit(curve, DAYS, 1.5 * Y + 0.4, [1.0, 0.0], jac=slopes)
    torch.testing.assert_close(fit.popt, torch.tensor([1.5, 0.4], dtype=F64), rtol=1e-12, atol=0)


@pytest.mark.parametrize("many", [False, True])
def test_points_with_fewer_digits_than_the_data_are_no_curves_in_float32(many: bool) -> None:
    """torch makes float32 of an array of it and a number in float64: the fit seemed a valley."""
    x = torch.linspace(0, 4, 40)
    clear = 2.5 * np.exp(-1.3 * x.double().numpy()) + 0.5
    y = clear + 0.02 * np.random.default_rng(0).standard_normal((3, 40))

    def decay(x: Any, a: Any, k: Any, c: Any) -> Any:
        return a * torch.exp(-k * x) + c

    fit = curve_fit(decay, x, y if many else y[0], p0=[1, 1, 1])
    expected = curve_fit(decay, x.numpy().astype(float), y if many else y[0], p0=[1, 1, 1])
    np.testing.assert_array_equal(fit.popt, expected.popt)
    at = torch.tensor([0.3, 0.7])
    np.testing.assert_array_equal(fit.predict(at), expected.predict(at.double()))


def test_a_network_in_float32_gets_its_points_as_they_are() -> None:
    network = torch.nn.Linear(1, 1)

    def f(x: Any, a: Any) -> Any:
        return a * network(x[:, None])[:, 0].double()

    x = torch.linspace(0, 1, 12)
    with torch.no_grad():
        y = 3 * network(x[:, None])[:, 0].double()
    assert float(curve_fit(f, x, y, p0=[1.0]).popt[0]) == pytest.approx(3, rel=1e-6)
