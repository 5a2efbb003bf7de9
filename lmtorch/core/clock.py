"""Where the time of a step goes: a clock held beside the problem, so that the loop has none."""

from time import perf_counter
from typing import Any, cast

from torch import Tensor

from ..linearizations.base import Linearization
from .problem import Problem


class Clock:
    """Wall-clock of one run: what linear models and trials took; what is left is the solver's.

    On a GPU the two are the time that it took to queue their kernels.

    Attributes:
        linearize: seconds in `Problem.model` and `Problem.linearize`.
        trial: seconds in `Problem.cost`.
    """

    def __init__(self) -> None:
        self.linearize = 0.0
        self.trial = 0.0
        self._begun = perf_counter()

    def beside(self, problem: Problem) -> Problem:
        """The problem, which answers as before and is timed while it does."""
        return cast("Problem", _Timed(problem, self))

    def seconds(self) -> dict[str, float]:
        """The parts until now: "linearize", "solve" and "trial"."""
        solve = perf_counter() - self._begun - self.linearize - self.trial
        return {"linearize": self.linearize, "solve": max(0.0, solve), "trial": self.trial}


class _Timed:
    """A problem with a clock beside it."""

    def __init__(self, problem: Problem, clock: Clock) -> None:
        self._problem = problem
        self._clock = clock

    def __getattr__(self, name: str) -> Any:
        """All that is not timed is the problem's own."""
        return getattr(self._problem, name)

    def cost(self, x: Tensor) -> Tensor:
        """F(x)."""
        begun = perf_counter()
        value = self._problem.cost(x)
        self._clock.trial += perf_counter() - begun
        return value

    def model(self, x: Tensor) -> Linearization:
        """The linear model at x."""
        begun = perf_counter()
        value = self._problem.model(x)
        self._clock.linearize += perf_counter() - begun
        return value

    def linearize(self, x: Tensor) -> Linearization:
        """The linear model at x with the variables that may not move held."""
        begun = perf_counter()
        value = self._problem.linearize(x)
        self._clock.linearize += perf_counter() - begun
        return value

    def take(self, places: Tensor) -> "_Timed":
        """Some problems of a batch, on the same clock."""
        return _Timed(self._problem.take(places), self._clock)
