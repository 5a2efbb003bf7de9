"""Nielsen's damping: λ follows the gain ratio smoothly, and grows ever faster after refused trials.

    accepted:  λ ← λ · max(1/3, 1 − (2ρ − 1)³),  ν ← 2
    refused:   λ ← λ ν,  ν ← 2ν

Reference: Nielsen, Damping parameter in Marquardt's method (1999); Madsen & Nielsen, Introduction
to Optimization and Data Fitting (2010), algorithm 6.18.
"""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from torch import Tensor

from ..arrays import (
    at_least,
    at_most,
    filled,
    highest,
    is_nan,
    largest,
    resolution,
    smallest,
    to_type,
    where,
)
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
    arrays: ClassVar[bool] = True
    recordable: ClassVar[bool] = True
    data: ClassVar[tuple[str, ...]] = ("initial",)  # what a compiled program is given as numbers

    def start(self, linearization: Linearization, scale: Tensor, x: Tensor) -> NielsenState:
        """λ₀ from the size of JᵀJ."""
        damping = bounded(self.initial * steepest(linearization, scale))
        return NielsenState(damping, filled(damping, GROWTH))

    def propose(self, model: LinearModel, state: NielsenState) -> Proposal:
        """The damped step at λ."""
        return Proposal(model.factor.step(state.damping), state)

    def update(self, state: NielsenState, outcome: Outcome) -> NielsenState:
        """Shrink by the gain ratio, or grow."""
        shrink = at_least(1 - (2 * outcome.ratio - 1) ** 3, SHRINK)
        damping = state.damping * where(outcome.accepted, shrink, state.growth)
        growth = where(outcome.accepted, GROWTH, 2 * state.growth)
        return NielsenState(bounded(damping), bounded(growth))


def steepest(linearization: Linearization, scale: Tensor) -> Tensor:
    """The largest diagonal entry of D⁻¹JᵀJD⁻¹, (...,)."""
    relative = linearization.column_norms / scale
    return to_type(largest(relative * relative), linearization.cost.dtype)


def bounded(damping: Tensor) -> Tensor:
    """Away from zero, where it could not grow again, and from infinity."""
    eps, dtype = resolution(damping.dtype), damping.dtype
    damping = where(is_nan(damping), 1.0, damping)
    return at_most(at_least(damping, smallest(dtype) / eps), highest(dtype) * eps)
