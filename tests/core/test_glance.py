"""What a glance at the ends of a batch leaves to the full look; the rest is tested with batches."""

import torch
from torch import Tensor

from lmtorch.arrays import last
from lmtorch.core.glance import glance
from lmtorch.core.method import Method
from lmtorch.core.problem import Problem
from lmtorch.core.state import Begun, fresh
from lmtorch.core.termination import Status
from lmtorch.damping.scaling import More
from lmtorch.damping.trust_region import TrustRegion
from lmtorch.jacobians.forward import Forward
from lmtorch.losses.linear import Linear
from lmtorch.residuals.function import FunctionResidual
from lmtorch.solvers.cholesky import Cholesky
from lmtorch.solvers.svd import SVD

FAR = 2.0**40  # where numbers of float64 are 2⁻¹² apart


def test_what_a_bound_by_norms_takes_for_round_off_is_not_called_a_minimum() -> None:
    """(x − a)² + 1 far from zero: of 16 ε ‖J x‖ the slope is less eight numbers beside a."""

    def residual(x: Tensor) -> Tensor:
        return torch.cat([x - FAR, torch.ones_like(x)], -1)

    x = torch.tensor([[FAR], [FAR + 2.0**-9]], dtype=torch.float64)
    assert 16 * torch.finfo(torch.float64).eps * FAR > 2.0**-9
    problem = Problem(
        FunctionResidual(residual, x), Forward(), Cholesky().form, Linear(), torch.float64
    )
    method = Method(Cholesky(), TrustRegion(), More(), polish=60, certify=True, careful=SVD())
    begun = x / 2
    start, model = problem.model(begun), problem.model(x)
    ended = torch.full((2,), int(Status.COST))
    before = Begun(begun, start.cost, start.column_norms)
    state = fresh(last(x), model.cost, ended, model.column_norms, None, before)
    assert glance(problem, method, state).sure.tolist() == [True, False]
