"""The clock beside a problem: it changes no number, and its parts add up to the time of the run."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from lmtorch.core import clock as clocks
from lmtorch.core.clock import Clock
from lmtorch.core.loop import descend
from lmtorch.core.method import Method
from lmtorch.core.problem import Problem
from lmtorch.core.state import Start
from lmtorch.damping.scaling import More
from lmtorch.damping.trust_region import TrustRegion
from lmtorch.jacobians.forward import Forward
from lmtorch.losses.linear import Linear
from lmtorch.residuals.function import FunctionResidual
from lmtorch.solvers.svd import SVD

from .setting import decay

METHOD = Method(SVD(), TrustRegion(), More(), polish=5, certify=True)
X = torch.tensor([[2.0, 2.0], [1.0, 0.5], [0.3, 1.7]], dtype=torch.float64)


def problem_of(x: Tensor) -> Problem:
    """The decay by forward mode."""
    return Problem(FunctionResidual(decay, x), Forward(), SVD().form, Linear(), torch.float64)


@pytest.mark.parametrize("x", [X, X[0]], ids=["batch", "one"])
def test_a_problem_that_is_timed_gives_the_same_numbers(x: Tensor) -> None:
    plain, _ = descend(problem_of(x), METHOD, Start(x), trials=50)
    timed, _ = descend(replace(problem_of(x), clock=Clock()), METHOD, Start(x), trials=50)
    assert torch.equal(plain.x, timed.x)
    assert torch.equal(plain.status, timed.status)
    assert torch.equal(plain.trials, timed.trials)


def test_each_part_has_the_time_that_passed_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(clocks, "perf_counter", lambda: now)

    def passing(seconds: float) -> None:
        nonlocal now
        now += seconds

    def fun(x: Tensor) -> Tensor:
        passing(1.0)
        return decay(x)

    class Slow(Forward):
        """A linear model takes ten seconds besides an evaluation."""

        def blocks(self, *args: Any) -> Any:
            passing(10.0)
            return super().blocks(*args)

    problem = replace(problem_of(X), source=Slow(), clock=(clock := Clock()))
    problem = replace(problem, residual=FunctionResidual(fun, X))
    now = 0.0
    problem.cost(X)
    passing(100.0)
    problem.model(X)
    part = problem.take(torch.tensor([0]))
    part.linearize(X)  # is counted once
    part.cost(X)
    assert clock.seconds() == {"linearize": 22.0, "solve": 100.0, "trial": 2.0}
