"""Steps of many rows by few columns of JJᵀ, beside those of the equations solved as a whole."""

import pytest
import torch
from torch import Tensor

from lmtorch.linearizations.layered import LayeredAccumulator
from lmtorch.rows.factors import Plain, Weight
from lmtorch.rows.layers import LayerBlock, LayerRows
from lmtorch.solvers import pivoted
from lmtorch.solvers.dual import Dual, DualFactor

F64 = torch.float64


def rows_of(falls: float, bad: float = 1.0) -> LayerRows:
    """1,100 rows in two terms of a layer 20 × 21 that is used twice or once, n = 425.

    The size of its inputs falls from one to the next by `falls`, as do those of a smooth function;
    one entry is multiplied by `bad`.
    """
    generator = torch.Generator().manual_seed(0)
    size = falls ** torch.arange(21, dtype=F64)
    blocks = []
    for samples, uses in ((1000, 2), (100, 1)):
        left = torch.randn(samples, 1, uses, 20, generator=generator, dtype=F64) * size[:20]
        right = torch.randn(samples, uses, 21, generator=generator, dtype=F64) * size
        left[0, 0, 0, 0] *= bad
        plain = Plain(420, torch.randn(samples, 1, 5, generator=generator, dtype=F64))
        blocks.append(LayerBlock(samples, 1, (Weight(0, left, right), plain)))
    return LayerRows(425, tuple(blocks), left.new_empty(0))


def factor_of(rows: LayerRows) -> tuple[DualFactor, Tensor, Tensor]:
    """The equations at some residuals and a D that differs between parameters; both of these."""
    m, n = rows.shape
    residual = torch.linspace(-1, 1, m, dtype=F64).sin()
    scale = torch.tensor([2.0, 0.5], dtype=F64).repeat_interleave(torch.tensor([420, 5]))
    keeper = LayeredAccumulator((n,), m, rows.like)
    keeper.add(residual, rows)
    model = keeper.finish(residual.square().sum() / 2, None)
    return Dual().factor(model, scale), residual, scale


def exact(rows: LayerRows, rhs: Tensor, scale: Tensor, damping: float) -> Tensor:
    """(JᵀJ + λD²)⁻¹ rhs, by QR of J over the root of λ times D."""
    stacked = torch.cat([rows.dense(), damping**0.5 * torch.diag(scale)])
    triangle = torch.linalg.qr(stacked).R
    half = torch.linalg.solve_triangular(triangle.mT, rhs[:, None], upper=False)
    return torch.linalg.solve_triangular(triangle, half, upper=True)[:, 0]


@pytest.mark.parametrize("damping", [1.0, 1e-3])
def test_steps_by_few_columns_are_those_of_all_rows(damping: float) -> None:
    rows = rows_of(0.6)
    factor, residual, scale = factor_of(rows)
    gradient = rows.transposed_times(residual)
    lam = torch.tensor(damping, dtype=F64)
    step = factor.step(lam)
    expected = exact(rows, -gradient, scale, damping)
    # what may be left of the residuals is 1e-5
    assert (step - expected).norm() < 1e-4 * expected.norm()
    # a right-hand side of which the largest directions of J have most, as of smooth residuals
    rhs = rows.times(torch.linspace(1, 2, len(gradient), dtype=F64))
    other = exact(rows, rows.transposed_times(rhs), scale, damping)
    assert (factor.solve_rows(rhs, lam) - other).norm() < 1e-4 * other.norm()
    assert not factor.whole, "the products of all rows were made"
    assert factor.few is not None
    assert len(factor.few.root) <= 137
    # a refused trial asks for more damping, which needs no further column
    columns = len(factor.few.root)
    longer = factor.step(8 * lam)
    assert (longer - exact(rows, -gradient, scale, 8 * damping)).norm() < 1e-4 * longer.norm()
    assert len(factor.few.root) == columns


