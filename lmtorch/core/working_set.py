"""The problems of a batch that are still at work: the last do not pay for those that are done."""

from typing import TypeVar

from torch import Tensor

from ..arrays import places, put, take
from .method import Method
from .problem import Problem
from .state import State

T = TypeVar("T")
# The others leave once no more than this share is still at work: that copies the data each time.
THIN = 0.5


class WorkingSet:
    """Where the problems at work stand in the whole batch.

    Args:
        state: of all problems. Those with one batch dimension can be thinned; others stay as they
            are.
    """

    def __init__(self, state: State) -> None:
        self.whole = state
        self.places: Tensor | None = None  # (k,), those at work; None: all

    def all(self, state: State) -> State:
        """The state of every problem of the batch, `state` being that of the problems at work."""
        return state if self.places is None else put(self.whole, self.places, state)

    def thin(
        self,
        problem: Problem,
        method: Method,
        state: State,
        staying: Tensor,  # (k,) bool
        count: int,  # how many stay, known already: to read it would wait for the device
        beside: T,
    ) -> tuple[Problem, Method, State, T]:
        """Let those leave that do not stay, if they are many; `beside` is thinned alike."""
        if state.x.ndim != 2 or count > THIN * len(state.x):
            return problem, method, state, beside
        self.whole = self.all(state)
        chosen = places(staying, count)
        self.places = chosen if self.places is None else self.places[chosen]
        return problem.take(chosen), method.take(chosen), take(state, chosen), take(beside, chosen)
