"""Where the time of a step goes: a clock that a problem carries, so that the loop has none."""

from contextlib import AbstractContextManager, nullcontext
from time import perf_counter
from typing import Literal

_NOTHING = nullcontext()


class Hand:
    """Seconds that one kind of work took: `with hand:` around the work."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._begun = 0.0

    def __enter__(self) -> None:
        """The work begins."""
        self._begun = perf_counter()

    def __exit__(self, *error: object) -> None:
        """The work ends, with an exception or without."""
        self.seconds += perf_counter() - self._begun


class Clock:
    """Wall-clock of one run: what linear models and trials took; what is left is the solver's.

    On a GPU the two are the time that it took to queue their kernels.

    Attributes:
        linearize: around every linear model that the problem makes.
        trial: around every cost that it evaluates.
    """

    def __init__(self) -> None:
        self.linearize = Hand()
        self.trial = Hand()
        self._begun = perf_counter()

    def seconds(self) -> dict[str, float]:
        """The parts until now: "linearize", "solve" and "trial"."""
        linearize, trial = self.linearize.seconds, self.trial.seconds
        solve = perf_counter() - self._begun - linearize - trial
        return {"linearize": linearize, "solve": max(0.0, solve), "trial": trial}


def timed(clock: Clock | None, work: Literal["linearize", "trial"]) -> AbstractContextManager[None]:
    """Around work that a clock measures, if there is one."""
    if clock is None:
        return _NOTHING
    hand: Hand = getattr(clock, work)
    return hand
