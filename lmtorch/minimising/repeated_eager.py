"""What is remembered of a fit without a program, so that another of its kind begins at once.

To look at a function, to plan how it is solved and to hold its derivatives to a backward pass costs
a small fit as much as a dozen iterations. A second fit of the kind finds the same: where the
function reaches what it reached then (`compiling.unchanged`), these are taken from the first one.
The loop and the look at the end are made in full, and what does not end at a certified minimum runs
as the first time.

After a few fits its evaluations are recorded, too, and replayed without the function
(`jacobians.learned`). Then the function itself is called once at the end, and if it gives other
residuals there, all that is remembered is of no use, and the fit is made as the first time.
"""

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple

import torch

from .. import choose
from ..arrays import arrays_of, noises, quiet, tensor_from
from ..choose import Plan
from ..compiling.keys import NoKeyError
from ..compiling.unchanged import Unchanged
from ..core.loop import descend_on_arrays
from ..core.problem import Problem
from ..core.small import of_arrays, small
from ..core.state import Start
from ..jacobians.base import JacobianSource
from ..jacobians.dual_numbers import DualNumbers
from ..jacobians.ladder import Ladder, same_values
from ..jacobians.latest import Latest
from ..jacobians.learned import Evaluations, OfFit
from .effort import Effort, of_one
from .ending import Ending, look_at_end
from .kinds import Call, put
from .opinions import unasked
from .results import Results
from .run import Run
from .solution import Solution
from .user_function import LARGEST, SMALLEST, Calls, UserFunction

NEW = 3  # times that a function of a kind has changed after which nothing more is kept of it
LEARNING = 4  # fits of a kind before its evaluations are recorded
_CHANGED: dict[Any, int] = {}


class _Ready(NamedTuple):
    """What a fit of a kind is made with, on NumPy's arrays: to make it costs as much as a trial."""

    calling: UserFunction
    source: Latest
    problem: Problem


