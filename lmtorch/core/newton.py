"""Newton's steps before the end of a run, where Gauss–Newton's shrink the gradient but slowly.

With large residuals Gauss–Newton steps shrink the gradient by a constant factor, and the gain by
its square. Where second derivatives are to be had from one more evaluation, the Newton steps of the
certificate get to the minimum in a few, and certify it. If they do not, the run goes on as if
nobody had tried.

Reference: Nocedal & Wright (2006), §10.3, on Gauss–Newton for large residuals.
"""

import math

from ..arrays import on_numpy, statuses
from ..damping.base import Outcome
from .certificate import certify_clear
from .influence import FINE_ENOUGH
from .method import Method
from .problem import Problem
from .state import State
from .termination import RUNNING, Status

NEAR = 1e-4  # share of the cost that a step may gain where Newton's are tried
MANY = 8  # Gauss–Newton steps that cost more than Newton's and the curvature for them
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
        self._gain = math.nan  # share of the cost that the last step gained
        self._near = NEAR

    def look(self, problem: Problem, method: Method, state: State, outcome: Outcome) -> State:
        """The state after a trial, or at the minimum."""
        before, self._gain, self.taken = self._gain, math.nan, 0
        if not outcome.accepted or state.status != RUNNING:
            return state
        gain = float(outcome.actual / state.cost)
        self._gain = gain
        # smaller gains than round-off are not to be seen, whatever is asked for
        least = max(method.tolerances.cost, problem.eps(state.x))
        if not least < gain < min(before, self._near):
            return state
        if math.log(gain / least) < -MANY * math.log(gain / before):
            return state
        self._near = AGAIN * gain
        slow = state._replace(status=statuses(state.cost, SLOW))
        found, self.clear = certify_clear(problem, method, slow, SLOW, self._trials)
        if self.clear:
            return found
        self.taken = int(found.trials - state.trials)
        return state._replace(trials=found.trials, linearizations=found.linearizations)
