"""Polishing: digits that the cost cannot see."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.func import vmap

from lmtorch.core.loop import descend
from lmtorch.core.method import Method
from lmtorch.core.problem import Problem
from lmtorch.core.state import Start
from lmtorch.core.termination import Status, Tolerances
from lmtorch.damping.scaling import More
from lmtorch.damping.trust_region import TrustRegion
from lmtorch.jacobians.forward import Forward
from lmtorch.linearizations.base import optimality
from lmtorch.linearizations.dense import DenseForm
from lmtorch.losses.base import Expansion
from lmtorch.losses.linear import Linear
from lmtorch.residuals.function import FunctionResidual
from lmtorch.solvers.qr import QR
from lmtorch.solvers.svd import SVD

from ..nist import PROBLEMS, log_relative_error
from .setting import decay, minimise

LOOSE = Tolerances(1e-8, 1e-8, 1e-8)


@pytest.mark.parametrize("name", ["Misra1a", "Chwirut2", "Thurber", "Gauss1", "MGH09", "Hahn1"])
@pytest.mark.parametrize("solver", [SVD(), QR()], ids=["svd", "qr"])
def test_it_adds_digits_and_takes_none(name: str, solver: SVD | QR) -> None:
    problem = PROBLEMS[name]
    b = torch.tensor(problem.starts[1], dtype=torch.float64)
    plain = minimise(problem.residual, b, solver=solver, tolerances=LOOSE)
    polished = minimise(problem.residual, b, solver=solver, tolerances=LOOSE, polish=60)
    before = log_relative_error(plain.x, problem.certified)
    after = log_relative_error(polished.x, problem.certified)
    assert after >= max(before - 0.1, 9.0), (before, after)  # the last digit may turn
    assert polished.status == plain.status


def test_it_lowers_the_gradient_and_does_not_raise_the_cost_above_rounding() -> None:
    x = torch.tensor([2.0, 2.0], dtype=torch.float64)
    states = [minimise(decay, x, tolerances=LOOSE, polish=polish) for polish in (0, 60)]
    before, after = ((torch.func.jacfwd(decay)(s.x).T @ decay(s.x)).norm() for s in states)
    assert after <= before
    assert after < 1e-13  # a few ε of ‖J‖ ‖r‖, both of order one
    assert states[1].cost <= states[0].cost * (1 + 1e-14)


def test_what_is_not_at_rest_is_left_alone() -> None:
    x = torch.tensor([2.0, 2.0], dtype=torch.float64)
    plain, polished = (
        minimise(decay, x, polish=polish, trials=20, single=True) for polish in (0, 60)
    )
    assert plain.status == polished.status == Status.RUNNING
    assert torch.equal(plain.x, polished.x)


def test_in_a_batch_one_problem_that_is_not_finite_leaves_the_others_digits_alone() -> None:
    x = torch.tensor([[2.0, 2.0], [torch.nan, 1.0], [1.0, 0.5]], dtype=torch.float64)
    state = minimise(decay, x, polish=60)
    assert state.status[1] == Status.NOT_FINITE
    clean = minimise(decay, torch.nan_to_num(x, nan=1.5), polish=60)
    assert torch.equal(state.x[[0, 2]], clean.x[[0, 2]])
    torch.testing.assert_close(state.x[0], state.x[2], rtol=1e-13, atol=1e-13)


class WithoutCurvature:
    """Plain least squares of a user's own, of which the exact Hessian cannot be had."""

    def cost(self, residual: Tensor) -> Tensor:
        return Linear().cost(residual)

    def expand(self, residual: Tensor) -> Expansion:
        return Linear().expand(residual)


def test_where_steps_are_slow_newtons_take_over_if_they_can_to_the_same_digits() -> None:
    problem = PROBLEMS["Thurber"]  # Gauss–Newton steps shrink the gradient by 0.7 there
    x = torch.tensor(problem.starts[1], dtype=torch.float64)
    method = Method(SVD(), TrustRegion(), More(), polish=60, certify=True)
    plain = Problem(
        FunctionResidual(problem.residual, x), Forward(), DenseForm(), Linear(), torch.float64
    )
    quick, slow = (
        descend(replace(plain, loss=loss), method, Start(x), trials=500)[0]
        for loss in (plain.loss, WithoutCurvature())
    )
    assert quick.trials < 0.6 * slow.trials
    for state in (quick, slow):
        assert state.status > 0
        assert optimality(plain.model(state.x)) < 1e-11
    torch.testing.assert_close(quick.x, slow.x, rtol=1e-10, atol=0)


def test_round_off_in_the_gradient_does_not_end_it_before_the_steps_have_their_digits() -> None:
    # J has a condition of 10⁵ there, and the data six digits: whether ‖D⁻¹Jᵀr‖ falls is chance
    # from 9.3 digits on, and moved by so little, a third of these starts ended there
    problem = PROBLEMS["Lanczos3"]
    start = torch.tensor(problem.starts[1], dtype=torch.float64)
    random = torch.Generator().manual_seed(0)
    moved = 1 + 1e-6 * torch.randn(10, len(start), generator=random, dtype=torch.float64)
    alone = [minimise(problem.residual, start * m, tolerances=LOOSE, polish=60) for m in moved]
    together = minimise(vmap(problem.residual), start * moved, tolerances=LOOSE, polish=60)
    for x in (*(state.x for state in alone), *together.x):
        assert log_relative_error(x, problem.certified) > 10.3  # of the 10.5 that the data have


def test_at_an_exact_fit_it_ends_with_the_step_that_changes_nothing() -> None:
    t = torch.arange(1.0, 5.0, dtype=torch.float64)
    start = torch.tensor([2.0], dtype=torch.float64)
    plain, polished = (
        minimise(lambda x: x[..., :1] ** 2 * t - t, start, polish=polish) for polish in (0, 60)
    )
    assert polished.status == Status.STEP
    assert polished.cost == 0
    assert polished.trials <= plain.trials + 2  # one to get there, one that finds it there
