"""A fit with errors in x as a problem of the loop: its blocks are those of the whole residual."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.func import jacfwd, jvp

from lmtorch.arrays import quiet
from lmtorch.core.bend import second_order
from lmtorch.core.curvature import exact_blocks
from lmtorch.core.problem import Problem
from lmtorch.core.small import of_arrays
from lmtorch.fitting.orthogonal.residual import DisplacementResidual, OwnColumns
from lmtorch.jacobians.autograd import Autograd
from lmtorch.jacobians.base import JacobianSource, pull, push
from lmtorch.jacobians.dual_numbers import DualNumbers
from lmtorch.jacobians.forward import Forward
from lmtorch.jacobians.ladder import Ladder
from lmtorch.jacobians.reverse import Reverse
from lmtorch.linearizations.arrow import Arrow
from lmtorch.linearizations.blocks import BlocksForm
from lmtorch.losses.linear import Linear
from lmtorch.minimising.unknowns import Unknowns
from lmtorch.minimising.user_function import UserFunction
from lmtorch.solvers.schur import Schur
from tests.references import written_out

F64 = torch.float64
N, M = 2, 6
BETA = torch.tensor([1.5, 0.7], dtype=F64)
SOURCES = {"forward": Forward(), "reverse": Reverse(), "one row at a time": Reverse(1)}
SOURCES["autograd"] = Autograd()


def curve(beta: Tensor, x: Tensor, q: int) -> Tensor:
    first = beta[0] * torch.exp(-beta[1] * x[0]) * (1 + x[1] ** 2 if len(x) > 1 else 1)
    return torch.stack([first, beta[1] * x[0] ** 2 * first][:q])


class Made:
    """The problem, a point (β, η), and the whole residual written as one function of it."""

    def __init__(self, k: int, q: int, b: int, source: JacobianSource, **options: Any) -> None:
        generator = torch.Generator().manual_seed(k + q)

        def draw(*shape: int) -> Tensor:
            return torch.randn(*shape, dtype=F64, generator=generator)

        self.q, self.b = q, b
        x, spread, y = draw(b, k, M), torch.rand(b, k, M, dtype=F64) + 0.5, draw(b, q, M)
        spread[..., 0] = 0.0  # an exact x
        eta = 0.1 * draw(b, M, k)
        eta[:, 0] = 0.0
        whitening = draw(b, q, q, M) if q > 1 else draw(b, 1, M)
        self.shares = x, spread, y, whitening
        self.movable = (spread > 0).mT.flatten(1)

        def residual(theta: Tensor, eta: Tensor, *shares: Tensor) -> Tensor:
            return self.rows(theta[:N], eta + theta[N:, None], *shares)

        beta = BETA + 0.1 * draw(b, N)
        theta = torch.cat([beta, torch.zeros(b, k, dtype=F64)], 1)
        dims = (0,) * 5
        arguments = (eta.mT, *self.shares)
        unknowns = Unknowns(theta, 0, b) if b > 1 else Unknowns(theta[0])
        function = UserFunction(residual, unknowns, arguments, {}, dims, False)
        displaced = DisplacementResidual(function, self.shares, N, M, k, q, batched=b > 1)
        self.problem = Problem(
            displaced,
            OwnColumns(Ladder([source])),
            BlocksForm(k),
            Linear(),
            F64,
            penalty=torch.cat([torch.zeros(N, dtype=F64), torch.ones(M * k, dtype=F64)]),
            **options,
        )
        z = torch.cat([beta, eta.flatten(1)], 1)
        self.z = z if b > 1 else z[0]

    @staticmethod
    def rows(beta: Tensor, eta: Tensor, *shares: Tensor) -> Tensor:
        x, spread, y, whitening = shares
        left = curve(beta, x + spread * eta, len(y)) - y
        if whitening.ndim == 2:
            return (whitening * left).reshape(-1)
        return torch.einsum("abm,bm->am", whitening, left).reshape(-1)

    def both(self, z: Tensor) -> Tensor:
        """(r, η) of all problems, (b, ·) or (·,)."""
        found = [
            torch.cat([self.rows(one[:N], one[N:].view(M, -1).mT, *shares), one[N:]])
            for one, *shares in zip(z.view(self.b, -1), *self.shares, strict=True)
        ]
        return torch.stack(found) if self.b > 1 else found[0]

    def jacobian(self) -> Tensor:
        """J of each problem."""
        J = jacfwd(self.both)(self.z)
        return torch.stack([J[i, :, i] for i in range(self.b)]) if self.b > 1 else J


SHAPES = pytest.mark.parametrize(
    ("k", "q", "b"), [(1, 1, 1), (2, 1, 1), (2, 2, 1), (1, 2, 3), (2, 1, 3)]
)


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
@SHAPES
def test_the_model_is_that_of_all_residuals(k: int, q: int, b: int, source: JacobianSource) -> None:
    made = Made(k, q, b, source)
    model, J, both = made.problem.model(made.z), made.jacobian(), made.both(made.z)
    torch.testing.assert_close(model.cost, both.square().sum(-1) / 2)
    torch.testing.assert_close(made.problem.cost(made.z), both.square().sum(-1) / 2)
    torch.testing.assert_close(model.gradient, (J.mT @ both[..., None])[..., 0])
    torch.testing.assert_close(model.normal, J.mT @ J)
    torch.testing.assert_close(model.column_norms, torch.linalg.vector_norm(J, dim=-2))


@pytest.mark.parametrize("differences", [False, True])
@pytest.mark.parametrize("keep", [False, True])
@SHAPES
def test_it_bends_as_all_residuals_do(
    k: int, q: int, b: int, keep: bool, differences: bool
) -> None:
    if b > 1 and differences:
        pytest.skip("the differences of a batch are those of each")
    made = Made(k, q, b, Forward(), differences=differences, keep=keep)
    v = torch.cos(torch.arange(made.z.numel(), dtype=F64)).view(made.z.shape)
    still = torch.cat([torch.zeros(b, N, dtype=torch.bool), ~made.movable], 1).view(made.z.shape)
    v = torch.where(still, 0.0, v)
    model = made.problem.model(made.z)
    bend = jvp(lambda z: jvp(made.both, (z,), (v,))[1], (made.z,), (v,))[1]
    expected = (made.jacobian().mT @ bend[..., None])[..., 0]
    found = second_order(made.problem, made.z, v, model)
    # the difference over a tenth of a step of length 2.5 leaves h²/12 r_vvvv, (2.5 h)² / 12 of it
    room = 4e-2 if differences else 1e-10
    assert float((found - expected)[~still].norm()) <= room * float(expected.norm())


@SHAPES
def test_its_products_are_those_of_the_rows(k: int, q: int, b: int) -> None:
    made = Made(k, q, b, Forward())
    problem, z = made.problem, made.z
    (part,) = problem.residual.parts()
    params = problem.residual.params(z)
    rows = problem.model(z).rows
    v = torch.sin(torch.arange(z.numel(), dtype=F64)).view(z.shape)
    w = torch.linspace(-1, 1, b * q * M, dtype=F64).view(*z.shape[:-1], q * M)
    torch.testing.assert_close(
        push(problem.source, part, params, problem.residual.params(v)), rows.times(v)
    )
    _, along = pull(problem.source, part, params)
    torch.testing.assert_close(along(w), rows.transposed_times(w))


def test_problems_that_leave_a_batch_take_their_data_with_them() -> None:
    made = Made(2, 1, 3, Forward())
    some = made.problem.take(torch.tensor([2, 0]))
    whole, part = made.problem.model(made.z), some.model(made.z[[2, 0]])
    torch.testing.assert_close(part.gradient, whole.gradient[[2, 0]])
    torch.testing.assert_close(part.cost, whole.cost[[2, 0]])


@pytest.mark.parametrize("dual", [True, False], ids=["dual numbers", "reverse mode"])
@SHAPES
def test_the_exact_curvature_is_that_of_all_variables(k: int, q: int, b: int, dual: bool) -> None:
    """Block by block, from second derivatives of each point, as from the whole written out."""
    made = Made(k, q, b, DualNumbers() if dual and b == 1 else Forward())
    model = made.problem.model(made.z)
    found = exact_blocks(made.problem, made.z, model)

    def cost(z: Tensor) -> Tensor:
        return made.both(z).square().sum() / 2

    n = made.z.shape[-1]
    expected = torch.func.hessian(cost)(made.z).view(b, n, b, n)
    for fit in range(b):
        one = found.matrix if b == 1 else Arrow(*(part[fit] for part in found.matrix))
        torch.testing.assert_close(written_out(one), expected[fit, :, fit])
    torch.testing.assert_close(found.gradient, model.gradient)
    torch.testing.assert_close(torch.stack([written_out(model.arrow)]).view(model.normal.shape),
                               model.normal)  # fmt: skip


@pytest.mark.parametrize(("k", "q"), [(1, 1), (2, 1), (2, 2)])
def test_a_run_on_arrays_is_that_on_tensors(k: int, q: int) -> None:
    """One small problem: the same model, steps and curvature, whichever library computes them."""
    made = Made(k, q, 1, DualNumbers())
    tensors, there = made.problem, of_arrays(made.problem)
    tensors.model(made.z)  # by which dual numbers are known to be right
    model = tensors.model(made.z)
    with quiet():
        found = there.model(made.z.numpy())
        assert isinstance(found.gradient, np.ndarray)
        scale = model.column_norms.clamp(min=1e-3)
        damping = torch.tensor(0.3, dtype=F64)
        ours = Schur().factor(model, scale)
        theirs = Schur().factor(found, scale.numpy())
        for name in ("gradient", "column_norms", "cost"):
            np.testing.assert_allclose(getattr(found, name), getattr(model, name), rtol=1e-12)
        np.testing.assert_allclose(theirs.step(np.float64(0.3)), ours.step(damping), rtol=1e-9)
        np.testing.assert_allclose(
            theirs.length(np.float64(0.3)), torch.stack(ours.length(damping)), rtol=1e-9
        )
        free = np.arange(len(made.z)) % 3 > 0
        np.testing.assert_allclose(
            found.freeze(free).gradient, model.freeze(torch.as_tensor(free)).gradient, rtol=1e-12
        )
        curved = exact_blocks(there, made.z.numpy(), found)
    expected = exact_blocks(tensors, made.z, model)
    for one, other in zip(curved.matrix, expected.matrix, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-10)
