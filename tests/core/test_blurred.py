"""Directions that single precision blurs: what the rows of J promise there is tried.

The reference is the minimum of the same data, as they were rounded, in double precision.
"""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

import lmtorch
from lmtorch.core.blurred import TRIALS, bearable, tried
from lmtorch.core.undamped import WALK

from .test_certificate import evidence

F32, F64 = torch.float32, torch.float64
T = torch.linspace(0, 4, 40, dtype=F64)


def decays(p: Tensor, y: Tensor) -> Tensor:
    """Two decays at rates that are all but the same: a condition of 7·10⁴ and more."""
    a, k, b, q = p[..., :, None].unbind(-2)
    t = T.to(p.dtype)
    return a * torch.exp(-k * t) + b * torch.exp(-q * t) - y


def near_decays(noise: float, count: int) -> tuple[Tensor, Tensor]:
    """Data of near decays, and starts up to a tenth off, in float32."""
    g = torch.Generator().manual_seed(0)
    truth = torch.tensor([1.0, 1.0, 1.0, 1.1], dtype=F64)
    y = decays(truth, torch.zeros(()))
    y = y + noise * y.sub(y.mean()).abs().max() * torch.randn(count, 40, generator=g, dtype=F64)
    start = truth * (1 + 0.2 * (torch.rand(count, 4, generator=g, dtype=F64) - 0.5))
    return y.to(F32), start.to(F32)


def above(x: Tensor, y: Tensor) -> Tensor:
    """How far the cost of ends (b, n) is above the minimum that double precision goes on to."""
    x, y = x.to(F64), y.to(F64)
    fine = lmtorch.least_squares(
        decays, x, args=(y,), in_dims=(0, 0), second_opinion=False, max_nfev=500
    )
    return decays(x, y).square().sum(-1) / (2 * fine.cost) - 1


@pytest.mark.parametrize("noise", [1e-5, 1e-4])
def test_near_decays_in_a_batch_are_at_a_minimum_if_they_say_so(noise: float) -> None:
    y, start = near_decays(noise, 10)
    found = lmtorch.least_squares(decays, start, args=(y,), in_dims=(0, 0))
    assert int(found.success.sum()) >= 5
    # those that said so and were not were 3 % to 7 % above it
    assert float(above(found.x, y)[found.success].max()) < 1e-3


@pytest.mark.parametrize("most", range(8, 40, 3))
def test_what_is_tried_is_counted_and_is_no_more_than_is_allowed(most: int) -> None:
    y, start = near_decays(1e-4, 10)
    found = lmtorch.least_squares(
        decays, start, args=(y,), in_dims=(0, 0), max_nfev=most, second_opinion=False
    )
    assert int(found.nfev.max()) <= most


def test_near_decays_by_themselves_are_at_a_minimum_if_they_say_so() -> None:
    y, start = near_decays(1e-4, 5)
    ends = [
        lmtorch.least_squares(decays, begun, args=(one,))
        for one, begun in zip(y[2:], start[2:], strict=True)
    ]
    share = above(torch.stack([end.x for end in ends]), y[2:])
    for end, far in zip(ends, share.tolist(), strict=True):
        assert not end.success or far < 1 / 40  # a standard error, which is 1/m of the cost


def test_a_line_far_from_zero_reaches_its_minimum() -> None:
    g = torch.Generator().manual_seed(0)
    x = torch.linspace(1e4, 1.001e4, 40, dtype=F64).to(F32)
    y = (5 + 0.02 * x.to(F64) + 0.02 * torch.randn(20, 40, generator=g, dtype=F64)).to(F32)
    start = torch.tensor([5.0, 0.02]) * (1 + 0.1 * torch.rand(20, 2, generator=g))
    found = lmtorch.least_squares(
        lambda p, y: p[0] + p[1] * x - y, start, args=(y,), in_dims=(0, 0)
    )
    rows = torch.stack([torch.ones(40, dtype=F64), x.to(F64) - 1e4], -1)
    left = y.to(F64) - (rows @ torch.linalg.lstsq(rows, y.to(F64).mT).solution).mT
    least = left.square().sum(-1) / 2
    p = found.x.to(F64)
    reached = (p[:, :1] + p[:, 1:] * x.to(F64) - y.to(F64)).square().sum(-1) / 2
    assert bool(found.success.all())
    assert float((reached / least - 1).max()) < bearable(40)


def looked(fall: float, promise: float, noise: float) -> tuple[Any, Any, bool]:
    """A point of cost one from which the cost falls so far along the blurred step."""
    problem: Any = SimpleNamespace(
        rows=16, move=lambda x, step: x + step, cost=lambda x: 1 - fall * x[0]
    )
    state: Any = SimpleNamespace(
        x=torch.zeros(2), cost=torch.ones((), dtype=F64), trials=torch.tensor(3)
    )
    state._replace = lambda **new: SimpleNamespace(**{**vars(state), **new})
    one = torch.ones((), dtype=F64)
    seen = evidence()._replace(
        decrement=promise * one, beyond=promise * one, noise=noise * one,
        aside=torch.tensor([1.0, 0.0]),
    )  # fmt: skip
    after, found, worth = tried(problem, state, seen, torch.tensor(True), 1e-5)
    assert int(after.trials) == 3 + TRIALS
    return after, found, bool(worth)


def test_a_promise_is_kept_disproved_or_left_in_doubt() -> None:
    after, found, worth = looked(fall=1e-2, promise=1e-2, noise=1e-5)
    assert worth
    assert float(after.x[0]) == 1
    assert float(found.decrement) == 1e-2
    assert float(after.cost) == pytest.approx(1 - 1e-2)
    after, found, worth = looked(fall=-1.0, promise=1e-2, noise=1e-5)
    assert not worth
    assert float(after.x[0]) == 0
    assert float(found.decrement) == 0
    # round-off would hide it: WALK / √16 times the noise
    noise = 1e-2 * (16**0.5 / WALK)
    _, found, worth = looked(fall=-1.0, promise=1e-2, noise=noise)
    assert not worth
    assert float(found.decrement) == 1e-2
    # more than a standard error of sixteen points, which a straight step may miss
    _, found, worth = looked(fall=-1.0, promise=0.1, noise=1e-5)
    assert not worth
    assert float(found.decrement) == 0.1
