"""What only the factorisations of J itself can: digits, and an answer without damping."""

import pytest
import torch

from lmtorch.solvers.base import Solver
from lmtorch.solvers.cholesky import Cholesky
from lmtorch.solvers.qr import QR
from lmtorch.solvers.svd import SVD

from ..contracts.setting import EPS, System


@pytest.mark.parametrize("condition", [1e4, 1e6, 1e8])
def test_orthogonal_factorizations_lose_the_condition_and_cholesky_its_square(
    condition: float,
) -> None:
    # r in the range of J, so that the solution of least squares is known and its
    # error is that of the solver
    system = System((20, 5), condition=condition)
    system.scale = torch.ones_like(system.scale)
    truth = torch.ones(5, dtype=torch.float64)
    system.residual = -system.jacobian @ truth
    zero = torch.zeros((), dtype=torch.float64)
    for solver in (SVD(), QR()):
        step = solver.factor(system.linearization(solver), system.scale).step(zero)
        assert (step - truth).norm() / truth.norm() <= 100 * EPS * condition
    step = Cholesky().factor(system.linearization(Cholesky()), system.scale).step(zero)
    error = (step - truth).norm() / truth.norm()
    # or NaN, where JᵀJ has rounded to an indefinite matrix
    assert not error > 100 * EPS * condition**2


@pytest.mark.parametrize("solver", [SVD(), Cholesky()], ids=lambda solver: type(solver).__name__)
def test_without_damping_the_others_step_as_gauss_and_newton_say(solver: Solver) -> None:
    system = System((5, 4))
    system.jacobian[..., 1] = 0
    zero = torch.zeros((), dtype=torch.float64)
    step = solver.factor(system.linearization(solver), system.scale).step(zero)
    kept = [0, 2, 3]
    expected = torch.linalg.lstsq(system.jacobian[:, kept], -system.residual[:, None]).solution[
        :, 0
    ]
    torch.testing.assert_close(step[kept], expected)
    assert step[1] == 0
