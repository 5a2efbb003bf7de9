"""Rows as a matrix: nothing is known beyond their numbers."""

from typing import NamedTuple, Self

import torch
from torch import Tensor

from .._symmetric import add_gram_, mirror_
from ..arrays import apply, column_norms, transposed
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
        return column_norms(self.matrix)

    def scaled(self, root: Tensor) -> Self:
        """R J, in a new matrix."""
        return self._replace(matrix=scale(self.matrix, root))

    def times(self, v: Tensor) -> Tensor:
        """J v, (..., rows)."""
        return apply(self.matrix, v)

    def transposed_times(self, w: Tensor) -> Tensor:
        """Jᵀw, (..., n)."""
        return apply(transposed(self.matrix), w)

    def dense(self) -> Tensor:
        """The matrix."""
        return self.matrix

    def gram(self, squares: Tensor) -> Tensor:
        """J D⁻² Jᵀ, (..., rows, rows), for D² (..., n)."""
        scaled = self.matrix / squares.sqrt()[..., None, :]
        if scaled.ndim > 2:
            return scaled @ scaled.mT
        gram = scaled.new_zeros(len(scaled), len(scaled))
        add_gram_(gram, scaled.mT)
        mirror_(gram)
        return gram
