"""Rows of points with variables of their own, beside the shared parameters.

    J = [ G  diag(V) ]      G = ∂r/∂β (q·m, n),  V = ∂r/∂δ, block (q, k) of point i

A point has q rows; those of all points in their first row come before those in their second. The
variables are β (n,), then δ (m·k,), point by point. Written out, J would be (q·m, n + m·k).
"""

from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

from ..arrays import apply, column_norms, joined, norms_along, transposed
from .base import scale


class OwnRows(NamedTuple):
    """`each` rows for each of m points, with any batch (...) in front."""

    shared: Tensor  # (..., q·m, n), G
    own: Tensor  # (..., q·m, k), V
    each: int = 1  # q

    @property
    def points(self) -> int:
        """m."""
        return self.own.shape[-2] // self.each

    @property
    def shape(self) -> torch.Size:
        """(..., q·m, n + m·k)."""
        *rows, k = self.own.shape
        return torch.Size((*rows, self.shared.shape[-1] + self.points * k))

    @property
    def by_point(self) -> Tensor:
        """V as (..., q, m, k)."""
        *lead, _, k = self.own.shape
        return self.own.reshape(*lead, self.each, self.points, k)

    @property
    def column_norms(self) -> Tensor:
        """‖J e_j‖, (..., n + m·k)."""
        of_own = abs(self.own) if self.each == 1 else norms_along(self.by_point, -3)
        return joined([column_norms(self.shared), flat(of_own)], -1)

    def scaled(self, root: Tensor) -> Self:
        """R J, with a root of each row (..., q·m)."""
        return self._replace(shared=scale(self.shared, root), own=scale(self.own, root))

    def parts(self, vector: Tensor) -> tuple[Tensor, Tensor]:
        """A vector of all variables as that of β (..., n) and that of δ (..., m, k)."""
        n = self.shared.shape[-1]
        own = vector[..., n:]
        return vector[..., :n], own.reshape(*own.shape[:-1], self.points, self.own.shape[-1])

    def times(self, v: Tensor) -> Tensor:
        """J v, (..., q·m)."""
        of_shared, of_own = self.parts(v)
        moved = collapsed(self.by_point * of_own[..., None, :, :], -1)
        return apply(self.shared, of_shared) + flat(moved)

    def transposed_times(self, w: Tensor) -> Tensor:
        """Jᵀw, (..., n + m·k)."""
        of_shared = apply(transposed(self.shared), w)
        return joined([of_shared, flat(self.back(w))], -1)

    def back(self, w: Tensor) -> Tensor:
        """Vᵀw of one number for each row (..., q·m), (..., m, k)."""
        by_point = w.reshape(*w.shape[:-1], self.each, self.points)[..., None]
        return collapsed(self.by_point * by_point, -3)

    def above(self, residual: Tensor) -> Tensor:
        """The columns of β and of a δ of all points together, and below them the residuals.

        Returns:
            (..., n + k + 1, q·m).
        """
        return torch.cat([self.shared.mT, self.own.mT, residual[..., None, :]], -2)

    def dense(self) -> Tensor:
        """All entries, most of them zero, (..., q·m, n + m·k)."""
        columns = torch.diag_embed(self.by_point.mT).movedim(-3, -1)  # (..., q, m, m, k)
        return torch.cat([self.shared, columns.flatten(-2).flatten(-3, -2)], -1)


def collapsed(values: Tensor, dim: int) -> Tensor:
    """The sum along a dimension, for which nothing is computed where it has one entry."""
    if values.shape[dim] > 1:
        found: Tensor = values.sum(dim)
        return found
    place: Any = (..., 0, *(slice(None),) * (-1 - dim))
    only: Tensor = values[place]
    return only


def flat(by_point: Tensor) -> Tensor:
    """Numbers (..., m, k) point by point, (..., m·k)."""
    *lead, m, k = by_point.shape
    return by_point.reshape(*lead, m * k)
