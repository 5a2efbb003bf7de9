"""One more step from where a run claims to have converged, and what round-off may excuse."""

import pytest
import torch
from torch import Tensor

from lmtorch.core.last_step import asked
from lmtorch.core.loop import begin
from lmtorch.core.method import Method
from lmtorch.core.problem import Problem
from lmtorch.core.state import Start
from lmtorch.core.termination import Status, Tolerances
from lmtorch.damping.scaling import More
from lmtorch.damping.trust_region import TrustRegion
from lmtorch.jacobians.forward import Forward
from lmtorch.losses.linear import Linear
from lmtorch.residuals.function import FunctionResidual
from lmtorch.solvers.svd import SVD

FAR = 2.0**27  # where numbers of float64 are 3e-8 apart


def said(missed: float) -> Status:
    """What a run is called that ended so far beside the minimum of (x − a)² + 1."""

    def residual(x: Tensor) -> Tensor:
        return torch.cat([x - (FAR - missed), torch.ones_like(x)], -1)

    x = torch.full((1,), FAR, dtype=torch.float64)
    solver = SVD()
    problem = Problem(FunctionResidual(residual, x), Forward(), solver.form, Linear(), x.dtype)
    tolerances = Tolerances(1e-15, 1e-15, 1e-15)
    method = Method(solver, TrustRegion(), More(), tolerances)
    state, _ = begin(problem, method, Start(x))
    ended = state._replace(status=torch.full_like(state.status, Status.COST))
    return Status(int(asked(problem, method, ended).status))


@pytest.mark.parametrize("steps", [2**14, 2**14 + 2**13])
def test_what_rounding_x_costs_the_cost_does_not_excuse_what_a_step_promises(steps: int) -> None:
    """x is thousands of its steps away, which are far less than ε ‖r‖ ‖J x‖ in the cost."""
    missed = steps * 2.0**-25
    assert 1e-8 < missed**2 / (1 + missed**2) < 1e-6  # of the cost
    assert missed**2 / 2 < 16 * torch.finfo(torch.float64).eps * FAR
    assert said(missed) is Status.VALLEY


def test_round_off_itself_is_excused() -> None:
    assert said(2.0**-25) is Status.COST
