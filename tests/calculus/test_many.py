"""Dual numbers of many problems give each the derivatives that it has alone, or refuse."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from lmtorch.calculus.base import NoRuleError
from lmtorch.calculus.many import Many, constant_of_many, variables_of_many
from lmtorch.jacobians.dual_numbers import taken

from .operators import F64, TABLE, points

T = torch.linspace(0.5, 2, 3, dtype=F64)
REFUSALS = (NoRuleError, TypeError, RuntimeError, ValueError, IndexError, AttributeError)


def carried(
    f: Callable[[Any, Any], Any], x: Tensor, y: Tensor, curved: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """f of all problems, with its first and second derivatives, those of each behind it."""
    n = x.shape[1]
    with torch.enable_grad():
        found = f(variables_of_many(x, 0, curved), constant_of_many(y, curved))
    assert isinstance(found, Many)
    value, first, second = taken(found)
    zero = torch.zeros_like(value)
    firsts = torch.stack([first.get(i, zero) for i in range(n)], -1)
    seconds = [[second.get((min(i, j), max(i, j)), zero) for j in range(n)] for i in range(n)]
    bends = torch.stack([torch.stack(s, -1) for s in seconds], -2)
    of = slice(None) if not found.single else 0
    return value[:, of], firsts[:, of], bends[:, of]


def same(f: Callable[[Any, Any], Any], n: int = 3) -> None:
    x, y = points(4, n), points(4, 3, seed=2)
    value, first, second = carried(f, x, y, curved=True)
    torch.testing.assert_close(carried(f, x, y, curved=False)[1], first)
    with torch.enable_grad():  # what has no derivatives is evaluated alone
        alone = f(variables_of_many(x, None), constant_of_many(y))
    torch.testing.assert_close(alone.value[:, 0] if alone.single else alone.value, value)
    for place in range(len(x)):

        def one(p: Tensor, place: int = place) -> Tensor:
            return f(p, y[place])

        torch.testing.assert_close(value[place], one(x[place]))
        torch.testing.assert_close(first[place], torch.func.jacfwd(one)(x[place]))
        bends = torch.func.jacfwd(torch.func.jacrev(one))(x[place])
        torch.testing.assert_close(second[place], bends)


def unpacked(a: Any, b: Any, c: Any) -> Any:
    return a * torch.exp(-b * T) + c


CASES: dict[str, Callable[[Any, Any], Any]] = {
    "a peak": lambda x, y: x[0] * torch.exp(-(((T - x[1]) / x[2]) ** 2)) - y,
    "unpacked": lambda x, y: unpacked(*x) - y,
    "unbound": lambda x, y: torch.stack(x.unbind()) * y,
    "a number": lambda x, y: x[0] * x[1].sin(),
    "a share at a place": lambda x, y: y[1] * x[0] * T + y[0],
    "slices": lambda x, y: x[1:].exp() * x[:2] + y[:1],
    "a vector of the parameters": lambda x, y: x * y / (x[0] + y),
    "sums over points": lambda x, y: (x[0] * T + y) / (x[0] * T + y * x[1]).sum(),
    "means over points": lambda x, y: x[0] * y - (x[0] * y.sin()).mean(-1),
    "cumulated": lambda x, y: (x[0] * y * T).cumsum(0) + x[1],
    "reversed": lambda x, y: (x[0] * y).exp().flip(0),
    "joined": lambda x, y: torch.cat([x[:1] * T, y * x[2], T]),
    "stacked with a constant": lambda x, y: torch.stack([x[0] * y, T.exp(), y], -1).reshape(-1),
    "a matrix of points": lambda x, y: (x[0] * T[:, None] ** 2 + x[1] * y * x).reshape(-1),
    "a constant with more dimensions": lambda x, y: (y * x[1] * T.outer(T) + x).flatten(),
    "a branch by a mask": lambda x, y: torch.where(T > 1, x[0] * T, x[1] * y),
    "a branch by a mask of the problem": lambda x, y: torch.where(y > x[0], x[1].exp(), x[2] * y),
    "clamped": lambda x, y: (x[0] * y).clamp(0.5, 0.9) * x[1] + (x[1] - 1).abs() * y,
    "a power of both": lambda x, y: y ** x[0] * x[1] ** y,
    "the larger": lambda x, y: torch.maximum(x[0] * y, x[1] * T) + torch.minimum(x[2] + 0 * T, T),
    "an angle": lambda x, y: torch.atan2(x[0] * y, x[1] + T),
    "detached": lambda x, y: x[0].detach() * x[1] * y,
    "sizes": lambda x, y: x[0] * y / len(y) / y.shape[-1] / y.numel() / x.dim(),
    "a reshape that changes nothing": lambda x, y: (x[0] * y).reshape(-1).to(T) - y.to(x),
    "an index by a list": lambda x, y: (x[0] * y)[[2, 0, 0]],
    "an index with a dimension more": lambda x, y: ((x[0] * y)[:, None] * T)[..., 1],
}


@pytest.mark.parametrize("case", CASES)
def test_each_problem_has_what_it_has_alone(case: str) -> None:
    same(CASES[case])


@pytest.mark.parametrize("name", sorted(TABLE.keys() - {"float"}))  # which rounds
def test_an_operator_is_the_same_or_is_refused(name: str) -> None:
    def f(x: Any, y: Any) -> Any:
        two = torch.stack([x, x * y])
        return TABLE[name](two, two * two + two[:, :1] * two).reshape(-1)

    try:
        x, y = points(4, 3), points(4, 3, seed=2)
        carried(f, x, y, curved=False)
    except REFUSALS:
        return
    same(f)


REFUSED: dict[str, Callable[[Any, Any], Any]] = {
    "a branch on a value": lambda x, y: x * y if x[0] > 1 else x,
    "a number": lambda x, y: x * float(y[0]),
    "an item": lambda x, y: x * y[0].item(),
    "a matrix product": lambda x, y: torch.outer(T, T) @ x,
    "a solution": lambda x, y: torch.linalg.solve(torch.eye(3, dtype=F64), x),
    "a shuffle": lambda x, y: y.sort()[0] * x,
    "an index that is a number": lambda x, y: x[0][0] * y,
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_has_no_meaning_for_many_problems_is_refused(case: str) -> None:
    with torch.enable_grad(), pytest.raises(REFUSALS):
        REFUSED[case](variables_of_many(points(4, 3), 0), constant_of_many(points(4, 3)))
