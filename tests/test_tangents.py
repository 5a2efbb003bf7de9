"""Forward mode with constants apart finds what torch's finds, without its kernels for shapes."""

import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import grad, jacfwd, jvp, vmap

from lmtorch._tangents import constants_apart

F64 = torch.float64
C = torch.linspace(0.5, 3, 6, dtype=F64).reshape(2, 3)
WIDE = C.new_tensor([[[0.0]], [[-2.0]]])  # with another dimension, and a zero
X = torch.tensor([1.5, -0.25, 0.75], dtype=F64)
AT = C.clone().requires_grad_()
V = torch.tensor([0.5, -1.0, 2.0], dtype=F64)


def written_to(x: Tensor) -> Tensor:
    y = x + 1.0
    y *= x  # the tangent of x stays what it was
    wide = WIDE - x
    wide += x
    return y * 2.0 + x + wide


def within_no_grad(x: Tensor) -> Tensor:
    with torch.no_grad():
        held = 2.0 * x
    return held * x


def stopped(x: Tensor) -> Tensor:
    with torch.autograd.forward_ad._set_fwd_grad_enabled(False):
        held = 3.0 * x
    return held * x


FUNCTIONS: dict[str, Callable[[Tensor], Any]] = {
    "sums": lambda x: (x + C) + (C + x) + (x + 1) + (2.5 + x) + torch.add(x, WIDE),
    "differences": lambda x: (x - C) + (C - x) + (x - 1) + (2.5 - x) + torch.sub(WIDE, x),
    "reversed": lambda x: torch.rsub(x, C) + torch.rsub(C, x),
    "products": lambda x: (x * C) + (C * x) + (x * 3) + (2.5 * x) + torch.mul(x, WIDE),
    "quotients": lambda x: (x / C) + (C / x) + (x / 3) + (2.5 / x) + torch.div(WIDE, x),
    "of infinity": lambda x: torch.stack([x * torch.inf, torch.inf / x, x - torch.inf]),
    "constants": lambda x: (C * 2.0 - WIDE) * x + C / (C + 1.0),
    "constants made of it": lambda x: torch.zeros_like(x) * C + x.detach() * x + x.sign() * C,
    "other arguments": lambda x: torch.add(x, C, alpha=3) + torch.sub(C, x, alpha=2),
    "rounded": lambda x: torch.div(x, C, rounding_mode="floor") * x,
    "other dtypes": lambda x: x * C.float() + x * torch.arange(3) + (C > 1) * x + x * (1 + 2j),
    "written to": written_to,
    "no_grad": within_no_grad,
    "stopped": stopped,
    "constants with a graph": lambda x: (x * AT) / (1.0 + AT) + AT / x - AT,
    "a gradient": lambda x: grad(lambda y: ((y * x + 2.0) / (1.0 + y)).sum())(C),
    "a jvp": lambda x: jvp(lambda y: (y * 2.0) * (x * y) / C, (C,), (1.0 / C,)),
    "a Jacobian": lambda x: jacfwd(lambda y: y * 2.0 + x / y + 1.0 / y)(X + 1.0),
    "samples": lambda x: vmap(lambda c: (c - x) / 2.0 + c * x)(C),
    "a network": lambda x: torch.nn.functional.linear(torch.tanh(2.0 * x), C, C[:, 0]) * 0.5,
}


BY_ZERO = {"by zero": lambda x: torch.stack([x / 0.0, 0.0 * (x / 0.0), 0.0 / (x * 0.0)])}


def same(found: Any, expected: Any) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize(
    "function", [*FUNCTIONS.values(), *BY_ZERO.values()], ids=[*FUNCTIONS, *BY_ZERO]
)
def test_it_is_what_torch_finds_to_the_last_bit(function: Callable[[Tensor], Any]) -> None:
    quick = constants_apart(function)
    same(quick(X), function(X))
    same(jvp(quick, (X,), (V,)), jvp(function, (X,), (V,)))
    directions = torch.stack([V, -V, X])
    along = vmap(lambda v: jvp(quick, (X,), (v,)))
    same(along(directions), vmap(lambda v: jvp(function, (X,), (v,)))(directions))


@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)
def test_so_are_derivatives_of_it(function: Callable[[Tensor], Any]) -> None:
    # but of x / 0, whose second derivative is no number to torch, and zero here
    def slope(function: Any) -> Any:
        def at(x: Tensor) -> Any:
            found = jvp(function, (x,), (V,))[1]
            return torch.utils._pytree.tree_map(torch.real, found)

        return at

    same(
        jvp(slope(constants_apart(function)), (X,), (V,)),
        jvp(slope(function), (X,), (V,)),
    )


def test_no_kernel_for_shapes_is_called() -> None:
    def function(x: Tensor) -> Tensor:
        return (2.0 - (x * C + 1.0) / 3.0 + C / x - C) * 0.5 - 1.0 / x

    def calls(function: Callable[[Tensor], Tensor]) -> int:
        found = []
        jvp(function, (X,), (V,))

        def seen(frame: Any, event: str, _: Any) -> None:
            if event == "call" and "_prims_common" in frame.f_code.co_filename:
                found.append(frame)

        sys.setprofile(seen)
        try:
            jvp(function, (X,), (V,))
        finally:
            sys.setprofile(None)
        return len(found)

    assert calls(constants_apart(function)) == 0
    # torch still calls them: where it does not any more, all this can go
    assert calls(function) > 0
