"""Newton's steps before the end of a run: fewer evaluations, the same minimum, no false one."""

from typing import Any

import pytest
import torch
from torch import Tensor

import lmtorch
from lmtorch.arrays import arrays_of, quiet, statuses, tensors_of
from lmtorch.core import glance, loop, newton
from lmtorch.core.certificate import certify_clear
from lmtorch.core.linearizing import begin
from lmtorch.core.method import Method
from lmtorch.core.problem import Problem
from lmtorch.core.small import of_arrays
from lmtorch.core.state import Start, State
from lmtorch.core.termination import Status
from lmtorch.damping.scaling import More
from lmtorch.damping.trust_region import TrustRegion
from lmtorch.jacobians.dual_numbers import DualNumbers
from lmtorch.jacobians.forward import Forward
from lmtorch.jacobians.latest import Latest
from lmtorch.losses.linear import Linear
from lmtorch.residuals.function import FunctionResidual
from lmtorch.solvers.svd import SVD

from ..nist import PROBLEMS, log_relative_error

F64 = torch.float64
SLOW = int(Status.SLOW)
CRAWLING = ["Thurber", "MGH09"]


def fitted(name: str) -> lmtorch.Solution:
    return lmtorch.least_squares(PROBLEMS[name].residual, PROBLEMS[name].starts[0])


@pytest.mark.parametrize("name", CRAWLING)
def test_where_steps_crawl_a_run_ends_sooner_at_the_same_minimum(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = fitted(name)
    monkeypatch.setattr(loop, "ahead_of_end", lambda *_: None)
    expected = fitted(name)
    assert found.success
    assert found.nfev < expected.nfev
    assert log_relative_error(found.x, PROBLEMS[name].certified) >= 10


@pytest.mark.parametrize("name", CRAWLING)
def test_where_newtons_steps_find_no_minimum_the_run_goes_on_as_if_nobody_had_tried(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def nothing(problem: Any, method: Any, state: State, *_: Any) -> tuple[State, bool]:
        asked.append(1)
        return state._replace(x=state.x + 1), False

    monkeypatch.setattr(newton, "certify_clear", nothing)
    found = fitted(name)
    monkeypatch.setattr(loop, "ahead_of_end", lambda *_: None)
    expected = fitted(name)
    assert asked
    assert (found.nfev, found.status) == (expected.nfev, expected.status)
    assert found.x.tolist() == expected.x.tolist()


@pytest.mark.parametrize("ftol", [0.0, 1e-300, None])
def test_no_tolerance_of_the_cost_is_needed(ftol: float | None) -> None:
    problem = PROBLEMS["Thurber"]
    found = lmtorch.least_squares(problem.residual, problem.starts[0], ftol=ftol)
    assert log_relative_error(found.x, problem.certified) >= 10


def walls(x: Tensor) -> Tensor:
    """A minimum at (0, ±1), a saddle between them at (0, 0)."""
    return torch.stack([x[0] ** 2 + 1, x[1] ** 2 - 1])


@pytest.mark.parametrize(
    ("x", "minimum"), [([1e-3, 1.001], True), ([0.0, 0.0], False), ([1e-4, 1e-4], False)]
)
def test_a_point_is_clear_only_at_a_minimum(x: list[float], minimum: bool) -> None:
    point = torch.tensor(x, dtype=F64)
    source = Latest([DualNumbers(), Forward()])
    problem = Problem(FunctionResidual(walls, point), source, SVD().form, Linear(), F64)
    method = Method(SVD(), TrustRegion(), More(), certify=True, polish=10)
    with quiet():
        there = of_arrays(problem)
        state, _ = begin(there, method, arrays_of(Start(point)))
        slow = state._replace(status=statuses(state.cost, SLOW))
        found, clear = certify_clear(there, method, slow, SLOW)
    assert clear is minimum
    assert (int(found.status) > 0) is minimum
    if minimum:
        torch.testing.assert_close(tensors_of(found.x), torch.tensor([0.0, 1.0], dtype=F64))


def bent(p: Tensor, bend: Tensor) -> Tensor:
    """(x + 1, bend x² + x − 1) and another one: Gauss–Newton's error is multiplied by `bend`.

    Its minimum is at 0. Reference: Madsen & Nielsen (2010), example 6.7.
    """
    x, other = p.unbind(-1)
    return torch.stack([x + 1, bend * x * x + x - 1, other - 1])


def many(bends: Tensor, **options: Any) -> lmtorch.Solution:
    start = torch.tensor([0.3, 0.0], dtype=bends.dtype)
    return lmtorch.least_squares(bent, start, args=(bends,), in_dims=(None, 0), **options)


ALTERNATING = torch.linspace(-3, -1.5, 40, dtype=F64)  # a step goes past the minimum, too far


@pytest.mark.parametrize(("dtype", "share"), [(F64, 0.8), (torch.float32, 0.9)], ids=str)
def test_many_whose_steps_go_too_far_end_sooner_at_the_same_minima(
    dtype: torch.dtype, share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = many(ALTERNATING.to(dtype))
    monkeypatch.setattr(loop, "ahead_of_end", lambda *_: None)
    expected = many(ALTERNATING.to(dtype))
    assert found.success.all()
    assert expected.success.all()
    assert found.nfev.sum() < share * expected.nfev.sum()
    least = torch.finfo(dtype).eps ** 0.5
    assert found.x[:, 0].abs().max() <= (least * 1e-3 if dtype is F64 else least)


def test_of_many_those_go_on_as_if_nobody_had_tried_that_a_look_does_not_certify(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[int] = []

    def nothing(problem: Any, method: Any, state: State, near: Tensor, *_: Any) -> glance.Glance:
        asked.append(1)
        moved = state._replace(x=state.x + 1, cost=state.cost - 1)
        return glance.Glance(moved, torch.zeros_like(near))

    monkeypatch.setattr(newton, "some_seen", nothing)
    found = many(ALTERNATING)
    monkeypatch.setattr(loop, "ahead_of_end", lambda *_: None)
    expected = many(ALTERNATING)
    assert asked
    assert found.x.tolist() == expected.x.tolist()
    assert found.status.tolist() == expected.status.tolist()
    assert found.nfev.tolist() == expected.nfev.tolist()


def test_while_others_go_on_those_that_have_ended_keep_the_cost_of_where_they_are() -> None:
    crawling = torch.linspace(0.7, 0.85, 40, dtype=F64)
    bends = torch.cat([ALTERNATING, crawling])
    found = many(bends)
    assert found.success.all()
    assert (found.status[:40] == Status.MINIMUM).any()  # by Newton's steps, before the others
    assert found.nfev[:40].max() < found.nfev[40:].min()
    costs = torch.stack(
        [bent(p, bend).square().sum() / 2 for p, bend in zip(found.x, bends, strict=True)]
    )
    torch.testing.assert_close(found.cost, costs, rtol=4 * torch.finfo(F64).eps, atol=0)


@pytest.mark.parametrize("most", range(2, 40, 3))
def test_a_look_at_many_makes_no_more_trials_than_are_allowed(most: int) -> None:
    found = many(ALTERNATING, max_nfev=most)
    assert found.nfev.max() <= most
    # a success may promise 1e-8 of the cost, where no trials are left for the last digits
    assert found.x[found.success, 0].abs().le(1e-4).all()
