"""Rows in parameters by one sweep of our own are those of backward passes, or it says no."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import lmtorch
from lmtorch.calculus.base import NoRuleError
from lmtorch.derivatives import by_column, by_parameter

from .setting import F64, OldCube, close, points

COUNT = 5  # samples


class Net(nn.Module):
    """Two linear layers 3-4-2 around a function of what is between them."""

    def __init__(self, between: Callable[["Net", Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Linear(3, 4, dtype=F64), nn.Linear(4, 2, dtype=F64)
        self.between = between

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.between(self, self.first(x)))


def rows_by_backward(model: nn.Module, x: Tensor) -> list[Tensor]:
    """∂out/∂w of the whole batch, output by output, (batch, k, *param)."""
    y = model(x)
    params = list(model.parameters())
    rows = [
        torch.autograd.grad(v, params, retain_graph=True, materialize_grads=True)
        for v in y.flatten()
    ]
    return [torch.stack(block).unflatten(0, (len(x), -1)) for block in zip(*rows, strict=True)]


def by_rules(model: nn.Module, x: Tensor) -> list[Tensor]:
    params = dict(model.named_parameters())
    outputs = by_parameter._Outputs(model, list(params), None)
    return by_parameter._by_rules(outputs, tuple(params.values()), (x,))


def view(net: Net, h: Tensor) -> Tensor:
    return h.view(len(h), 2, 2).tanh().flatten(1)


def skip(net: Net, h: Tensor) -> Tensor:
    return h + torch.sin(h) * 0.5 - h.exp() / torch.arange(1.0, 5.0, dtype=F64)


def masked(net: Net, h: Tensor) -> Tensor:
    return 3 - torch.where(h.detach() > 0, 1.0, 2.0) * nn.functional.gelu(h)


def places(net: Net, h: Tensor) -> Tensor:
    """A layer at two places of every sample, applied twice."""
    wide = nn.functional.linear(h.unflatten(1, (1, 4)), net.first.weight.new_ones(4, 4))
    return (wide + net.last.bias.new_zeros(1)).tanh()[:, 0] + h[..., :4].relu()


def twice(net: Net, h: Tensor) -> Tensor:
    """One layer three times, and a constant that depends on it."""
    return net.first(net.first(h[:, :3]).tanh()[:, 1:]).detach() + net.first(h[:, 1:].sin())


@pytest.mark.parametrize("between", [view, skip, masked, places, twice])
def test_rows_are_those_of_backward_passes(between: Callable[[Net, Tensor], Tensor]) -> None:
    model, x = Net(between), points(COUNT, 3)
    expected = rows_by_backward(model, x)
    with torch.no_grad():
        plain = by_rules(model, x)
    recorded = by_rules(model, x)
    assert any(block.requires_grad for block in recorded)
    assert not any(block.requires_grad for block in plain)
    for rows in (plain, recorded):
        for found, block in zip(rows, expected, strict=True):
            close(found.detach(), block)
            assert found.is_contiguous()


class Square(torch.autograd.Function):
    """What no mode sees."""

    @staticmethod
    def forward(ctx: Any, z: Tensor) -> Tensor:
        ctx.save_for_backward(z)
        return z * z

    @staticmethod
    def backward(ctx: Any, grad: Any) -> Any:
        return 2 * ctx.saved_tensors[0] * grad


REFUSED: dict[str, Callable[[Net, Tensor], Tensor]] = {
    "the mean of the samples": lambda net, h: h - h.mean(0),
    "another sample": lambda net, h: h.roll(1, 0),
    "samples in another order": lambda net, h: h[torch.tensor([1, 0, 2, 3, 4])],
    "samples backwards": lambda net, h: h.flip(0),
    "one sample for all": lambda net, h: h + h[0],
    "samples as features": lambda net, h: (h.T[:, :4].T).repeat(2, 1)[: len(h)],
    "samples joined": lambda net, h: nn.functional.linear(
        h.reshape(4, 5), h.new_ones(5, 5)
    ).reshape(5, 4),
    "a sample by its place": lambda net, h: nn.functional.linear(h, h.new_ones(20, 4)).view(
        5, 5, 4
    )[..., 2, :, :],
    "a product of two": lambda net, h: h * h.tanh(),
    "a sum of places": lambda net, h: h + h.sum(1, keepdim=True),
    "a weight elsewhere": lambda net, h: h * net.last.weight.square().sum(),
    "a weight as a summand": lambda net, h: h + net.last.weight[0],
    "a weight made of others": lambda net, h: h @ (net.first.weight @ h.new_ones(3, 4)),
    "a function no mode sees": lambda net, h: Square.apply(h),
    "one of the old kind": lambda net, h: OldCube.apply(h),
    "a weight past all modes": lambda net, h: h * Square.apply(net.last.weight).sum(),
    "in place": lambda net, h: h.tanh_(),
    "a sum that broadcasts": lambda net, h: (h.reshape(-1, 4, 1) + h.new_ones(2))[..., 0],
    "torch.func inside": lambda net, h: torch.func.vmap(torch.tanh)(h),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_may_mix_samples_or_is_not_seen_is_refused_and_still_right(what: str) -> None:
    model, x = Net(REFUSED[what]), points(COUNT, 3)
    with pytest.raises(NoRuleError):
        by_rules(model, x)
    if "sample" in what:  # derivatives of single samples are something else
        return
    with torch.no_grad():
        found = lmtorch.parameter_jacobian(model, x)
    for block, expected in zip(found.values(), rows_by_backward(model, x), strict=True):
        close(block.flatten(1, -1), expected.flatten(1, -1))


def test_a_parameter_with_a_row_for_each_sample_is_no_layer_of_a_sample() -> None:
    model, x = Net(lambda net, h: (h + net.offset).tanh()), points(COUNT, 3)
    model.offset = nn.Parameter(torch.zeros(COUNT, 4, dtype=F64))
    with pytest.raises(NoRuleError, match="elsewhere"):
        by_rules(model, x)


def test_weights_that_are_computed_by_a_parametrization_are_right() -> None:
    model = Net(lambda net, h: h.tanh())
    nn.utils.parametrizations.weight_norm(model.last)
    x = points(COUNT, 3)
    with pytest.raises(NoRuleError):
        by_rules(model, x)
    found = lmtorch.parameter_jacobian(model, x)
    for block, expected in zip(found.values(), rows_by_backward(model, x), strict=True):
        close(block.detach(), expected)


def test_a_model_that_has_changed_is_seen_as_it_is_now() -> None:
    model, x = Net(lambda net, h: torch.dropout(h.tanh(), 0.5, net.training)), points(COUNT, 3)
    model.eval()

    def compared() -> None:
        expected = rows_by_backward(model, x)
        for grad in (False, True):
            with torch.set_grad_enabled(grad):
                found = lmtorch.parameter_jacobian(model, x)
            for block, rows in zip(found.values(), expected, strict=True):
                close(block.detach(), rows)

    compared()
    with torch.no_grad():
        model.last.weight.mul_(2)  # in place
    compared()
    hook = model.first.register_forward_hook(lambda module, args, y: y.sin())
    compared()
    hook.remove()
    model.between = lambda net, h: h.sigmoid()
    compared()
    model.first = nn.Linear(3, 4, bias=False, dtype=F64)
    compared()
    model.float()
    found = lmtorch.parameter_jacobian(model, x.float())
    assert {block.dtype for block in found.values()} == {torch.float32}
    assert list(found) == ["first.weight", "last.weight", "last.bias"]


def test_a_mask_of_dropout_is_that_of_the_value() -> None:
    model = Net(lambda net, h: torch.dropout(h.tanh(), 0.5, net.training))
    x = points(COUNT, 3)
    torch.manual_seed(1)
    expected = rows_by_backward(model, x)
    torch.manual_seed(1)
    found = lmtorch.parameter_jacobian(model, x)
    for block, rows in zip(found.values(), expected, strict=True):
        close(block.detach(), rows)


def test_inputs_that_require_a_gradient_get_one() -> None:
    model, x = Net(lambda net, h: h.tanh()), points(COUNT, 3).requires_grad_()
    gradients = []
    for mode in ("layerwise", "reverse"):
        blocks = lmtorch.parameter_jacobian(model, x.square(), mode=mode).values()
        total = torch.stack([block.square().sum() for block in blocks]).sum()
        gradients.append(torch.autograd.grad(total, x)[0])
    close(*gradients)
    assert gradients[0].abs().max() > 0.1


def test_rows_can_be_differentiated_twice_more() -> None:
    model, x = Net(lambda net, h: h.tanh()), points(COUNT, 3)
    found = []
    for mode in ("layerwise", "reverse"):
        J = lmtorch.parameter_jacobian(model, x, mode=mode, names=["first.weight"])
        (first,) = torch.autograd.grad(
            J["first.weight"].square().sum(), model.first.weight, create_graph=True
        )
        found.append(torch.autograd.grad(first.square().sum(), model.first.weight)[0])
    torch.testing.assert_close(found[0], found[1], rtol=1e-10, atol=1e-10)


def test_complex_weights_have_the_rows_of_torch() -> None:
    """Gradients of complex numbers are conjugated, which these rules do not do."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(3, 4, dtype=torch.complex128), nn.Linear(4, 2, dtype=torch.complex128)
    )
    x = torch.complex(points(COUNT, 3), points(COUNT, 3, seed=1))
    with pytest.raises(NoRuleError, match="complex"):
        by_rules(model, x)
    found = lmtorch.parameter_jacobian(model, x)
    expected = lmtorch.parameter_jacobian(model, x, mode="reverse")
    for name, block in found.items():
        torch.testing.assert_close(block, expected[name])


@pytest.mark.parametrize("between", [view, skip, masked, twice])
@pytest.mark.parametrize("name", ["first.weight", "first.bias", "last.weight", "last.bias"])
def test_several_columns_are_those_of_the_rows(
    name: str, between: Callable[[Net, Tensor], Tensor]
) -> None:
    model, x = Net(between), points(COUNT, 3)
    rows = dict(zip(dict(model.named_parameters()), rows_by_backward(model, x), strict=True))[name]
    places = [0, 1, -1, 1, 0]
    p = dict(model.named_parameters())[name]
    expected = rows.flatten(2)[..., places].movedim(-1, 0)
    counted = [place % p.numel() for place in places]
    swept = by_column._columns_by_rules(
        lambda params: torch.func.functional_call(model, {name: params[0]}, (x,)), p, counted, (x,)
    )
    close(swept.detach(), expected)
    close(lmtorch.parameter_column(model, name, places, x).detach(), expected)
    # with fewer columns than outputs, forward mode costs less
    with pytest.raises(NoRuleError, match="more outputs"):
        by_column._columns_by_rules(
            lambda params: torch.func.functional_call(model, {name: params[0]}, (x,)), p, [0], (x,)
        )
