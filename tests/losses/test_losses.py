"""Losses: their derivatives, their rows, and robust fits beside scipy's."""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import least_squares
from torch import Tensor

import lmtorch
from lmtorch.arrays import arrays_of, on_numpy, tensors_of
from lmtorch.choose import RHOS
from lmtorch.losses.base import Expansion, Loss, half_sum
from lmtorch.losses.linear import Linear
from lmtorch.losses.robust import Robust, arctan, cauchy, huber, soft_l1, tukey
from lmtorch.rows.matrix import DenseRows

from ..contracts.members import LOSSES

SCIPYS = {"soft_l1": soft_l1, "huber": huber, "cauchy": cauchy, "arctan": arctan}

rhos = pytest.mark.parametrize("name", RHOS)
losses = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)


def residuals(m: int = 9, seed: int = 0) -> Tensor:
    """From well inside to far outside."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(m, dtype=torch.float64, generator=generator) * torch.logspace(
        -3, 1.5, m, dtype=torch.float64
    )


@rhos
def test_the_derivatives_of_rho_are_those_of_autograd(name: str) -> None:
    # does not meet Huber's corner at 1
    z = torch.logspace(-6, 4, 31, dtype=torch.float64, requires_grad=True)
    rho = RHOS[name](z)
    (first,) = torch.autograd.grad(rho.value.sum(), z, create_graph=True)
    torch.testing.assert_close(rho.first, first)
    if first.requires_grad:
        (second,) = torch.autograd.grad(first.sum(), z)
        torch.testing.assert_close(rho.second, second, rtol=1e-9, atol=1e-14)


@rhos
def test_rho_is_the_square_near_zero(name: str) -> None:
    z = torch.tensor([0.0, 1e-12], dtype=torch.float64)
    rho = RHOS[name](z)
    torch.testing.assert_close(rho.value, z, rtol=1e-11, atol=0)
    torch.testing.assert_close(rho.first, torch.ones_like(z), rtol=1e-11, atol=0)


@losses
def test_rows_and_influence_have_the_gradient_of_the_cost(loss: Loss) -> None:
    r = residuals().requires_grad_()
    (gradient,) = torch.autograd.grad(loss.cost(r), r)
    found = loss.expand(r.detach())
    rows = found.rows(DenseRows(torch.eye(r.shape[0], dtype=torch.float64)))
    torch.testing.assert_close(rows.transposed_times(found.residual), gradient)
    torch.testing.assert_close(found.slope, gradient)
    torch.testing.assert_close(found.value, loss.cost(r.detach()))


@losses
def test_rows_have_the_hessian_of_the_cost_where_it_is_convex(loss: Loss) -> None:
    r = residuals()
    r = r[r.abs() < 0.13]  # inside of every inflection, (0.3 / √5) for the earliest, Tukey's
    hessian = torch.func.hessian(loss.cost)(r)
    rows = loss.expand(r).rows(DenseRows(torch.eye(r.shape[0], dtype=torch.float64))).dense()
    torch.testing.assert_close(rows.mT @ rows, hessian)


@losses
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_a_loss_is_the_same_on_arrays(loss: Loss, dtype: torch.dtype) -> None:
    r = residuals().to(dtype)
    for name in ("cost", "expand", "curvature"):
        found, expected = getattr(loss, name)(arrays_of(r)), getattr(loss, name)(r)
        assert on_numpy(found) or all(on_numpy(part) for part in found if part is not None)
        torch.testing.assert_close(tensors_of(found), expected)


@losses
def test_rows_beyond_the_inflection_are_finite(loss: Loss) -> None:
    r = torch.tensor([0.0, -1e6, 1e6], dtype=torch.float64)
    found = loss.expand(r)
    assert found.residual.isfinite().all()
    assert found.rows(DenseRows(torch.ones(3, 2, dtype=torch.float64))).dense().isfinite().all()


@losses
@pytest.mark.parametrize("batch", [(), (3,), (2, 3)], ids=str)
def test_a_cost_is_one_number_for_each_problem_in_float64(
    loss: Loss, batch: tuple[int, ...]
) -> None:
    r = torch.randn(*batch, 5)
    cost = loss.cost(r)
    assert cost.shape == batch
    assert cost.dtype == torch.float64
    found = loss.expand(r)
    rows = found.rows(DenseRows(torch.randn(*batch, 5, 2))).dense()
    assert found.value.shape == batch
    assert found.residual.shape == found.slope.shape == (*batch, 5)
    assert rows.shape == (*batch, 5, 2)
    assert rows.dtype == torch.float32


@losses
def test_a_cost_in_float32_is_summed_in_float64(loss: Loss) -> None:
    # a sum in float32 would drown the ones beside 1e8, and be off by 1e-7 of itself elsewhere
    r = torch.cat([torch.tensor([1e4]), torch.ones(999), torch.linspace(-1, 1, 1001)])
    assert loss.cost(r).item() == pytest.approx(loss.cost(r.double()).item(), rel=1e-13)


def test_half_a_sum_of_float32_is_that_of_exact_arithmetic() -> None:
    values = torch.cat([torch.tensor([1e8]), torch.ones(999), torch.rand(500)])
    assert half_sum(values).item() == pytest.approx(math.fsum(values.tolist()) / 2, rel=1e-15)
    assert half_sum(values.expand(2, -1)).shape == (2,)
    squares = Linear().cost(values.sqrt())
    assert squares.item() == pytest.approx(
        math.fsum(v**2 for v in values.sqrt().tolist()) / 2, rel=1e-15
    )


@pytest.mark.parametrize("size", [1e-25, 1e25])
@losses
def test_a_cost_in_float32_neither_overflows_nor_underflows(loss: Loss, size: float) -> None:
    cost = loss.cost(torch.full((3,), size))
    assert 0 < cost < math.inf


@rhos
@pytest.mark.parametrize("scale", [0.1, 1.0], ids=str)
@pytest.mark.parametrize("seed", [0, 1])
def test_a_robust_fit_is_scipys(name: str, scale: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    t = torch.linspace(0, 4, 40, dtype=torch.float64)
    y = (
        2.5 * torch.exp(-1.3 * t)
        + 0.3
        + 0.05 * torch.randn(40, dtype=torch.float64, generator=generator)
    )
    y[::7] += 2.0  # outliers

    def residual(x: Tensor) -> Tensor:
        return x[0] * torch.exp(-x[1] * t) + x[2] - y

    jacobian = torch.func.jacfwd(residual)
    theirs = least_squares(
        lambda x: residual(torch.from_numpy(x)).numpy(), np.array([2.0, 1.0, 0.0]),
        jac=lambda x: jacobian(torch.from_numpy(x)).numpy(),
        loss=name if name in SCIPYS else lambda z: np.stack(RHOS[name](torch.from_numpy(z))),
        f_scale=scale, x_scale="jac", ftol=1e-15, xtol=1e-15, gtol=1e-15, max_nfev=2000,
    )  # fmt: skip
    x = torch.tensor([2.0, 1.0, 0.0], dtype=torch.float64, requires_grad=True)
    opt = lmtorch.LevenbergMarquardt([x], loss=name, loss_scale=scale)
    for _ in range(300):
        opt.step(lambda: residual(x))
        if opt.status.final:
            break
    assert opt.report is not None
    assert opt.status.final
    assert opt.report.loss_after == pytest.approx(theirs.cost, rel=1e-9)
    torch.testing.assert_close(x.detach(), torch.from_numpy(theirs.x), rtol=1e-5, atol=1e-6)


def test_beyond_its_scale_tukey_leaves_a_residual_without_influence() -> None:
    r = torch.tensor([0.5, 0.9, 1.1, 40.0], dtype=torch.float64)
    assert (Robust(tukey).expand(r).slope != 0).tolist() == [True, True, False, False]
    assert Robust(tukey).cost(r[2:]) == pytest.approx(2 * (1 / 3) / 2)


class Insensitive:
    """½ Σ max(|r| − ½, 0)²: residuals up to a half have neither slope nor curvature."""

    def cost(self, residual: Tensor) -> Tensor:
        return self._beyond(residual).square().sum(-1) / 2

    def expand(self, residual: Tensor) -> Expansion:
        return Expansion(
            self.cost(residual), self._beyond(residual), self.curvature(residual).sqrt()
        )

    def curvature(self, residual: Tensor) -> Tensor:
        return (residual.abs() > 0.5).to(residual.dtype)

    def take(self, places: Tensor) -> "Insensitive":
        return self

    def _beyond(self, residual: Tensor) -> Tensor:
        return residual.sign() * (residual.abs() - 0.5).clamp(min=0)


@pytest.mark.parametrize("solver", ["auto", "cholesky", "qr"])
def test_a_residual_without_slope_and_curvature_is_left_out(solver: str) -> None:
    y = torch.tensor([0.0, 0.2, 1.2, 3.0], dtype=torch.float64)
    found = lmtorch.least_squares(lambda c: c - y, [1.0], loss=Insensitive(), solver=solver)
    # 1.2 is within a half of the answer; the others pull with c − 0.5, c − 0.7 and c − 2.5
    assert found.success
    assert found.x[0] == pytest.approx(3.7 / 3, abs=1e-12)
