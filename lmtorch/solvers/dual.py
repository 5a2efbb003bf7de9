"""Fewer residuals than parameters: solve in the space of the residuals, m × m instead of n × n.

The push-through identity (JᵀJ + M)⁻¹Jᵀ = M⁻¹Jᵀ(JM⁻¹Jᵀ + I)⁻¹ with M = λD² gives, with J̃ = JD⁻¹,

    p = −D⁻¹ J̃ᵀ (J̃J̃ᵀ + λI)⁻¹ r,

the same step as the tall equations, for the same λ. A prior ½‖W^½ x‖² makes M = λD² + W and adds
the part of its own gradient, by Woodbury's identity (JᵀJ + M)⁻¹ = M⁻¹ − M⁻¹Jᵀ(JM⁻¹Jᵀ + I)⁻¹JM⁻¹.

Of thousands of rows that are known by the factors of layers a part of J̃J̃ᵀ is made where that is
enough (`pivoted.py`), on CPUs and without a prior.

Reference: Golub & Van Loan, Matrix Computations (2013), §2.1.4; Nocedal & Wright (2006), §10.3.
"""

from copy import copy
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..arrays import apply
from ..linearizations.base import Form
from ..linearizations.dense import Dense, DenseForm
from ..linearizations.layered import Layered
from .base import length_by_solving
from .pivoted import pivoted


@dataclass(frozen=True)
class Dual:
    """Cholesky of JM⁻¹Jᵀ + I, m³/3 for each λ, for more parameters than residuals in the batch.

    From 1,024 rows by the factors of layers on a CPU it is a partial one, with conjugate gradients
    to 1e-4 of the length of the step, where that takes no more than an eighth of the columns.

    Args:
        form: how J is held: whole, or by the factors of layers, which is for a D that is one number
            in each parameter.
    """

    form: Form = DenseForm()
    exact_at_zero: ClassVar[bool] = False

    def factor(self, linearization: Dense | Layered, scale: Tensor) -> "DualFactor":
        """J̃J̃ᵀ once, or some of its columns, where there is no prior to change it with λ."""
        return DualFactor(linearization, scale)


class DualFactor:
    """J, J̃J̃ᵀ once it is asked for, and the triangle of the last λ."""

    def __init__(self, linearization: Dense | Layered, scale: Tensor) -> None:
        self.residual = linearization.residual  # (..., m)
        self.rows = linearization.rows  # (..., m, n)
        self.prior = linearization.prior
        self.scale = scale  # (..., n)
        self.few = None if self.prior is not None else pivoted(self.rows, scale.square())
        self.whole: list[Tensor] = []  # J̃J̃ᵀ, shared with the equations of other right-hand sides
        self.last: tuple[Tensor, Tensor, Tensor] | None = None

    def seen_from(self, linearization: Dense | Layered) -> "DualFactor":
        """The equations with another right-hand side; JM⁻¹Jᵀ is not made anew."""
        other = copy(self)
        other.residual, other.prior = linearization.residual, linearization.prior
        return other

    @property
    def gram(self) -> Tensor:
        """J̃J̃ᵀ, made once."""
        if not self.whole:
            self.whole.append(self.rows.gram(self.scale.square()))
        return self.whole[0]

    def _weight(self, damping: Tensor) -> Tensor:
        """M with λ taken out where there is no prior: D² and not λD², so that λ = 0 is allowed."""
        if self.prior is None:
            return self.scale.square()
        weight = (
            damping[..., None].to(self.scale.dtype) * self.scale.square() + self.prior.root.square()
        )
        # undamped, and parameters without a prior: no answer
        return torch.where(weight > 0, weight, torch.nan)

    def _triangle(self, damping: Tensor) -> tuple[Tensor, Tensor]:
        """L with LLᵀ = JM⁻¹Jᵀ + I, or J̃J̃ᵀ + λI without a prior; and whether it is one."""
        if self.last is not None and self.last[0] is damping:
            return self.last[1:]
        if self.prior is not None:
            matrix = self.rows.gram(self._weight(damping))
            shift: Tensor | int = 1
        else:
            matrix = self.gram
            shift = damping[..., None].to(matrix.dtype)
        # the diagonal is changed for the factorization alone: of a large matrix each copy costs
        # a tenth of it. An entry of a row that is not finite makes its square on the diagonal so,
        # and a pivot below zero tells
        diagonal = matrix.diagonal(dim1=-2, dim2=-1)
        kept = diagonal.clone()
        diagonal.copy_(torch.where(kept.isfinite(), kept + shift, -1.0))
        triangle, info = torch.linalg.cholesky_ex(matrix)
        diagonal.copy_(kept)
        # a pivot of pure round-off, from m residuals of lower rank, would pass for a solution
        pivots = triangle.diagonal(dim1=-2, dim2=-1).square()
        # of what it is a difference of: entries of the diagonal, which pivots never exceed
        largest = (kept + shift).amax(-1)
        rounding = 4 * pivots.shape[-1] ** 0.5 * torch.finfo(pivots.dtype).eps * largest
        regular = (info == 0) & (pivots.amin(-1) > rounding)
        self.last = damping, triangle, regular
        return triangle, regular

    def _solved(self, rhs: Tensor, damping: Tensor) -> Tensor:
        """The m × m solve; NaN where there is no triangle."""
        triangle, regular = self._triangle(damping)
        # not cholesky_solve, which copies the triangle
        half = torch.linalg.solve_triangular(triangle, rhs[..., None], upper=False)
        found = torch.linalg.solve_triangular(triangle.mT, half, upper=True)[..., 0]
        return torch.where(regular[..., None], found, torch.nan)

    def solve_rows(self, rhs: Tensor, damping: Tensor) -> Tensor:
        """(JᵀJ + M)⁻¹ Jᵀrhs of a right-hand side in the space of the residuals, (..., m).

        `solve` takes such a one for any other, and finds it as a difference of what is
        ‖J̃J̃ᵀ‖/λ times as large.
        """
        found = None
        if self.few is not None and not self.whole:
            found = self.few.solved(rhs, damping)
        if found is None:
            found = self._solved(rhs, damping)
        return self.rows.transposed_times(found) / self._weight(damping)

    def step(self, damping: Tensor) -> Tensor:
        """p(λ), (..., n)."""
        step = -self.solve_rows(self.residual, damping)
        if self.prior is None:
            return step
        return step - self.solve(self.prior.root * self.prior.residual, damping)

    def solve(self, rhs: Tensor, damping: Tensor) -> Tensor:
        """(JᵀJ + M)⁻¹ rhs by Woodbury's identity; of few columns it would have too few digits."""
        weight = self._weight(damping)
        scaled = rhs / weight
        inner = self._solved(self.rows.times(scaled), damping)
        solution = scaled - self.rows.transposed_times(inner) / weight
        return solution if self.prior is not None else solution / damping[..., None].to(rhs.dtype)

    def length(self, damping: Tensor) -> tuple[Tensor, Tensor]:
        """‖D p‖ and its derivative."""
        if self.prior is not None:
            return length_by_solving(self, self.scale, damping)
        # with K = J̃J̃ᵀ and w = (K + λI)⁻¹r it holds that D p = −J̃ᵀw, and so
        # d‖Dp‖/dλ = −wᵀK(K + λI)⁻¹w / ‖D p‖, good at λ = 0 too
        w = self._solved(self.residual, damping)
        image = apply(self.gram, w)
        length = (w * image).sum(-1).clamp(min=0).sqrt()
        return length, -(image * self._solved(w, damping)).sum(-1) / length
