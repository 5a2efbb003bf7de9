"""Every rule of Taylor mode gives the derivatives that torch gives of single samples."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import lmtorch
from lmtorch.calculus.rules import CONSTANT, RULES

from ..calculus.operators import BIAS, BY_HAND, KERNEL, OF_VECTORS, ROW, TABLE, W, bent
from .setting import F32, F64, close, jacobians, points, same_derivatives


def test_every_rule_is_in_the_table() -> None:
    assert set(RULES) == set(TABLE) | set(OF_VECTORS) | set(BY_HAND)


@pytest.mark.parametrize("name", TABLE)
def test_a_rule_gives_first_and_second_derivatives(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    used = []
    rule = RULES[name]

    def spied(*args: Any, **kwargs: Any) -> Any:
        used.append(name)
        return rule(*args, **kwargs)

    monkeypatch.setitem(RULES, name, spied)
    dtype = F32 if name == "float" else F64
    same_derivatives(lambda x: TABLE[name](x, bent(x)), points(4, 3, dtype=dtype))
    assert used


@pytest.mark.parametrize("name", BY_HAND)
def test_what_torch_cannot_differentiate_twice_is_as_written_by_hand(name: str) -> None:
    x, (rule, by_hand) = points(4, 3), BY_HAND[name]
    for of in (lmtorch.batch_jacobian, lmtorch.batch_hessian):
        expected = of(lambda x: by_hand(x, bent(x)), x, mode="reverse")
        close(of(lambda x: rule(x, bent(x)), x, mode="taylor"), expected.detach())


@pytest.mark.parametrize(
    "name", sorted(CONSTANT - {"rand_like", "randn_like", "empty_like", "new_empty"})
)
def test_what_has_no_derivative_is_a_constant(name: str) -> None:
    special: dict[str, Callable[[Tensor], Tensor]] = {
        "data": lambda z: z.data,
        "full_like": lambda z: torch.full_like(z, 2.0),
        "ones_like": torch.ones_like,
        "zeros_like": torch.zeros_like,
        "new_full": lambda z: z.new_full(z.shape, 2.0),
        "new_ones": lambda z: z.new_ones(z.shape),
        "new_tensor": lambda z: z.new_tensor([1.0, 2.0, 3.0]),
        "new_zeros": lambda z: z.new_zeros(z.shape),
    }
    of = special.get(name, lambda z: getattr(z, name)())
    x = points(4, 3)
    found = lmtorch.batch_hessian(lambda x: bent(x) * of(bent(x)), x, mode="taylor")
    made = of(bent(x)).expand(4, 3)
    close(found, made[..., None, None] * lmtorch.batch_hessian(bent, x, mode="reverse").detach())


def product(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    return a**2 * b * c


CASES: dict[str, tuple[Callable[[Tensor], Tensor], tuple[int, ...], int]] = {
    # broadcasting, (b, 1) with (b, h), with numbers and with 0-d tensors
    "columns with rows": (lambda x: (x[:, :1] ** 2 * torch.sin(x)).sum(1), (4, 3), 1),
    "outer product": (lambda x: x[:, :, None] ** 2 * x[:, None] ** 3, (4, 3), 1),
    "0-d tensor": (
        lambda x: torch.tensor(2.0, dtype=F64) * x**2 + torch.tensor(1.0, dtype=F64),
        (4, 3),
        1,
    ),
    "fewer dimensions": (
        lambda x: x.sum(1) ** 2 * torch.ones(2, 4, 1, dtype=F64)[0].T[0],
        (4, 3),
        1,
    ),
    "a row of constants": (lambda x: (x**2)[:, :1] + ROW, (4, 3), 1),
    "more dimensions than both": (
        lambda x: (x**2)[:, None] * torch.ones(1, 2, 1, dtype=F64),
        (4, 3),
        1,
    ),
    "without a batch": (lambda x: x[0] ** 2 * x[1:] + x.sum() * x[1], (3,), 0),
    "a number with a vector": (lambda x: x.sum() ** 3 / x, (3,), 0),
    "a number to a number": (lambda x: torch.sin(x) / x, (), 0),
    "samples that are numbers": (lambda x: torch.stack([x**2, torch.cos(x)], 1), (4,), 1),
    "two batches": (lambda x: torch.softmax(x @ W, -1) * x[..., :1], (2, 3, 3), 2),
    "many directions": (lambda x: (x.flatten(1).cumsum(1) ** 2).tanh()[:, :4], (2, 2, 3), 1),
    "the same twice": (lambda x: x * x, (4, 3), 1),
    "the same matrix twice": (lambda x: x @ x, (3, 2, 2), 1),
    "a matrix, thrice": (lambda x: x @ x.mT @ x, (2, 2, 2), 1),
    "matrices, one for all": (lambda x: (x**2) @ points(2, 2), (3, 2, 2), 1),
    "matrices, the first constant": (lambda x: points(5, 2) @ torch.sin(x), (3, 2, 2), 1),
    "a matrix with a stack": (lambda x: x[0] @ torch.sin(x), (3, 2, 2), 0),
    # powers
    "square root": (lambda x: x**0.5, (4, 3), 1),
    "first power": (lambda x: (x**2) ** 1, (4, 3), 1),
    "negative power": (lambda x: (x**2) ** -3, (4, 3), 1),
    "a float that is whole": (lambda x: torch.sin(x) ** 2.0, (4, 3), 1),
    "pow as a function": (lambda x: torch.pow(torch.sin(x), 3), (4, 3), 1),
    # products of all along a dimension
    "prod kept": (lambda x: (x * (1 - x)).prod(-1, keepdim=True) * x, (4, 3), 1),
    "prod in the middle": (lambda x: torch.prod(x.sin(), dim=1), (3, 5, 2), 1),
    "prod of everything": (lambda x: x.square().prod() * x, (2, 3), 0),
    "prod of seven": (lambda x: x.exp().prod(1), (2, 7), 1),
    "prod of one": (lambda x: x.exp()[:, :1].prod(1), (2, 3), 1),
    # quotients
    "by a function of x": (lambda x: torch.sin(x) / (1 + x[:, :1] ** 2), (4, 3), 1),
    "by itself": (lambda x: (x**2) / x.sum(1, keepdim=True), (4, 3), 1),
    "a constant by a function": (lambda x: ROW / (x * x), (4, 3), 1),
    "by a tensor": (lambda x: (x * x) / ROW, (4, 3), 1),
    # where
    "where with a number": (lambda x: torch.where(x > 1, x**3, 0.0), (4, 3), 1),
    "where of a column": (lambda x: torch.where(x > 1, x[:, :1] ** 2, x**3), (4, 3), 1),
    "where first a constant": (lambda x: torch.where(x > 1, ROW, x**3), (4, 3), 1),
    "where of linear and bent": (lambda x: torch.where(x[:, :1] > 1, x, x.exp()), (4, 3), 1),
    "where, as a method": (lambda x: (x**3).where(x > 1, x**2), (4, 3), 1),
    "where, as a method of a constant": (
        lambda x: ROW.expand(4, 3)[: len(x)].where(x > 1, x**2),
        (4, 3),
        1,
    ),
    "where, as a method of a mask": (lambda x: (x < 9).where(x > 1, x**2), (4, 3), 1),
    "where keeps NaN out": (lambda x: torch.where(x > 0, x, 1.0).log() * x.square(), (4, 3), 1),
    # indices
    "an integer": (lambda x: (x**3)[:, 1], (4, 3), 1),
    "a negative integer": (lambda x: (x**3)[:, -1], (4, 3), 1),
    "slices with steps": (lambda x: (x**3)[:, ::2], (4, 3), 1),
    "None": (lambda x: (x**3)[:, None, :, None], (4, 3), 1),
    "Ellipsis": (lambda x: (x**3)[..., 0], (4, 2, 3), 1),
    "Ellipsis in the middle": (lambda x: (x**3)[:, ..., 1:], (4, 2, 3), 1),
    "a list": (lambda x: (x**3)[:, [2, 0, 0]], (4, 3), 1),
    "a tensor of integers": (lambda x: (x**3)[:, torch.tensor([2, 0])], (4, 3), 1),
    "two tensors": (lambda x: (x**3)[:, torch.tensor([0, 1]), torch.tensor([2, 0])], (4, 2, 3), 1),
    "a mask": (lambda x: (x**3)[:, torch.tensor([True, False, True])], (4, 3), 1),
    "the first of all": (lambda x: (x**3)[0], (3, 2), 0),
    "a plain mask": (lambda x: (x**3)[torch.tensor([True, False, True])], (3, 2), 0),
    "unpacking": (lambda x: product(*x.T), (4, 3), 1),
    # stacking
    "cat along a negative dimension": (
        lambda x: torch.cat([x, x**2, ROW.expand(len(x), 3)], dim=-1),
        (4, 3),
        1,
    ),
    "stack of columns": (
        lambda x: torch.stack([x[:, 0] ** 2, torch.ones_like(x[:, 1]), x[:, 1]], -1),
        (4, 3),
        1,
    ),
    "cat of linear and bent": (lambda x: torch.cat([x, x.exp()], 1).square(), (4, 3), 1),
    # negative dimensions, and several
    "sum over several": (lambda x: (x**3).sum((-1, -2)), (4, 2, 3), 1),
    "mean over a negative": (lambda x: (x**3).mean(-2, keepdim=True) * x, (4, 2, 3), 1),
    "sum of everything": (lambda x: (x**3).sum() * x, (3,), 0),
    "squeeze of everything": (lambda x: (x**3)[:, None].squeeze(), (4, 3), 0),
    "softmax over a middle dimension": (lambda x: torch.softmax(x**2, dim=1), (3, 2, 2), 1),
    "softmax as a method": (lambda x: (x * x).softmax(dim=-1), (4, 3), 1),
    "softmax of large numbers": (lambda x: torch.softmax(1000 + x * x, -1), (4, 3), 1),
    "layer norm over two dimensions": (lambda x: F.layer_norm(x**2, (2, 2)), (3, 2, 2), 1),
    "norm over two dimensions": (
        lambda x: torch.linalg.vector_norm(x**2, dim=(1, 2)),
        (3, 2, 2),
        1,
    ),
    "Frobenius norm": (lambda x: torch.linalg.norm(x**2, dim=(-2, -1)), (3, 2, 2), 1),
    "norm as a function": (lambda x: torch.norm(x**2, p=2, dim=1, keepdim=True), (4, 3), 1),
    "view across samples": (lambda x: (x.view(-1, 3) ** 3).view(len(x), 2, 3), (4, 2, 3), 1),
    # convolutions
    "a convolution with bias": (
        lambda x: F.conv1d(x.tanh(), KERNEL, BIAS, stride=2, padding=1),
        (2, 1, 4),
        1,
    ),
    "a convolution of a convolution": (
        lambda x: F.conv1d(F.conv1d(x, KERNEL, BIAS).square(), torch.ones(1, 2, 1, dtype=F64)),
        (2, 1, 4),
        1,
    ),
    "activations with options": (
        lambda x: F.leaky_relu(x - 1, 0.3) ** 2 + F.elu(x - 1, alpha=0.5),
        (4, 3),
        1,
    ),
    "gelu by tanh": (lambda x: F.gelu(x, approximate="tanh"), (4, 3), 1),
    "softplus with options": (lambda x: F.softplus(x, beta=2.0), (4, 3), 1),
    "clamp on one side": (lambda x: (x**2).clamp(1.0) * x, (4, 3), 1),
    "dropout that drops nothing": (lambda x: F.dropout(x**2, 0.0), (4, 3), 1),
    "detached": (lambda x: x**2 * (x**3).detach(), (4, 3), 1),
}


@pytest.mark.parametrize("name", CASES)
def test_operators_take_all_that_torch_takes(name: str) -> None:
    f, shape, batch = CASES[name]
    same_derivatives(f, points(*shape), batch)


@pytest.mark.parametrize("power", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("mode", ["auto", "taylor"])
def test_whole_powers_have_derivatives_at_zero(power: int, mode: str) -> None:
    x = torch.tensor([[0.0, 2.0], [-1.0, 0.0]], dtype=F64)
    f = lambda x: x**power
    slope = power * x.numpy() ** (power - 1)
    bend = power * (power - 1) * x.numpy() ** max(0, power - 2)
    close(lmtorch.batch_jacobian(f, x, mode=mode), torch.diag_embed(torch.tensor(slope)))
    close(lmtorch.laplacian(f, x, mode=mode), torch.tensor(bend))


@pytest.mark.parametrize("zeros", [[0], [1, 3], [0, 2, 4], [0, 1, 2, 3, 4]], ids=str)
@pytest.mark.parametrize("form", [lambda x: (x * (1 - x)).prod(-1), lambda x: x.prod(1)])
def test_a_product_has_derivatives_where_factors_are_zero(
    zeros: list[int], form: Callable[[Tensor], Tensor]
) -> None:
    x = points(3, 5)
    x[1:, zeros] = 0
    same_derivatives(form, x)


def test_dropout_uses_one_mask_for_value_and_derivatives() -> None:
    x = points(50, 3)
    value, J, H = lmtorch.value_jacobian_hessian(
        lambda x: F.dropout(x**3, 0.5).sum(1), x, mode="taylor"
    )
    kept = J != 0
    assert 0 < kept.double().mean() < 1
    close(value, (2 * x**3 * kept).sum(1))
    close(H, torch.diag_embed(2 * 6 * x * kept))


def test_one_rule_serves_keywords_as_well_as_places() -> None:
    f = lambda x: F.linear(input=x.tanh(), weight=W, bias=ROW)
    x = points(4, 3)
    close(lmtorch.batch_jacobian(f, x), jacobians(f, x))
