"""Models that are no function of numbers: dicts of tensors, modules, black boxes."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lmtorch import FallbackWarning, InputError, curve_fit

from .setting import DIFFERENCED, F64, T, decay, noise, noisy, scipys, solved

Y = noisy()


def of_dict(t: Any, params: dict[str, Tensor]) -> Any:
    weight, rate = params["weight"], params["rate"]
    return weight[0] * torch.exp(-rate * t) + weight[1]


class Decay(nn.Module):
    def __init__(self, dtype: torch.dtype = F64) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([1.0, 1.0], dtype=dtype))
        self.rate = nn.Parameter(torch.tensor(1.0, dtype=dtype))

    def forward(self, t: Tensor) -> Tensor:
        return self.weight[0] * torch.exp(-self.rate * t) + self.weight[1]


@pytest.mark.parametrize("kind", [np.array, torch.tensor, list], ids=lambda kind: kind.__name__)
def test_a_dict_of_tensors_is_fitted_entry_by_entry(kind: Any) -> None:
    fit = curve_fit(of_dict, T, Y, {"weight": kind([1.0, 1.0]), "rate": 1.0})
    popt, pcov = scipys(lambda t, a, c, b: decay(t, a, b, c), T, Y, [1, 1, 1])
    assert fit.names == ["weight[0]", "weight[1]", "rate"]
    np.testing.assert_allclose(fit.popt, popt, rtol=1e-8)
    np.testing.assert_allclose(fit.pcov, pcov, rtol=1e-7)


def test_entries_of_a_matrix_have_two_indices() -> None:
    x = noise((3, 30))
    truth = np.array([[1.0, 2.0, 3.0], [0.5, 0.0, -1.0]])
    y = np.array([1.0, -2.0]) @ truth @ x
    fit = curve_fit(
        lambda x, params: params["w"].mT[:, 0] @ x - 2 * params["w"][1] @ x + 0 * params["w"].sum(),
        x, y + noise(30, 1e-3, seed=1), {"w": np.zeros((2, 3))},
        fixed=["w[1,0]", "w[1,1]", "w[1,2]"],
    )  # fmt: skip
    assert fit.names == ["w[0,0]", "w[0,1]", "w[0,2]", "w[1,0]", "w[1,1]", "w[1,2]"]
    np.testing.assert_allclose(fit.popt[:3], solved(x.T, y + noise(30, 1e-3, seed=1))[0], rtol=1e-9)


def test_entries_may_be_fixed_tied_and_bounded_by_name() -> None:
    fit = curve_fit(
        of_dict, T, Y, {"weight": [1.0, 1.0], "rate": 1.0},
        ties={"weight[1]": lambda p: p["weight[0]"] / 5},
        bounds={"rate": (0.0, 1.25)},
    )  # fmt: skip
    popt, _ = scipys(lambda t, a: decay(t, a, 1.25, a / 5), T, Y, [1])
    np.testing.assert_allclose(fit.popt, [popt[0], popt[0] / 5, 1.25], rtol=1e-8)


def test_a_module_is_fitted_and_left_as_it_is() -> None:
    model = Decay()
    before = copy.deepcopy(model.state_dict())
    fit = curve_fit(model, T, Y)
    popt, pcov = scipys(lambda t, a, c, b: decay(t, a, b, c), T, Y, [1, 1, 1])
    assert fit.names == ["weight[0]", "weight[1]", "rate"]
    np.testing.assert_allclose(fit.popt, popt, rtol=1e-8)
    np.testing.assert_allclose(fit.pcov, pcov, rtol=1e-7)
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


def test_frozen_parameters_of_a_module_are_not_fitted() -> None:
    model = Decay()
    model.rate.requires_grad_(False)
    fit = curve_fit(model, T, Y)
    assert fit.names == ["weight[0]", "weight[1]"]
    columns = np.stack([np.exp(-T), np.ones(40)], 1)
    np.testing.assert_allclose(fit.popt, solved(columns, Y)[0], rtol=1e-9)


def test_a_module_may_start_elsewhere() -> None:
    fit = curve_fit(Decay(), T, Y, {"rate": 2.0})
    assert [p["start"] for p in fit.to_dict()["parameters"].values()] == [1, 1, 2]


@pytest.mark.parametrize("dtype", [torch.float32, F64], ids=str)
def test_a_module_in_either_precision_is_fitted_to_data_of_that_precision(
    dtype: torch.dtype,
) -> None:
    t, y = (torch.as_tensor(v, dtype=dtype) for v in (T, Y))
    fit = curve_fit(Decay(dtype), t, y)
    popt, _ = scipys(lambda t, a, c, b: decay(t, a, b, c), T, y.double().numpy(), [1, 1, 1])
    assert fit.popt.dtype == fit.pcov.dtype == dtype
    np.testing.assert_allclose(fit.popt, popt, rtol=1e-8 if dtype == F64 else 1e-5)


def test_a_linear_module_on_samples_in_rows_is_linear_regression() -> None:
    x, truth = noise((50, 3)), np.array([2.0, -1.0, 0.5])
    y = x @ truth + 0.3 + noise(50, 0.1, seed=1)
    fit = curve_fit(nn.Linear(3, 1, dtype=F64), torch.as_tensor(x), torch.as_tensor(y))
    solution, inverse, chisqr = solved(np.column_stack([x, np.ones(50)]), y)
    assert fit.names == ["weight[0,0]", "weight[0,1]", "weight[0,2]", "bias[0]"]
    np.testing.assert_allclose(fit.popt, solution, rtol=1e-9)
    np.testing.assert_allclose(fit.pcov, chisqr / 46 * inverse, rtol=1e-8)


def test_a_small_network_is_fitted() -> None:
    model = nn.Sequential(nn.Linear(1, 1, dtype=F64), nn.Tanh(), nn.Linear(1, 1, dtype=F64))
    x = np.linspace(-2, 3, 60)
    y = 2 * np.tanh(1.5 * x - 1) + 0.5 + noise(60, 0.05)
    fit = curve_fit(model, x[:, None], y)

    def curve(x: Any, a: Any, b: Any, c: Any, d: Any) -> Any:
        return a * torch.tanh(b * x + c) + d

    popt, _ = scipys(curve, x, y, [2, 1.5, -1, 0.5])
    assert fit.names == ["0.weight[0,0]", "0.bias[0]", "2.weight[0,0]", "2.bias[0]"]
    # but for the sign of the unit
    np.testing.assert_allclose(fit.best_fit, curve(torch.as_tensor(x), *popt), rtol=1e-7)


def test_a_module_without_parameters_is_refused() -> None:
    with pytest.raises(InputError, match="no parameters that require gradients"):
        curve_fit(nn.Tanh(), T, Y)


def test_a_name_that_the_module_has_not_is_refused() -> None:
    with pytest.raises(InputError, match=r"p0 names \['nobody'\], which the module does not have"):
        curve_fit(Decay(), T, Y, {"nobody": 1.0})


@DIFFERENCED
@pytest.mark.parametrize("jac", [None, "2-point", "3-point"])
def test_numpy_code_has_the_digits_that_differences_leave(jac: str | None) -> None:
    fit = curve_fit(lambda t, a, b, c: a * np.exp(-b * t) + c, T, Y, jac=jac)
    popt, pcov = scipys(decay, T, Y, [1, 1, 1])
    np.testing.assert_allclose(fit.popt, popt, rtol=1e-6)
    np.testing.assert_allclose(fit.pcov, pcov, rtol=1e-6)


@DIFFERENCED
def test_numpy_code_has_bands_profiles_and_a_bootstrap() -> None:
    box, torch_ = (curve_fit(f, T, Y) for f in (lambda t, a, b, c: a * np.exp(-b * t) + c, decay))
    for mine, theirs in zip(box.confidence_band(T), torch_.confidence_band(T), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-6)
    np.testing.assert_allclose(
        box.profile("b").intervals["b"], torch_.profile("b").intervals["b"], rtol=1e-6
    )
    np.testing.assert_allclose(box.bootstrap(5).samples, torch_.bootstrap(5).samples, rtol=1e-5)


def test_numpy_code_warns_once() -> None:
    with pytest.warns(FallbackWarning) as caught:
        fit = curve_fit(lambda t, a, b, c: a * np.exp(-b * t) + c, T, Y)
    assert len(caught) == 1
    fit.confidence_band(T)  # where a further warning would be an error


@DIFFERENCED
def test_numpy_code_is_fitted_in_batches() -> None:
    y = np.stack([Y, 2 * Y])
    fits = curve_fit(lambda t, a, b, c: a * np.exp(-b * t) + c, T, y)
    np.testing.assert_allclose(fits.popt, curve_fit(decay, T, y).popt, rtol=1e-6)


def test_whatever_x_is_f_gets_it() -> None:
    x = {"time": torch.as_tensor(T), "scale": 2.0}
    fit = curve_fit(lambda x, a, b, c: decay(x["time"], x["scale"] * a, b, c), x, Y)
    np.testing.assert_allclose(fit.popt, curve_fit(decay, T, Y).popt / [2, 1, 1], rtol=1e-9)


@pytest.mark.filterwarnings("ignore:the curve passes the data by")
def test_a_curve_of_one_number_stands_for_all_points() -> None:
    fit = curve_fit(lambda x, level: level, T, Y)
    assert fit["level"] == pytest.approx(Y.mean(), rel=1e-13)
    assert fit.stderr[0] == pytest.approx(Y.std(ddof=1) / np.sqrt(40), rel=1e-12)


def test_an_image_is_fitted_flat() -> None:
    rows, columns = np.meshgrid(np.arange(5.0), np.arange(4.0))
    image = 2 * rows - columns + 1 + noise((4, 5), 0.1)
    fit = curve_fit(
        lambda x, a, b, c: a * x[0] + b * x[1] + c,
        np.stack([rows, columns]).reshape(2, -1),
        image.ravel(),
    )
    A = np.column_stack([rows.ravel(), columns.ravel(), np.ones(20)])
    np.testing.assert_allclose(fit.popt, solved(A, image.ravel())[0], rtol=1e-10)
