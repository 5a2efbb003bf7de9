"""Newton's steps before the end of a run, where Gauss–Newton's shrink the gradient but slowly.

With large residuals Gauss–Newton steps shrink the gradient by a constant factor, and the gain by
its square. Where second derivatives are to be had from one more evaluation, the Newton steps of the
certificate get to the minimum in a few, and certify it. If they do not, the run goes on as if
nobody had tried.

Reference: Nocedal & Wright (2006), §10.3, on Gauss–Newton for large residuals.
"""

import math
from typing import NamedTuple

from torch import Tensor

from ..arrays import filled, on_numpy, statuses, where
from ..damping.base import Outcome
from .certificate import certify_clear
from .influence import FINE_ENOUGH
from .method import Method
from .problem import Problem
from .state import State
from .termination import RUNNING, Status

NEAR = 1e-4  # share of the cost that a step may gain where Newton's are tried
# so often: 2³ Gauss–Newton steps cost more than Newton's and the curvature for them; a form of the
# linear model may say another number, `doubled`
DOUBLED = 3
AGAIN = 1e-2  # so much less is gained when they are tried once more
SLOW = int(Status.SLOW)


def ahead(problem: Problem, method: Method, state: State, trials: int) -> "Ahead | None":
    """What looks ahead in a run of one small problem; None: its Hessian is not to be had so."""
    able = (
        on_numpy(state.x)
        and method.certify
        and method.polish > 0
        and method.patience > 0
        and not method.frugal
        and getattr(problem.source, "curves", False)
        and problem.eps(state.x) <= FINE_ENOUGH
    )
    return Ahead(trials) if able else None


class Gains(NamedTuple):
    """What the gains of a run have been."""

    last: Tensor  # (...,), share of the cost that the last step gained; NaN: it was not kept
    near: Tensor  # (...,), share from which on Newton's steps are tried


def no_gains(cost: Tensor, tried: bool) -> Gains:
    """The gains before the first trial of a run in which Newton's steps are tried, or are not."""
    return Gains(filled(cost, math.nan), filled(cost, NEAR if tried else 0.0))


def nearing(
    problem: Problem, method: Method, state: State, outcome: Outcome, gains: Gains
) -> tuple[Tensor, Gains]:
    """Whether Newton's steps may be shorter than what is left of the run, (...,) bool.

    Args:
        problem: what is minimised.
        method: how.
        state: after a trial.
        outcome: of the trial.
        gains: before it.

    Returns:
        That, and the gains with that of the trial.
    """
    gain = outcome.actual / state.cost
    # smaller gains than round-off are not to be seen, whatever is asked for
    least = max(method.tolerances.cost, problem.eps(state.x))
    near = (gain > least) & (gain < gains.last) & (gain < gains.near)
    # steps until the gain is the least one, if each gains the same share of the one before
    shrunk = gains.last / gain
    for _ in range(getattr(problem.form, "doubled", DOUBLED)):
        shrunk = shrunk * shrunk
    kept = outcome.accepted & (state.status == RUNNING)
    near = kept & near & (gain / least >= shrunk)
    return near, Gains(where(kept, gain, math.nan), gains.near)


class Ahead:
    """Looks at the gains of a run, and tries Newton's steps where many more would follow.

    Args:
        trials: evaluations at trial points at most, with those of the run.

    Attributes:
        clear: the run has ended at a minimum of which nothing is left to be looked at.
        taken: trials that the last look has made.
    """

    def __init__(self, trials: int) -> None:
        self.clear = False
        self.taken = 0
        self._trials = trials

    def look(
        self, problem: Problem, method: Method, state: State, outcome: Outcome, gains: Gains
    ) -> tuple[State, Gains]:
        """The state after a trial, or at the minimum, and the gains with that of the trial."""
        self.taken = 0
        near, gains = nearing(problem, method, state, outcome, gains)
        if not near:
            return state, gains
        gains = Gains(gains.last, AGAIN * gains.last)
        slow = state._replace(status=statuses(state.cost, SLOW))
        found, self.clear = certify_clear(problem, method, slow, self._trials)
        if self.clear:
            return found, gains
        self.taken = int(found.trials - state.trials)
        return state._replace(trials=found.trials, linearizations=found.linearizations), gains
