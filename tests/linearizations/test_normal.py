"""The normal equations of many small problems."""

import torch

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
