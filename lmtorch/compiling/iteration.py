"""What is compiled: the loop's own beginning, iteration and look at the end, of tensors.

Options that differ between the runs of a problem, such as the first radius, are tensors, too: one
program serves several opinions.
"""

from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from ..arrays import norm, select, some, spread, where
from ..core.certificate import FALL, JUDGED, LOWEST, VALLEY, Resting, judge, wanted
from ..core.columns_of_roundoff import short
from ..core.glance import view
from ..core.influence import ROUNDINGS, suspects
from ..core.linearizing import Last, begin, factored, hold, largest_norms, linearize
from ..core.loop import attempt, ended_with_another
from ..core.method import Method
from ..core.pace import FASTER, SLOW, WINDOW, Pace, even
from ..core.problem import Problem
from ..core.state import Start, State
from ..core.termination import RUNNING, ZERO, among
from ..core.undamped import examine
from ..damping.scaling import CurrentNorms, Levenberg
from ..linearizations.base import Linearization, optimality


@dataclass(frozen=True)
class NormsOrOnes:
    """D of `CurrentNorms` or of `Levenberg`, as a number says, 1 or 0."""

    current: Tensor | float
    arrays: ClassVar[bool] = True

    def update(self, scale: Tensor | None, column_norms: Tensor) -> Tensor:
        """The column norms at this point, or ones."""
        return torch.where(torch.as_tensor(self.current) > 0, column_norms, 1.0)


def apart(method: Method) -> tuple[Method, list[float]]:
    """A method without the numbers that a program is given as data, and these numbers."""
    damping: Any = method.damping
    scaling: Any = method.scaling
    data = getattr(damping, "data", ())
    numbers = [method.patience, float(method.windows), *(getattr(damping, name) for name in data)]
    if data:
        damping = replace(damping, **dict.fromkeys(data, 1.0))
    if isinstance(scaling, CurrentNorms | Levenberg):
        numbers.append(float(isinstance(scaling, CurrentNorms)))
        scaling = NormsOrOnes(1.0)
    return replace(method, damping=damping, scaling=scaling, patience=0.0, windows=0), numbers


def whole(method: Method, numbers: Tensor) -> Method:
    """The method with its numbers, in the order of `apart`, as tensors."""
    damping: Any = method.damping
    patience, windows, *others = numbers.unbind(-1)
    data = getattr(damping, "data", ())
    if data:
        damping = replace(damping, **dict(zip(data, others, strict=False)))
    known: dict[str, Any] = {"patience": patience, "windows": windows, "damping": damping}
    if isinstance(method.scaling, NormsOrOnes):
        known["scaling"] = NormsOrOnes(others[-1])
    return replace(method, **known)


class Standing(NamedTuple):
    """What is carried from one iteration to the next."""

    state: State
    linearization: Linearization  # at x
    pace: Pace
    left: Tensor  # (...,), trials that are left until the gain is looked at


def start(problem: Problem, method: Method, x: Tensor) -> Standing:
    """The beginning of a run."""
    state, model = begin(problem, method, Start(x))
    held = problem.model(x) if problem.bounds is not None else model.linearization
    return Standing(state, held, even(state.cost), torch.full_like(state.trials, WINDOW))


def iterate(problem: Problem, method: Method, standing: Standing) -> Standing:
    """One trial, and the linear model at the point that is kept."""
    state, whole, pace, left = standing
    held: Any = hold(problem, state.x, whole)
    model = factored(problem, method, state.x, held, state.scale)
    # the model of x with all variables is carried: no bound forbids to make that of the trial
    fused: Any = _Fused(problem)
    after, tried = attempt(fused, method, state, model)
    after, pace, left = _paced(method, after, pace, left - 1)
    after = ended_with_another(after)
    last = Last(state.x, state.cost, held.column_norms, tried._replace(ahead=None))
    # where the trial was refused, the model is the one from before
    known: Any = select(after.trial.accepted, tried.ahead, whole)
    after, _ = linearize(problem, method, after, last, known)
    # a trial that was withdrawn leaves the model of the point before
    kept: Any = select(after.stale, whole, known)
    after = after._replace(stale=torch.zeros_like(after.stale))
    return Standing(after, kept, pace, left)


def _paced(method: Method, state: State, pace: Pace, left: Tensor) -> tuple[State, Pace, Tensor]:
    """The state with what has not gained for all of its windows called slow, as in the loop."""
    due = left <= 0
    gain = 1 - state.cost / pace.cost
    slowing = (gain < method.patience) & (gain <= FASTER * pace.gain)
    poor = due & slowing & (state.status == RUNNING)
    windows = where(poor, pace.windows + 1, 0)
    status = where(poor & (windows >= method.windows), SLOW, state.status)
    pace = select(due, Pace(state.cost, gain, windows), pace)
    return state._replace(status=status), pace, where(due, WINDOW, left)


class Seen(NamedTuple):
    """What is seen at the end, (...,) each."""

    told: Tensor  # bool: nothing more is to be seen
    sure: Tensor  # bool: at a minimum
    cosine: Tensor  # the largest between the residuals and a column of J that is free


