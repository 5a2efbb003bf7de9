"""The normal equations of many small problems."""

import pytest
import torch

from lmtorch._symmetric import products_of_last, sums_with
from lmtorch.linearizations.normal import ManyAccumulator
from lmtorch.rows.columns import Columns

F64 = torch.float64


def test_a_model_of_many_problems_measures_steps_and_columns_as_its_rows_do() -> None:
    g = torch.Generator().manual_seed(0)
    rows = torch.randn(30, 9, 5, generator=g, dtype=F64)
    residual = torch.randn(30, 9, generator=g, dtype=F64)
    step = torch.randn(30, 5, generator=g, dtype=F64)
    free = torch.rand(30, 5, generator=g) > 0.4
    accumulator = ManyAccumulator(30, 5, residual)
    accumulator.add(residual, Columns(rows.unbind(-1)))
    whole = accumulator.finish(residual.square().sum(-1) / 2, None)
    held = (whole.freeze(free), rows * free[:, None, :])
    for model, J in ((whole, rows), held):
        moved = (J @ step[..., None])[..., 0]
        assert torch.allclose(model.squared_length(step), moved.square().sum(-1), rtol=1e-12)
        assert torch.allclose(model.column_norms, J.square().sum(-2).sqrt(), rtol=1e-12)
        assert torch.allclose(model.gradient, (J.mT @ residual[..., None])[..., 0], rtol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_products_of_columns_with_the_problems_last(dtype: torch.dtype) -> None:
    """Among them a column of one number, one of zeros and one that is the same for all problems."""
    rng = torch.Generator().manual_seed(0)
    made = [torch.randn(7, 5, generator=rng, dtype=torch.float64).to(dtype).T for _ in range(2)]
    uniform = torch.tensor(3.0, dtype=dtype).expand(5, 7)
    shared = torch.arange(7.0, dtype=dtype)[:, None].expand(7, 5).T
    other = torch.tensor(1.5, dtype=dtype).expand(5, 7)
    columns = [made[0], None, uniform, shared, other, made[1]]
    dense = torch.stack(
        [torch.zeros(5, 7).double() if c is None else c.double() for c in columns], -2
    )
    found = products_of_last(columns, torch.float64)
    torch.testing.assert_close(found, dense @ dense.mT, rtol=1e-13, atol=1e-13)


def test_sums_with_weights_where_the_problems_are_last() -> None:
    rng = torch.Generator().manual_seed(2)
    weights, vector = (torch.randn(7, 5, generator=rng, dtype=F64).T for _ in range(2))
    uniform = torch.tensor(3.0, dtype=F64).expand(5, 7)
    found = sums_with(weights, [vector, uniform])
    torch.testing.assert_close(found[0], (weights * vector).sum(-1), rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(found[1], 3 * weights.sum(-1), rtol=1e-13, atol=1e-13)
