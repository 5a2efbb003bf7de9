"""Data: tensors and arrays, dtypes and devices, masks, errors, and gradients that lead to them."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import OptimizeWarning
from torch import Tensor
from torch.autograd import gradcheck

from lmtorch import InputError, curve_fit

from ..setting import F64, INF, T, decay, line, noise, noisy, scipys

Y = noisy()
FIELDS = ("popt", "pcov", "stderr", "correlation", "residual", "best_fit")


# ---- tensors and arrays --------------------------------------------------------------------------


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
def test_tensors_come_back_as_tensors_of_their_dtype(
    dtype: torch.dtype, lead: tuple[int, ...]
) -> None:
    t, y = (
        torch.as_tensor(T, dtype=dtype),
        torch.as_tensor(np.broadcast_to(Y, (*lead, 40)).copy(), dtype=dtype),
    )
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
    np.testing.assert_allclose(
        fit.popt, curve_fit(decay, T, Y, sigma=0.05 + 0.01 * T).popt, rtol=1e-12
    )


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
    arrays = [T.copy(), Y.copy(), np.ones(40), np.ones(40, dtype=bool)]
    for array in arrays:
        array.flags.writeable = False  # as those of pandas
    x, y, sigma, mask = arrays
    always = torch.is_warn_always_enabled()
    torch.set_warn_always(True)  # torch warns of them, once for the process
    try:
        assert curve_fit(decay, x, y, [1, 1, 1], sigma, mask=mask).success
    finally:
        torch.set_warn_always(always)


# ---- masks and errors ----------------------------------------------------------------------------


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
        "sigma of zero": {
            "ydata": np.where(kept, Y, 1e9),
            "sigma": np.where(kept, 1.0, 0.0),
            "mask": kept,
        },
        "sigma of NaN": {
            "ydata": np.where(kept, Y, 1e9),
            "sigma": np.where(kept, 1.0, np.nan),
            "mask": kept,
        },
        "omit sigma of zero": {
            "ydata": np.where(kept, Y, np.nan),
            "sigma": np.where(kept, 1.0, 0.0),
            "nan_policy": "omit",
        },
        "masked y": {"ydata": np.ma.array(np.where(kept, Y, 999), mask=~kept)},
        "masked NaN": {"ydata": np.ma.masked_invalid(np.where(kept, Y, np.nan))},
        "masked items": {"ydata": [y if k else np.ma.masked for y, k in zip(Y, kept, strict=True)]},
        "masked x": {"ydata": Y, "xdata": np.ma.array(np.where(kept, T, 999), mask=~kept)},
        "masked x of a tensor": {"ydata": torch.as_tensor(Y), "xdata": np.ma.array(T, mask=~kept)},
        "masked sigma": {"ydata": Y, "sigma": np.ma.array(np.where(kept, 1.0, -1), mask=~kept)},
        "masked mask": {"ydata": Y, "mask": np.ma.array(np.ones(40, dtype=bool), mask=~kept)},
        "all in part": {
            "ydata": np.ma.array(Y, mask=np.arange(40) % 15 == 0),
            "xdata": np.ma.array(T, mask=np.arange(40) % 15 == 5),
            "mask": np.arange(40) % 15 != 10,
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


def test_a_point_is_left_out_if_any_of_its_predictors_is_masked() -> None:
    x, y = np.ma.array(noise((2, 20))), noise(20, seed=1)
    x[0, 3], x[1, 5] = np.ma.masked, np.ma.masked
    kept = ~np.isin(np.arange(20), [3, 5])
    popt = np.linalg.lstsq(x.data[:, kept].T, y[kept])[0]
    for given in (x, list(x), x.T):

        def plane(x: Any, a: Any, b: Any, rows: bool = given is x.T or len(given) == 20) -> Any:
            first, second = x.mT if rows else x
            return a * first + b * second

        np.testing.assert_allclose(curve_fit(plane, given, y).popt, popt, rtol=1e-10)
    fit = curve_fit(lambda x, a, b: a * x["u"] + b * x["v"], {"u": x[0], "v": x[1]}, y)
    np.testing.assert_allclose(fit.popt, popt, rtol=1e-10)


def test_where_x_is_masked_f_is_not_asked() -> None:
    x = np.ma.masked_less(np.array([-7.0, 1.0, 2.0, 0.0, 3.0, 4.0]), 0.5)
    y = torch.tensor([7.0, 0.1, 0.8, 2.0, 1.0, 1.5], dtype=F64, requires_grad=True)
    fit = curve_fit(lambda x, a, b: a * torch.log(x) + b, x, y)
    popt, _ = scipys(
        lambda x, a, b: a * torch.log(x) + b, x.compressed(), y.detach().numpy()[~x.mask], [1, 1]
    )
    np.testing.assert_allclose(fit.popt.detach(), popt, rtol=1e-9)
    (gradient,) = torch.autograd.grad(fit.popt.sum(), y)
    assert gradient.isfinite().all()
    assert not gradient[np.ma.getmaskarray(x)].any()


def test_fits_of_a_batch_leave_out_what_is_masked_of_each() -> None:
    y = np.ma.array(np.stack([Y, 2 * Y, Y + 1]), mask=noise((3, 40), seed=5) > 1)
    for given in (y, list(y)):
        fits = curve_fit(decay, T, given)
        for i in range(3):
            kept = ~y.mask[i]
            np.testing.assert_allclose(
                fits.popt[i], scipys(decay, T[kept], y.data[i][kept], [1, 1, 1])[0], rtol=1e-8
            )


def test_data_sets_of_a_global_fit_leave_out_what_is_masked() -> None:
    kept = np.arange(40) % 5 != 0
    y, x = np.ma.array(np.where(kept, Y, 999), mask=~kept), np.ma.array(T, mask=np.arange(40) == 1)
    rest = kept & (np.arange(40) != 1)
    fit = curve_fit(
        decay, [x, T], [y, 2 * Y], sigma=[0.5, np.ma.array(np.ones(40), mask=~kept)], shared=["b"]
    )
    known = curve_fit(
        decay, [T[rest], T[kept]], [Y[rest], 2 * Y[kept]], sigma=[0.5, 1.0], shared=["b"]
    )
    np.testing.assert_allclose(fit.popt, known.popt, rtol=1e-8)
    np.testing.assert_allclose(fit.pcov, known.pcov, rtol=1e-7)


def test_omit_and_mask_leave_out_what_either_does() -> None:
    kept, y = np.arange(40) % 5 != 0, Y.copy()
    y[1] = np.nan
    fit = curve_fit(decay, T, y, mask=kept, nan_policy="omit")
    rest = kept & (np.arange(40) != 1)
    np.testing.assert_allclose(fit.popt, scipys(decay, T[rest], Y[rest], [1, 1, 1])[0], rtol=1e-8)


@pytest.mark.parametrize(
    "f", [lambda x, a, b: a / x + b, lambda x, a, b: a * torch.log(x) + b], ids=["1/x", "log"]
)
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


COVARIANCE = 0.01 * (np.eye(40) + noise((40, 40), seed=4) @ noise((40, 40), seed=4).T / 40)


@pytest.mark.parametrize("way", ["omit", "mask", "masked y", "masked sigma"])
def test_a_point_is_left_out_with_its_row_and_column_of_a_covariance(way: str) -> None:
    kept = np.arange(40) % 5 != 0
    pairs = kept[:, None] & kept
    options: dict[str, Any] = {
        "omit": {"ydata": np.where(kept, Y, np.nan), "nan_policy": "omit", "sigma": COVARIANCE},
        "mask": {
            "ydata": np.where(kept, Y, 1e9),
            "mask": kept,
            "sigma": np.where(pairs, COVARIANCE, np.nan),
        },
        "masked y": {"ydata": np.ma.array(Y, mask=~kept), "sigma": COVARIANCE},
        "masked sigma": {"ydata": Y, "sigma": np.ma.array(COVARIANCE, mask=~pairs)},
    }[way]
    fit = curve_fit(decay, T, **options, absolute_sigma=True)
    within = COVARIANCE[np.ix_(kept, kept)]
    popt, pcov = scipys(decay, T[kept], Y[kept], [1, 1, 1], sigma=within, absolute_sigma=True)
    np.testing.assert_allclose(fit.popt, popt, rtol=1e-8)
    np.testing.assert_allclose(fit.pcov, pcov, rtol=1e-7)
    curve = decay(torch.as_tensor(T), *popt).numpy()
    left = (curve - Y)[kept]
    assert fit.chisqr == pytest.approx(left @ np.linalg.solve(within, left), rel=1e-9)
    assert fit.ndata == 32
    np.testing.assert_allclose(fit.best_fit, np.where(kept, curve, np.nan), rtol=1e-8)
    alone = curve_fit(decay, T[kept], Y[kept], sigma=within, absolute_sigma=True)
    assert fit.rsquared == pytest.approx(alone.rsquared, rel=1e-9)
    np.testing.assert_allclose(
        fit.profile("b").intervals["b"], alone.profile("b").intervals["b"], rtol=1e-6
    )
    # a thousand refits tell their own deviation to some 2 %
    np.testing.assert_allclose(fit.bootstrap(1000, "normal").stderr, fit.stderr, rtol=0.15)


@pytest.mark.parametrize("each", [False, True])
def test_each_fit_of_a_batch_has_the_covariance_of_its_own_points(each: bool) -> None:
    y = np.stack([Y, 2 * Y, Y + 1])
    y[0, 3], y[2, 7:11] = np.nan, np.nan
    sigma = np.stack([COVARIANCE, 2 * COVARIANCE, COVARIANCE]) if each else COVARIANCE
    fits = curve_fit(decay, T, y, sigma=sigma, nan_policy="omit")
    for i in range(3):
        kept = np.isfinite(y[i])
        within = (sigma[i] if each else sigma)[np.ix_(kept, kept)]
        popt, pcov = scipys(decay, T[kept], y[i][kept], [1, 1, 1], sigma=within)
        np.testing.assert_allclose(fits.popt[i], popt, rtol=1e-8)
        np.testing.assert_allclose(fits.pcov[i], pcov, rtol=1e-7)
        np.testing.assert_allclose(fits.at(i).pcov, pcov, rtol=1e-7)


# ---- columns -------------------------------------------------------------------------------------

COLUMN = T[:, None]


@pytest.mark.parametrize("x", [T, COLUMN], ids=["x in a row", "x in a column"])
@pytest.mark.parametrize("y", [Y, Y[:, None]], ids=["y in a row", "y in a column"])
@pytest.mark.parametrize(
    "sigma", [0.2 + T, 0.2 + COLUMN], ids=["sigma in a row", "sigma in a column"]
)
def test_a_column_is_one_curve(x: np.ndarray, y: np.ndarray, sigma: np.ndarray) -> None:
    popt, pcov = scipys(decay, T, Y, [1, 1, 1], sigma=0.2 + T)
    shapes = set()

    def watched(t: Any, a: Any, b: Any, c: Any) -> Any:
        shapes.add(tuple(t.shape))
        return decay(t, a, b, c)

    fit = curve_fit(watched, x, y, sigma=sigma)
    np.testing.assert_allclose(fit.popt, popt, rtol=1e-8)
    np.testing.assert_allclose(fit.pcov, pcov, rtol=1e-7)
    assert shapes == {x.shape}  # f gets x as it was given
    assert fit.residual.shape == (40,)
    kept = (np.arange(40) % 5 != 0).reshape(y.shape)
    masked = curve_fit(decay, x, y, mask=kept)
    np.testing.assert_allclose(
        masked.popt, curve_fit(decay, T[kept.ravel()], Y[kept.ravel()]).popt, rtol=1e-9
    )


@pytest.mark.parametrize("y", [Y, Y[:, None]], ids=["row", "column"])
@pytest.mark.filterwarnings("ignore:the curve passes the data by")
def test_a_module_takes_a_column_of_samples(y: np.ndarray) -> None:
    module = torch.nn.Linear(1, 1).double()
    fit = curve_fit(module, COLUMN, y)
    np.testing.assert_allclose(fit.popt, np.polyfit(T, Y, 1), rtol=1e-9)
    np.testing.assert_allclose(fit([[1.0], [2.0]]), np.polyval(fit.popt, [1.0, 2.0]), rtol=1e-12)


@pytest.mark.parametrize(
    "x", [T, COLUMN, np.stack([COLUMN, COLUMN + 1])], ids=["row", "column", "of each"]
)
def test_columns_of_a_batch_are_one_curve_each(x: np.ndarray) -> None:
    y = np.stack([Y, 2 * Y])
    fits = curve_fit(decay, x, y[..., None], sigma=np.full((2, 40, 1), 0.1))
    for i in range(2):
        t = x[i, :, 0] if x.ndim == 3 else T
        np.testing.assert_allclose(fits.popt[i], scipys(decay, t, y[i], [1, 1, 1])[0], rtol=1e-8)


def test_columns_of_data_sets_are_curves() -> None:
    fit = curve_fit(
        decay, [COLUMN, T], [Y[:, None], 2 * Y], sigma=[np.ones((40, 1)), np.ones(40)], shared=["b"]
    )
    np.testing.assert_allclose(
        fit.popt, curve_fit(decay, [T, T], [Y, 2 * Y], shared=["b"]).popt, rtol=1e-9
    )


@pytest.mark.parametrize("x", [np.array([2.0]), 2.0], ids=repr)
def test_fits_of_a_single_point_are_told_by_their_single_x(x: Any) -> None:
    fits = curve_fit(lambda x, a: a * x, x, Y[:, None])
    np.testing.assert_allclose(fits["a"], Y / 2, rtol=1e-12)


def test_fits_of_a_single_point_each_are_told_by_each_x() -> None:
    fits = curve_fit(lambda x, a: a * x, 1 + COLUMN, Y[:, None], each_x=True)
    np.testing.assert_allclose(fits["a"], Y / (1 + T), rtol=1e-12)


def test_what_is_broadcast_to_all_pairs_is_refused() -> None:
    center = torch.as_tensor(T)
    with pytest.raises(InputError, match="f returned 1600 values for 40 points"):
        curve_fit(lambda x, a, b: a * (x - center) + b, COLUMN, Y)


def test_of_curves_in_columns_it_is_said_that_they_are_rows() -> None:
    with pytest.raises(
        InputError, match=r"f returned 40 values for 2 points.*one for each row: transpose it"
    ):
        curve_fit(lambda x, a, b: a * x + b, T, np.stack([Y, Y], 1))


# ---- gradients -----------------------------------------------------------------------------------

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
    "global": (
        lambda y: curve_fit(decay, [SHORT] * 2, list(y), shared=["b"]).popt,
        torch.stack([VALUES, 2 * VALUES]),
    ),
}


@pytest.mark.parametrize("name", DEPENDENCES)
@pytest.mark.filterwarnings("ignore:.* pass(es)? the(ir)? data by")
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
    with_graph, without = (
        curve_fit(decay, SHORT, y) for y in (VALUES.clone().requires_grad_(), VALUES)
    )
    assert with_graph.report() == without.report()
    assert repr(with_graph) == repr(without)
    assert with_graph.to_json() == without.to_json()
    np.testing.assert_array_equal(with_graph.bootstrap(5).samples, without.bootstrap(5).samples)
    assert with_graph.profile("b").intervals == without.profile("b").intervals
    for one, other in zip(
        with_graph.prediction_band(SHORT), without.prediction_band(SHORT), strict=True
    ):
        np.testing.assert_array_equal(one, other)


# ---- options -------------------------------------------------------------------------------------


def test_options_of_least_squares_are_passed_on() -> None:
    seen: list[Any] = []
    fit = curve_fit(
        decay, T, Y, callback=seen.append, history=True, ftol=1e-6, solver="qr", x_scale=[1, 1, 0.1]
    )
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
