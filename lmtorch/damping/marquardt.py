"""Marquardt's factors: λ down by ten after a gain, up by ten after a loss.

Reference: Marquardt, An algorithm for least-squares estimation of nonlinear parameters (1963),
p. 437.
"""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from torch import Tensor

from ..arrays import where
from ..linearizations.base import Linearization
from .base import LinearModel, Outcome, Proposal
from .nielsen import bounded, steepest


class MarquardtState(NamedTuple):
    """λ, (...,)."""

    damping: Tensor


@dataclass(frozen=True)
class Marquardt:
    """λ by fixed factors.

    Args:
        initial: λ₀ as a share of the largest diagonal entry of D⁻¹JᵀJD⁻¹.
            Default: 1e-2, Marquardt's.
        decrease: factor after an accepted trial. Default: 0.1.
        increase: factor after a refused one. Default: 10.
    """

    initial: float = 1e-2
    decrease: float = 0.1
    increase: float = 10.0
    arrays: ClassVar[bool] = True
    data: ClassVar[tuple[str, ...]] = ("initial",)  # what a compiled program is given as numbers

    def start(self, linearization: Linearization, scale: Tensor, x: Tensor) -> MarquardtState:
        """λ₀ from the size of JᵀJ."""
        return MarquardtState(bounded(self.initial * steepest(linearization, scale)))

    def propose(self, model: LinearModel, state: MarquardtState) -> Proposal:
        """The damped step at λ."""
        return Proposal(model.factor.step(state.damping), state)

    def update(self, state: MarquardtState, outcome: Outcome) -> MarquardtState:
        """Up or down."""
        less, more = self.decrease * state.damping, self.increase * state.damping
        return MarquardtState(bounded(where(outcome.accepted, less, more)))
