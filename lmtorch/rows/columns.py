"""Rows by their columns, one tensor for each of a few parameters.

    J = [ c₁ c₂ … c_n ]      JᵀJ = [ Σ cᵢ cⱼ ],   Jᵀr = [ Σ cᵢ r ]

The derivatives of a model of few parameters arise column by column. Put side by side as a matrix
they would be copied, with a stride of n between the rows; what is zero everywhere is not stored.
Columns may have any strides: those of many problems may lie in memory with the problems last.
"""

from typing import NamedTuple, Self

import torch
from torch import Tensor

from ..arrays import beside, to_type
from .base import scale


class Columns(NamedTuple):
    """One column (..., rows) for each parameter, None where it is zero; not all are None."""

    columns: tuple[Tensor | None, ...]
    whole: Tensor | None = None  # (n, rows), where they are all of its rows, one after the other

    @property
    def like(self) -> Tensor:
        """One of the columns that are there."""
        return next(column for column in self.columns if column is not None)

    @property
    def shape(self) -> torch.Size:
        """(..., rows, n)."""
        return torch.Size((*self.like.shape, len(self.columns)))

    @property
    def column_norms(self) -> Tensor:
        """‖J e_j‖ over these rows, (..., n)."""
        zero = self.like.new_zeros(self.like.shape[:-1])
        return torch.stack(
            [
                zero if column is None else torch.linalg.vector_norm(column, dim=-1)
                for column in self.columns
            ],
            -1,
        )

    def scaled(self, root: Tensor) -> Self:
        """R J, in new columns."""
        if root.ndim > self.like.ndim:  # the rows of a sample are mixed
            return self._replace(columns=scale(self.dense(), root).unbind(-1), whole=None)
        root = to_type(root, self.like.dtype)
        if self.whole is not None:
            whole = self.whole * root
            return self._replace(columns=whole.unbind(), whole=whole)
        return self._replace(columns=tuple(c if c is None else c * root for c in self.columns))

    def times(self, v: Tensor) -> Tensor:
        """J v, (..., rows)."""
        found = torch.zeros_like(self.like)
        for column, entry in zip(self.columns, v.unbind(-1), strict=True):
            if column is not None:
                found = torch.addcmul(found, column, entry[..., None])
        return found

    def transposed_times(self, w: Tensor) -> Tensor:
        """Jᵀw, (..., n)."""
        zero = self.like.new_zeros(self.like.shape[:-1])
        return torch.stack(
            [zero if column is None else torch.linalg.vecdot(column, w) for column in self.columns],
            -1,
        )

    def dense(self) -> Tensor:
        """All entries, (..., rows, n), column after column in memory."""
        return beside(self.columns) if self.whole is None else self.whole.mT

    def above(self, residual: Tensor) -> Tensor:
        """The columns one above the other, and below them the residuals, (..., n + 1, rows)."""
        there = [torch.zeros_like(residual) if c is None else c for c in self.columns]
        return torch.stack([*there, residual], -2)
