"""A function that draws random numbers is one function through all of a derivative."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import lmtorch
from tests.derivatives.setting import SECOND, built, close, points

NET = built(
    lambda: nn.Sequential(nn.Linear(6, 32), nn.Tanh(), nn.Dropout(0.5), nn.Linear(32, 2))
).train()
OPERATORS: dict[str, Callable[..., Tensor]] = {
    "batch_jacobian": lmtorch.batch_jacobian,
    "batch_hessian": lmtorch.batch_hessian,
    "hessian_diagonal": lmtorch.hessian_diagonal,
    "laplacian": lmtorch.laplacian,
}


def masked(x: Tensor) -> Tensor:
    """The network as the seed draws it, for a function of torch that calls it once."""
    torch.manual_seed(5)
    return NET(x)


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("mode", SECOND)
def test_chunks_are_of_the_function_that_was_drawn_first(operator: str, mode: str) -> None:
    x, of = points(4, 6), OPERATORS[operator]
    torch.manual_seed(5)
    whole = of(NET, x, mode=mode)
    torch.manual_seed(5)
    close(of(NET, x, mode=mode, chunk_size=1), whole)


@pytest.mark.parametrize("mode", SECOND)
def test_value_and_both_derivatives_are_of_one_function(mode: str) -> None:
    x = points(4, 6)
    torch.manual_seed(5)
    found = lmtorch.value_jacobian_hessian(NET, x, mode=mode, chunk_size=1)
    close(found.value, masked(x))
    close(found.jacobian, lmtorch.batch_jacobian(masked, x))
    close(found.hessian, lmtorch.batch_hessian(masked, x))


def test_differences_are_of_one_function() -> None:
    x = points(4, 6)
    torch.manual_seed(5)
    found = lmtorch.finite_difference_jacobian(NET, x, batch_dims=1, method="3-point")
    torch.testing.assert_close(found, lmtorch.batch_jacobian(masked, x), rtol=0, atol=1e-8)


def test_columns_of_a_parameter_are_of_one_function() -> None:
    x, places = points(4, 6), list(range(5))
    torch.manual_seed(5)
    whole = lmtorch.parameter_column(NET, "0.weight", places, x, mode="taylor")
    torch.manual_seed(5)
    close(lmtorch.parameter_column(NET, "0.weight", places, x, mode="taylor", chunk_size=2), whole)


def test_the_next_call_draws_anew() -> None:
    x = points(4, 6)
    first, second = (lmtorch.batch_jacobian(NET, x, chunk_size=1, mode="taylor") for _ in range(2))
    assert not torch.equal(first, second)
