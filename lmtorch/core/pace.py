"""How fast a run gains, and when it is given up for slow."""

from typing import NamedTuple

from torch import Tensor

from ..arrays import filled, seen, select, statuses, where
from .certificate import certify
from .method import Method
from .problem import Problem
from .state import State
from .termination import RUNNING, Status

WINDOW = 32  # trials after which the gain is looked at
FASTER = 1.2  # a run is not given up whose gain exceeds the one before by more than this factor
SLOW = int(Status.SLOW)


class Pace(NamedTuple):
    """How fast the problems have gained until they were looked at last."""

    cost: Tensor  # (...,), when it was looked at last
    gain: Tensor  # (...,), share of the cost by which it had fallen then
    windows: Tensor  # (...,) int, how many in a row without a gain worth the while


def even(cost: Tensor) -> Pace:
    """The pace before the first trial, when nothing is held against a run."""
    return Pace(cost, filled(cost, 1), statuses(cost, 0))


def give_up(
    problem: Problem, method: Method, state: State, pace: Pace, trials: int
) -> tuple[State, Pace]:
    """The state with what no longer gains called slow, and the pace to compare with next time.

    So small a gain is either that of the last steps towards a minimum with large residuals, where
    Newton steps get there at once; or, if it stays so small, that of a valley without end, or of
    one so narrow that another strategy gets along better.
    """
    gain = 1 - state.cost / pace.cost
    slowing = (gain < method.patience) & (gain <= FASTER * pace.gain)
    poor = slowing & (state.status == RUNNING)
    windows = where(poor, pace.windows + 1, 0)
    status = where(windows >= method.windows, SLOW, state.status)
    pace = Pace(state.cost, gain, windows)
    # where `seen` would wait for the device it does not look: there a run is given up only when it
    # has been slow for all of its windows
    if seen(poor):
        judged = state._replace(status=where(poor, SLOW, statuses(pace.cost, RUNNING)))
        hurried = certify(problem, method, judged, None, trials)
        there = poor & (hurried.status > 0)
        status = where(there, hurried.status, status)
        tried = state._replace(
            certificate=hurried.certificate,
            trials=hurried.trials,
            linearizations=hurried.linearizations,
        )
        state = select(there, hurried, tried)
    return state._replace(status=status), pace
