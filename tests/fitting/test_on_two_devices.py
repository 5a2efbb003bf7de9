"""What a fit is given may stand on any device: ydata says where it runs, and what it is in."""

from typing import Any

import pytest
import torch

from lmtorch import InputError, curve_fit

F64 = torch.float64
X = torch.linspace(0, 3, 20, dtype=F64)
Y = 2 * torch.exp(-X) + 0.01 * torch.cos(9 * X)
LOWER, UPPER = torch.zeros(2, dtype=F64), torch.full((2,), 9.0, dtype=F64)


def decay(x: Any, a: Any, k: Any) -> Any:
    return a * torch.exp(-k * x)


HERE = curve_fit(decay, X, Y, [1, 1], bounds=(0, 9))


def test_x_goes_to_the_device_of_y(elsewhere: torch.device) -> None:
    """On another one torch refused to multiply it by parameters, for x of the CPU alone."""
    fit = curve_fit(decay, X, Y.to(elsewhere), [1, 1])
    assert fit.popt.device.type == elsewhere.type
    torch.testing.assert_close(fit.popt.cpu(), HERE.popt, rtol=1e-7, atol=0)
    assert fit.predict(X[:5]).device.type == elsewhere.type
    torch.testing.assert_close(fit.predict(X[:5]).cpu(), HERE.predict(X[:5]), rtol=1e-7, atol=0)


@pytest.mark.parametrize("by_name", [False, True])
def test_bounds_of_another_device_are_bounds(elsewhere: torch.device, by_name: bool) -> None:
    """NumPy refuses such tensors, in words that say nothing of bounds."""
    low, high = LOWER.to(elsewhere), UPPER.to(elsewhere)
    bounds: Any = {"a": (low[0], high[0]), "k": (low[1], high[1])} if by_name else (low, high)
    fit = curve_fit(decay, X, Y, [1, 1], bounds=bounds)
    torch.testing.assert_close(fit.popt, HERE.popt, rtol=0, atol=0)


@pytest.mark.parametrize(
    "given", [{"p0": UPPER + 1j}, {"bounds": (LOWER + 0j, UPPER)}, {"bounds": {"a": (0, 9j)}}]
)
def test_complex_starts_and_bounds_are_refused(given: dict[str, Any]) -> None:
    """Their imaginary parts were dropped."""
    with pytest.raises(InputError, match="complex"):
        curve_fit(decay, X, Y, given.pop("p0", [1, 1]), **given)
