"""Geodesic acceleration: a second-order correction along the step, by one more solve.

With v = p(λ) and the second derivative r_vv of the residuals along v, solve (JᵀJ + λD²) a = −Jᵀr_vv
and step by v + a/2; a correction that is not small against v is not to be trusted, and then v alone
is the step. It pays in narrow curved valleys, where the plain step must follow the bend in short
pieces.

Reference: Transtrum & Sethna, Improvements to the Levenberg–Marquardt algorithm (2012), §III.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..linearizations.base import Linearization
from .base import Damping, LinearModel, Outcome, Proposal


@dataclass(frozen=True)
class Geodesic:
    """A damping round a damping.

    Args:
        inner: the strategy that sets λ.
        limit: largest 2‖D a‖/‖D v‖ that is trusted. Default: 0.75, the paper's.
    """

    inner: Damping
    limit: float = 0.75
    bends: ClassVar[bool] = True  # it asks how the residuals bend along the step

    def start(self, linearization: Linearization, scale: Tensor, x: Tensor) -> Any:
        """The inner state."""
        return self.inner.start(linearization, scale, x)

    def propose(self, model: LinearModel, state: Any) -> Proposal:
        """v + a/2; the linear model speaks of v alone, and would call the bend a loss."""
        velocity, state = self.inner.propose(model, state)[:2]
        finite = velocity.isfinite().all(-1, keepdim=True)
        acceleration = -_corrected(model, torch.where(finite, velocity, 0.0), state.damping)
        lengths = [
            torch.linalg.vector_norm(model.scale * v, dim=-1, keepdim=True)
            for v in (acceleration, velocity)
        ]
        trusted = 2 * lengths[0] <= self.limit * lengths[1]  # False on NaN
        return Proposal(velocity + torch.where(trusted, acceleration / 2, 0.0), state, velocity)

    def update(self, state: Any, outcome: Outcome) -> Any:
        """The inner update."""
        return self.inner.update(state, outcome)


def _corrected(model: LinearModel, velocity: Tensor, damping: Tensor) -> Tensor:
    """(JᵀJ + λD²)⁻¹ Jᵀr_vv, (..., n)."""
    if model.row_bends is None:
        return model.factor.solve(model.second_order(velocity), damping)
    factor: Any = model.factor
    corrected: Tensor = factor.solve_rows(model.row_bends(velocity), damping)
    return corrected
