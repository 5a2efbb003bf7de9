"""What the loop asks of a linear model has closed forms, whatever the form and the units."""

import pytest
import torch
from torch import Tensor

from lmtorch.linearizations.base import (
    Form,
    Linearization,
    Prior,
    longest_single_move,
    optimality,
    relative_length,
    rounding_of_cost,
)
from lmtorch.linearizations.blocks import Blocks
from lmtorch.linearizations.dense import DenseForm
from lmtorch.linearizations.normal import Normal, NormalForm
from lmtorch.rows.matrix import DenseRows
from lmtorch.rows.own import OwnRows

F64 = torch.float64
# columns of length 5, 2 and 0; r has length 10, and makes cosines 0.6, 0.8 and none with them
J = torch.tensor([[3.0, 0.0, 0.0], [4.0, 0.0, 0.0], [0.0, 2.0, 0.0]], dtype=F64)
R = torch.tensor([6 * 0.6, 6 * 0.8, 8.0], dtype=F64)
X = torch.tensor([10.0, -1.0, 7.0], dtype=F64)


def dense(form: Form) -> Linearization:
    """J and r in a form."""
    accumulator = form.accumulator((3,), 3, J)
    rows = accumulator.workspace(3)
    rows.copy_(J)
    accumulator.add(R, DenseRows(rows))
    return accumulator.finish(R.square().sum() / 2, None)


def blocks() -> Linearization:
    """The first column is the parameter's, the second the error in x of the third point."""
    zero = torch.zeros(4, dtype=F64)
    points = torch.tensor([[0.0], [0.0], [2.0]], dtype=F64)
    return Blocks.of(R, OwnRows(J[:, :1], points), Prior(zero, zero), R.square().sum() / 2)


MODELS = {"dense": dense(DenseForm()), "normal": dense(NormalForm()), "blocks": blocks()}


def variables(model: Linearization, vector: Tensor) -> Tensor:
    """A vector of three in the order of the form; blocks have zero columns in between."""
    if not isinstance(model, Blocks):
        return vector
    return torch.stack([vector[0], vector[2], vector[2], vector[1]])


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_the_questions_have_closed_forms(model: Linearization) -> None:
    def near(found: Tensor, expected: float) -> None:
        torch.testing.assert_close(found, torch.tensor(expected, dtype=F64))

    x = variables(model, X)
    near(optimality(model), 0.8)
    # ε (F + ‖r‖ ‖J∘x‖)
    near(rounding_of_cost(model, x, 1e-10), 1e-10 * (50 + 10 * (50.0**2 + 2.0**2) ** 0.5))
    # beside |x₁| = 10 and, as x₂ is small, beside ‖r‖ / ‖J e₂‖ = 5; x₃ has no
    # influence, and is never far
    step = torch.tensor([1.0, 2.0, 1e9], dtype=F64)
    near(relative_length(model, x, variables(model, step)), 0.4)
    near(relative_length(model, x, torch.zeros_like(x)), 0.0)
    # g_j / ‖J e_j‖² = 10 · 0.6 / 5 and 10 · 0.8 / 2, beside 10 and 5
    near(longest_single_move(model, x), 0.8)


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_the_square_of_the_cosine_is_what_the_best_single_move_promises(
    model: Linearization,
) -> None:
    moves = torch.diag_embed(-model.gradient / model.column_norms.square().clamp(min=1e-300))
    promised = max(
        float(-(model.gradient @ move) - model.squared_length(move) / 2) for move in moves
    )
    assert promised == pytest.approx(float(optimality(model).square() * model.cost))


@pytest.mark.parametrize("form", [DenseForm(), NormalForm()], ids=["dense", "normal"])
@pytest.mark.parametrize("units", [1.0, 1e-6, 1e6])
def test_the_answers_do_not_depend_on_units(form: Form, units: float) -> None:
    generator = torch.Generator().manual_seed(0)
    matrix, residual = (
        torch.randn(4, 3, 5, 3, generator=generator, dtype=F64),
        torch.randn(4, 3, 5, generator=generator, dtype=F64),
    )
    x, step = torch.randn(2, 4, 3, 3, generator=generator, dtype=F64)
    scale = torch.tensor([units, 1.0, 1 / units], dtype=F64)

    def answers(jacobian: Tensor, residual: Tensor, x: Tensor, step: Tensor) -> list[Tensor]:
        accumulator = form.accumulator(tuple(x.shape), 5, jacobian)
        rows = accumulator.workspace(5)
        rows.copy_(jacobian)
        accumulator.add(residual, DenseRows(rows))
        model = accumulator.finish(residual.square().sum(-1) / 2, None)
        found = [optimality(model), relative_length(model, x, step), longest_single_move(model, x)]
        return [*found, rounding_of_cost(model, x, 1e-10) / model.cost]

    plain = answers(matrix, residual, x, step)
    other = answers(matrix / scale * units, residual * units, x * scale, step * scale)
    for mine, theirs in zip(plain, other, strict=True):
        assert mine.shape == (4, 3)
        torch.testing.assert_close(theirs, mine, rtol=1e-9, atol=0)


@pytest.mark.parametrize("form", [DenseForm(), NormalForm()], ids=["dense", "normal"])
def test_a_prior_counts_as_rows(form: Form) -> None:
    root = torch.tensor([1.0, 2.0, 3.0], dtype=F64)
    accumulator = form.accumulator((3,), 3, J)
    rows = accumulator.workspace(3)
    rows.copy_(J)
    accumulator.add(R, DenseRows(rows))
    whole = torch.cat([R, root * X])
    model = accumulator.finish(whole.square().sum() / 2, Prior(root, root * X))
    stacked = torch.cat([J, torch.diag(root)])
    cosines = (stacked.mT @ whole).abs() / stacked.norm(dim=0) / whole.norm()
    torch.testing.assert_close(optimality(model), cosines.max())


def test_no_estimate_of_a_norm_makes_a_cosine_more_than_one() -> None:
    model = MODELS["normal"]
    assert isinstance(model, Normal)
    estimated = model._replace(norms=model.column_norms / 2)
    torch.testing.assert_close(optimality(estimated), torch.ones((), dtype=F64))
