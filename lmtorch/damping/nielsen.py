"""Nielsen's damping: λ follows the gain ratio smoothly, and grows ever faster after refused trials.

    accepted:  λ ← λ · max(1/3, 1 − (2ρ − 1)³),  ν ← 2
    refused:   λ ← λ ν,  ν ← 2ν

Reference: Nielsen, Damping parameter in Marquardt's method (1999); Madsen & Nielsen, Introduction
to Optimization and Data Fitting (2010), algorithm 6.18.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ..linearizations.base import Linearization
from .base import LinearModel, Outcome, Proposal

SHRINK = 1 / 3  # Madsen & Nielsen 2010, alg. 6.18
GROWTH = 2.0


class NielsenState(NamedTuple):
    """λ and the factor ν of its next growth, (...,)."""

    damping: Tensor
    growth: Tensor


@dataclass(frozen=True)
class Nielsen:
    """λ by the gain ratio.

    Args:
        initial: λ₀ as a share of the largest diagonal entry of D⁻¹JᵀJD⁻¹. Default: 1e-3, Nielsen's.
    """

    initial: float = 1e-3

    def start(self, linearization: Linearization, scale: Tensor, x: Tensor) -> NielsenState:
        """λ₀ from the size of JᵀJ."""
        largest = (linearization.column_norms / scale).square().amax(-1)
        damping = bounded(self.initial * largest.to(linearization.cost.dtype))
        return NielsenState(damping, torch.full_like(damping, GROWTH))

    def propose(self, model: LinearModel, state: NielsenState) -> Proposal:
        """The damped step at λ."""
        return Proposal(model.factor.step(state.damping), state)

    def update(self, state: NielsenState, outcome: Outcome) -> NielsenState:
        """Shrink by the gain ratio, or grow."""
        shrink = (1 - (2 * outcome.ratio - 1) ** 3).clamp(min=SHRINK)
        damping = state.damping * torch.where(outcome.accepted, shrink, state.growth)
        growth = torch.where(outcome.accepted, GROWTH, 2 * state.growth)
        return NielsenState(bounded(damping), bounded(growth))


def bounded(damping: Tensor) -> Tensor:
    """Away from zero, where it could not grow again, and from infinity."""
    limits = torch.finfo(damping.dtype)
    damping = torch.where(damping.isnan(), 1.0, damping)
    return damping.clamp(min=limits.tiny / limits.eps, max=limits.max * limits.eps)
