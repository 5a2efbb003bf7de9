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

from ..arrays import (
    all_finite,
    along,
    apply,
    inner,
    norm,
    resolution,
    scaled_svd,
    settled,
    spread,
    squared,
    svd,
    to_type,
    transposed,
    where,
)
from ..linearizations.dense import Dense, DenseForm

TALL = 2  # from so many rows per column on, QR first: the SVD is then of n × n


@dataclass(frozen=True)
class SVD:
    """Singular value decomposition of the scaled Jacobian: small or ill-conditioned problems."""

    form: DenseForm = DenseForm()
    exact_at_zero: ClassVar[bool] = True
    arrays: ClassVar[bool] = True
    recordable: ClassVar[bool] = True

    def factor(self, linearization: Dense, scale: Tensor) -> "SVDFactor":
        """Decompose J D⁻¹, through the R of a QR where J is tall."""
        m, n = linearization.jacobian.shape[-2:]
        if linearization.both is not None and linearization.prior is None and m >= TALL * n:
            small = _of_rows(linearization, scale)
            if small is not None:
                return small
        rows = m if linearization.prior is None else m + n
        tall = rows >= TALL * n
        matrix, residual = linearization.reduced() if tall else linearization.stacked()
        # a NaN would make LAPACK raise, and fail the whole batch: it is given zeros, and the steps
        # are NaN
        finite = all_finite(linearization.column_norms) & all_finite(linearization.gradient)
        used, scaled = linearization.column_norms > 0, matrix / scale[..., None, :]
        masked = not settled(finite)
        if masked:
            scaled = where(spread(spread(finite)), scaled, 0.0)
            used = used | ~spread(finite)
        u, singular, vh = svd(scaled)
        projected = along(u, residual)
        if masked:
            projected = where(spread(finite), projected, torch.nan)
        squares = undamped = singular * singular
        rounding = max(rows, n) * resolution(singular.dtype) * singular[..., 0]
        if not settled(singular[..., -1] > rounding):  # the smallest
            kept = singular > spread(rounding)
            undamped = where(kept, squares, torch.inf)  # where nothing can be said
        return SVDFactor(squares, undamped, vh, singular * projected, scale, used)


def _of_rows(linearization: Dense, scale: Tensor) -> "SVDFactor | None":
    """The factor of one small problem, by fewer operations; None: not all numbers are finite."""
    both, norms = linearization.both, linearization.column_norms
    size = squared(norms) + squared(linearization.gradient)
    if size - size != 0 and not settled(all_finite(norms) & all_finite(linearization.gradient)):
        return None
    singular, squares, vh, moved = scaled_svd(both, scale)
    undamped, rounding = squares, both.shape[-1] * resolution(both.dtype) * singular[0]
    if not singular[-1] > rounding:
        undamped = where(singular > rounding, squares, torch.inf)
    return SVDFactor(squares, undamped, vh, moved, scale, norms > 0)


class SVDFactor:
    """Singular values, Vᵀ and Uᵀr."""

    last: tuple[Tensor, Tensor, Tensor] | None = None  # a λ, with what follows from it

    def __init__(
        self,
        squares: Tensor,  # (..., k), S²
        undamped: Tensor,  # (..., k), S²; infinite where it is below round-off
        vh: Tensor,  # (..., k, n)
        moved: Tensor,  # (..., k), S Uᵀr
        scale: Tensor,  # (..., n)
        used: Tensor,  # (..., n) bool, columns of J that are not zero
    ) -> None:
        self.squares = squares
        self.undamped = undamped
        self.vh = vh
        self.moved = moved
        self.scale = scale
        self.used = used

    @staticmethod
    def recorded() -> tuple[tuple[str, ...], tuple[str, ...]]:
        """What `recording` notes: attributes, and methods that are called."""
        return ("vh", "scale", "used", "squares", "undamped", "moved"), ()

    def _terms(self, damping: Tensor) -> tuple[Tensor, Tensor]:
        """S Uᵀr / (S² + λ), of which steps and their lengths are made, and S² + λ."""
        if self.last is not None and self.last[0] is damping:
            return self.last[1:]
        damped = self._damped(damping)
        terms = self.moved / damped
        self.last = damping, terms, damped
        return terms, damped

    def _damped(self, damping: Tensor) -> Tensor:
        """S² + λ; at λ = 0 infinite below round-off."""
        damping = to_type(spread(damping), self.squares.dtype)
        return where(damping == 0, self.undamped, self.squares + damping)

    def step(self, damping: Tensor) -> Tensor:
        """p(λ), (..., n)."""
        step = -apply(transposed(self.vh), self._terms(damping)[0]) / self.scale
        # round-off in V would let a parameter without influence, or one held at its bound, creep
        return where(self.used, step, 0.0)

    def solve(self, rhs: Tensor, damping: Tensor) -> Tensor:
        """(JᵀJ + λD²)⁻¹ rhs; outside the row space of J only λ acts."""
        scaled = rhs / self.scale
        inside = apply(self.vh, scaled)
        solution = apply(transposed(self.vh), inside / self._damped(damping))
        if self.vh.shape[-2] < self.vh.shape[-1]:
            outside = scaled - apply(transposed(self.vh), inside)
            positive = to_type(spread(damping), rhs.dtype)
            solution = solution + where(positive > 0, outside / positive, 0.0)
        # a parameter without influence, of which nothing is asked, stays where it is, as in `step`
        return where(self.used | (rhs != 0), solution / self.scale, 0.0)

    def length(self, damping: Tensor) -> tuple[Tensor, Tensor]:
        """‖D p‖ and its derivative −Σ b²s²/(s² + λ)³ / ‖D p‖."""
        terms, damped = self._terms(damping)
        length = norm(terms)
        return length, -inner(terms, terms / damped) / length
