"""Products of many problems in float32, and where they are made again."""

import pytest
import torch
from torch import Tensor

import lmtorch
from lmtorch.linearizations import coarse

F64 = torch.float64


def columns_last(rows: Tensor) -> list[Tensor]:
    """Columns (b, m) of rows (b, m, k), with the problems last in memory."""
    return [column.T.contiguous().T for column in rows.unbind(-1)]


def drawn(problems: int = 200) -> Tensor:
    rng = torch.Generator().manual_seed(0)
    return torch.randn(problems, 40, 5, generator=rng)


def exact(rows: Tensor) -> Tensor:
    return rows.double().mT @ rows.double()


def test_products_of_columns_far_apart_are_right_to_the_digits_of_the_rows() -> None:
    rows = drawn()
    found, expected = coarse.products(columns_last(rows), F64), exact(rows)
    lengths = expected.diagonal(dim1=-2, dim2=-1).sqrt()
    apart = (found - expected).abs() / (lengths[:, :, None] * lengths[:, None, :])
    assert float(apart.max()) < 4 * torch.finfo(torch.float32).eps
    assert float(apart.max()) > 0  # they were made in float32


@pytest.mark.parametrize("problems", [3, 150], ids=["a few", "most"])
def test_products_of_columns_near_each_other_are_made_in_float64(problems: int) -> None:
    """Of two columns 1e-4 apart float32 would leave one digit of the pivot."""
    rows = drawn()
    rows[:problems, :, 1] = rows[:problems, :, 0] + 1e-4 * rows[:problems, :, 1]
    found, expected = coarse.products(columns_last(rows), F64), exact(rows)
    torch.testing.assert_close(found[:problems], expected[:problems], rtol=1e-13, atol=1e-12)


@pytest.mark.parametrize("size", [1e-20, 1e20, 1e-14])
@pytest.mark.parametrize("place", [0, 4], ids=["a column", "residuals"])
def test_products_that_float32_does_not_hold_are_made_in_float64(size: float, place: int) -> None:
    rows = drawn()
    rows[7, :, place] *= size
    found, expected = coarse.products(columns_last(rows), F64), exact(rows)
    torch.testing.assert_close(found[7], expected[7], rtol=1e-12, atol=0.0)


def test_columns_without_influence_and_data_that_are_met_change_nothing() -> None:
    rows = drawn()
    rows[3, :, 2] = 0.0
    rows[4, :, 4] = 0.0
    rows[5, :, 1] = torch.nan
    given: list[Tensor | None] = [*columns_last(rows)]
    given[3] = None
    rows[:, :, 3] = 0.0
    found, expected = coarse.products(given, F64), exact(rows)
    for problem in (3, 4):
        torch.testing.assert_close(found[problem], expected[problem], rtol=1e-13, atol=1e-13)
    assert found[5, 1, 0].isnan()
    assert bool(found[5, 0, 0].isfinite())
    assert float((found[6] - expected[6]).abs().max()) < 1e-4


def decays(count: int) -> tuple[Tensor, Tensor]:
    """Sums of two decays whose rates are near each other: columns of J nearly depend."""
    rng = torch.Generator().manual_seed(1)
    t = torch.linspace(0, 6, 60)
    p = torch.tensor([2.0, 0.5, 1.0, 1.0]) * (1 + 0.1 * torch.rand(count, 4, generator=rng))
    y = p[:, :1] * torch.exp(-p[:, 1:2] * t) + p[:, 2:3] * torch.exp(-p[:, 3:4] * t)
    return t, y + 1e-3 * torch.randn(y.shape, generator=rng)


def misfit(p: Tensor, t: Tensor, y: Tensor) -> Tensor:
    return p[0] * torch.exp(-p[1] * t) + p[2] * torch.exp(-p[3] * t) - y


def test_many_fits_in_float32_whose_columns_nearly_depend_end_where_those_in_float64_do() -> None:
    t, y = decays(300)
    start = torch.tensor([1.5, 0.4, 1.5, 1.2])
    given = {"in_dims": (None, None, 0)}
    found = lmtorch.least_squares(misfit, start, args=(t, y), **given)
    wide = lmtorch.least_squares(misfit, start.double(), args=(t.double(), y.double()), **given)
    both = found.success & wide.success
    assert float(both.double().mean()) > 0.95
    residual = torch.vmap(misfit, (0, None, 0))(found.x.double(), t.double(), y.double())
    cost = residual.square().sum(-1) / 2
    # round-off of r in float32, 1e-7 of y, moves the cost of noise of 1e-3 by a share of 1e-6
    assert bool((cost <= wide.cost * (1 + 3e-6))[both].all())
