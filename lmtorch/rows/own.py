"""Rows of points with variables of their own, beside the shared parameters.

    J = [ G  diag(V) ]      G = ∂r/∂β (q·m, n),  V = ∂r/∂δ, block (q, k) of point i

A point has q rows; those of all points in their first row come before those in their second. The
variables are β (n,), then δ (m·k,), point by point. Written out, J would be (q·m, n + m·k).
"""

from typing import NamedTuple, Self

import torch
from torch import Tensor

from ..arrays import apply
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
        return self.own.unflatten(-2, (self.each, self.points))

    @property
    def column_norms(self) -> Tensor:
        """‖J e_j‖, (..., n + m·k)."""
        of_shared = torch.linalg.vector_norm(self.shared, dim=-2)
        of_own = (
            torch.linalg.vector_norm(self.by_point, dim=-3) if self.each > 1 else (self.own.abs())
        )
        return torch.cat([of_shared, of_own.flatten(-2)], -1)

    def scaled(self, root: Tensor) -> Self:
        """R J, with a root of each row (..., q·m)."""
        return self._replace(shared=scale(self.shared, root), own=scale(self.own, root))

    def parts(self, vector: Tensor) -> tuple[Tensor, Tensor]:
        """A vector of all variables as that of β (..., n) and that of δ (..., m, k)."""
        n = self.shared.shape[-1]
        return vector[..., :n], vector[..., n:].unflatten(-1, (self.points, self.own.shape[-1]))

    def times(self, v: Tensor) -> Tensor:
        """J v, (..., q·m)."""
        of_shared, of_own = self.parts(v)
        moved = (self.by_point * of_own[..., None, :, :]).sum(-1)
        return apply(self.shared, of_shared) + moved.flatten(-2)

    def transposed_times(self, w: Tensor) -> Tensor:
        """Jᵀw, (..., n + m·k)."""
        by_point = w.unflatten(-1, (self.each, self.points))[..., None]
        of_own = (self.by_point * by_point).sum(-3)
        return torch.cat([apply(self.shared.mT, w), of_own.flatten(-2)], -1)

    def dense(self) -> Tensor:
        """All entries, most of them zero, (..., q·m, n + m·k)."""
        columns = torch.diag_embed(self.by_point.mT).movedim(-3, -1)  # (..., q, m, m, k)
        return torch.cat([self.shared, columns.flatten(-2).flatten(-3, -2)], -1)
