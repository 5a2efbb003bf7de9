"""In every mode autograd records results where a gradient can lead somewhere, and nowhere else."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import lmtorch
from lmtorch import InputError

from .setting import OldCube, built, close, mlp, points

V = points(3)
OPERATORS: dict[str, tuple[int, Callable[..., Any]]] = {  # outputs of the network, operator
    "jacobian": (2, lmtorch.jacobian),
    "batch_jacobian": (2, lmtorch.batch_jacobian),
    "gradient": (1, lmtorch.gradient),
    "divergence": (3, lmtorch.divergence),
    "curl": (3, lmtorch.curl),
    "jvp": (2, lambda f, x, **k: lmtorch.jvp(f, x, V, **k)),
    "vjp": (3, lambda f, x, mode: lmtorch.vjp(f, x, V)),
    "hessian": (2, lmtorch.hessian),
    "batch_hessian": (2, lmtorch.batch_hessian),
    "hessian_diagonal": (2, lmtorch.hessian_diagonal),
    "value_jacobian_hessian": (2, lmtorch.value_jacobian_hessian),
    "laplacian": (2, lmtorch.laplacian),
    "hvp": (1, lambda f, x, **k: lmtorch.hvp(f, x, V, batch_dims=1, **k)),
    "second_directional_derivative": (
        2,
        lambda f, x, **k: lmtorch.second_directional_derivative(f, x, V, **k),
    ),
}
FIRST, SECOND = (
    ("auto", "taylor", "forward", "reverse", "autograd"),
    ("auto", "taylor", "forward", "reverse"),
)
MODES = {
    **dict.fromkeys(OPERATORS, SECOND),
    **dict.fromkeys(("jacobian", "batch_jacobian", "gradient", "divergence", "curl"), FIRST),
    "vjp": ("auto",),
    "hvp": ("auto", "forward", "reverse"),
}
SETTINGS = [(operator, mode) for operator, modes in MODES.items() for mode in modes]


@pytest.mark.parametrize(("operator", "mode"), SETTINGS)
@pytest.mark.parametrize(
    ("of_x", "of_model", "enabled"),
    [
        (False, False, True),
        (True, False, True),
        (False, True, True),
        (True, True, True),
        (True, True, False),
    ],
    ids=["neither", "x", "parameters", "both", "no_grad"],
)
def test_a_result_requires_a_gradient_where_x_or_a_parameter_does(
    operator: str, mode: str, of_x: bool, of_model: bool, enabled: bool
) -> None:
    model = built(lambda: mlp(outputs=OPERATORS[operator][0])).requires_grad_(of_model)
    x = points(4, 3).requires_grad_(of_x)
    with torch.set_grad_enabled(enabled):
        found = OPERATORS[operator][1](model, x, mode=mode)
        results = [found] if isinstance(found, Tensor) else found
        assert {t.requires_grad for t in results} == {enabled and (of_x or of_model)}


class Cube(nn.Module):
    """Old-style, which torch.func refuses."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return OldCube.apply(self.linear(x))


NAMES, PLACES = ["linear.weight", "linear.bias", "linear.weight"], [(1, 2), (0,), (0, 1)]


@pytest.mark.parametrize("mode", ["auto", "autograd"])
def test_columns_of_an_old_function_come_by_two_passes_of_autograd(mode: str) -> None:
    model, x = built(Cube), points(4, 3)
    found = lmtorch.parameter_column(model, NAMES, PLACES, x, mode=mode)
    z, weight = model.linear(x), torch.zeros(3, 4, 2, dtype=x.dtype)
    weight[0, :, 1], weight[1, :, 0], weight[2, :, 0] = x[:, 2], 1.0, x[:, 1]
    close(found, 3 * z.square() * weight)
    assert found.requires_grad
    second = torch.autograd.grad(found[1, :, 0].sum(), model.linear.bias)[0]  # 6 z
    close(second, torch.stack([6 * z[:, 0].sum(), torch.zeros_like(z[0, 0])]))
    with torch.no_grad():
        again = lmtorch.parameter_column(model, NAMES, PLACES, x, mode=mode)
    assert not again.requires_grad
    close(again, found.detach())
    names = lmtorch.parameter_column(model.requires_grad_(False), NAMES, PLACES, x, mode=mode)
    assert not names.requires_grad
    alone = lmtorch.parameter_column(model.requires_grad_(False), "linear.bias", 0, x, mode=mode)
    assert not alone.requires_grad
    close(alone, found[1].detach())


@pytest.mark.parametrize("mode", ["forward", "reverse"])
def test_torch_func_refuses_an_old_function(mode: str) -> None:
    with pytest.raises(InputError, match="does not work for this function"):
        lmtorch.parameter_column(built(Cube), "linear.bias", 0, points(4, 3), mode=mode)


@pytest.mark.parametrize("mode", ["auto", "forward", "reverse", "autograd"])
def test_a_parameter_that_does_not_act_has_a_column_of_zeros(mode: str) -> None:
    class Idle(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return x @ self.weight.T

    found = lmtorch.parameter_column(built(lambda: Idle(3, 2)), "bias", 1, points(4, 3), mode=mode)
    close(found.detach(), torch.zeros(4, 2, dtype=torch.float64))


@pytest.mark.parametrize("mode", ["auto", "layerwise"])
def test_a_slight_share_of_a_weight_elsewhere_is_added(mode: str) -> None:
    class Slight(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) + 1e-4 * self.weight.square().sum()

    model, x = built(lambda: Slight(3, 2)), points(4, 3)
    with torch.no_grad():
        found = lmtorch.parameter_jacobian(model, x, mode=mode)
        expected = lmtorch.parameter_jacobian(model, x, mode="autograd")
    for name, block in found.items():
        close(block, expected[name])
