"""Sums of rows with signs, which stand in for a Jacobian."""

import pytest
import torch

from lmtorch.linearizations.sketch import SUMS, SketchForm
from lmtorch.rows.columns import Columns
from lmtorch.rows.matrix import DenseRows

F64 = torch.float64


def sketched(rows, sizes, kind):
    accumulator = SketchForm().accumulator((*rows.shape[:-2], rows.shape[-1]), 0, rows)
    for block in rows.split(sizes, -2):
        made = DenseRows(block) if kind is DenseRows else Columns(block.unbind(-1))
        accumulator.add(block[..., 0], made)
    return accumulator.finish(rows.new_zeros(()), None).jacobian


@pytest.mark.parametrize("batch", [(), (3,)])
def test_the_sums_do_not_depend_on_how_the_rows_come(batch):
    rows = torch.randn(*batch, 1000, 4, dtype=F64)
    whole = sketched(rows, [1000], DenseRows)
    assert whole.shape == (*batch, SUMS, 4)
    pieces = sketched(rows, [300, 1, 699], Columns)
    torch.testing.assert_close(pieces, whole, rtol=1e-12, atol=1e-12)


def test_lengths_are_those_of_the_columns_on_average():
    t = torch.linspace(0, 1, 5000, dtype=F64)[:, None]
    # smooth columns and noise, long and short: the relative deviation is √(2/k), 0.18, and four of
    # them are hardly ever exceeded
    smooth = torch.exp(-t * torch.arange(1, 200, dtype=F64)) * torch.logspace(-9, 9, 199, dtype=F64)
    for columns in (smooth, torch.randn(5000, 199, dtype=F64)):
        found = sketched(columns, [5000], DenseRows)
        share = found.square().sum(0) / columns.square().sum(0)
        assert abs(share.mean() - 1) < 0.2
        assert (abs(share - 1) < 0.75).all()


def test_columns_that_are_almost_the_same_stay_so_and_others_do_not():
    a, b = torch.randn(2, 5000, 1, dtype=F64)
    near, other = (sketched(a, [5000], DenseRows) - sketched(c, [5000], DenseRows)
                   for c in (a + 1e-8 * b, b))  # fmt: skip
    length = sketched(a, [5000], DenseRows).norm()
    assert near.norm() < 2e-8 * length
    assert other.norm() > length
