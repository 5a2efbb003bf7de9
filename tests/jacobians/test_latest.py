"""A ladder that remembers gives what a ladder gives, and evaluates a point once."""

from typing import Any

import pytest
import torch
from torch import Tensor

from lmtorch import least_squares
from lmtorch._autodiff import Params
from lmtorch.jacobians import Autograd, Forward
from lmtorch.jacobians.base import Block, Workspace
from lmtorch.jacobians.dual_numbers import DualNumbers
from lmtorch.jacobians.ladder import Ladder
from lmtorch.jacobians.latest import POINTS, Latest
from lmtorch.residuals.base import Part

F64 = torch.float64


class Counted:
    """x³ times a factor, by elements."""

    def __init__(self, factor: float) -> None:
        self.factor, self.calls = factor, 0

    def __call__(self, params: tuple[Tensor, ...]) -> Tensor:
        self.calls += 1
        return self.factor * params[0] ** 3


def _part(function: Any) -> Part:
    return Part(function, lambda function, params: function(params), 0, None)


def _asked(source: Ladder, part: Part, x: Tensor) -> tuple[Tensor, Tensor]:
    (block,) = source.blocks(part, (x,), Workspace(lambda rows: x.new_empty(rows, len(x))))
    return block.residual, block.rows.dense()


def test_a_point_of_a_function_is_evaluated_once_and_never_taken_for_another() -> None:
    function, other = Counted(2.0), Counted(5.0)
    source = Latest([Forward()])
    points = [torch.tensor([1.0, float(place)], dtype=F64) for place in range(2 * POINTS)]
    for x in points + points[::-1]:
        for one in (function, other):
            for _ in range(2):
                values, rows = _asked(source, _part(one), x)
                torch.testing.assert_close(values, one.factor * x**3)
                torch.testing.assert_close(rows, torch.diag(3 * one.factor * x**2))
    before = function.calls, other.calls
    _asked(source, _part(other), points[0])
    torch.testing.assert_close(source.evaluate(_part(other), (points[0],)), 5 * points[0] ** 3)
    assert (function.calls, other.calls) == before
    assert len(source.known) <= POINTS
    point = points[1].clone()
    _asked(source, _part(other), point)
    point += 1  # what is remembered is the point, not the tensor
    torch.testing.assert_close(source.evaluate(_part(other), (point,)), 5 * point**3)


def test_a_function_that_writes_into_one_tensor_each_time_changes_nothing_that_is_known() -> None:
    out = torch.empty(2, dtype=F64)

    def function(params: tuple[Tensor, ...]) -> Tensor:
        return out.detach().copy_(params[0] ** 3)

    source, points = Latest([Autograd()]), torch.tensor([[1.0, 2.0], [3.0, 4.0]], dtype=F64)
    for x in points:
        _asked(source, _part(function), x)
    for x in points:
        torch.testing.assert_close(_asked(source, _part(function), x)[0], x**3)
        torch.testing.assert_close(source.evaluate(_part(function), (x,)), x**3)


def test_no_point_of_a_fit_is_linearized_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[float, ...]] = []
    block = DualNumbers.block

    def watched(self: DualNumbers, part: Part, params: Params) -> Block:
        seen.append(tuple(params[0].tolist()))
        return block(self, part, params)

    monkeypatch.setattr(DualNumbers, "block", watched)
    t = torch.linspace(0, 4, 30, dtype=F64)
    y = 2.5 * torch.exp(-1.3 * t) + 0.1 * torch.cos(9 * t)
    start = torch.tensor([1.0, 1.0], dtype=F64)
    assert least_squares(lambda x: x[0] * torch.exp(-x[1] * t) - y, start).success
    assert len(seen) == len(set(seen)) > 3


def test_rows_at_once_are_those_of_blocks_and_come_only_from_verified_dual_numbers() -> None:
    part, x = _part(Counted(2.0)), torch.tensor([1.0, 3.0], dtype=F64)
    source = Latest([DualNumbers(), Forward()])
    assert source.at_once(part, (x,)) is None  # nobody has looked yet whether they are right
    _, rows = _asked(source, part, x)
    for point in (x, x + 1):
        block = source.at_once(part, (point,))
        assert block is not None
        torch.testing.assert_close(block.residual, 2 * point**3)
        torch.testing.assert_close(block.rows.dense(), torch.diag(6 * point**2))
    torch.testing.assert_close(rows, torch.diag(6 * x**2))
    forward = Latest([Forward()])
    _asked(forward, part, x)
    assert forward.at_once(part, (x,)) is None


def test_a_fit_goes_on_where_dual_numbers_fail_in_the_midst_of_it() -> None:
    t = torch.linspace(0, 2, 20, dtype=F64)
    reached: list[bool] = []

    def residual(x: Tensor) -> Tensor:
        value = x[0] * torch.exp(-x[1] * t)
        if float(x[0]) > 2:  # `cumprod` has no rule
            reached.append(True)
            value = value * torch.cumprod(value / value, 0)
        return value - 3 * torch.exp(-0.7 * t)

    solution = least_squares(residual, torch.tensor([1.0, 0.1], dtype=F64))
    assert reached
    torch.testing.assert_close(solution.x, torch.tensor([3.0, 0.7], dtype=F64))


def test_rows_of_another_source_that_are_remembered_are_none_of_dual_numbers() -> None:
    source, part, x = Latest([Forward(), Autograd()]), _part(Counted(2.0)), torch.ones(3, dtype=F64)
    _asked(source, part, x)
    assert source.known
    assert source.at_once(part, (x,)) is None
