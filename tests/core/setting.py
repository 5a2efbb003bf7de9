"""Problems for the core, without an optimizer around it."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lmtorch.core.loop import descend
from lmtorch.core.method import Method
from lmtorch.core.problem import Problem
from lmtorch.core.state import Start, State
from lmtorch.core.termination import Tolerances
from lmtorch.damping.base import Damping
from lmtorch.damping.scaling import More, Scaling
from lmtorch.damping.trust_region import TrustRegion
from lmtorch.jacobians.forward import Forward
from lmtorch.losses.linear import Linear
from lmtorch.residuals.function import FunctionResidual
from lmtorch.solvers.base import Solver
from lmtorch.solvers.svd import SVD


def minimise(
    fun: Callable[[Tensor], Tensor],
    x: Tensor,
    *,
    solver: Solver | None = None,
    damping: Damping | None = None,
    scaling: Scaling | None = None,
    tolerances: Tolerances | None = None,
    polish: int = 0,
    trials: int = 500,
    single: bool = False,
    before: Tensor | None = None,
    **of_problem: Any,
) -> State:
    """Descend from x (..., n) on fun: (..., n) -> (..., m); `before`: the last step, (..., n)."""
    solver = solver or SVD()
    problem = Problem(
        FunctionResidual(fun, x), Forward(), solver.form, Linear(), torch.float64, **of_problem
    )
    method = Method(
        solver, damping or TrustRegion(), scaling or More(), tolerances or Tolerances(), polish
    )
    return descend(problem, method, Start(x, step=before), trials=trials, single=single)[0]


def rosenbrock(x: Tensor) -> Tensor:
    """(..., 2) -> (..., 2)."""
    return torch.stack([10 * (x[..., 1] - x[..., 0] ** 2), 1 - x[..., 0]], -1)


TIMES = torch.linspace(0, 3, 12, dtype=torch.float64)


def decay(x: Tensor) -> Tensor:
    """Data of two exponentials, of which one is fitted: residuals remain. (..., 2) -> (..., 12)."""
    y = torch.exp(-TIMES) + 0.3 * torch.exp(-0.2 * TIMES)
    return x[..., :1] * torch.exp(-x[..., 1:2] * TIMES.to(x)) - y.to(x)
