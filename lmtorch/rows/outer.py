"""Rows of which some columns are known to be outer products, as those of a linear layer are."""

from typing import NamedTuple, Self

import torch
from torch import Tensor

from .base import scale


class Outer(NamedTuple):
    """Columns that are outer products: left[s, o] right[s]ᵀ for residual o of sample s.

    They begin at column `start`, and are flattened row by row.
    """

    start: int
    left: Tensor  # (s, k, p)
    right: Tensor  # (s, q)

    def scaled(self, root: Tensor) -> Self:
        """The columns of R J: only the left factor belongs to a residual."""
        rows = scale(self.left.flatten(0, 1), root)
        return self._replace(left=rows.view(self.left.shape))


class OuterRows(NamedTuple):
    """A matrix, and what is known of some of its columns, in order."""

    matrix: Tensor  # (rows, n)
    outer: tuple[Outer, ...]

    @property
    def shape(self) -> torch.Size:
        """(rows, n)."""
        return self.matrix.shape

    @property
    def column_norms(self) -> Tensor:
        """‖J e_j‖ over these rows, (n,)."""
        return torch.linalg.vector_norm(self.matrix, dim=-2)

    def scaled(self, root: Tensor) -> Self:
        """R J, in a new matrix and with new left factors."""
        return self._replace(
            matrix=scale(self.matrix, root), outer=tuple(known.scaled(root) for known in self.outer)
        )

    def times(self, v: Tensor) -> Tensor:
        """J v, (rows,)."""
        return self.matrix @ v

    def transposed_times(self, w: Tensor) -> Tensor:
        """Jᵀw, (n,)."""
        return self.matrix.mT @ w

    def dense(self) -> Tensor:
        """The matrix."""
        return self.matrix
