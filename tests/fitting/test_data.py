"""Data: tensors and arrays, dtypes and devices, masks, errors, and gradients that lead back to them."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import OptimizeWarning
from torch import Tensor
from torch.autograd import gradcheck

from lmtorch import curve_fit

from .setting import F64, INF, T, decay, line, noise, noisy, scipys

Y = noisy()
FIELDS = ("popt", "pcov", "stderr", "correlation", "residual", "best_fit")


# ---- tensors and arrays ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("y", [Y, Y.tolist(), tuple(Y)], ids=type)
def test_arrays_and_lists_come_back_as_arrays_of_float64(y: Any) -> None:
    fit = curve_fit(decay, T, y)
    for name in FIELDS:
        assert isinstance(getattr(fit, name), np.ndarray), name
        assert getattr(fit, name).dtype == np.float64, name
    assert isinstance(fit.chisqr, float)
    assert isinstance(fit(T), np.ndarray)


@pytest.mark.parametrize("dtype", [torch.float32, F64], ids=str)
@pytest.mark.parametrize("lead", [(), (2,)], ids=str)
def test_tensors_come_back_as_tensors_of_their_dtype(dtype: torch.dtype, lead: tuple[int, ...]) -> None:
    t, y = torch.as_tensor(T, dtype=dtype), torch.as_tensor(np.broadcast_to(Y, (*lead, 40)).copy(), dtype=dtype)
    fit = curve_fit(decay, t, y)
    band = fit.confidence_band(t)
    for value in (*(getattr(fit, name) for name in FIELDS), *band, fit(t)):
        assert isinstance(value, Tensor)
        assert value.dtype == dtype


def test_results_stay_on_the_device_of_the_data(device: torch.device) -> None:
    t, y = (torch.as_tensor(v, device=device) for v in (T, Y))
    fit = curve_fit(decay, t, y, sigma=torch.full_like(y, 0.05))
    for name in FIELDS:
        assert getattr(fit, name).device.type == device.type, name
    np.testing.assert_allclose(fit.popt.cpu(), scipys(decay, T, Y, [1, 1, 1])[0], rtol=1e-8)


def test_arrays_of_x_and_sigma_serve_tensors_of_y() -> None:
    fit = curve_fit(decay, T, torch.as_tensor(Y), sigma=0.05 + 0.01 * T)
    np.testing.assert_allclose(fit.popt, curve_fit(decay, T, Y, sigma=0.05 + 0.01 * T).popt, rtol=1e-12)


def test_single_precision_is_as_good_as_its_digits() -> None:
    fit = curve_fit(decay, torch.as_tensor(T).float(), torch.as_tensor(Y).float())
    popt, pcov = scipys(decay, T, Y, [1, 1, 1])
    np.testing.assert_allclose(fit.popt, popt, rtol=1e-5)
    np.testing.assert_allclose(fit.pcov, pcov, rtol=1e-4)


def test_whole_numbers_of_a_tensor_become_float64() -> None:
    fit = curve_fit(line, torch.arange(5), torch.tensor([1, 3, 5, 7, 10]))
    assert fit.popt.dtype == F64
    np.testing.assert_allclose(fit.popt, np.polyfit(np.arange(5), [1, 3, 5, 7, 10], 1), rtol=1e-10)


def test_the_data_are_left_as_they_are() -> None:
    x, y, sigma, mask = T.copy(), Y.copy(), np.full(40, 0.1), np.ones(40, dtype=bool)
    y[3], mask[3] = np.nan, False
    before = [v.copy() for v in (x, y, sigma, mask)]
    curve_fit(decay, x, y, sigma=sigma, mask=mask, nan_policy="omit")
    for old, new in zip(before, (x, y, sigma, mask), strict=True):
        np.testing.assert_array_equal(old, new)


def test_arrays_that_may_not_be_written_serve() -> None:
    x, y = T.copy(), Y.copy()
    x.flags.writeable = y.flags.writeable = False
    assert curve_fit(decay, x, y).success


# ---- masks and errors ------------------------------------------------------------------------------------------------


def masked_ways() -> dict[str, dict[str, Any]]:
    kept = np.arange(40) % 5 != 0
    return {
        "mask": {"ydata": np.where(kept, Y, 1e9), "mask": kept},
        "list": {"ydata": np.where(kept, Y, 1e9), "mask": kept.tolist()},
        "tensor": {"ydata": np.where(kept, Y, 1e9), "mask": torch.as_tensor(kept)},
        "nan": {"ydata": np.where(kept, Y, np.nan), "mask": kept},
        "omit": {"ydata": np.where(kept, Y, np.nan), "nan_policy": "omit"},
        "omit infinity": {"ydata": np.where(kept, Y, INF), "nan_policy": "omit"},
        "omit x": {"ydata": Y, "xdata": np.where(kept, T, np.nan), "nan_policy": "omit"},
        "sigma": {"ydata": np.where(kept, Y, 1e9), "sigma": np.where(kept, 1.0, INF)},
        "sigma of zero": {"ydata": np.where(kept, Y, 1e9), "sigma": np.where(kept, 1.0, 0.0), "mask": kept},
        "sigma of NaN": {"ydata": np.where(kept, Y, 1e9), "sigma": np.where(kept, 1.0, np.nan), "mask": kept},
        "omit sigma of zero": {
            "ydata": np.where(kept, Y, np.nan),
            "sigma": np.where(kept, 1.0, 0.0),
            "nan_policy": "omit",
        },
    }


@pytest.mark.parametrize("way", masked_ways())
def test_points_that_do_not_count_might_as_well_be_absent(way: str) -> None:
    kept = np.arange(40) % 5 != 0
    fit = curve_fit(decay, **{"xdata": T, **masked_ways()[way]})
    popt, pcov = scipys(decay, T[kept], Y[kept], [1, 1, 1])
    np.testing.assert_allclose(fit.popt, popt, rtol=1e-8)
    np.testing.assert_allclose(fit.pcov, pcov, rtol=1e-7)
    assert fit.ndata == 32


def test_omit_and_mask_leave_out_what_either_does() -> None:
    kept, y = np.arange(40) % 5 != 0, Y.copy()
    y[1] = np.nan
    fit = curve_fit(decay, T, y, mask=kept, nan_policy="omit")
    rest = kept & (np.arange(40) != 1)
    np.testing.assert_allclose(fit.popt, scipys(decay, T[rest], Y[rest], [1, 1, 1])[0], rtol=1e-8)


@pytest.mark.parametrize("f", [lambda x, a, b: a / x + b, lambda x, a, b: a * torch.log(x) + b], ids=["1/x", "log"])
def test_an_x_that_is_omitted_is_none_where_f_has_no_value(f: Any) -> None:
    x, y = np.array([np.nan, 1.0, 2.0, np.inf, 3.0, 4.0]), np.array([7.0, 3.1, 1.4, 2.0, 1.1, 0.7])
    fit = curve_fit(f, x, y, nan_policy="omit")
    kept = np.isfinite(x)
    np.testing.assert_allclose(fit.popt, scipys(f, x[kept], y[kept], [1, 1])[0], rtol=1e-9)


def test_samples_in_rows_are_omitted() -> None:
    x, y = noise((20, 2)), noise(20, seed=1)
    x[3, 1], y[5] = np.nan, np.nan
    fit = curve_fit(lambda x, a, b: a * x[:, 0] + b * x[:, 1].exp(), x, y, nan_policy="omit")
    kept = ~np.isin(np.arange(20), [3, 5])
    columns = np.stack([x[:, 0], np.exp(x[:, 1])], 1)[kept]
    np.testing.assert_allclose(fit.popt, np.linalg.lstsq(columns, y[kept])[0], rtol=1e-10)


@pytest.mark.parametrize("rows", [False, True])
def test_predictors_of_each_fit_are_omitted_in_that_fit(rows: bool) -> None:
    x, y = noise((3, 2, 20)), noise((3, 20), seed=1)
    x[1, 1, 3], x[2, 0, 4], y[0, 5] = np.nan, np.inf, np.nan

    def plane(x: Any, a: Any, b: Any) -> Any:
        first, second = x.mT if rows else x
        return a * first + b * second

    fits = curve_fit(plane, x.swapaxes(1, 2) if rows else x, y, nan_policy="omit", each_x=True)
    for i, left in enumerate((5, 3, 4)):
        columns, values = np.delete(x[i], left, 1).T, np.delete(y[i], left)
        np.testing.assert_allclose(fits.popt[i], np.linalg.lstsq(columns, values)[0], rtol=1e-10)


@pytest.mark.parametrize("shape", [(), (1,), (40,)], ids=str)
def test_sigma_of_one_or_of_each(shape: tuple[int, ...]) -> None:
    fit = curve_fit(decay, T, Y, sigma=np.full(shape, 0.3), absolute_sigma=True)
    _, pcov = scipys(decay, T, Y, [1, 1, 1], sigma=np.full(40, 0.3), absolute_sigma=True)
    np.testing.assert_allclose(fit.pcov, pcov, rtol=1e-7)


def test_a_covariance_is_whitened() -> None:
    mixed = noise((40, 40), seed=4)
    sigma = 0.01 * (np.eye(40) + mixed @ mixed.T / 40)
    fit = curve_fit(decay, T, Y, sigma=sigma, absolute_sigma=True)
    popt, pcov = scipys(decay, T, Y, [1, 1, 1], sigma=sigma, absolute_sigma=True)
    np.testing.assert_allclose(fit.popt, popt, rtol=1e-8)
    np.testing.assert_allclose(fit.pcov, pcov, rtol=1e-7)
    left = fit.best_fit - Y
    assert fit.chisqr == pytest.approx(left @ np.linalg.solve(sigma, left), rel=1e-9)


# ---- gradients -------------------------------------------------------------------------------------------------------

SHORT = torch.linspace(0, 3, 9, dtype=F64)
VALUES = 2.5 * torch.exp(-1.3 * SHORT) + 0.5 + 0.1 * torch.sin(9 * SHORT)
MIXED = torch.randn(9, 2, dtype=F64, generator=torch.Generator().manual_seed(1))


def fitted(x: Tensor = SHORT, y: Tensor = VALUES, **options: Any) -> Tensor:
    return curve_fit(decay, x, y, **options).popt


DEPENDENCES: dict[str, tuple[Callable[[Tensor], Tensor], Tensor]] = {
    "ydata": (lambda y: fitted(y=y), VALUES),
    "xdata": (lambda x: fitted(x=x), SHORT),
    "sigma": (lambda s: fitted(sigma=s), 0.1 + 0.05 * SHORT),
    "covariance": (lambda a: fitted(sigma=torch.eye(9, dtype=F64) + a @ a.mT / 9), MIXED),
    "batch": (lambda y: fitted(y=y), torch.stack([VALUES, 2 * VALUES])),
    "mask": (lambda y: fitted(y=y, mask=torch.arange(9) != 3), VALUES),
    "fixed": (lambda y: fitted(y=y, fixed={"c": 0.5}), VALUES),
    "tie and transform": (
        lambda y: fitted(y=y, ties={"c": lambda p: p["a"] / 5}, transforms={"b": "positive"}),
        VALUES,
    ),
    "at a bound": (lambda y: fitted(y=y, bounds={"c": (0.6, 2.0)}), VALUES),
    "robust": (lambda y: fitted(y=y, p0=[2.5, 1.3, 0.5], loss="soft_l1", f_scale=0.1), VALUES),
    "global": (lambda y: curve_fit(decay, [SHORT] * 2, list(y), shared=["b"]).popt, torch.stack([VALUES, 2 * VALUES])),
}


@pytest.mark.parametrize("name", DEPENDENCES)
def test_the_gradient_of_popt_is_that_of_differences(name: str) -> None:
    function, at = DEPENDENCES[name]
    assert gradcheck(function, at.clone().requires_grad_())


def test_of_a_linear_model_the_gradient_is_the_pseudo_inverse() -> None:
    x = torch.linspace(0, 1, 7, dtype=F64)
    y = torch.sin(5 * x)
    jacobian = torch.autograd.functional.jacobian(lambda y: curve_fit(line, x, y).popt, y)
    np.testing.assert_allclose(jacobian, np.linalg.pinv(np.stack([x, np.ones(7)], 1)), atol=1e-13)


def test_without_gradients_asked_for_there_are_none() -> None:
    y = VALUES.clone().requires_grad_()
    assert not curve_fit(decay, SHORT, VALUES).popt.requires_grad
    with torch.no_grad():
        assert not curve_fit(decay, SHORT, y).popt.requires_grad


def test_only_popt_carries_gradients() -> None:
    fit = curve_fit(decay, SHORT, VALUES.clone().requires_grad_())
    assert fit.popt.requires_grad
    for name in ("pcov", "stderr", "residual", "best_fit"):
        assert not getattr(fit, name).requires_grad, name


def test_a_fit_with_gradients_can_be_asked_everything() -> None:
    with_graph, without = (curve_fit(decay, SHORT, y) for y in (VALUES.clone().requires_grad_(), VALUES))
    assert with_graph.report() == without.report()
    assert repr(with_graph) == repr(without)
    assert with_graph.to_json() == without.to_json()
    np.testing.assert_array_equal(with_graph.bootstrap(5).samples, without.bootstrap(5).samples)
    assert with_graph.profile("b").intervals == without.profile("b").intervals
    for one, other in zip(with_graph.prediction_band(SHORT), without.prediction_band(SHORT), strict=True):
        np.testing.assert_array_equal(one, other)


# ---- options ---------------------------------------------------------------------------------------------------------


def test_options_of_least_squares_are_passed_on() -> None:
    seen: list[Any] = []
    fit = curve_fit(decay, T, Y, callback=seen.append, history=True, ftol=1e-6, solver="qr", x_scale=[1, 1, 0.1])
    assert len(seen) == len(fit.solution.history) > 1
    np.testing.assert_allclose(fit.popt, scipys(decay, T, Y, [1, 1, 1])[0], rtol=1e-6)


def test_what_refits_does_not_call_the_callback() -> None:
    seen: list[Any] = []
    fit = curve_fit(decay, T, Y, callback=seen.append)
    count = len(seen)
    fit.profile("b")
    fit.bootstrap(3)
    fit.confidence_band(T)
    assert len(seen) == count


def test_several_starts_find_the_best() -> None:
    x = np.linspace(0, 6, 60)
    y = np.sin(3 * x) + noise(60, 0.05)

    def wave(x: Any, omega: Any) -> Any:
        return torch.sin(omega * x)

    bounds = {"omega": (0.5, 8.0)}
    near = curve_fit(wave, x, y, [2.9], bounds=bounds)
    many = curve_fit(wave, x, y, [7.0], bounds=bounds, n_starts=40)
    with pytest.warns(OptimizeWarning, match="explains less than a constant would"):
        lone = curve_fit(wave, x, y, [7.0], bounds=bounds)
    assert lone.chisqr > 10 * near.chisqr
    np.testing.assert_allclose(many.popt, near.popt, rtol=1e-9)


def test_an_option_that_there_is_not_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="epsfcn"):
        curve_fit(decay, T, Y, epsfcn=1e-8)
