"""float32 far from zero: a fit that has lost digits says so, and one that has them is silent."""

import warnings

import pytest
import torch
from scipy.optimize import OptimizeWarning
from torch import Tensor

import lmtorch

X = torch.linspace(0, 10, 50, dtype=torch.float64)


def peak(x: Tensor, height: Tensor, center: Tensor, width: Tensor, offset: Tensor) -> Tensor:
    return offset + height * torch.exp(-(((x - center) / width) ** 2))


def measured(offset: float, noise: float, fits: tuple[int, ...] = ()) -> Tensor:
    generator = torch.Generator().manual_seed(7)
    scatter = torch.randn(*fits, 50, generator=generator, dtype=torch.float64)
    truth = [torch.tensor(value) for value in (1.3, 5.0, 1.1, offset)]
    return peak(X, *truth) + noise * scatter


def fitted(y: Tensor, offset: float, x: Tensor = X) -> "lmtorch.CurveFit":
    return lmtorch.curve_fit(peak, x.to(y.dtype), y, p0=[1.0, 4.5, 1.2, offset])


@pytest.mark.parametrize("fits", [(), (3,)])
def test_parameters_that_float32_moves_by_a_tenth_of_their_errors_are_told_of(
    fits: tuple[int, ...],
) -> None:
    y = measured(1e4, 0.002, fits)
    with pytest.warns(OptimizeWarning, match=r"ydata lie about 1e\+04 from zero, .*0.001 apart"):
        coarse = fitted(y.float(), 1e4)
    fine = fitted(y, 1e4)
    moved = (torch.as_tensor(coarse.popt).double() - fine.popt).abs() / fine.stderr
    assert float(moved.max()) > 0.1


@pytest.mark.parametrize("fits", [(), (3,)])
def test_what_float32_resolves_is_fitted_without_a_word(fits: tuple[int, ...]) -> None:
    y = measured(0.0, 0.02, fits)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        coarse = fitted(y.float(), 0.0)
    fine = fitted(y, 0.0)
    moved = (torch.as_tensor(coarse.popt).double() - fine.popt).abs() / fine.stderr
    assert float(moved.max()) < 0.01


@pytest.mark.parametrize("sigma", [None, 1e3, 1e-3])
def test_noise_that_is_wide_beside_the_steps_of_float32_hides_them(sigma: float | None) -> None:
    y = measured(1e4, 0.1).float()
    errors = None if sigma is None else torch.full((50,), sigma)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        lmtorch.curve_fit(peak, X.float(), y, p0=[1.0, 4.5, 1.2, 1e4], sigma=errors)


def test_an_offset_that_is_subtracted_first_costs_nothing() -> None:
    y = measured(1e4, 0.002)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        coarse = fitted((y - 1e4).float(), 0.0)
    fine = fitted(y, 1e4)
    moved = (torch.as_tensor(coarse.popt).double() - fine.popt).abs() / fine.stderr
    assert float(moved[:3].max()) < 0.05


def test_points_that_are_left_out_and_weights_do_not_matter() -> None:
    y = measured(1e4, 0.002).float()
    y[3] = torch.nan
    with pytest.warns(OptimizeWarning, match="the residuals are 0.00"):
        lmtorch.curve_fit(
            peak, X.float(), y, p0=[1.0, 4.5, 1.2, 1e4], sigma=5.0 * torch.ones(50),
            nan_policy="omit",
        )  # fmt: skip


def test_numbers_without_scatter_are_a_constant_to_all_their_digits() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit = lmtorch.curve_fit(
            lambda x, c: c + 0 * x, X.float(), torch.full((50,), 1e4), [9e3], 1, absolute_sigma=True
        )
    assert float(fit.popt[0]) == 1e4


@pytest.mark.filterwarnings("ignore:the curve passes the data by")
def test_times_since_an_epoch_in_float32_are_told_of() -> None:
    epoch = 1.6e9
    y = measured(0.0, 0.02).float()
    with pytest.warns(OptimizeWarning, match="xdata go from .* 2e\\+02 apart"):
        lmtorch.curve_fit(
            lambda x, a, b: a + b * (x - epoch) / 1e3, (epoch + 360 * X).float(), y, p0=[0.1, 0.1]
        )


@pytest.mark.parametrize(("unit", "lead"), [(1e-20, ()), (1e-20, (2,)), (1e22, (2,))])
@pytest.mark.filterwarnings("ignore:.* pass(es)? the(ir)? data by")
def test_errors_whose_squares_the_dtype_has_no_room_for_are_told_of(
    unit: float, lead: tuple[int, ...]
) -> None:
    """Of errors of 4e-23 float32 made variances of 1.4e-45, and those are 15 % off."""
    y = (unit * measured(1.0, 0.02)).float().expand(*lead, -1)
    fit = lmtorch.curve_fit(lambda x, a, b: a + b * x, X.float(), y, p0=[unit, 0.0])
    with pytest.warns(OptimizeWarning, match="float32 has no room for squares of such errors"):
        fit.pcov  # noqa: B018 - it is made when it is asked for
    near = lmtorch.curve_fit(lambda x, a, b: a + b * x, X.float(), (y / unit), p0=[1.0, 0.0])
    torch.testing.assert_close(fit.stderr, unit * near.stderr, rtol=1e-3, atol=0)
    assert near.pcov.isfinite().all()
