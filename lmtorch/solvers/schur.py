"""Errors in x eliminated point by point: what is left is n × n, whatever the number of points.

With B = 1/σ_x² + λD_δ², diagonal, the errors of a point solve (vvᵀ + B) t = −(v (g s + r) + e/σ_x). Putting that in
leaves rows √ω (g s + r̃) for the parameters, ω = 1/(1 + vᵀB⁻¹v) and r̃ = r − vᵀB⁻¹e/σ_x, which an SVD solves: no normal
equations are formed, and nothing cancels.

Reference: Boggs, Byrd & Schnabel (1987), §3; Björck, Numerical methods for least squares problems (1996), §9.4.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..linearizations.blocks import Arrow as ArrowModel
from ..linearizations.blocks import ArrowForm
from ..linearizations.dense import Dense
from .base import apply, length_by_solving
from .svd import SVD, SVDFactor


@dataclass(frozen=True)
class Arrow:
    """Elimination of the points' errors, then an SVD of the reduced rows."""

    form: ArrowForm = ArrowForm()

    def factor(self, linearization: ArrowModel, scale: Tensor) -> "ArrowFactor":
        """Nothing yet: the reduced rows depend on λ."""
        return ArrowFactor(linearization, scale)


class ArrowFactor:
    """The blocks; the reduced rows of the last λ are kept."""

    def __init__(self, model: ArrowModel, scale: Tensor) -> None:
        self.model = model
        self.scale, self.point_scale = model.parts(scale)
        self.whole_scale = scale
        self.last: tuple[Tensor, Tensor, Tensor, SVDFactor] | None = None

    def _reduced(self, damping: Tensor) -> tuple[Tensor, Tensor, SVDFactor]:
        """B⁻¹ (m, k), ω (m,) and the factored rows."""
        if self.last is not None and self.last[0] is damping:
            return self.last[1:]
        model = self.model
        diagonal = (
            model.weights.square() + damping.to(model.weights.dtype) * self.point_scale.square()
        )
        # an exact x has no error to solve for
        inverse = torch.where(model.weights > 0, 1 / diagonal, 0.0)
        share = 1 / (1 + (model.points.square() * inverse).sum(-1))
        shifted = model.residual - (model.points * inverse * model.weights * model.errors).sum(-1)
        root = share.sqrt()
        residual, rows = root * shifted, root[..., None] * model.parameters
        gradient = apply(rows.mT, residual)
        dense = Dense(
            residual, rows, None, model.cost, gradient, torch.linalg.vector_norm(rows, dim=-2)
        )
        factor = SVD().factor(dense, self.scale)
        self.last = damping, inverse, share, factor
        return inverse, share, factor

    def step(self, damping: Tensor) -> Tensor:
        """p(λ), (n + m·k,)."""
        model = self.model
        inverse, share, factor = self._reduced(damping)
        of_parameters = factor.step(damping)
        shifted = model.residual - (model.points * inverse * model.weights * model.errors).sum(-1)
        left = share * (apply(model.parameters, of_parameters) + shifted)
        of_points = -inverse * (model.weights * model.errors + model.points * left[..., None])
        return torch.cat([of_parameters, of_points.flatten(-2)], -1)

    def solve(self, rhs: Tensor, damping: Tensor) -> Tensor:
        """(JᵀJ + λD²)⁻¹ rhs, by the Schur complement Gᵀ diag(ω) G + λD_β²."""
        model = self.model
        inverse, share, factor = self._reduced(damping)
        a, h = model.parts(rhs)
        seen = share * (model.points * inverse * h).sum(-1)  # vᵀ(vvᵀ + B)⁻¹h
        of_parameters = factor.solve(a - apply(model.parameters.mT, seen), damping)
        along = share * apply(model.parameters, of_parameters)
        of_points = inverse * (h - model.points * (along + seen)[..., None])
        return torch.cat([of_parameters, of_points.flatten(-2)], -1)

    def length(self, damping: Tensor) -> tuple[Tensor, Tensor]:
        """‖D p‖ and its derivative."""
        return length_by_solving(self, self.whole_scale, damping)
