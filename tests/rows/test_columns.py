"""Columns that lie one after the other in one matrix, scaled by roots of rows and of samples."""

import pytest
import torch

from lmtorch.rows.columns import Columns


@pytest.mark.parametrize("mixed", [False, True])
def test_scaled_columns_are_dense_as_they_are_scaled(mixed: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    whole = torch.randn(3, 8, generator=generator, dtype=torch.float64)
    root = torch.randn((4, 2, 2) if mixed else (8,), generator=generator, dtype=torch.float64)
    every = torch.block_diag(*root) if mixed else root.diag()
    for rows in (Columns(tuple(whole), whole), Columns(tuple(whole))):
        scaled = rows.scaled(root)
        torch.testing.assert_close(scaled.dense(), every @ whole.mT, rtol=1e-14, atol=1e-14)
        torch.testing.assert_close(torch.stack(scaled.columns, -1), scaled.dense(), rtol=0, atol=0)