@pytest.mark.parametrize("damping", [100.0, 0.1, 1e-3])
@pytest.mark.parametrize("reached", [1e-3, 0.0], ids=str)
def test_a_step_is_good_where_rows_reach_little_of_the_residuals(
    reached: float, damping: float
) -> None:
    # what is left of residuals that no parameter reaches is large beside a step that is short
    rows = rows_of(0.5)
    factor, _, scale = factor_of(rows)
    left, singular, _ = torch.linalg.svd(rows.dense() / scale, full_matrices=False)
    generator = torch.Generator().manual_seed(1)
    residual = torch.randn(1100, dtype=F64, generator=generator)
    seen = left[:, singular**2 > 1e-3 * damping]
    residual += reached * left[:, 0] - seen @ (seen.mT @ residual)
    step = factor.solve_rows(residual, torch.tensor(damping, dtype=F64))
    expected = exact(rows, rows.transposed_times(residual), scale, damping)
    # the length that the error is a part of is ‖D p‖
    assert (scale * (step - expected)).norm() < 1e-4 * (scale * expected).norm()
    assert not factor.whole, "the products of all rows were made"


@pytest.mark.parametrize("damping", [1e-2, 1e-3])
def test_right_hand_sides_of_parameters_are_solved_for_with_all_rows(damping: float) -> None:
    # of few columns 1e-5 would be left of a difference, which is ‖JJᵀ‖/λ times its own size
    rows = rows_of(0.6)
    factor, _, scale = factor_of(rows)
    rhs = rows.transposed_times(rows.times(torch.linspace(1, 2, 425, dtype=F64)))
    expected = exact(rows, rhs, scale, damping)
    solution = factor.solve(rhs, torch.tensor(damping, dtype=F64))
    # ‖J‖² is some 2e3: of the digits of float64 as many are lost as 2e6 has
    assert (solution - expected).norm() < 1e-6 * expected.norm()


def test_iterations_that_do_not_arrive_leave_it_to_all_rows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pivoted, "LIMIT", 1)
    rows = rows_of(0.6)
    factor, residual, scale = factor_of(rows)
    step = factor.step(torch.tensor(1e-3, dtype=F64))
    assert factor.whole
    expected = exact(rows, -rows.transposed_times(residual), scale, 1e-3)
    assert (step - expected).norm() < 1e-9 * expected.norm()


def test_the_same_rows_with_other_residuals_share_the_columns() -> None:
    rows = rows_of(0.6)
    factor, residual, scale = factor_of(rows)
    lam = torch.tensor(1e-2, dtype=F64)
    factor.step(lam)
    keeper = LayeredAccumulator((425,), 1100, rows.like)
    keeper.add(residual.cos(), rows)
    seen = factor.seen_from(keeper.finish(residual.cos().square().sum() / 2, None))
    assert seen.few is factor.few
    expected = exact(rows, -rows.transposed_times(residual.cos()), scale, 1e-2)
    assert (seen.step(lam) - expected).norm() < 1e-4 * expected.norm()


@pytest.mark.parametrize(
    ("falls", "damping"), [(1.0, 1e-2), (0.6, 1e-13)], ids=["rows that all differ", "no damping"]
)
def test_where_few_columns_say_too_little_the_equations_are_those_of_all_rows(
    falls: float, damping: float
) -> None:
    rows = rows_of(falls)
    factor, residual, scale = factor_of(rows)
    step = factor.step(torch.tensor(damping, dtype=F64))
    assert len(factor.whole) == 1
    if falls == 1:
        expected = exact(rows, -rows.transposed_times(residual), scale, damping)
        torch.testing.assert_close(step, expected, rtol=1e-6, atol=1e-9)
    assert factor.few is not None
    assert len(factor.few.root) <= 137  # no more than an eighth is made in vain


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, 1e200], ids=str)
def test_rows_that_are_not_finite_give_no_step(bad: float) -> None:
    factor, _, _ = factor_of(rows_of(0.6, bad))
    assert factor.step(torch.tensor(1e-2, dtype=F64)).isnan().all()


def test_rows_of_zeros_give_no_move() -> None:
    rows = rows_of(0.6)
    factor, _, _ = factor_of(rows.scaled(torch.zeros(1100, dtype=F64)))
    assert torch.equal(factor.step(torch.tensor(1e-2, dtype=F64)), torch.zeros(425, dtype=F64))


def test_without_damping_there_is_no_step_of_few_columns() -> None:
    factor, _, _ = factor_of(rows_of(0.6))
    assert factor.step(torch.zeros((), dtype=F64)).isnan().all()
