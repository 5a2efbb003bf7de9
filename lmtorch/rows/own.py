"""Rows of points with variables of their own, beside the shared parameters.

    J = [ G  diag(V) ]      G = ∂r/∂β (m, n),  V = ∂r/∂δ (m, k), row i for point i

The variables are β (n,), then δ (m·k,), point by point. Written out, J would be (m, n + m·k).
"""

from typing import NamedTuple, Self

import torch
from torch import Tensor

from .base import scale


class OwnRows(NamedTuple):
    """One row for each of m points."""

    shared: Tensor  # (m, n), G
    own: Tensor  # (m, k), V

    @property
    def shape(self) -> torch.Size:
        """(m, n + m·k)."""
        (m, n), k = self.shared.shape, self.own.shape[-1]
        return torch.Size((m, n + m * k))

    @property
    def column_norms(self) -> Tensor:
        """‖J e_j‖, (n + m·k,)."""
        return torch.cat([torch.linalg.vector_norm(self.shared, dim=-2), self.own.abs().flatten()])

    def scaled(self, root: Tensor) -> Self:
        """R J, with a root of each row (m,)."""
        return self._replace(shared=scale(self.shared, root), own=scale(self.own, root))

    def parts(self, vector: Tensor) -> tuple[Tensor, Tensor]:
        """A vector of all variables as that of β (n,) and that of δ (m, k)."""
        n = self.shared.shape[-1]
        return vector[:n], vector[n:].reshape(self.own.shape)

    def times(self, v: Tensor) -> Tensor:
        """J v, (m,)."""
        of_shared, of_own = self.parts(v)
        return self.shared @ of_shared + (self.own * of_own).sum(-1)

    def transposed_times(self, w: Tensor) -> Tensor:
        """Jᵀw, (n + m·k,)."""
        return torch.cat([self.shared.mT @ w, (self.own * w[:, None]).flatten()])

    def dense(self) -> Tensor:
        """All entries, most of them zero, (m, n + m·k)."""
        m, k = self.own.shape
        columns = self.own.new_zeros(m, m, k)
        each = torch.arange(m, device=self.own.device)
        columns[each, each] = self.own
        return torch.cat([self.shared, columns.flatten(1)], -1)
