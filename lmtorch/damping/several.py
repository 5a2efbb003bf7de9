"""Several strategies in one batch, one for each problem: what an iteration costs is paid once.

An iteration on a few hundred problems costs as much as on one of them. So runs of the same problems
by different strategies go side by side, as if each were a problem of its own. Every strategy
follows all of them, and each problem takes the steps of its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..arrays import select
from ..linearizations.base import Linearization
from .base import Damping, LinearModel, Outcome, Proposal
from .scaling import Scaling


class SeveralState(NamedTuple):
    """The λ of each problem's own strategy, (b,), and what all strategies know of it."""

    damping: Tensor
    states: tuple[Any, ...]


@dataclass(frozen=True)
class SeveralDampings:
    """A damping for each problem.

    Args:
        members: the strategies.
        which: (b,) int, the number of that of each problem.
    """

    members: tuple[Damping, ...]
    which: Tensor

    def take(self, places: Tensor) -> "SeveralDampings":
        """The strategies of some problems of a batch, by their numbers (k,)."""
        return replace(self, which=self.which[places])

    def start(self, linearization: Linearization, scale: Tensor, x: Tensor) -> SeveralState:
        """The state of all strategies before the first trial."""
        return self._state([one.start(linearization, scale, x) for one in self.members])

    def propose(self, model: LinearModel, state: SeveralState) -> Proposal:
        """The step of each problem's own strategy."""
        found = [
            Proposal(*one.propose(model, own))
            for one, own in zip(self.members, state.states, strict=True)
        ]
        step = self._own([one.step for one in found])
        linear = None
        if any(one.linear is not None for one in found):
            linear = self._own([one.step if one.linear is None else one.linear for one in found])
        return Proposal(step, self._state([one.state for one in found]), linear)

    def update(self, state: SeveralState, outcome: Outcome) -> SeveralState:
        """The state after a trial: every strategy is told of it, whosever step it was."""
        return self._state([
            one.update(own, outcome) for one, own in zip(self.members, state.states, strict=True)
        ])  # fmt: skip

    def _state(self, states: Sequence[Any]) -> SeveralState:
        return SeveralState(self._own([state.damping for state in states]), tuple(states))

    def _own(self, values: Sequence[Tensor]) -> Tensor:
        return own(self.which, values)


@dataclass(frozen=True)
class SeveralScalings:
    """A rule for D for each problem.

    Args:
        members: the rules.
        which: (b,) int, the number of that of each problem.
    """

    members: tuple[Scaling, ...]
    which: Tensor

    def take(self, places: Tensor) -> "SeveralScalings":
        """The rules of some problems of a batch, by their numbers (k,)."""
        return SeveralScalings(
            tuple(one.take(places) if hasattr(one, "take") else one for one in self.members),
            self.which[places],
        )

    @property
    def remembers(self) -> Tensor:
        """The problems whose D is the largest column norm of all points so far, (b,) bool."""
        each = [bool(getattr(one, "remembers", False)) for one in self.members]
        return torch.tensor(each, device=self.which.device)[self.which]

    def update(self, scale: Tensor | None, column_norms: Tensor) -> Tensor:
        """D by each problem's own rule."""
        return own(self.which, [one.update(scale, column_norms) for one in self.members])


def own(which: Tensor, values: Sequence[Tensor]) -> Tensor:
    """Of values of all members the one that is each problem's own."""
    chosen = values[0]
    for number, value in enumerate(values[1:], 1):
        chosen = select(which == number, value, chosen)
    return chosen
