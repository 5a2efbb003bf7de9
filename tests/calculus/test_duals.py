"""Dual numbers give the derivatives that torch gives, operator by operator."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lmtorch.calculus.base import NoRuleError
from lmtorch.calculus.duals import variables
from lmtorch.calculus.rules import CONSTANT, RULES
from lmtorch.jacobians.dual_numbers import taken

from .operators import BY_HAND, F64, KERNEL, OF_VECTORS, ROW, TABLE, W, bent, points

ROUNDINGS = 256  # sums of up to some ten terms, rounded in another order
CASES = {**TABLE, **OF_VECTORS}


def carried(f: Callable[[Any], Any], x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """f at x, its first and its second derivatives, (*out), (*out, n) and (*out, n, n)."""
    n = x.numel()
    with torch.enable_grad():
        once, found = f(variables(x, 0, x.ndim)), f(variables(x, 0, x.ndim, curved=True))
    value, first, none = taken(once)
    again, _, second = taken(found)
    assert not none
    torch.testing.assert_close(value, again, rtol=0, atol=0, equal_nan=True)
    zero = torch.zeros_like(value)
    firsts = [first.get(i, zero) for i in range(n)]
    seconds = [[second.get((min(i, j), max(i, j)), zero) for j in range(n)] for i in range(n)]
    return value, torch.stack(firsts, -1), torch.stack([torch.stack(s, -1) for s in seconds], -2)


def same(f: Callable[[Any], Any], x: Tensor, by_hand: Callable[[Any], Any] | None = None) -> None:
    """Value, first and second derivatives as torch has them, by reverse mode."""
    value, first, second = carried(f, x)
    f = by_hand or f
    plain = f(x)
    torch.testing.assert_close(value, plain)

    def gradient(x: Tensor) -> Tensor:
        found = torch.autograd.functional.jacobian(f, x, create_graph=True)
        return found.reshape(*plain.shape, x.numel())

    exact = gradient(x.clone().requires_grad_()).detach()
    bends = torch.autograd.functional.jacobian(gradient, x).reshape(*exact.shape, x.numel())
    for found, expected in ((first, exact), (second, bends)):
        room = ROUNDINGS * torch.finfo(value.dtype).eps * max(1.0, float(expected.abs().max()))
        torch.testing.assert_close(found.to(expected), expected, rtol=0, atol=room)


def test_every_rule_is_tried() -> None:
    assert set(CASES) | set(BY_HAND) == set(RULES)


@pytest.mark.parametrize("name", CASES)
def test_a_rule_gives_first_and_second_derivatives(name: str) -> None:
    dtype = torch.float32 if name == "float" else F64
    same(lambda x: CASES[name](x, bent(x)), points(2, 3, dtype=dtype))


@pytest.mark.parametrize("name", BY_HAND)
def test_what_torch_cannot_differentiate_twice_is_as_written_by_hand(name: str) -> None:
    rule, by_hand = BY_HAND[name]
    same(lambda x: rule(x, bent(x)), points(2, 3), lambda x: by_hand(x, bent(x)))


def unpacked(a: Any, b: Any, c: Any) -> Any:
    return a * torch.exp(-b * ROW) + c


OTHER: dict[str, Callable[[Any], Any]] = {
    "a power of both": lambda x: x[0] ** x[1] * (x[:2] ** x[1:]),
    "a power of a constant vector": lambda x: ROW**x + x**ROW,
    "a number to the power": lambda x: 3**x,
    "a row of integers": lambda x: (x[0] * torch.arange(4) / 2 - x[1]) ** 2,
    "single precision in between": lambda x: x[0] * torch.arange(3.0) + x[2].exp(),
    "a matrix with the parameters": lambda x: (W @ x).sin() @ W,
    "the parameters with a matrix": lambda x: (x @ W) * (torch.einsum("i,ij->j", x, W)),
    "a network of parameters": lambda x: torch.nn.functional.linear(
        ROW[:, None], (x[:, None]).tanh(), x
    ),
    "unpacked": lambda x: unpacked(*x),
    "one that has no influence": lambda x: x[0] * ROW + 0 * x[1],
    "slices of parameters": lambda x: x[1:].exp() * x[:2] + x[-1],
    "a parameter itself": lambda x: x,
    "views of parameters": lambda x: x.view(3, 1).reshape(1, 3).flatten() * x.unsqueeze(0),
    "pieces": lambda x: torch.cat([p.sin() * p for p in x.split([1, 2])]),
    "where with a constant": lambda x: torch.where(ROW > 1, x[0] * ROW, 2.0),
    "where with parameters": lambda x: torch.where(x > 1, x[0].square(), x),
    "a sum over all": lambda x: (x[0] * ROW).sum() * x.mean() + torch.sum(x) ** 2,
    "a normalised row": lambda x: x * x / (x * x).sum(),
    "a branch on a value": lambda x: x[0] ** 2 if x[0] > 0 else -x[0],
    "shapes and dtypes": lambda x: x.reshape(x.shape[0], 1).to(x.dtype) / x.numel() / x.dim(),
    "a method with out of its own": lambda x: x.add(x, alpha=2).sub(1).mul(x).div(3).neg(),
    "a complex number": lambda x: torch.view_as_real(torch.exp(1j * x[0] * ROW) / (1 + 1j * x[1])),
    "its real part": lambda x: ((x[0] + 1j * x[1]) ** 2 * (x[2] * 1j).exp()).real,
}


@pytest.mark.parametrize("case", OTHER)
def test_what_models_are_made_of_has_the_derivatives_of_torch(case: str) -> None:
    same(OTHER[case], points(3))


EDGES: dict[str, tuple[Callable[[Any], Any], list[float]]] = {
    "a root at zero": (torch.sqrt, [0.0, 1.0]),
    "a power at zero": (lambda x: x**0.5, [0.0, 2.0]),
    "a whole power at zero": (lambda x: x**3 + x**2 + x**1, [0.0, -2.0]),
    "a negative base": (lambda x: x**1.5, [-1.0, 1.0]),
    "a modulus at zero": (torch.abs, [0.0, -1.0]),
    "a rectifier at zero": (torch.relu, [0.0, -1.0, 1.0]),
    "a logarithm at zero": (torch.log, [0.0, -1.0]),
    "a quotient by zero": (lambda x: 1 / x, [0.0, 1.0]),
    "the ends of a clamp": (lambda x: x.clamp(0.0, 1.0), [0.0, 1.0, 0.5, 2.0]),
    "a maximum of equals": (lambda x: torch.maximum(x, torch.ones_like(x)), [1.0, 2.0, 0.0]),
    "the end of an arcsine": (torch.asin, [1.0, -1.0]),
    "overflow": (torch.exp, [1000.0, -1000.0]),
    "a power of zero to a parameter": (lambda x: torch.zeros(2, dtype=F64) ** x, [0.0, 1.0]),
    "where keeps what is not taken out": (
        lambda x: torch.where(x > 0, x, 1.0).log() + torch.where(x > 0, x.log(), 0.0),
        [0.0, 2.0],
    ),
    "a tangent of its length at zero": (lambda x: torch.linalg.vector_norm(x, dim=0), [0.0, 0.0]),
}


@pytest.mark.parametrize("case", EDGES)
def test_at_kinks_and_ends_derivatives_are_those_of_forward_mode(case: str) -> None:
    f, start = EDGES[case]
    x = torch.tensor(start, dtype=F64)
    value, first, _ = carried(f, x)
    torch.testing.assert_close(value, f(x), equal_nan=True)
    torch.testing.assert_close(first, torch.func.jacfwd(f)(x), equal_nan=True)


@pytest.mark.parametrize("name", sorted(CONSTANT - {"empty_like", "new_empty"}))
def test_what_has_no_derivative_is_a_tensor(name: str) -> None:
    special = {
        "full_like": lambda x: torch.full_like(x, 2.0),
        "new_full": lambda x: x.new_full((2,), 2.0),
        "new_ones": lambda x: x.new_ones(2),
        "new_zeros": lambda x: x.new_zeros(2),
        "new_tensor": lambda x: x.new_tensor([1.0]),
        "data": lambda x: x.data,
    }
    of = special.get(name) or (getattr(torch, name, getattr(Tensor, name, None)))
    assert isinstance(of(variables(points(3), 0, 1)), Tensor)


def writes(x: Any) -> Any:
    found = torch.zeros(3, dtype=F64)
    found[1] = x[0]
    return found


def adds_in_place(x: Any) -> Any:
    found = x[0] * ROW
    found += 1
    return found


class Cube(torch.autograd.Function):
    """x³."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx: Any, w: Tensor) -> Tensor:
        return 3 * ctx.saved_tensors[0] ** 2 * w


