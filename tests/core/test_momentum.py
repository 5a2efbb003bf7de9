"""A step with momentum is the one nearest to a share of the last, in the damped metric."""

from typing import Any

import pytest
import torch
from torch import Tensor

from lmtorch.core.momentum import corrected, with_momentum, without_momentum
from lmtorch.damping.base import LinearModel
from lmtorch.solvers.base import Solver

from ..contracts.members import TO_DIGITS
from ..contracts.setting import System

solvers = pytest.mark.parametrize("solver", TO_DIGITS.values(), ids=TO_DIGITS)


def model_of(system: System, solver: Solver) -> LinearModel:
    """Factored, without bends."""
    model: Any = system.linearization(solver)
    factor = solver.factor(model, system.scale)
    return LinearModel(model, system.scale, factor, torch.zeros_like)


def drawn(system: System) -> Tensor:
    """A step of before."""
    generator = torch.Generator().manual_seed(3)
    return torch.randn(system.scale.shape, dtype=torch.float64, generator=generator)


@solvers
@pytest.mark.parametrize("shape", [(7, 4), (3, 5)], ids=["tall", "wide"])
@pytest.mark.parametrize("penalized", [False, True], ids=["plain", "prior"])
@pytest.mark.parametrize("batch", [(), (3,)], ids=["one", "three"])
def test_the_step_is_that_of_the_rows_and_of_the_distance_from_the_last(
    solver: Solver, shape: tuple[int, int], penalized: bool, batch: tuple[int, ...]
) -> None:
    # ½‖r + Js‖² + ½λ‖D(s − v)‖² is least where (JᵀJ + λD²) s = −Jᵀr + λD²v
    system = System(shape, batch, penalized=penalized)
    shift, damping = drawn(system), system.damping
    plain = model_of(system, solver)
    before = plain.factor.step(damping)
    model = with_momentum(plain, solver, shift)
    step = model.factor.step(damping)
    right = damping[..., None] * system.scale.square() * shift - system.gradient
    torch.testing.assert_close((system.matrix(damping) @ step[..., None])[..., 0], right)
    length = torch.linalg.vector_norm(system.scale * (step - shift), dim=-1)
    torch.testing.assert_close(corrected(model, step), length)
    torch.testing.assert_close(model.factor.length(damping)[0], length)
    again = without_momentum(model)
    assert torch.equal(again.factor.step(damping), before)
    assert torch.equal(again.equations.gradient, plain.linearization.gradient)


@pytest.mark.parametrize("name", ["svd", "dual", "dual, of layers", "cg"])
def test_without_damping_the_rows_are_solved_nearest_to_the_last_step(name: str) -> None:
    solver, system = TO_DIGITS[name], System((3, 5))
    zero, shift = torch.zeros((), dtype=torch.float64), drawn(system)
    step = with_momentum(model_of(system, solver), solver, shift).factor.step(zero)
    J, D = system.jacobian, system.scale
    residual = system.residual + J @ shift
    torch.testing.assert_close(step, shift - torch.linalg.pinv(J / D) @ residual / D)


@solvers
def test_what_has_no_influence_is_not_moved_by_momentum(solver: Solver) -> None:
    system = System((7, 4))
    system.jacobian[:, 2] = 0
    step = with_momentum(model_of(system, solver), solver, drawn(system)).factor.step(
        system.damping
    )
    assert step[2] == 0
    assert step[0] != 0


@solvers
def test_the_shifted_model_has_the_cost_that_the_linear_model_promises(solver: Solver) -> None:
    system = System((3, 5), penalized=True)
    assert system.prior is not None
    shift = drawn(system)
    model: Any = system.linearization(solver)
    ahead = model.shifted(shift)
    J = torch.cat([system.jacobian, torch.diag(system.prior.root)])
    r = torch.cat([system.residual, system.prior.residual])
    promised = (r + J @ shift).square().sum() / 2 - r.square().sum() / 2
    torch.testing.assert_close(ahead.cost - model.cost, promised)
    torch.testing.assert_close(ahead.gradient, J.mT @ (r + J @ shift))
