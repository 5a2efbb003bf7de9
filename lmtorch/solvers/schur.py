"""Variables of single points eliminated one by one: what is left is n × n, whatever the points.

With B = w² + λD_δ², diagonal, the own variables of a point solve (VᵀV + B) t = −(Vᵀ(G s + r) + w
e). Putting that in leaves rows R (G s + r̃) for the shared parameters, RᵀR = S⁻¹ with S = 1 + V B⁻¹
Vᵀ and r̃ = r − V B⁻¹ w e, which an SVD solves: no normal equations are formed, nothing cancels.

Reference: Boggs, Byrd & Schnabel (1987), §3; Björck, Numerical methods for least squares problems
(1996), §9.4.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ..arrays import apply, joined, to_type, transposed
from ..linearizations.blocks import Blocks, BlocksForm, Reduced
from ..rows.own import flat
from .base import length_by_solving, measured_by_solving
from .svd import SVD, SVDFactor


@dataclass(frozen=True)
class Schur:
    """Elimination of the points' own variables, then an SVD of the reduced rows."""

    form: BlocksForm = BlocksForm()
    exact_at_zero: ClassVar[bool] = True
    arrays: ClassVar[bool] = True
    # of the reduced rows; also of the shared variables where all others rest
    shared: ClassVar[SVD] = SVD()

    def factor(self, linearization: Blocks, scale: Tensor) -> "SchurFactor":
        """Nothing yet: the reduced rows depend on λ."""
        return SchurFactor(linearization, scale)


class SchurFactor:
    """The blocks; the reduced rows of the last λ are kept."""

    def __init__(self, model: Blocks, scale: Tensor) -> None:
        self.model = model
        self.scale, self.point_scale = model.rows.parts(scale)
        self.whole_scale = scale
        self.last: tuple[Tensor, Reduced, SVDFactor] | None = None
        self._taken: tuple[Tensor, Tensor] | None = None  # a λ, and p(λ)

    def _reduced(self, damping: Tensor) -> tuple[Reduced, SVDFactor]:
        """The reduced rows at λ, and their factors."""
        if self.last is not None and self.last[0] is damping:
            return self.last[1:]
        strength = to_type(damping, self.point_scale.dtype)[..., None, None]
        of_points = strength * self.point_scale**2
        reduced = self.model.reduced(of_points)
        factor = Schur.shared.factor(reduced.dense, self.scale)
        self.last = damping, reduced, factor
        return reduced, factor

    def step(self, damping: Tensor) -> Tensor:
        """p(λ), (..., n + m·k), to be read only: it is asked for again after its length."""
        if self._taken is None or self._taken[0] is not damping:
            self._taken = damping, self._step(damping)
        return self._taken[1]

    def _step(self, damping: Tensor) -> Tensor:
        reduced, factor = self._reduced(damping)
        rows, prior = self.model.rows, self.model.prior
        of_shared = factor.step(damping)
        left = reduced.weighed(apply(rows.shared, of_shared) + reduced.shifted)
        penalty = rows.parts(prior.root * prior.residual)[1]
        of_points = -reduced.inverse * (penalty + rows.back(left))
        return joined([of_shared, flat(of_points)], -1)

    def solve(self, rhs: Tensor, damping: Tensor) -> Tensor:
        """(JᵀJ + λD²)⁻¹ rhs, by the Schur complement Gᵀ S⁻¹ G + w_β² + λD_β²."""
        reduced, factor = self._reduced(damping)
        rows = self.model.rows
        a, h = rows.parts(rhs)
        moved = flat((rows.by_point * (reduced.inverse * h)[..., None, :, :]).sum(-1))
        seen = reduced.weighed(moved)  # V (VᵀV + B)⁻¹ h
        of_shared = factor.solve(a - apply(transposed(rows.shared), seen), damping)
        along = reduced.weighed(apply(rows.shared, of_shared))
        of_points = reduced.inverse * (h - rows.back(along + seen))
        return joined([of_shared, flat(of_points)], -1)

    def length(self, damping: Tensor) -> tuple[Tensor, Tensor]:
        """‖D p‖ and its derivative."""
        return length_by_solving(self, self.whole_scale, damping)

    def measured(self, damping: Tensor) -> tuple[Tensor, Callable[[], Tensor]]:
        """‖D p‖, and what gives its derivative, for which the equations are solved once more."""
        return measured_by_solving(self, self.whole_scale, damping)
