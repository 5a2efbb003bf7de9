"""J of a fit with errors in x: an arrow, dense in the parameters and diagonal in the errors.

    r = (f(x + δ, β) − y)/σ_y,  e = δ/σ_x,      J = [ G  diag(V) ]      G = ∂r/∂β (m, n),  V = ∂r/∂δ (m, k)
                                                    [ 0   1/σ_x  ]

Each point has errors of its own, so its columns meet only its own rows.

Reference: Boggs, Byrd & Schnabel, A stable and efficient algorithm for nonlinear orthogonal distance regression (1987).
"""

from dataclasses import dataclass
from typing import NamedTuple, Self

import torch
from torch import Tensor

from .._errors import InputError
from . import by_columns
from .base import Accumulator


class Arrow(NamedTuple):
    """The blocks of J; the variables are β (n), then δ (m·k), point by point."""

    residual: Tensor  # (m,), r
    errors: Tensor  # (m, k), e
    parameters: Tensor  # (m, n), G
    points: Tensor  # (m, k), V
    weights: Tensor  # (m, k), 1/σ_x; zero where x is exact
    cost: Tensor

    @property
    def gradient(self) -> Tensor:
        """Jᵀ(r, e), (n + m·k,)."""
        of_parameters = (self.parameters.mT @ self.residual[..., None])[..., 0]
        of_points = self.points * self.residual[..., None] + self.weights * self.errors
        return torch.cat([of_parameters, of_points.flatten(-2)], -1)

    @property
    def column_norms(self) -> Tensor:
        """‖J e_j‖, (n + m·k,)."""
        of_parameters = torch.linalg.vector_norm(self.parameters, dim=-2)
        of_points = (self.points.square() + self.weights.square()).sqrt()
        return torch.cat([of_parameters, of_points.flatten(-2)], -1)

    @property
    def normal(self) -> Tensor:
        """JᵀJ of all variables, (n + m·k, n + m·k): only a small problem wants it."""
        (m, n), k = self.parameters.shape, self.points.shape[-1]
        across = (
            (self.parameters[:, :, None] * self.points[:, None, :]).movedim(1, 0).reshape(n, m * k)
        )
        own = self.points[:, :, None] * self.points[:, None, :] + torch.diag_embed(
            self.weights.square()
        )
        points = own.new_zeros(m, k, m, k)
        each = torch.arange(m, device=own.device)
        points[each, :, each, :] = own
        parameters = self.parameters.mT @ self.parameters
        return torch.cat([
            torch.cat([parameters, across], -1), torch.cat([across.mT, points.reshape(m * k, m * k)], -1)
        ])  # fmt: skip

    def parts(self, vector: Tensor) -> tuple[Tensor, Tensor]:
        """A vector of all variables as (n,) and (m, k)."""
        n = self.parameters.shape[-1]
        return vector[..., :n], vector[..., n:].reshape(self.points.shape)

    def squared_length(self, step: Tensor) -> Tensor:
        """‖J s‖²."""
        of_parameters, of_points = self.parts(step)
        rows = (self.parameters @ of_parameters[..., None])[..., 0] + (self.points * of_points).sum(
            -1
        )
        return rows.square().sum(-1) + (self.weights * of_points).square().sum((-2, -1))

    def freeze(self, free: Tensor) -> Self:
        """Zero columns outside `free`."""
        of_parameters, of_points = self.parts(free)
        return self._replace(
            parameters=torch.where(of_parameters[..., None, :], self.parameters, 0.0),
            points=torch.where(of_points, self.points, 0.0),
            weights=torch.where(of_points, self.weights, 0.0),
        )

    def optimality(self) -> Tensor:
        """The largest cosine between the residuals and a column of J, (...,)."""
        return by_columns.optimality(self)

    def rounding(self, x: Tensor, eps: float) -> Tensor:
        """How far round-off alone may move the cost, (...,)."""
        return by_columns.rounding(self, x, eps)

    def relative_length(self, x: Tensor, step: Tensor) -> Tensor:
        """The largest entry of a step beside its parameter, (...,)."""
        return by_columns.relative_length(self, x, step)

    def longest_single_move(self, x: Tensor) -> Tensor:
        """The relative length of the longest best move of one parameter alone, (...,)."""
        return by_columns.longest_single_move(self, x)


@dataclass(frozen=True)
class ArrowForm:
    """The blocks, which a problem of this kind fills itself."""

    def accumulator(self, shape: tuple[int, ...], rows: int, like: Tensor) -> Accumulator:
        """There is none: whole rows of J are what this form avoids.

        Raises:
            InputError: always.
        """
        raise InputError(
            "the solver of fits with errors in x serves them alone: choose another one."
        )
