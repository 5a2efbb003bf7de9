"""Who damps: proposes a step from the factored equations, and learns from how the trial went."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from ..linearizations.base import Linearization
from ..solvers.base import Factor


class LinearModel(NamedTuple):
    """The linear model at the current point, factored."""

    linearization: Linearization
    scale: Tensor  # (..., n), D, positive
    factor: Factor
    second_order: Callable[
        [Tensor], Tensor
    ]  # v (..., n) -> Jᵀ r_vv (..., n), for geodesic acceleration


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
    linear: Tensor | None = (
        None  # (..., n), the part that the linear model promises for; None: the whole step
    )


class DampingState(Protocol):
    """A NamedTuple of tensors (...,); whatever the strategy needs, and λ for the report."""

    @property
    def damping(self) -> Tensor:
        """λ of the last proposal, (...,)."""


class Damping(Protocol):
    """A strategy. Its state is a NamedTuple of tensors (...,), the first field or a property of which is `damping`."""

    def start(self, linearization: Linearization, scale: Tensor, x: Tensor) -> Any:
        """The state before the first trial, from the linear model at the start."""

    def propose(self, model: LinearModel, state: Any) -> tuple[Any, ...]:
        """A `Proposal`, or simply (step, state): a step (..., n), and the state with the λ that made it."""

    def update(self, state: Any, outcome: Outcome) -> Any:
        """The state after a trial."""


def gain_ratio(actual: Tensor, predicted: Tensor) -> Tensor:
    """Decrease of the cost over the decrease that the linear model promised; −1 where that says nothing."""
    ratio = actual / predicted
    return torch.where(ratio.isfinite() & (predicted > 0), ratio, -1.0)
