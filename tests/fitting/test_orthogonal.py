"""A fit with errors in x as a problem of the loop: its blocks are those of the whole residual."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import hessian, jacfwd

from lmtorch.core.bend import second_order
from lmtorch.core.problem import Problem
from lmtorch.fitting.orthogonal import DisplacementResidual, OwnColumns
from lmtorch.jacobians.autograd import Autograd
from lmtorch.jacobians.base import JacobianSource, pull, push
from lmtorch.jacobians.forward import Forward
from lmtorch.jacobians.ladder import Ladder
from lmtorch.jacobians.reverse import Reverse
from lmtorch.linearizations.blocks import BlocksForm
from lmtorch.losses.linear import Linear
from lmtorch.minimising.unknowns import Unknowns
from lmtorch.minimising.user_function import UserFunction

F64 = torch.float64
N, M = 2, 6
BETA = torch.tensor([1.5, 0.7], dtype=F64)
Y = torch.linspace(1, 0.2, M, dtype=F64)
SOURCES = {"forward": Forward(), "reverse": Reverse(), "one row at a time": Reverse(1)}
SOURCES["autograd"] = Autograd()


def curve(beta: Tensor, x: Tensor) -> Tensor:
    return beta[0] * torch.exp(-beta[1] * x[0]) * (1 + x[1] ** 2 if len(x) > 1 else 1)


def made(k: int, source: JacobianSource, **options: Any) -> tuple[Problem, Tensor, Tensor]:
    """The problem, a point (β, δ), and 1/σ_x (m, k), of which the first is zero: an exact x."""
    generator = torch.Generator().manual_seed(k)
    x = torch.randn(k, M, dtype=F64, generator=generator)
    weights = torch.rand(M, k, dtype=F64, generator=generator) + 0.5
    weights[0] = 0.0
    delta = 0.1 * torch.randn(M, k, dtype=F64, generator=generator)
    delta[0] = 0.0

    def residual(theta: Tensor, points: Tensor) -> Tensor:
        points = points if k > 1 else points[None]
        return curve(theta[:N], points + theta[N:, None]) - Y

    x = x if k > 1 else x[0]
    theta = torch.cat([BETA, torch.zeros(k, dtype=F64)])
    function = UserFunction(residual, Unknowns(theta), (x[None],), {}, (0,), False)
    displaced = DisplacementResidual(function, x, N, False)
    penalty = torch.cat([torch.zeros(N, dtype=F64), weights.square().flatten()])
    ladder = Ladder([source])
    problem = Problem(
        displaced,
        OwnColumns(displaced, ladder, weights > 0),
        BlocksForm(),
        Linear(),
        F64,
        penalty=penalty,
        **options,
    )
    return problem, torch.cat([BETA, delta.flatten()]), weights


def written(problem: Problem, weights: Tensor, k: int) -> Any:
    """(r, δ/σ_x) as one function of (β, δ)."""
    x = problem.residual.x.view(k, M)

    def both(z: Tensor) -> Tensor:
        delta = z[N:].view(M, k) * (weights > 0)
        return torch.cat([curve(z[:N], x + delta.mT) - Y, (weights * delta).flatten()])

    return both


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
@pytest.mark.parametrize("k", [1, 2])
def test_the_model_is_that_of_all_residuals(k: int, source: JacobianSource) -> None:
    problem, z, weights = made(k, source)
    both = written(problem, weights, k)
    model, J = problem.model(z), jacfwd(both)(z)
    torch.testing.assert_close(model.cost, both(z).square().sum() / 2)
    torch.testing.assert_close(problem.cost(z), both(z).square().sum() / 2)
    torch.testing.assert_close(model.gradient, J.mT @ both(z))
    torch.testing.assert_close(model.normal, J.mT @ J)


@pytest.mark.parametrize("differences", [False, True])
@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("k", [1, 2])
def test_it_bends_as_all_residuals_do(k: int, keep: bool, differences: bool) -> None:
    problem, z, weights = made(k, Forward(), differences=differences, keep=keep)
    both = written(problem, weights, k)
    v = torch.cos(torch.arange(len(z), dtype=F64)) * torch.cat(
        [torch.ones(N, dtype=F64), (weights > 0).flatten().to(F64)]
    )
    model = problem.model(z)
    bend = torch.einsum("mij,i,j->m", hessian(both)(z), v, v)
    expected = jacfwd(both)(z).mT @ bend
    movable = torch.cat([torch.ones(N, dtype=torch.bool), (weights > 0).flatten()])
    found = second_order(problem, z, v, model)
    # the difference over a tenth of a step of length 2.5 leaves h²/12 r_vvvv, (2.5 h)² / 12 of it
    room = 2e-2 if differences else 1e-10
    assert float((found - expected)[movable].norm()) <= room * float(expected.norm())


@pytest.mark.parametrize("k", [1, 2])
def test_its_products_are_those_of_the_rows(k: int) -> None:
    problem, z, _ = made(k, Forward())
    (part,) = problem.residual.parts()
    params = problem.residual.params(z)
    rows = problem.model(z).rows
    v, w = torch.sin(torch.arange(len(z), dtype=F64)), torch.linspace(-1, 1, M, dtype=F64)
    v[N : N + k] = 0  # an exact x does not move
    torch.testing.assert_close(
        push(problem.source, part, params, problem.residual.params(v)), rows.times(v)
    )
    _, along = pull(problem.source, part, params)
    moved, expected = along(w), rows.transposed_times(w)
    torch.testing.assert_close(moved[:N], expected[:N])
    torch.testing.assert_close(moved[N + k :], expected[N + k :])
