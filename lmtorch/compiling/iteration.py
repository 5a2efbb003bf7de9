"""What is compiled: the loop's own beginning, iteration and last look, as functions of tensors."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..arrays import select
from ..core.certificate import JUDGED
from ..core.glance import view
from ..core.linearizing import Last, begin, factored, hold, linearize
from ..core.loop import attempt, ended_with_another
from ..core.method import Method
from ..core.problem import Problem
from ..core.state import Start, State
from ..core.termination import among
from ..linearizations.base import Linearization


class Standing(NamedTuple):
    """What is carried from one iteration to the next."""

    state: State
    linearization: Linearization  # at x


def start(problem: Problem, method: Method, x: Tensor) -> Standing:
    """The beginning of a run."""
    state, model = begin(problem, method, Start(x))
    return Standing(state, problem.model(x) if problem.bounds is not None else model.linearization)


def iterate(problem: Problem, method: Method, standing: Standing) -> Standing:
    """One trial, and the linear model at the point that is kept."""
    state, whole = standing
    held: Any = hold(problem, state.x, whole)
    model = factored(problem, method, state.x, held, state.scale)
    after, tried = attempt(problem, method, state, model)
    after = ended_with_another(after)
    last = Last(state.x, state.cost, held.column_norms, tried._replace(ahead=None))
    if tried.ahead is None:
        known: Any = problem.model(after.x)
    else:  # where the trial was refused, the model is the one from before
        known = select(after.trial.accepted, tried.ahead, whole)
    after, _ = linearize(problem, method, after, last, known)
    # a trial that was withdrawn leaves the model of the point before
    kept: Any = select(after.stale, whole, known)
    return Standing(after._replace(stale=torch.zeros_like(after.stale)), kept)


class Seen(NamedTuple):
    """What is seen at the end, (...,) each."""

    sure: Tensor  # bool: certified
    cosine: Tensor  # the largest between the residuals and a column of J that is free


def unseen(like: Tensor) -> Seen:
    """Nothing, before anybody has looked; `like` is a number of each problem, (...,)."""
    return Seen(torch.zeros_like(like, dtype=torch.bool), torch.ones_like(like))


def look(problem: Problem, method: Method, standing: Standing) -> tuple[Standing, Seen]:
    """Where problems stand after a glance at their ends, and what was seen there."""
    state, whole = standing
    ahead: Any = _At(problem, state.x, whole)
    found = view(ahead, method, state, among(state.status, JUDGED))
    if found is None:
        return standing, unseen(state.cost)
    end: Any = found.model
    return Standing(found.state, end), Seen(found.sure, end.optimality())


class _At:
    """A problem whose linear model at one point is known."""

    def __init__(self, problem: Problem, x: Tensor, known: Linearization) -> None:
        self._problem, self._x, self._known = problem, x, known

    def __getattr__(self, name: str) -> Any:
        return getattr(self._problem, name)

    def model(self, x: Tensor) -> Linearization:
        """The known one at that point."""
        return self._known if x is self._x else self._problem.model(x)
