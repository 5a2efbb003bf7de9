"""Rows as a matrix: nothing is known beyond their numbers."""

from typing import NamedTuple, Self

import torch
from torch import Tensor

from .base import scale


class DenseRows(NamedTuple):
    """All entries, (..., rows, n)."""

    matrix: Tensor

    @property
    def shape(self) -> torch.Size:
        """(..., rows, n)."""
        return self.matrix.shape

    @property
    def column_norms(self) -> Tensor:
        """‖J e_j‖ over these rows, (..., n)."""
        return torch.linalg.vector_norm(self.matrix, dim=-2)

    def scaled(self, root: Tensor) -> Self:
        """R J, in a new matrix."""
        return self._replace(matrix=scale(self.matrix, root))

    def times(self, v: Tensor) -> Tensor:
        """J v, (..., rows)."""
        return (self.matrix @ v[..., None])[..., 0]

    def transposed_times(self, w: Tensor) -> Tensor:
        """Jᵀw, (..., n)."""
        return (self.matrix.mT @ w[..., None])[..., 0]

    def dense(self) -> Tensor:
        """The matrix."""
        return self.matrix
