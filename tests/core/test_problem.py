"""What is minimised, in closed form: a model from a sample of the rows, priors, and round-off."""

import pytest
import torch
from torch import Tensor

from lmtorch.core.problem import Problem
from lmtorch.jacobians.forward import Forward
from lmtorch.linearizations.base import Form, rounding_of_cost
from lmtorch.linearizations.dense import DenseForm
from lmtorch.linearizations.normal import NormalForm
from lmtorch.losses.base import Loss
from lmtorch.losses.linear import Linear
from lmtorch.losses.robust import Robust, soft_l1
from lmtorch.residuals.function import FunctionResidual
from lmtorch.rows.matrix import DenseRows

F32, F64 = torch.float32, torch.float64
CHOSEN = torch.tensor([1, 4, 5, 11, 20])


def drawn(*size: int, seed: int = 0) -> Tensor:
    return torch.randn(*size, dtype=F64, generator=torch.Generator().manual_seed(seed))


A, B, X = drawn(30, 3), drawn(30, seed=1), drawn(3, seed=2)


def lines(rows: Tensor) -> FunctionResidual:
    """A x − b of some rows."""
    return FunctionResidual(lambda x: x @ A[rows].mT - B[rows], X)


@pytest.mark.parametrize("loss", [Linear(), Robust(soft_l1, 0.5)], ids=["linear", "soft_l1"])
@pytest.mark.parametrize(
    "penalty", [None, torch.tensor([0.0, 0.3, 2.0], dtype=F64)], ids=["plain", "prior"]
)
def test_a_sample_estimates_the_curvature_of_all_rows_and_cost_and_gradient_are_exact(
    loss: Loss, penalty: Tensor | None
) -> None:
    whole = lines(torch.arange(30))
    model = Problem(
        whole, Forward(), NormalForm(), loss, F64, penalty=penalty, sample=lines(CHOSEN)
    ).linearize(X)  # fmt: skip
    r = A @ X - B
    rows = loss.expand(r[CHOSEN]).rows(DenseRows(A[CHOSEN])).dense()
    prior = torch.zeros(3, dtype=F64) if penalty is None else penalty
    torch.testing.assert_close(model.normal, 30 / 5 * rows.mT @ rows + torch.diag(prior))
    cost = lambda x: loss.cost(A @ x - B) + (prior * x**2).sum() / 2
    torch.testing.assert_close(model.gradient, torch.func.grad(cost)(X))
    torch.testing.assert_close(model.cost, cost(X))


@pytest.mark.parametrize("form", [DenseForm(), NormalForm()], ids=["dense", "normal"])
def test_a_variable_that_is_held_has_no_row_of_the_prior(form: Form) -> None:
    weights = torch.tensor([0.5, 0.3, 2.0], dtype=F64)
    problem = Problem(lines(torch.arange(30)), Forward(), form, Linear(), F64, penalty=weights)
    free = torch.tensor([True, False, True])
    model = problem.model(X).freeze(free)
    kept = A[:, free]
    expected = kept.mT @ kept + torch.diag(weights[free])
    torch.testing.assert_close(model.normal[free][:, free], expected)
    torch.testing.assert_close(model.column_norms[free], expected.diagonal().sqrt())
    torch.testing.assert_close(model.gradient[free], kept.mT @ (A @ X - B) + (weights * X)[free])
    assert (model.normal[~free] == 0).all()
    assert (model.normal[:, ~free] == 0).all()
    assert (model.gradient[~free] == 0).all()
    assert (model.column_norms[~free] == 0).all()
    step = torch.ones(3, dtype=F64)
    torch.testing.assert_close(model.squared_length(step), expected.sum())


def test_a_prior_in_float32_is_summed_in_float64() -> None:
    x = torch.cat([torch.tensor([4096.0]), torch.ones(999)])
    nothing = FunctionResidual(lambda x: 0 * x[..., :1], x)
    problem = Problem(nothing, Forward(), NormalForm(), Linear(), F32, penalty=torch.ones(1000))
    assert problem.cost(x).item() == (4096**2 + 999) / 2  # exact; in float32 the ones would be lost
    assert problem.model(x).cost.item() == (4096**2 + 999) / 2


@pytest.mark.parametrize("form", [DenseForm(), NormalForm()], ids=["dense", "normal"])
def test_rounding_grows_with_what_the_parameters_move(form: Form) -> None:
    # ε F for the sum, and ε |r| ‖J∘x‖ for the parameters, whose last digits move the
    # residuals: here by far the most
    slope, x = (
        torch.tensor([[3.0, 0.0], [4.0, 0.0], [0.0, 2.0]], dtype=F64),
        torch.tensor([1e6, -5e5], dtype=F64),
    )
    target = slope @ x - torch.tensor([1e-3, 0.0, 0.0], dtype=F64)
    problem = Problem(
        FunctionResidual(lambda x: x @ slope.mT - target, x), Forward(), form, Linear(), F64
    )
    model = problem.model(x)
    length = (2 * model.cost).sqrt()
    moved = torch.tensor([5e6, 1e6], dtype=F64).norm()  # ‖J e_j‖ is 5 and 2
    rounding = rounding_of_cost(model, x, 1e-16)
    torch.testing.assert_close(rounding, 1e-16 * (model.cost + length * moved))
    assert float(rounding) > 1e6 * 1e-16 * float(model.cost)


def test_the_round_off_of_residuals_is_that_of_the_coarser_dtype() -> None:
    plain = Problem(lines(CHOSEN), Forward(), DenseForm(), Linear(), F64)
    coarse = Problem(lines(CHOSEN), Forward(), DenseForm(), Linear(), F64, precision=F32)
    assert plain.eps(X) == torch.finfo(F64).eps
    assert plain.eps(X.float()) == coarse.eps(X) == torch.finfo(F32).eps
