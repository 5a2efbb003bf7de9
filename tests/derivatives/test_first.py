"""First derivatives are those of loops over single samples, in every mode."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import lmtorch
from lmtorch.derivatives import first

from .setting import (
    F32,
    F64,
    FIRST,
    Attention,
    built,
    close,
    convolutional,
    jacobians,
    mlp,
    one_by_one,
    points,
    shaped,
    transformer,
)

# vmap runs the fused backward sample by sample, and says so
SLOW = pytest.mark.filterwarnings("ignore:There is a performance drop")
UNRULED = ("auto", "forward", "reverse", "autograd")  # attention has no Taylor rule
MODELS: list[Any] = [
    *(pytest.param(mlp, (3,), mode, id=f"mlp-{mode}") for mode in FIRST),
    *(pytest.param(convolutional, (1, 4, 4), mode, id=f"conv-{mode}") for mode in FIRST),
    *(
        pytest.param(transformer, (2, 4), mode, id=f"transformer-{mode}", marks=SLOW)
        for mode in UNRULED
    ),
    *(
        pytest.param(Attention, (2, 4), mode, id=f"attention-{mode}", marks=SLOW)
        for mode in UNRULED
    ),
]
exact = pytest.mark.parametrize("dtype", [F32, F64], ids=["float32", "float64"])
moded = pytest.mark.parametrize("mode", FIRST)


@exact
@pytest.mark.parametrize(("make", "inputs", "mode"), MODELS)
def test_a_batch_jacobian_is_the_jacobian_of_each_sample(
    make: Callable[[], nn.Module],
    inputs: tuple[int, ...],
    mode: str,
    dtype: torch.dtype,
    device: torch.device,
) -> None:
    model, x = built(make, dtype).to(device), points(4, *inputs, dtype=dtype).to(device)
    found = lmtorch.batch_jacobian(model, x, mode=mode)
    assert found.shape == (*model(x).shape, *inputs)
    close(found, jacobians(model, x))


@moded
def test_a_jacobian_has_the_blocks_across_samples_too(mode: str) -> None:
    model, x = built(mlp), points(3, 3)
    found = lmtorch.jacobian(model, x, mode=mode)
    close(found, torch.autograd.functional.jacobian(model, x))
    apart = found[0, :, 1]
    assert not apart.any()


@moded
@pytest.mark.parametrize("batch", [0, 1, 2])
@pytest.mark.parametrize("outputs", [(), (1,), (2,), (2, 3)], ids=str)
@pytest.mark.parametrize("inputs", [(), (3,), (2, 2)], ids=str)
def test_any_shape_of_batch_inputs_and_outputs_will_do(
    inputs: tuple[int, ...], outputs: tuple[int, ...], batch: int, mode: str
) -> None:
    f = shaped(inputs, outputs, batch)
    x = points(*(3, 2)[:batch], *inputs)
    found = lmtorch.batch_jacobian(f, x, batch_dims=batch, mode=mode)
    assert found.shape == (*x.shape[:batch], *outputs, *inputs)
    close(found, jacobians(f, x, batch))


@moded
@pytest.mark.parametrize("count", [0, 1])
def test_a_batch_of_one_and_an_empty_batch_are_batches(count: int, mode: str) -> None:
    model, x = built(mlp), points(1, 3)[:count]
    found = lmtorch.batch_jacobian(model, x, mode=mode)
    assert found.shape == (count, 2, 3)
    if count:
        close(found, jacobians(model, x))
    assert lmtorch.gradient(lambda x: model(x)[:, 0], x, mode=mode).shape == (count, 3)
    assert lmtorch.divergence(built(lambda: mlp(3, 3)), x, mode=mode).shape == (count,)
    assert lmtorch.curl(built(lambda: mlp(3, 3)), x, mode=mode).shape == (count, 3)


@moded
@pytest.mark.parametrize("inputs", [2, 8], ids=["few", "many"])
def test_derivatives_have_the_dtype_of_the_output(inputs: int, mode: str) -> None:
    x = points(3, inputs, dtype=F32)
    found = lmtorch.batch_jacobian(lambda x: x.double() ** 2, x, mode=mode)
    close(found, torch.diag_embed(2 * x.double()))
    close(lmtorch.divergence(lambda x: x.double() ** 2, x, mode=mode), 2 * x.double().sum(1))


@moded
@pytest.mark.parametrize("last", [(), (1,)], ids=str)
def test_a_gradient_is_of_the_shape_of_x(last: tuple[int, ...], mode: str) -> None:
    x = points(4, 3)
    found = lmtorch.gradient(lambda x: torch.exp(x.sum(1)).reshape(4, *last), x, mode=mode)
    close(found, torch.exp(x.sum(1, keepdim=True)).expand(4, 3).contiguous())


@moded
@pytest.mark.parametrize("inputs", [(), (3,), (2, 2), (20,)], ids=str)
def test_a_divergence_is_the_trace_of_each_jacobian(inputs: tuple[int, ...], mode: str) -> None:
    x = points(4, *inputs)
    f = lambda x: torch.sin(x) * x.reshape(len(x), -1).sum(1).reshape(-1, *(1,) * len(inputs))
    d = torch.Size(inputs).numel()
    expected = jacobians(f, x).reshape(4, d, d).diagonal(dim1=1, dim2=2).sum(1)
    close(lmtorch.divergence(f, x, mode=mode), expected)


@moded
def test_a_curl_in_space_is_the_one_in_closed_form(mode: str) -> None:
    x = points(4, 3)
    a, b, c = x.unbind(1)
    found = lmtorch.curl(
        lambda x: torch.stack([x[:, 1] * x[:, 2], x[:, 0] ** 2, x[:, 0] * x[:, 1] ** 2], 1),
        x,
        mode=mode,
    )
    close(found, torch.stack([2 * a * b, b - b**2, 2 * a - c], 1))


@moded
def test_a_curl_in_the_plane_is_the_one_in_closed_form(mode: str) -> None:
    x = points(2, 4, 2)
    f = lambda x: torch.stack([x[..., 1] ** 3, torch.sin(x[..., 0])], -1)
    close(lmtorch.curl(f, x, batch_dims=2, mode=mode), torch.cos(x[..., 0]) - 3 * x[..., 1] ** 2)


@pytest.mark.parametrize("mode", ["auto", "taylor", "forward", "reverse"])
def test_jvp_is_the_jacobian_times_v(mode: str) -> None:
    model, x = built(mlp), points(4, 3)
    v = points(4, 3, seed=2)
    expected = torch.autograd.functional.jvp(model, x, v)[1]
    close(lmtorch.jvp(model, x, v, mode=mode), expected)
    spread = torch.autograd.functional.jvp(model, x, v[0].expand(4, 3).contiguous())[1]
    close(lmtorch.jvp(model, x, v[0], mode=mode), spread)
    assert not lmtorch.jvp(lambda x: torch.ones(2, dtype=F64), x, v, mode=mode).any()


@pytest.mark.parametrize("mode", ["auto", "reverse"])
def test_jvp_of_attention_has_a_way(mode: str) -> None:
    model, x, v = built(Attention), points(2, 2, 4), points(2, 2, 4, seed=2)
    expected = torch.einsum("bijkl,bkl->bij", jacobians(model, x), v)
    close(lmtorch.jvp(model, x, v, mode=mode).detach(), expected)


def test_vjp_is_the_jacobian_transposed_times_w() -> None:
    model, x, w = built(mlp), points(4, 3), points(4, 2)
    close(lmtorch.vjp(model, x, w), torch.autograd.functional.vjp(model, x, w)[1])
    close(
        lmtorch.vjp(model, x, w[:, :1]),
        torch.autograd.functional.vjp(model, x, w[:, :1].expand(4, 2))[1],
    )
    assert not lmtorch.vjp(lambda x: torch.ones(2, dtype=F64), x, torch.ones(2, dtype=F64)).any()


def test_directions_may_be_lists() -> None:
    x = points(3)
    close(
        lmtorch.jvp(torch.sin, x, [1.0, 0.0, 2.0]),
        torch.cos(x) * torch.tensor([1.0, 0.0, 2.0], dtype=F64),
    )
    close(lmtorch.vjp(torch.sin, x, 2.0), 2 * torch.cos(x))


@moded
def test_the_function_may_know_x_from_elsewhere_as_a_constant(mode: str) -> None:
    x = points(4, 3).requires_grad_()
    close(lmtorch.gradient(lambda z: (z * x).sum(1), x, mode=mode).detach(), x.detach())


@moded
def test_a_function_that_does_not_depend_on_x_has_zero_derivatives(mode: str) -> None:
    x = points(4, 3)
    weight = torch.ones(2, dtype=F64, requires_grad=True)
    for f in (lambda x: torch.ones(4, 2, dtype=F64), lambda x: weight.expand(4, 2)):
        close(lmtorch.batch_jacobian(f, x, mode=mode).detach(), torch.zeros(4, 2, 3, dtype=F64))


@moded
def test_the_length_of_a_zero_vector_has_derivative_zero_as_torch_has_it(mode: str) -> None:
    x = torch.tensor([[0.0, 0.0], [3.0, 4.0]], dtype=F64)
    found = lmtorch.gradient(lambda x: x.norm(dim=1), x, mode=mode)
    close(
        found.detach(),
        one_by_one(torch.autograd.functional.jacobian, lambda x: x.norm(dim=1), x, 1),
    )


def test_rows_that_fill_the_cache_are_those_of_a_few_samples(monkeypatch: Any) -> None:
    """Large batches take plain autograd, row by row, where nothing is differentiated further."""
    model, x = built(mlp), points(6, 3)
    net = lambda x: model(x.unflatten(1, (2, 3)).sum(1))
    x = torch.cat([x, x.cos()], 1)
    expected = lmtorch.batch_jacobian(net, x, mode="reverse").detach()
    monkeypatch.setattr(first, "FULL", 8)
    monkeypatch.setattr(first, "pullback", lambda *_: pytest.fail("the way of torch.func"))
    with torch.no_grad():
        found = lmtorch.batch_jacobian(net, x)
    assert not found.requires_grad
    close(found, expected)
