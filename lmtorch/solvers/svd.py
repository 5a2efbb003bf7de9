"""Singular values of J D⁻¹ = U S Vᵀ: every λ is then a formula, p(λ) = −D⁻¹ V S (S² + λ)⁻¹ Uᵀr.

The most accurate of the solvers and the cheapest per trial: ‖D p(λ)‖² = Σ (sᵢ bᵢ / (sᵢ² + λ))² with
b = Uᵀr needs no further solve, which is what an exact trust region asks for. Singular values below
the resolution of the matrix are left out at λ = 0, which gives the shortest of the Gauss–Newton
steps.

Reference: Golub & Van Loan, Matrix Computations (2013), §5.5 and §6.1.4.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..linearizations.dense import Dense, DenseForm
from .base import apply

TALL = 2  # from so many rows per column on, QR first: the SVD is then of n × n


@dataclass(frozen=True)
class SVD:
    """Singular value decomposition of the scaled Jacobian: small or ill-conditioned problems."""

    form: DenseForm = DenseForm()
    exact_at_zero: ClassVar[bool] = True

    def factor(self, linearization: Dense, scale: Tensor) -> "SVDFactor":
        """Decompose J D⁻¹, through the R of a QR where J is tall."""
        jacobian, residual = linearization.stacked()
        # a NaN would make LAPACK raise, and fail the whole batch: it is given zeros, and the steps
        # are NaN
        finite = (linearization.column_norms.isfinite() & linearization.gradient.isfinite()).all(-1)
        scaled = torch.where(finite[..., None, None], jacobian / scale[..., None, :], 0.0)
        used = (linearization.column_norms > 0) | ~finite[..., None]
        rows, columns = scaled.shape[-2:]
        if rows >= TALL * columns:
            q, scaled = torch.linalg.qr(scaled)
            residual = apply(q.mT, residual)
        u, singular, vh = torch.linalg.svd(scaled, full_matrices=False)
        rounding = max(rows, columns) * torch.finfo(singular.dtype).eps * singular[..., :1]
        projected = torch.where(finite[..., None], apply(u.mT, residual), torch.nan)
        return SVDFactor(singular, vh, projected, scale, singular > rounding, used)


class SVDFactor:
    """Singular values, Vᵀ and Uᵀr."""

    def __init__(
        self,
        singular: Tensor,
        vh: Tensor,
        projected: Tensor,
        scale: Tensor,
        kept: Tensor,
        used: Tensor,
    ) -> None:
        self.singular = singular  # (..., k)
        self.vh = vh  # (..., k, n)
        self.projected = projected  # (..., k), Uᵀr
        self.scale = scale  # (..., n)
        self.kept = kept  # (..., k) bool, above round-off
        self.used = used  # (..., n) bool, columns of J that are not zero

    def _damped(self, damping: Tensor) -> Tensor:
        """S² + λ, infinite where nothing can be said."""
        damping = damping[..., None].to(self.singular.dtype)
        return torch.where(self.kept | (damping > 0), self.singular.square() + damping, torch.inf)

    def step(self, damping: Tensor) -> Tensor:
        """p(λ), (..., n)."""
        step = (
            -apply(self.vh.mT, self.singular * self.projected / self._damped(damping)) / self.scale
        )
        # round-off in V would let a parameter without influence, or one held at its bound, creep
        return torch.where(self.used, step, 0.0)

    def solve(self, rhs: Tensor, damping: Tensor) -> Tensor:
        """(JᵀJ + λD²)⁻¹ rhs; outside the row space of J only λ acts."""
        scaled = rhs / self.scale
        inside = apply(self.vh, scaled)
        solution = apply(self.vh.mT, inside / self._damped(damping))
        if self.vh.shape[-2] < self.vh.shape[-1]:
            outside = scaled - apply(self.vh.mT, inside)
            positive = damping[..., None].to(rhs.dtype)
            solution = solution + torch.where(positive > 0, outside / positive, 0.0)
        # a parameter without influence, of which nothing is asked, stays where it is, as in `step`
        return torch.where(self.used | (rhs != 0), solution / self.scale, 0.0)

    def length(self, damping: Tensor) -> tuple[Tensor, Tensor]:
        """‖D p‖ and its derivative −Σ b²s²/(s² + λ)³ / ‖D p‖."""
        damped = self._damped(damping)
        terms = self.singular * self.projected / damped
        length = torch.linalg.vector_norm(terms, dim=-1)
        return length, -(terms.square() / damped).sum(-1) / length
