"""J D⁻¹ = Q R once per point, then for each λ a QR of R stacked on √λ I: MINPACK's way.

As accurate as the SVD for the damped equations, cheaper per point and dearer per λ.

Reference: Moré, The Levenberg–Marquardt algorithm: implementation and theory (1978), §3.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..arrays import apply
from ..linearizations.dense import Dense, DenseForm
from .base import length_by_solving


@dataclass(frozen=True)
class QR:
    """QR of the scaled Jacobian, and of R with √λ I below it."""

    form: DenseForm = DenseForm()
    exact_at_zero: ClassVar[bool] = True

    def factor(self, linearization: Dense, scale: Tensor) -> "QRFactor":
        """Reduce the rows to R and Qᵀr."""
        jacobian, residual = linearization.stacked()
        q, r = torch.linalg.qr(jacobian / scale[..., None, :])
        return QRFactor(r, apply(q.mT, residual), scale)


class QRFactor:
    """R and Qᵀr; the triangle of the last λ is kept."""

    def __init__(self, r: Tensor, projected: Tensor, scale: Tensor) -> None:
        self.r = r  # (..., k, n)
        self.projected = projected  # (..., k)
        self.scale = scale  # (..., n)
        self.last: tuple[Tensor, Tensor, Tensor] | None = None

    def _damped(self, damping: Tensor) -> tuple[Tensor, Tensor]:
        """Triangle of [R; √λ I], and its right-hand side −Q_λᵀ[Qᵀr; 0]."""
        if self.last is not None and self.last[0] is damping:
            return self.last[1], self.last[2]
        n = self.r.shape[-1]
        root = damping.to(self.r.dtype).sqrt()[..., None, None]
        identity = torch.eye(n, dtype=self.r.dtype, device=self.r.device)
        q, triangle = torch.linalg.qr(torch.cat([self.r, root * identity], -2))
        rhs = -apply(q[..., : self.r.shape[-2], :].mT, self.projected)
        # round-off on the diagonal stands for a zero: a step divided by it would have any length
        diagonal = triangle.diagonal(dim1=-2, dim2=-1).abs()
        singular = diagonal <= n * torch.finfo(diagonal.dtype).eps * diagonal.amax(-1, keepdim=True)
        triangle = torch.where(singular.any(-1)[..., None, None], torch.nan, triangle)
        self.last = damping, triangle, rhs
        return triangle, rhs

    def step(self, damping: Tensor) -> Tensor:
        """p(λ), (..., n); NaN where J is deficient and λ = 0."""
        triangle, rhs = self._damped(damping)
        return (
            torch.linalg.solve_triangular(triangle, rhs[..., None], upper=True)[..., 0] / self.scale
        )

    def solve(self, rhs: Tensor, damping: Tensor) -> Tensor:
        """(JᵀJ + λD²)⁻¹ rhs by two triangular solves."""
        triangle, _ = self._damped(damping)
        half = torch.linalg.solve_triangular(
            triangle.mT, (rhs / self.scale)[..., None], upper=False
        )
        return torch.linalg.solve_triangular(triangle, half, upper=True)[..., 0] / self.scale

    def length(self, damping: Tensor) -> tuple[Tensor, Tensor]:
        """‖D p‖ and its derivative."""
        return length_by_solving(self, self.scale, damping)
