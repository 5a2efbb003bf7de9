"""Functions that torch takes for constants are the ones that `watching` lists."""

import pytest
import torch

from lmtorch import FallbackWarning, InputError, least_squares
from lmtorch.residuals.watching import UNDERIVED, Constants


def without_derivative() -> set[str]:
    """Functions of torch.special whose result does not ask for a gradient, though it is given."""
    found = set()
    z = torch.tensor([0.3, 0.7], dtype=torch.float64, requires_grad=True)
    degree = torch.tensor([2, 2])
    for name in dir(torch.special):
        function = getattr(torch.special, name)
        if not callable(function) or name.startswith("_"):
            continue
        for arguments in ((z,), (z, degree)):
            try:
                value = function(*arguments)
            except (TypeError, RuntimeError):
                continue
            if isinstance(value, torch.Tensor) and value.is_floating_point():
                if not value.requires_grad:
                    found.add(function.__name__)
                break
    return found


def test_all_functions_without_a_derivative_are_known() -> None:
    assert without_derivative() == UNDERIVED


def test_a_function_of_constants_alone_is_none() -> None:
    z = torch.tensor([0.3], requires_grad=True)
    with Constants() as seen:
        torch.special.bessel_j0(z.detach()) * z
        assert seen.met == ""
        torch.special.bessel_j0(z) * z
    assert seen.met == "torch.special.bessel_j0"


def test_part_of_a_derivative_is_none() -> None:
    x = torch.linspace(0.1, 9, 30, dtype=torch.float64)
    y = 2 * (torch.special.bessel_j1(1.3 * x) / (1.3 * x)) ** 2

    def apart(p: torch.Tensor) -> torch.Tensor:
        z = p[1] * x
        return p[0] * (torch.special.bessel_j1(z) / z) ** 2 - y

    start = torch.tensor([1.5, 1.2], dtype=torch.float64)
    with pytest.warns(FallbackWarning, match="takes it for a constant"):
        found = least_squares(apart, start)
    torch.testing.assert_close(found.x, torch.tensor([2.0, 1.3], dtype=torch.float64))
    with pytest.raises(InputError, match="takes it for a constant"):
        least_squares(apart, start, jac="autograd")
