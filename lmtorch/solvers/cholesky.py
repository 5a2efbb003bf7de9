"""Cholesky of JᵀJ + λD²: the default for many residuals, whose rows can stream.

The condition of JᵀJ is the square of that of J; where n is small and the data are float32, JᵀJ is
therefore summed and factored in float64 (the products of two float32 numbers are exact there),
which makes the normal equations as good as a QR in float32. Cholesky does not mind the scaling of
rows and columns, so D need not be divided out.

Equations in float64 may also be factored in float32, at the cost of that, and solved by iterative
refinement, whose remainders are of float64: up to a condition of 10⁷ or so a few rounds give the
digits of float64. Where they do not converge, the factors are those of float64 after all.

Reference: Nocedal & Wright, Numerical Optimization (2006), §10.3; Higham, Accuracy and
Stability (2002), §10.1, and chapter 12 for refinement.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from copy import copy
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from .._one_pass import in_one_pass
from .._triangles import LARGEST, Triangle, dot, more, side_by_side
from ..arrays import arrays_of, nowhere, put, quiet, sqrt, take, tensor_from, to_type, where
from ..linearizations.normal import Normal, NormalForm
from .base import length_by_solving

ROUNDS = 20  # of refinement at most
SLOWEST = 0.3  # share of the remainder that a round may leave
ON_ARRAYS = 2048  # problems up to which their equations are solved on NumPy's arrays


@dataclass(frozen=True)
class Cholesky:
    """Factor the damped normal matrix, n³/3 for each λ.

    Args:
        form: how the normal matrix is summed.
        refined: whether one in float64 is factored in float32, and solutions are refined.
    """

    form: NormalForm = NormalForm()
    refined: bool = False
    exact_at_zero: ClassVar[bool] = False

    def factor(self, linearization: Normal, scale: Tensor) -> "CholeskyFactor | UnrolledFactor":
        """Nothing yet: the factorisation belongs to a λ."""
        if scale.ndim == 2 and scale.shape[-1] <= LARGEST:
            return UnrolledFactor(linearization.normal, linearization.gradient, scale)
        if self.refined and scale.ndim == 1 and scale.dtype == torch.float64:
            return RefinedFactor(linearization.normal, linearization.gradient, scale)
        return CholeskyFactor(linearization.normal, linearization.gradient, scale)


class CholeskyFactor:
    """JᵀJ, and the triangle of the last λ."""

    def __init__(self, normal: Tensor, gradient: Tensor, scale: Tensor) -> None:
        self.normal = normal  # (..., n, n)
        self.gradient = gradient  # (..., n)
        self.scale = scale  # (..., n)
        self.last: tuple[Tensor, Tensor] | None = None

    def seen_from(self, linearization: Normal) -> "CholeskyFactor":
        """The equations with another right-hand side, and the triangle that is known."""
        other = copy(self)
        other.gradient = linearization.gradient
        return other

    def _triangle(self, damping: Tensor) -> Tensor:
        """L with LLᵀ = JᵀJ + λD², NaN where there is none."""
        if self.last is None or self.last[0] is not damping:
            self.last = damping, lower_triangle(self._damped(damping))
        return self.last[1]

    def _damped(self, damping: Tensor) -> Tensor:
        """JᵀJ + λD², a new matrix."""
        damped = self.normal.clone()
        diagonal = damped.diagonal(dim1=-2, dim2=-1)
        # a parameter without influence (unused, or held at a bound) has an empty row, and stays
        empty = diagonal == 0
        diagonal += damping[..., None].to(damped.dtype) * self.scale.square() + empty
        return damped

    def step(self, damping: Tensor) -> Tensor:
        """p(λ), (..., n)."""
        return self.solve(-self.gradient, damping)

    def solve(self, rhs: Tensor, damping: Tensor) -> Tensor:
        """(JᵀJ + λD²)⁻¹ rhs by two triangular solves."""
        return torch.cholesky_solve(rhs[..., None], self._triangle(damping))[..., 0]

    def length(self, damping: Tensor) -> tuple[Tensor, Tensor]:
        """‖D p‖ and its derivative."""
        return length_by_solving(self, self.scale, damping)


class RefinedFactor(CholeskyFactor):
    """JᵀJ in float64, and the triangle of the last λ in float32 where that is enough."""

    rough: tuple[Tensor, Tensor, Tensor, Tensor] | None = None  # λ, E, E A E, its triangle

    def solve(self, rhs: Tensor, damping: Tensor) -> Tensor:
        """(JᵀJ + λD²)⁻¹ rhs, to the digits of float64."""
        if self.last is not None and self.last[0] is damping:
            return super().solve(rhs, damping)
        if self.rough is None or self.rough[0] is not damping:
            damped = self._damped(damping)
            # a diagonal of ones: the condition is then nearly the least, and nothing overflows
            root = damped.diagonal().rsqrt()
            damped *= root * root[:, None]
            self.rough = damping, root, damped, lower_triangle(damped.float())
        _, root, scaled, triangle = self.rough
        found = refined(scaled, triangle, root * rhs)
        return super().solve(rhs, damping) if found is None else root * found


def refined(matrix: Tensor, triangle: Tensor, rhs: Tensor) -> Tensor | None:
    """The solution x (n,) of A x = rhs from factors in a coarser dtype; None if it diverges.

    Args:
        matrix: A, (n, n).
        triangle: of A, in the coarser dtype.
        rhs: (n,).
    """
    x, remainder = torch.zeros_like(rhs), rhs
    first = size = float(torch.linalg.vector_norm(rhs))
    for _ in range(ROUNDS):
        rough = torch.cholesky_solve(remainder.to(triangle.dtype)[:, None], triangle)[:, 0]
        better = x + rough.to(rhs.dtype)
        remainder = rhs - matrix @ better
        left = float(torch.linalg.vector_norm(remainder))
        if not left < SLOWEST * size:  # also of NaN, where there are no factors
            break
        x, size = better, left
    rounding = torch.finfo(rhs.dtype).eps * len(rhs) ** 0.5
    norms = torch.linalg.vector_norm(matrix) * torch.linalg.vector_norm(x)
    return x if size <= rounding * (first + float(norms)) else None


def lower_triangle(damped: Tensor) -> Tensor:
    """L with LLᵀ = A (..., n, n), NaN where there is none."""
    triangle, info = torch.linalg.cholesky_ex(damped)
    return torch.where((info == 0)[..., None, None], triangle, torch.nan)


class UnrolledFactor:
    """JᵀJ + λD² of many problems (b,), and the triangle of the last λ.

    Attributes:
        arrays: whether the entries are NumPy's arrays, of which a call costs a third of torch's:
            that is most of what a thousand problems cost. λ may be an array then, too.
    """

    def __init__(self, normal: Tensor, gradient: Tensor, scale: Tensor) -> None:
        self.equations = normal, gradient, scale
        self.arrays = len(gradient) <= ON_ARRAYS and in_one_pass(normal, gradient, scale)
        rows: Any = normal.movedim(0, -1)
        forces: Any = gradient.movedim(0, -1)
        units: Any = scale.movedim(0, -1)
        if self.arrays:
            rows, forces, units = rows.numpy(), forces.numpy(), units.numpy()
        self.normal = [list(row) for row in rows]  # n × n of (b,)
        self.gradient = list(forces)
        self.squares = [unit * unit for unit in units]
        # a parameter without influence (unused, or held at a bound) has an empty row, and stays
        self.diagonal = [
            row[i] if nowhere(row[i] == 0) else where(row[i] == 0, 1.0, row[i])
            for i, row in enumerate(self.normal)
        ]
        self.last: tuple[Tensor, Triangle] | None = None
        self.step_of: tuple[Tensor, list[Tensor]] | None = None
        # the same without damping, which is asked for at the point and for the step from it
        self.undamped: tuple[Triangle, list[Tensor]] | None = None

    def take(self, places: Tensor) -> "UnrolledFactor":
        """The equations of the problems at `places` (k,)."""
        return UnrolledFactor(*take(self.equations, places))

    def join(self, damping: Tensor, places: Tensor, some: "UnrolledFactor", own: Tensor) -> None:
        """Know the steps for λ from those of a search that has gone on with some of the problems.

        Args:
            damping: λ, (b,); elsewhere than at `places` that of the last step that was asked for.
            places: (k,).
            some: the equations there, see `take`.
            own: their λ, (k,).
        """
        if self.step_of is not None:
            here = some.step(own)
            pairs = zip(self.step_of[1], here.unbind(-1), strict=True)
            self.step_of = damping, [put(whole, places, -part) for whole, part in pairs]

    def known_as(self, damping: Tensor) -> Tensor:
        """λ as a tensor; what is known for the array is known for it."""
        found = tensor_from(damping)
        if self.last is not None and self.last[0] is damping:
            self.last = found, self.last[1]
        if self.step_of is not None and self.step_of[0] is damping:
            self.step_of = found, self.step_of[1]
        return found

    def _triangle(self, damping: Tensor) -> Triangle:
        if self.last is None or self.last[0] is not damping:
            wide = self._like_entries(damping)
            diagonal = [
                more(entry, wide, square)
                for entry, square in zip(self.diagonal, self.squares, strict=True)
            ]
            self.last = damping, Triangle(self.normal, diagonal)
        return self.last[1]

    def _quiet(self) -> AbstractContextManager[None]:
        """Around work on NumPy's arrays; what is traced for torch.compile must not meet it."""
        return quiet() if self.arrays else nullcontext()

    def _like_entries(self, damping: Tensor) -> Tensor:
        """λ as the entries are."""
        if not self.arrays:
            return damping.to(self.gradient[0].dtype)
        given: Any = damping
        return to_type(arrays_of(given), self.gradient[0].dtype)

    def _step(self, damping: Tensor) -> list[Tensor]:
        """−p(λ), entry by entry."""
        if self.step_of is None or self.step_of[0] is not damping:
            undamped = nowhere(damping != 0)
            if undamped and self.undamped is not None:
                triangle, step = self.undamped
                self.last = damping, triangle
            else:
                triangle = self._triangle(damping)
                step = triangle.solve(self.gradient)
            if undamped:
                self.undamped = triangle, step
            self.step_of = damping, step
        return self.step_of[1]

    def step(self, damping: Tensor) -> Tensor:
        """p(λ), (b, n)."""
        with self._quiet():
            return side_by_side(self._step(damping)).neg_()

    def solve(self, rhs: Tensor, damping: Tensor) -> Tensor:
        """(JᵀJ + λD²)⁻¹ rhs, (b, n)."""
        entries: Any = rhs.movedim(0, -1)
        with self._quiet():
            given = list(entries.numpy() if self.arrays else entries)
            return side_by_side(self._triangle(damping).solve(given))

    def length(self, damping: Tensor) -> tuple[Tensor, Tensor]:
        """‖D p‖ and its derivative −(D²p)ᵀ (JᵀJ + λD²)⁻¹ (D²p) / ‖D p‖."""
        with self._quiet():
            length, slope = self.measured(damping)
            return tensor_from(length), tensor_from(slope())

    def measured(self, damping: Tensor) -> tuple[Tensor, Callable[[], Tensor]]:
        """‖D p‖, and what makes its derivative, of which the last λ of a search has no need.

        Where `arrays` are, these are arrays.
        """
        step = self._step(damping)
        force = [square * entry for square, entry in zip(self.squares, step, strict=True)]
        length = sqrt(dot(force, step))
        return length, lambda: -self._triangle(damping).quadratic(force) / length
