"""L D Lᵀ of many small matrices, entry by entry: each entry is a vector over the problems.

LAPACK and batched kernels take one matrix after the other, and spend more on each call than on the
few products that a small matrix needs. Written out, L D Lᵀ of an n × n matrix is n³/6 products of
whole vectors, which are contiguous where the problems are last in memory.

Reference: Golub & Van Loan, Matrix Computations (2013), §4.1.2.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from .arrays import on_numpy, reciprocal, where

LARGEST = 8  # columns up to which it pays: the operations grow with n³


class Triangle:
    """L D Lᵀ = A of many small matrices.

    Args:
        lower: A's entries, of which those below the diagonal are read.
        diagonal: and those on it.

    Attributes:
        pivots: D, entry by entry. A is positive definite where all of them are positive.
    """

    def __init__(self, lower: Sequence[Sequence[Tensor]], diagonal: Sequence[Tensor]) -> None:
        self.pivots: list[Tensor] = []
        self.inverse: list[Tensor] = []
        self.lower: list[list[Tensor]] = []
        for j, pivot in enumerate(diagonal):
            row: list[Tensor] = []
            for k in range(j):
                entry = lower[j][k]
                for i in range(k):
                    entry = _less(entry, self.lower[k][i], row[i])
                row.append(entry)  # L_jk D_k
            scaled = [entry * inverse for entry, inverse in zip(row, self.inverse, strict=True)]
            for entry, plain in zip(scaled, row, strict=True):
                pivot = _less(pivot, entry, plain)
            self.lower.append(scaled)
            self.pivots.append(pivot)
            # no factor where a pivot is not positive: NaN, as the root of it would be
            self.inverse.append(reciprocal(where(pivot > 0, pivot, torch.nan)))

    def forward(self, rhs: Sequence[Tensor]) -> list[Tensor]:
        """L⁻¹ rhs."""
        found: list[Tensor] = []
        for entry, row in zip(rhs, self.lower, strict=True):
            for known, factor in zip(found, row, strict=True):
                entry = _less(entry, factor, known)
            found.append(entry)
        return found

    def solve(self, rhs: Sequence[Tensor]) -> list[Tensor]:
        """A⁻¹ rhs."""
        found = [e * i for e, i in zip(self.forward(rhs), self.inverse, strict=True)]
        for j in reversed(range(len(found))):
            for i in range(j + 1, len(found)):
                found[j] = _less(found[j], self.lower[i][j], found[i])
        return found

    def quadratic(self, vector: Sequence[Tensor]) -> Tensor:
        """vᵀ A⁻¹ v, (b,)."""
        half = self.forward(vector)
        return dot([e * i for e, i in zip(half, self.inverse, strict=True)], half)


def _less(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """a − b c, never fused: it has the same bits on NumPy's arrays, of tensors and in a trace."""
    return a - b * c


def more(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """a + b c, likewise."""
    return a + b * c


def dot(a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
    """Σ aᵢ bᵢ."""
    found = a[0] * b[0]
    for left, right in zip(a[1:], b[1:], strict=True):
        found = more(found, left, right)
    return found


def side_by_side(entries: Sequence[Tensor]) -> Tensor:
    """Vectors (b,), tensors or arrays, as a tensor (b, n), with the problems last in memory."""
    if on_numpy(entries[0]):
        return torch.from_numpy(np.stack(list(entries))).movedim(0, -1)
    return torch.stack(list(entries)).movedim(0, -1)
