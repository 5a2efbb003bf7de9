"""Sums of products of rows with themselves, of which one triangle is enough.

This saves up to half of the products. torch has no `syrk`; products of block rows up to the
diagonal come near to it on every device. (scipy's BLAS has one, 15 % faster by itself; in the loop
its threads and torch's waited for the same cores, and steps took twice as long.)
"""

from collections.abc import Sequence

from torch import Tensor

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
