"""Functions that torch takes for constants are the ones that `watching` lists."""

import warnings
from typing import Any

import pytest
import torch

from lmtorch import (
    FallbackWarning,
    InputError,
    LevenbergMarquardt,
    gradient,
    hessian,
    jacobian,
    laplacian,
    least_squares,
)
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


class Bessel(torch.autograd.Function):
    """J₀ with a derivative."""

    generate_vmap_rule = True

    @staticmethod
    def forward(z):
        return torch.special.bessel_j0(z)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, gradient):
        return -gradient * torch.special.bessel_j1(ctx.saved_tensors[0])


@pytest.mark.filterwarnings("ignore:the Jacobian by Forward:lmtorch.FallbackWarning")
def test_a_function_with_a_derivative_of_its_own_is_no_constant() -> None:
    z = torch.tensor([0.3], requires_grad=True)
    with Constants() as seen:
        Bessel.apply(z)
    assert seen.met == ""
    x = torch.linspace(0.1, 9, 30, dtype=torch.float64)
    y = 2 * torch.special.bessel_j0(1.3 * x)
    found = least_squares(
        lambda p: p[0] * Bessel.apply(p[1] * x) - y, torch.tensor([1.5, 1.2], dtype=torch.float64)
    )
    torch.testing.assert_close(found.x, torch.tensor([2.0, 1.3], dtype=torch.float64))


@pytest.mark.parametrize("by_samples", [False, True])
def test_an_optimizer_says_what_its_steps_know_nothing_of(by_samples: bool) -> None:
    p = torch.nn.Parameter(torch.tensor([1.5, 1.2], dtype=torch.float64))
    x = torch.linspace(0.1, 9, 30, dtype=torch.float64)
    y = 2 * torch.special.bessel_j0(1.3 * x)

    def closure(x: torch.Tensor = x, y: torch.Tensor = y) -> torch.Tensor:
        return p[0] * torch.special.bessel_j0(p[1] * x) - y

    optimizer = LevenbergMarquardt([p])
    batch = (x, y) if by_samples else ()
    with pytest.warns(UserWarning, match="no derivative of torch.special.bessel_j0"):
        optimizer.step(closure, *batch)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        optimizer.step(closure, *batch)
    differences = LevenbergMarquardt([p], jacobian="2-point")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(20):
            differences.step(closure)
    torch.testing.assert_close(p.detach(), torch.tensor([2.0, 1.3], dtype=torch.float64))


@pytest.mark.parametrize(
    "operator", [jacobian, hessian, laplacian, gradient], ids=lambda f: f.__name__
)
@pytest.mark.parametrize("samples", [1, 5])
def test_derivatives_that_would_lack_a_share_are_refused(operator: Any, samples: int) -> None:
    x = torch.linspace(0.1, 1, 2 * samples, dtype=torch.float64).reshape(samples, 2)

    def part(x: torch.Tensor) -> torch.Tensor:
        return torch.special.bessel_j0(x.sum(-1)) + x.prod(-1)

    with pytest.raises(InputError, match="lack its share"):
        operator(part, x)
    if operator is jacobian:
        with pytest.raises(InputError, match="lack its share"):
            jacobian(lambda x: torch.special.bessel_j0(x) + x, x[0])
