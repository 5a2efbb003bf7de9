"""Products of the columns of many problems in the dtype of the rows, where that is enough.

A sum Σ rᵢcᵢ in float32 is off by some units of the last digit of its terms. The residuals and the
entries of J were rounded by as much when they were made: the gradient Jᵀr loses nothing that it
had. JᵀJ has the square of J's condition, and in float32 it says nothing of directions in which it
is ten million times smaller than in others. So what the columns of J before it leave of each, the
pivots of L D Lᵀ, is looked at, and where one is small, or where a square is beyond float32,
products are made once more in float64.

Reference: Golub & Van Loan, Matrix Computations (2013), §5.3.8, on normal equations and QR.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .._one_pass import in_one_pass
from .._symmetric import products_of_last
from .._triangles import Triangle
from ..arrays import places, quiet, readable, select

# share of its square that the columns before it must leave of a column: with float32's round-off
# the step is then right to three digits, and the trial says what it is worth
CLEAR = 1e-4
LEAST = 1e-25  # squared length from which on terms that underflow in float32 are no loss
FEW = 4  # where more than one of so many problems need it, they are not taken out for it


def products(columns: Sequence[Tensor | None], dtype: torch.dtype) -> Tensor:
    """CᵀC of many problems, (b, k, k), from columns C (b, m) that have the problems last.

    Args:
        columns: those of J, and the residuals; see `products_of_last`.
        dtype: of the result.

    Returns:
        The symmetric matrices, with the problems last in memory.
    """
    kinds = {column.dtype for column in columns if column is not None}
    like: Any = columns[-1]  # the residuals are there
    if kinds != {torch.float32} or dtype != torch.float64 or not readable(like):
        return products_of_last(columns, dtype)
    rough = products_of_last(columns, torch.float32)
    there = [column is not None for column in columns]
    if in_one_pass(rough):  # NumPy's calls cost less
        with quiet():  # overflow says what it is to say
            numbers: Any = rough.movedim(0, -1).numpy()
            unsure = torch.from_numpy(~_clear(numbers, there))
    else:
        unsure = ~_clear(rough.movedim(0, -1), there)
    count, found = int(unsure.sum()), rough.to(dtype)
    if FEW * count > len(unsure):  # what one has does not depend on the others
        found = select(unsure, products_of_last(columns, dtype), found)
    elif count:
        some = places(unsure, count)
        chosen = [None if column is None else _of_some(column, some) for column in columns]
        found[some] = products_of_last(chosen, dtype)
    return found


def _clear(rough: Any, there: Sequence[bool]) -> Any:
    """Where products (k, k, b) in float32 are enough, (b,) bool, of a tensor or an array.

    Columns of zeros have no part in it.
    """
    *own, _ = (i for i, known in enumerate(there) if known)
    entries = [[rough[i, j] for j in own] for i in own]
    squares = [row[i] for i, row in enumerate(entries)]
    of_residual = rough[-1, -1]
    # sums of products are no larger than the squares: they overflow where one of those does
    clear = (of_residual > LEAST) & (of_residual < torch.inf)
    pivots = Triangle(entries, squares).pivots
    for pivot, square in zip(pivots, squares, strict=True):
        # of what is not finite this is NaN; and no pivot exceeds its square
        clear = clear & (pivot - CLEAR * square > LEAST)
    return clear


def _of_some(column: Tensor, some: Tensor) -> Tensor:
    """A column (b, m) of the problems at `some` (k,), with the problems last in memory."""
    if column.stride() == (0, 0):  # one number
        return column[: len(some)]
    return column.mT.index_select(-1, some).mT
