"""The clock beside a problem: it changes no number, and its parts add up to the time of the run."""

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
    timed, _ = descend(Clock().beside(problem_of(x)), METHOD, Start(x), trials=50)
    assert torch.equal(plain.x, timed.x)
    assert torch.equal(plain.status, timed.status)
    assert torch.equal(plain.trials, timed.trials)


def test_each_part_has_the_time_that_passed_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(clocks, "perf_counter", lambda: now)

    class Slow:
        """Costs take one second, linear models ten; everything else a hundred."""

        def passing(self, seconds: float) -> float:
            nonlocal now
            now += seconds
            return seconds

        def cost(self, x: Tensor) -> Any:
            return self.passing(1.0)

        def model(self, x: Tensor) -> Any:
            return self.passing(10.0)

        def linearize(self, x: Tensor) -> Any:
            return self.model(x)  # is counted once

        def hessian(self, x: Tensor) -> Any:
            return self.passing(100.0)

        def take(self, places: Tensor) -> "Slow":
            return Slow()

    clock = Clock()
    slow: Any = Slow()
    problem = clock.beside(slow)
    assert problem.cost(X) == 1.0
    assert problem.hessian(X) == 100.0
    problem.model(X)
    part = problem.take(torch.tensor([0]))
    part.linearize(X)
    part.cost(X)
    assert clock.seconds() == {"linearize": 20.0, "solve": 100.0, "trial": 2.0}