class Rounded(torch.autograd.Function):
    """Rounded, with the derivative of x itself."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.round()

    @staticmethod
    def backward(ctx: Any, w: Tensor) -> Tensor:
        return w


REFUSED: dict[str, Callable[[Any], Any]] = {
    "an operator without a rule": lambda x: torch.fft.rfft(x).real,
    "a write into a tensor": writes,
    "a sum in place": adds_in_place,
    "a method in place": lambda x: (x * 2).mul_(3),
    "a function in place": lambda x: torch.nn.functional.relu(x * 2, inplace=True),
    "an assignment to x": lambda x: x.__setitem__(0, 1.0),
    "a result into a given tensor": lambda x: torch.exp(x, out=torch.zeros(3, dtype=F64)),
    "NumPy's functions": np.exp,
    "an array": np.asarray,
    "an array by its method": lambda x: x.numpy(),
    "an index that is a function of x": lambda x: ROW[x],
    "an autograd.Function": Cube.apply,
    "an autograd.Function of no slope": Rounded.apply,
    "torch.func inside": torch.func.grad(lambda z: (z**2).sum()),
    "vmap inside": torch.func.vmap(torch.sin),
    "a conversion": lambda x: torch.as_tensor(x) * 2,
    "a convolution with a weight": lambda x: torch.nn.functional.conv1d(ROW[None, None], x[None]),
    "a result under no_grad": lambda x: torch.no_grad()(lambda: x * 2)(),
    "a module's parameter": lambda x: torch.func.functional_call(
        torch.nn.Linear(3, 1), {"weight": x[None]}, (ROW,)
    ),
    "a scripted function": torch.jit.trace(torch.sin, ROW),
    "unknown methods": lambda x: x.cumprod(0),
}


@pytest.mark.filterwarnings("ignore:.*torch.jit")
@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_seen_is_refused_and_not_lost(case: str) -> None:
    with torch.enable_grad(), pytest.raises((NoRuleError, TypeError, RuntimeError, ValueError)):
        REFUSED[case](variables(points(3), 0, 1))


def test_what_detaches_is_a_constant_as_it_is_to_autograd() -> None:
    def f(x: Any) -> Any:
        return x[0].detach() * x + float(x[1].detach()) * x[2] + x[1].item() * ROW

    x = points(3)
    _, first, _ = carried(f, x)
    torch.testing.assert_close(first, torch.autograd.functional.jacobian(f, x))


def test_derivatives_that_are_zero_are_not_there() -> None:
    with torch.enable_grad():
        a, b, _ = variables(points(3), 0, 1)
        found = (a * KERNEL.flatten()).exp() + b
    assert set(found.first) == {0, 1}
    assert found.first[1] == 1.0  # the same everywhere