def unseen(like: Tensor) -> Seen:
    """Nothing, before anybody has looked; `like` is a number of each problem, (...,)."""
    none = torch.zeros_like(like, dtype=torch.bool)
    return Seen(none, none.clone(), torch.ones_like(like))


class Rest(NamedTuple):
    """What is carried from one Newton step at the end to the next."""

    moving: Tensor  # (...,) bool, those that go on
    ended: Tensor  # (...,), the status with which the run ended
    first: Tensor  # (...,) bool: nothing was looked at yet
    x: Tensor  # (..., n), the point to be looked at
    units: Tensor  # (..., n), of the point before
    length: Tensor  # (...,), of its gradient in these units
    cost: Tensor  # (...,)
    noise: Tensor  # (...,), rounding error of the cost


def look(problem: Problem, method: Method, standing: Standing) -> tuple[Standing, Seen, Rest]:
    """Where problems stand after a glance at their ends, what was seen there, and who is left."""
    state, whole = standing.state, standing.linearization
    # as at the end of the loop: the largest norms are what a column may have died from
    norms = largest_norms(method, state.scale, state.begun.norms)
    state = state._replace(begun=state.begun._replace(norms=norms))
    standing = standing._replace(state=state)
    ahead: Any = _At(problem, state.x, whole)
    judged = among(state.status, JUDGED)
    found = view(ahead, method, state, judged)
    seen, ended = unseen(state.cost), state.status == ZERO
    if found is not None:
        end: Any = found.model
        cosine = optimality(end)
        if problem.bounds is not None:  # that model is without what may not move
            end = problem.model(found.state.x)
        standing = standing._replace(state=found.state, linearization=end)
        seen = Seen(found.sure | ended, found.sure | ended, cosine)
        judged = judged & ~found.sure
    return standing, seen, _resting(standing, judged, found is not None)


def _resting(standing: Standing, judged: Tensor, exact: bool) -> Rest:
    state, cost = standing.state, standing.state.cost
    ones, nothing = torch.ones_like(standing.linearization.column_norms), torch.zeros_like(cost)
    return Rest(
        judged if exact else torch.zeros_like(judged),
        state.status, torch.ones_like(judged), state.x, ones, nothing, cost, nothing,
    )  # fmt: skip


def settle(
    problem: Problem, method: Method, standing: Standing, seen: Seen, rest: Rest
) -> tuple[Standing, Seen, Rest]:
    """The full look at an end, or at the point to which a Newton step from there has led."""
    state, there = standing.state, standing.state._replace(x=rest.x)
    found = examine(problem, method, there)
    fell = norm(found.gradient / rest.units) <= FALL * rest.length
    better = fell & (found.cost <= rest.cost + ROUNDINGS * rest.noise)
    better = rest.moving & (better | rest.first)
    resting = Resting(better, rest.ended, found)
    suspected = suspects(problem, there, found.looked)
    there = judge(problem, method, there, resting, suspected, dependent=True, silent=True)
    there = there._replace(cost=where(rest.first, state.cost, found.cost))
    # where a curvature is so small the loop, whose polishing does not square J, has more digits
    clear = found.lowest > LOWEST
    moving = wanted(there, resting) & clear
    end: Any = problem.model(rest.x)
    held = hold(problem, rest.x, end)
    cosine = optimality(held)
    more = ~some(short(problem, rest.x, held, there.begun))
    state = select(better, there, state)
    state = state._replace(
        trials=state.trials + moving, linearizations=state.linearizations + moving
    )
    # the loop tries what is promised along directions that single precision blurs
    valley = (there.status <= 0) & ((found.beyond == 0) | (there.status != VALLEY))
    told = where(better, found.exact & more & (clear | valley), seen.told)
    standing = standing._replace(
        state=state, linearization=select(better, end, standing.linearization)
    )
    return (
        standing,
        Seen(told, told & (state.status > 0), where(better, cosine, seen.cosine)),
        Rest(
            moving,
            rest.ended,
            torch.zeros_like(rest.first),
            problem.move(rest.x, where(spread(moving), found.newton, 0.0)),
            found.units,
            norm(found.gradient / found.units),
            found.cost,
            found.noise,
        ),
    )


class _Like:
    """A problem that answers some questions in a way of its own."""

    def __init__(self, problem: Problem) -> None:
        self._problem = problem

    def __getattr__(self, name: str) -> Any:
        return getattr(self._problem, name)

    @property
    def modelled(self) -> Any:
        """Itself, where all rows are: taken for a sample, each trial would be evaluated twice."""
        rows = self._problem.modelled
        return self if rows is self._problem else rows


class _Fused(_Like):
    """A problem whose linear model is always made with the cost of a trial."""

    def fused(self, kept: Tensor) -> bool:
        """Yes."""
        return True


class _At(_Like):
    """A problem whose linear model at one point is known."""

    def __init__(self, problem: Problem, x: Tensor, known: Linearization) -> None:
        super().__init__(problem)
        self._x, self._known = x, known

    def model(self, x: Tensor) -> Linearization:
        """The known one at that point."""
        return self._known if x is self._x else self._problem.model(x)
