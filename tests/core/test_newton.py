"""Newton's steps before the end of a run: fewer evaluations, the same minimum, no false one."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import lmtorch
from lmtorch.arrays import arrays_of, quiet, statuses, tensors_of
from lmtorch.core import loop, newton
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
from lmtorch.linearizations.blocks import BlocksForm
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


def test_with_errors_in_x_they_are_tried_where_a_single_step_would_follow(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """There the exact Hessian of the certificate costs no more than a step, and comes anyway."""
    rng = np.random.default_rng(0)
    t = np.linspace(0.1, 3, 50)
    x, y = t + 0.05 * rng.standard_normal(50), 2 * np.exp(-t) + 0.02 * rng.standard_normal(50)

    def fit() -> lmtorch.Solution:
        found: Any = lmtorch.odr(
            lambda x, a, k: a * torch.exp(-k * x), x, y, [1.0, 1.0], sx=0.05, sy=0.02
        )
        return found._inference.solution

    found = fit()
    monkeypatch.setattr(BlocksForm, "doubled", newton.DOUBLED)
    expected = fit()
    assert found.success
    assert found.nfev < expected.nfev
    torch.testing.assert_close(found.x, expected.x, rtol=1e-12, atol=0.0)


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
        found, clear = certify_clear(there, method, slow)
    assert clear is minimum
    assert (int(found.status) > 0) is minimum
    if minimum:
        torch.testing.assert_close(tensors_of(found.x), torch.tensor([0.0, 1.0], dtype=F64))
