"""Cholesky of JᵀJ + λD²: the default for many residuals, whose rows can stream.

The condition of JᵀJ is the square of that of J; where n is small and the data are float32, JᵀJ is
therefore summed and factored in float64 (the products of two float32 numbers are exact there),
which makes the normal equations as good as a QR in float32. Cholesky does not mind the scaling of
rows and columns, so D need not be divided out.

Reference: Nocedal & Wright, Numerical Optimization (2006), §10.3; Higham, Accuracy and
Stability (2002), §10.1.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..linearizations.normal import Normal, NormalForm
from .base import length_by_solving


@dataclass(frozen=True)
class Cholesky:
    """Factor the damped normal matrix, n³/3 for each λ."""

    form: NormalForm = NormalForm()
    exact_at_zero: ClassVar[bool] = False

    def factor(self, linearization: Normal, scale: Tensor) -> "CholeskyFactor":
        """Nothing yet: the factorisation belongs to a λ."""
        return CholeskyFactor(linearization.normal, linearization.gradient, scale)


class CholeskyFactor:
    """JᵀJ, and the triangle of the last λ."""

    def __init__(self, normal: Tensor, gradient: Tensor, scale: Tensor) -> None:
        self.normal = normal  # (..., n, n)
        self.gradient = gradient  # (..., n)
        self.scale = scale  # (..., n)
        self.last: tuple[Tensor, Tensor] | None = None

    def _triangle(self, damping: Tensor) -> Tensor:
        """L with LLᵀ = JᵀJ + λD², NaN where there is none."""
        if self.last is not None and self.last[0] is damping:
            return self.last[1]
        damped = self.normal.clone()
        diagonal = damped.diagonal(dim1=-2, dim2=-1)
        # a parameter without influence (unused, or held at a bound) has an empty row, and stays
        empty = diagonal == 0
        diagonal += damping[..., None].to(damped.dtype) * self.scale.square() + empty
        triangle, info = torch.linalg.cholesky_ex(damped)
        triangle = torch.where((info == 0)[..., None, None], triangle, torch.nan)
        self.last = damping, triangle
        return triangle

    def step(self, damping: Tensor) -> Tensor:
        """p(λ), (..., n)."""
        return self.solve(-self.gradient, damping)

    def solve(self, rhs: Tensor, damping: Tensor) -> Tensor:
        """(JᵀJ + λD²)⁻¹ rhs by two triangular solves."""
        return torch.cholesky_solve(rhs[..., None], self._triangle(damping))[..., 0]

    def length(self, damping: Tensor) -> tuple[Tensor, Tensor]:
        """‖D p‖ and its derivative."""
        return length_by_solving(self, self.scale, damping)
