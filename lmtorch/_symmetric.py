"""Sums of products of rows with themselves, of which one triangle is enough.

This saves up to half of the products. torch has no `syrk`; products of block rows up to the
diagonal come near to it on every device. (scipy's BLAS has one, 15 % faster by itself; in the loop
its threads and torch's waited for the same cores, and steps took twice as long.)
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from . import _one_pass
from ._denormals import denormals_are_zero

# columns in a block at least: smaller products are slower than large ones (benchmarks/gram.py)
BLOCK = 128
BLOCKS = 8  # blocks at most: with them 9/16 of the full product is made, and more gain nothing


def add_gram_(normal: Tensor, rows: Tensor, known: Sequence[slice] = ()) -> None:
    """Add rowsᵀrows to the lower block triangle of `normal` (..., n, n), but for blocks `known`.

    Args:
        normal: the sum so far.
        rows: (..., rows, n).
        known: columns, in order, whose products with themselves are summed elsewhere.
    """
    n = normal.shape[-1]
    if normal.ndim > 2:
        normal += rows.mT @ rows
        return
    width = max(BLOCK, -(-n // BLOCKS))
    begin = 0
    with denormals_are_zero(rows):
        for block in (*known, slice(n, n)):
            for start in range(begin, block.start, width):
                stop = min(start + width, block.start)
                normal[start:stop, :stop].addmm_(rows[:, start:stop].mT, rows[:, :stop])
            if 0 < block.start < n:
                normal[block, : block.start].addmm_(rows[:, block].mT, rows[:, : block.start])
            begin = block.stop


def mirror_(normal: Tensor) -> None:
    """Copy the lower triangle to the upper one, block by block, without another matrix."""
    if normal.ndim > 2:
        return  # the batched product is already whole
    n = normal.shape[-1]
    width = max(BLOCK, -(-n // BLOCKS))
    for start in range(0, n, width):
        stop = min(start + width, n)
        normal[:start, start:stop] = normal[start:stop, :start].mT
        corner = normal[start:stop, start:stop]
        corner.copy_(corner.tril() + corner.tril(-1).mT)


def vectors_last(residual: Tensor) -> bool:
    """Whether residuals (b, m) are those of many problems, which are last in memory."""
    return residual.ndim == 2 and residual.stride(0) == 1 and len(residual) > 1


def products_of_last(columns: Sequence[Tensor | None], dtype: torch.dtype) -> Tensor:
    """CᵀC of many problems, (b, k, k), from columns of C (b, m) that have the problems last.

    Products and sums run over whole vectors.

    Args:
        columns: one that is the same number everywhere takes no product, and one of zeros (None)
            nothing at all.
        dtype: in which products are made and summed.

    Returns:
        The symmetric matrices, whole, with the problems last in memory.
    """
    like = next(column for column in columns if column is not None)
    (b, m), k = like.shape, len(columns)
    sums = torch.zeros(k, k, b, dtype=dtype, device=like.device)
    wide = [_vectors(column, dtype) for column in columns]
    if _one_pass.in_one_pass(*(one for one in wide if one is not None)):
        _one_pass.products(wide, m, sums)
        return sums.movedim(-1, 0)
    plane = torch.empty(m, b, dtype=dtype, device=like.device)
    for i, one in enumerate(wide):
        for j, other in enumerate(wide[: i + 1]):
            if one is not None and other is not None:
                _sum_of_products(one, other, plane, sums[i, j])
                if i != j:
                    sums[j, i].copy_(sums[i, j])
    return sums.movedim(-1, 0)


def sums_with(weights: Tensor, vectors: Sequence[Tensor]) -> list[Tensor]:
    """Σ w v, (b,) each, of vectors v (b, m) and weights w (b, m) that have the problems last."""
    like, dtype = weights.mT, weights.dtype
    wide, found = [_vectors(vector, dtype) for vector in vectors], list[Tensor]()
    if _one_pass.in_one_pass(like, *(one for one in wide if one is not None)):
        return _one_pass.products_with(like, wide)
    plane = torch.empty_like(like)
    for vector in wide:
        assert vector is not None
        found.append(weights.new_empty(len(weights)))
        _sum_of_products(vector, like, plane, found[-1])
    return found


def _vectors(column: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """A column (b, m) as (m, b), or (1,) where it is one number, expanded; None stays None."""
    if column is None:
        return None
    if column.stride() == (0, 0):
        return column[:1, 0].to(dtype)
    return column.mT.to(dtype)


def _sum_of_products(one: Tensor, other: Tensor, plane: Tensor, out: Tensor) -> None:
    """Write Σ one · other into `out` (b,); `plane` (m, b) is room for the products."""
    if one.ndim == 1:
        one, other = other, one
    if one.ndim == 1:
        out.copy_(one * other * len(plane))
    elif other.ndim == 1:
        torch.sum(one, 0, out=out)
        out.mul_(other)
    else:
        torch.sum(torch.mul(one, other, out=plane), 0, out=out)
