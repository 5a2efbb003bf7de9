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

from .._triangles import LARGEST, Triangle, dot, side_by_side
from ..arrays import take
from ..linearizations.normal import Normal, NormalForm
from .base import length_by_solving


@dataclass(frozen=True)
class Cholesky:
    """Factor the damped normal matrix, n³/3 for each λ."""

    form: NormalForm = NormalForm()
    exact_at_zero: ClassVar[bool] = False

    def factor(self, linearization: Normal, scale: Tensor) -> "CholeskyFactor | UnrolledFactor":
        """Nothing yet: the factorisation belongs to a λ."""
        if scale.ndim == 2 and scale.shape[-1] <= LARGEST:
            return UnrolledFactor(linearization.normal, linearization.gradient, scale)
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


class UnrolledFactor:
    """JᵀJ + λD² of many problems (b,), and the triangle of the last λ."""

    def __init__(self, normal: Tensor, gradient: Tensor, scale: Tensor) -> None:
        self.equations = normal, gradient, scale
        self.normal = [list(row.unbind(-1)) for row in normal.unbind(-2)]  # n × n of (b,)
        self.gradient = gradient.unbind(-1)
        self.squares = scale.square().unbind(-1)
        # a parameter without influence (unused, or held at a bound) has an empty row, and stays
        self.empty = (normal.diagonal(dim1=-2, dim2=-1) == 0).to(normal.dtype).unbind(-1)
        self.last: tuple[Tensor, Triangle] | None = None
        self.step_of: tuple[Tensor, list[Tensor]] | None = None

    def take(self, places: Tensor) -> "UnrolledFactor":
        """The equations of the problems at `places` (k,)."""
        return UnrolledFactor(*take(self.equations, places))

    def _triangle(self, damping: Tensor) -> Triangle:
        if self.last is None or self.last[0] is not damping:
            wide = damping.to(self.gradient[0].dtype)
            diagonal = [
                torch.addcmul(row[i] + empty, wide, square)
                for i, (row, square, empty) in enumerate(
                    zip(self.normal, self.squares, self.empty, strict=True)
                )
            ]
            self.last = damping, Triangle(self.normal, diagonal)
        return self.last[1]

    def _step(self, damping: Tensor) -> list[Tensor]:
        """−p(λ), entry by entry."""
        if self.step_of is None or self.step_of[0] is not damping:
            self.step_of = damping, self._triangle(damping).solve(self.gradient)
        return self.step_of[1]

    def step(self, damping: Tensor) -> Tensor:
        """p(λ), (b, n)."""
        return side_by_side(self._step(damping)).neg_()

    def solve(self, rhs: Tensor, damping: Tensor) -> Tensor:
        """(JᵀJ + λD²)⁻¹ rhs, (b, n)."""
        return side_by_side(self._triangle(damping).solve(rhs.unbind(-1)))

    def length(self, damping: Tensor) -> tuple[Tensor, Tensor]:
        """‖D p‖ and its derivative −(D²p)ᵀ (JᵀJ + λD²)⁻¹ (D²p) / ‖D p‖."""
        step = self._step(damping)
        force = [square * entry for square, entry in zip(self.squares, step, strict=True)]
        length = dot(force, step).sqrt()
        return length, -self._triangle(damping).quadratic(force) / length
