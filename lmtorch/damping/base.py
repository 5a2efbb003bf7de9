"""Who damps: proposes a step from the factored equations, and learns from how the trial went."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from torch import Tensor

from ..arrays import finite, where
from ..linearizations.base import Linearization
from ..solvers.base import Factor


class LinearModel(NamedTuple):
    """The linear model at the current point, factored."""

    linearization: Linearization
    scale: Tensor  # (..., n), D, positive
    factor: Factor
    # v (..., n) -> Jᵀ W r_vv (..., n), for geodesic acceleration; W is the curvature of the loss
    second_order: Callable[[Tensor], Tensor]
    measures: Any = None  # of the linearization, see `linearizations/base.py`
    onward: Any = None  # the `Onward` of the factor, see `core/momentum.py`; None: no momentum
    # v (..., n) -> R r_vv (..., m), by the rows of the linearization, where its factor has
    # `solve_rows` for them; None: it has not
    row_bends: Callable[[Tensor], Tensor] | None = None

    @property
    def equations(self) -> Linearization:
        """The linear model whose equations are factored."""
        equations: Linearization
        equations = self.linearization if self.onward is None else self.onward.linearization
        return equations


class Outcome(NamedTuple):
    """How a trial went, all (...,)."""

    ratio: Tensor  # gain ratio; −1 where anything was not finite
    accepted: Tensor
    length: Tensor  # ‖D p‖ of the proposed step
    slope: Tensor  # gᵀp, negative downhill
    actual: Tensor  # decrease of the cost
    predicted: Tensor  # decrease that the linear model promised


class Proposal(NamedTuple):
    """A step to try."""

    step: Tensor  # (..., n)
    state: Any  # the strategy's, with the λ that made the step
    # (..., n), the part that the linear model promises for; None: the whole step
    linear: Tensor | None = None


class Damping(Protocol):
    """A damping strategy. Its state is a NamedTuple of tensors (...,), one called `damping`."""

    def start(self, linearization: Linearization, scale: Tensor, x: Tensor) -> Any:
        """The state before the first trial, from the linear model at the start."""

    def propose(self, model: LinearModel, state: Any) -> tuple[Any, ...]:
        """A `Proposal`, or (step, state): a step (..., n), and the state with its λ."""

    def update(self, state: Any, outcome: Outcome) -> Any:
        """The state after a trial."""


def gain_ratio(actual: Tensor, predicted: Tensor) -> Tensor:
    """The decrease of the cost over that promised by the linear model; −1 if that says nothing."""
    ratio = actual / predicted
    return where(finite(ratio) & (predicted > 0), ratio, -1.0)