@dataclass(frozen=True)
class RepeatedEager:
    """A kind of fit that is remembered.

    Attributes:
        unchanged: tells whether the function is as it was.
        calling: the function, without its arguments.
        problem: likewise, with no source of derivatives.
        plan: how it is solved.
        results: makes the solution.
        trials: at most.
        shape: of x0.
        rungs: sources of derivatives, the one in use first.
        limit: bytes that one allocation may take.
        evaluations: what is known of those of earlier fits.
        fits: for each that was made so, an entry.
        idle: what earlier fits were made with.
        effort: all work on fits of the kind, where they are compiled once that pays.
    """

    unchanged: Unchanged
    calling: UserFunction
    problem: Problem
    plan: Plan
    results: Results
    trials: int
    shape: torch.Size
    rungs: tuple[JacobianSource, ...]
    limit: int | None
    evaluations: Evaluations = field(default_factory=Evaluations)
    fits: list[None] = field(default_factory=list)
    idle: list[_Ready] = field(default_factory=list)
    effort: Effort | None = None

    def solve(self, fun: Callable[..., Any], call: Call, calls: Calls) -> Solution | None:
        """Solve a fit of this kind.

        Args:
            fun: the user's function.
            call: the start and the arguments.
            calls: counts calls of the function.

        Returns:
            The solution; None: it has to be found as the first time.
        """
        box, learned, effort = self.problem.bounds, None, self.effort
        if effort is not None and effort.due(len(call.x)):
            return None
        if box is not None and not box.contains(call.x):  # which is refused with words
            return None
        if len(self.fits) < LEARNING:
            self.fits.append(None)
        elif not self.unchanged.speaks:
            learned = self.evaluations.of_fit(call.args)
        ready = self._ready()
        calling, source, _ = ready
        calling.function, calling.leaves, calling.calls = fun, call.args, calls
        source.known, source.learned, source.count = {}, learned, len(call.x)
        try:
            found = self._solved(call, ready, learned)
        finally:
            if learned is not None:
                learned.close()
        # of another source than in the first fit the function is another, too
        if found is None or source.rungs[0] is not self.rungs[0]:
            return None
        calling.leaves, source.known, source.learned = [], {}, None
        self.idle.append(ready)
        if effort is not None:
            effort.add(of_one(found.nfev, alike=True))
        return found

    def _ready(self) -> _Ready:
        """What the next fit is made with; another thread may be at one as well."""
        try:
            ready = self.idle.pop()
            if ready.problem.noises == noises():
                return ready
        except IndexError:
            pass
        calling, source = copy(self.calling), Latest(self.rungs)
        source.verified = True
        residual: Any = self.problem.residual
        problem = replace(
            self.problem, residual=replace(residual, call=calling.residual), source=source
        )
        return _Ready(calling, source, of_arrays(problem))

    def _solved(self, call: Call, ready: _Ready, learned: OfFit | None) -> Solution | None:
        calling, source, there = ready
        residual: Any = there.residual
        method, point = self.plan.method, arrays_of(call.x)
        with torch.no_grad():
            with quiet():
                state, _ = descend_on_arrays(there, method, Start(point), self.trials)
                if state.status <= 0 or state.certificate.blind:
                    return None
                if not (
                    state.cost <= call.acceptable and _squared(state.begun.cost, residual.rows)
                ):
                    return None
                best = unasked(state._replace(damping=None))
                ending = look_at_end(there, method, best, False, self.limit, True)
            if learned is not None and learned.replayed and not self._confirmed(calling, ending):
                self.evaluations.refuse()
                return None
        solution = self.results.solution(ending)
        solution.starts = None
        solution.calls = calling.calls.made
        solution.history = None
        solution.explained(partial(choose.explanation, self.plan, [source]))
        solution.remembered(None, call.place)
        return solution

    def _confirmed(self, calling: UserFunction, ending: Ending) -> bool:
        """Whether the function gives the residuals at the end that were replayed."""
        point = tensor_from(ending.state.x).clone().view(self.shape)
        replayed: Any = ending.residual
        try:
            found = calling.residual((point,)).detach()
            if found.numpy().dtype != replayed.dtype:
                return False
            if found.numpy().tobytes() != replayed.tobytes():
                same_values(found, tensor_from(replayed))
        except Exception:  # whatever it is: the way that is taken the first time knows what to say
            return False
        return True


def _squared(cost: Any, rows: int) -> Any:
    """Whether residuals of this cost at the start are of a size that needs no unit of its own."""
    return rows * SMALLEST**2 <= 2 * cost <= LARGEST**2


def keep(call: Call, run: Run, results: Results, trials: int, effort: Effort | None = None) -> None:
    """Remember a fit that has ended at a minimum, unless what it reaches cannot be compared.

    Args:
        call: of the fit.
        run: how it was run.
        results: makes the solution.
        trials: at most.
        effort: all work on fits of the kind, where they are compiled once that pays.
    """
    source: Any = run.problem.source
    if type(source) is not Latest or type(source.current) is not DualNumbers:
        return
    if not source.verified or run.starts > 1 or run.estimate:
        return
    if run.batched or run.calling.unit != 1 or not small(run.problem, run.plan.method, run.x):
        return
    changed = _CHANGED[call.place] = _CHANGED.get(call.place, -1) + 1
    if changed > NEW:
        return
    try:
        unchanged = Unchanged(call.function)
    except NoKeyError:
        _CHANGED[call.place] = NEW
        return
    calling = copy(run.calling)
    calling.leaves, calling.calls = [], Calls()
    residual: Any = run.problem.residual
    known = RepeatedEager(
        unchanged, calling,
        replace(run.problem, residual=replace(residual, call=calling.residual), source=Ladder([])),
        run.plan, results, trials, run.unknowns.layout.shapes[0], tuple(source.rungs), run.limit,
        effort=effort,
    )  # fmt: skip
    put(call.place, known)
