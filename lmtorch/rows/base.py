"""Rows of the Jacobian of which more may be known than their numbers, behind one protocol.

A source of derivatives gives rows of the richest kind that it and the form of the linear model both
know. What happens to rows on the way is the same for all kinds:

    R J     the loss scales them by a root R of its curvature, RᵀR = ∂²F/∂r²
    J v     a step moves the residuals
    Jᵀ w    weights of the residuals move the cost
"""

from collections.abc import Sequence
from typing import Protocol, Self

import torch
from torch import Tensor

from .._errors import InputError
from ..arrays import to_type


class Rows(Protocol):
    """Some rows of J, (..., rows, n) if they were written out."""

    @property
    def shape(self) -> torch.Size:
        """(..., rows, n)."""

    @property
    def column_norms(self) -> Tensor:
        """‖J e_j‖ over these rows, (..., n)."""

    def scaled(self, root: Tensor) -> Self:
        """R J, for a root of each row (..., rows) or of each sample (..., samples, k, k)."""

    def times(self, v: Tensor) -> Tensor:
        """J v of v (..., n), (..., rows)."""

    def transposed_times(self, w: Tensor) -> Tensor:
        """Jᵀw of w (..., rows), (..., n)."""

    def dense(self) -> Tensor:
        """All entries, (..., rows, n)."""


def richest(given: Sequence[type], taken: Sequence[type]) -> type:
    """The kind of rows to ask for: the first that is taken among those that a source can give.

    Args:
        given: kinds that a source of derivatives knows.
        taken: kinds that a form of the linear model takes, the richest first.

    Returns:
        The kind.

    Raises:
        InputError: they have no kind in common.
    """
    for kind in taken:
        if kind in given:
            return kind
    names = [" or ".join(kind.__name__ for kind in kinds) for kinds in (taken, given)]
    raise InputError(
        f"the solver takes {names[0]}, and the source of derivatives gives {names[1]}: choose "
        "another solver or another source."
    )


def scale(matrix: Tensor, root: Tensor) -> Tensor:
    """Rows (..., rows, n) times a root of each row (..., rows) or of each sample (..., s, k, k)."""
    root = to_type(root, matrix.dtype)
    if root.ndim < matrix.ndim:
        return matrix * root[..., None]
    by_sample = matrix.unflatten(-2, root.shape[-3:-1])  # (..., s, k, n)
    return (root @ by_sample).flatten(-3, -2)


def scale_each(values: Tensor, root: Tensor) -> Tensor:
    """One number of each row, (..., rows), times a root of each row or of each sample."""
    return scale(values[..., None], root)[..., 0] if root.ndim > values.ndim else values * root
