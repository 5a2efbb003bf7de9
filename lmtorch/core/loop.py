"""Linearize the residuals, solve the damped system, try the step, keep it if it gained, adjust λ.

Everything is written over problems with any leading batch dimensions (...): one problem has none,
its cost is a 0-d tensor, and the same code runs. There is no inner loop of retries: an iteration is
one trial, and a refused one changes the damping and solves again from the same linear model.

Reference: Levenberg (1944); Marquardt (1963); Moré (1978); Madsen & Nielsen (2010), ch. 6.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..arrays import (
    arrays_of,
    inner,
    norm,
    nowhere,
    on_numpy,
    quiet,
    seen,
    select,
    settled,
    statuses,
    tensors_of,
    to_type,
    where,
)
from ..damping.base import LinearModel, Outcome, gain_ratio
from ..linearizations.base import Linearization, predicted_decrease
from ..recording.steps import functions
from .certificate import JUDGED, NEWTON
from .ending import look
from .linearizing import Last, begin, largest_norms, linearize
from .method import Method
from .momentum import corrected, without_momentum
from .newton import Gains, nearing, no_gains
from .newton import ahead as ahead_of_end
from .pace import WINDOW, Pace, even, give_up
from .problem import Problem
from .small import of_arrays, showing, small
from .state import Start, State, Told, Trial, Tried
from .step import Step, made, propose
from .termination import RUNNING, Status, gather, verdict
from .working_set import WorkingSet

SUFFICIENT = 1e-4  # smallest gain ratio of a trial that is kept, MINPACK's; not to rise is no gain
# ends that say no more than that one set of data has nothing left to give
OF_ITS_DATA = frozenset({*JUDGED, Status.ZERO} - {Status.FLAT})
# what a model of some of the rows says of itself alone
OF_A_SAMPLE = OF_ITS_DATA - {Status.ZERO} | {Status.FLAT, Status.REFUSED}
EVALUATIONS = int(Status.EVALUATIONS)
# what the functions of an iteration are given beside problem and method
STARTED, TRIED = ("state", "model"), ("state", "last", "known")
ADVANCED = (*STARTED, "gains")

Watch = Callable[[State], bool]  # is shown every state; True: stop


def descend(
    problem: Problem,
    method: Method,
    start: Start,
    *,
    trials: int,
    single: bool = False,
    leave: int = 0,
    watch: Watch | None = None,
) -> tuple[State, Told]:
    """Run until every problem is done; with `single`, until a step has been taken.

    One small problem on a CPU runs on NumPy's arrays, see `core/small.py`.

    Problems of a batch that are done leave the working set, so that the last ones do not pay for
    the first.

    Args:
        problem: what is minimised.
        method: how.
        start: from where, with what an earlier run has left.
        trials: evaluations of trial points at most.
        single: stop at the first accepted step: one step of an optimizer.
        leave: stop when no more problems than that are running, and leave them so: who has more of
            them, from other batches, goes on with all of them at once.
        watch: is shown the state after every trial, of all problems, and may end the run.

    Returns:
        Where the problems stand, and what the host knows of it.
    """
    if problem.noises is None and not small(problem, method, start.x):
        return _run(problem, method, start, trials, single, watch, leave)
    there = of_arrays(problem)
    with quiet():
        state, told = descend_on_arrays(
            there, method, arrays_of(start), trials, single, showing(watch, there)
        )
    return tensors_of(state), told


def descend_on_arrays(
    problem: Problem,
    method: Method,
    start: Start,
    trials: int,
    single: bool = False,
    watch: Watch | None = None,
) -> tuple[State, Told]:
    """The same of one small problem that is on NumPy's arrays already, within `quiet`."""
    return _run(problem, method, start, trials, single, watch)


def _run(
    problem: Problem,
    method: Method,
    start: Start,
    trials: int,
    single: bool,
    watch: Watch | None,
    leave: int = 0,
) -> tuple[State, Told]:
    """The run itself, on tensors or arrays."""
    whole = problem, method
    advanced, step, follow, first = _functions(problem, method, start)
    state, model = first(problem, method, start)
    working, pace, told = WorkingSet(state), even(state.cost), Told()
    early = None if single else ahead_of_end(problem, method, state, trials)
    gains = no_gains(state.cost, early is not None)
    beside = 0  # trials, at most, that a problem has made on the way beside those of the loop
    left = Status.REFUSED if single else Status.EVALUATIONS  # of a run that the trials did not end
    for number in range(trials):
        if not single and settled(state.status != RUNNING):  # the points need no further step
            break
        before, was, onward = state, gains, None
        slow = bool(method.patience) and not single and number % WINDOW == WINDOW - 1
        if advanced is None or single or slow or (beside and number + 1 + beside >= trials):
            state, tried = step(problem, method, state, model)
        else:  # nothing is to be done between a trial that was kept and the linear model there
            state, tried, onward, gains = advanced(problem, method, state, model, gains)
        if onward is None:
            if slow:
                state, pace = give_up(problem, method, state, pace, trials)
                beside += min(NEWTON, method.polish)
            if early is not None:
                state, gains = early.look(problem, method, state, tried.outcome, was)
                beside += early.taken
            if beside and number + 1 + beside >= trials:
                state = out_of(trials, state)
            if not single:
                state = ended_with_another(state)
            told = tell(problem, state)  # the one host read of an iteration
            model = without_momentum(model)  # which is tried once
        over = onward is None and (not told.running or (single and told.moved))
        if onward is not None:
            model, told = onward, Told(True, 1, None, float(state.trial.ratio))
            if seen(state.stale):
                state, model = linearize(problem, method, state)
        elif told.moved and not over:
            ahead, last = tried.ahead, last_of(before, model, tried)
            if ahead is not None:  # where the trial was refused, that of x is known
                ahead = select(state.trial.accepted, ahead, model.linearization)
            if state.x.ndim > 1:
                problem, method, state, (last, pace, ahead) = working.thin(
                    problem,
                    method,
                    state,
                    state.status == RUNNING,
                    told.running,
                    Beside(last, pace, ahead),
                )
            del model  # its rows or graph need not be there beside those of the next
            state, model = follow(problem, method, state, last, ahead)
            # on a GPU `seen` does not look: there the next trial is refused, as the model is not
            # that of x, and `tell` counts it as moved, so that a new model is made above
            if seen(state.stale):
                state, model = linearize(problem, method, state)
            # the new point itself may end the run
            told = Told(told.moved, told.running, None, told.gain, told.resting)
        if 0 < told.running <= leave:
            left = Status.RUNNING
            break
        heeded = watch is not None or problem.across is not None
        if heeded and _stopped(problem, watch, working, state, single):
            left = Status.STOPPED
            break
        if over:
            left = Status.RUNNING
            break
        if told.resting:
            break
    problem, method = whole
    state, told = _closed(problem, method, working.all(state), told, left)
    if early is not None and early.clear:
        return state, told
    return look(problem, method, state, told.ended, trials), told


def _functions(problem: Problem, method: Method, start: Start) -> Sequence[Any]:
    """`advance`, `attempt`, `linearize` and `begin`; of one small problem recorded.

    Where there is no small problem, nor a model that is tried once or a step that rests, there is
    no `advance`.
    """
    if not on_numpy(start.x) or method.momentum:
        return None, attempt, linearize, begin
    plain = (advance, ADVANCED), (attempt, STARTED), (linearize, TRIED), (begin, ("start",))
    found: Sequence[Any] = functions(problem, method, start, plain)
    return found if problem.rate is None else (None, *found[1:])


def _stopped(
    problem: Problem, watch: Watch | None, working: WorkingSet, state: State, single: bool
) -> bool:
    """Whether somebody who is shown the state wants the run to end, on any process."""

    def asked() -> bool:
        return watch is not None and watch(working.all(state))

    if problem.across is None or single:
        return asked()
    _, told = problem.across.telling("callback", asked, lambda stop: [float(stop)], 1)
    return bool(told.any())


def out_of(trials: int, state: State) -> State:
    """The state with what still runs, but has made so many trials, ended for that."""
    spent = (state.status == RUNNING) & (state.trials >= trials)
    return state._replace(status=where(spent, EVALUATIONS, state.status))


def _closed(
    problem: Problem, method: Method, state: State, told: Told, left: Status
) -> tuple[State, Told]:
    """The end of a run: what still runs is called `left`, and the largest norms are noted."""
    norms = largest_norms(method, state.scale, state.begun.norms)
    status = state.status
    if state.changed is not None and told.ended in OF_ITS_DATA and bool(state.changed):
        # what is a minimum for one draw of the points is none of the function that they are of
        status, told = statuses(state.cost, RUNNING), told._replace(ended=RUNNING)
    if problem.modelled is not problem and told.ended in OF_A_SAMPLE:
        # what some of the rows have left is no end of all of them; nor have they more to give
        status = statuses(state.cost, RUNNING)
        told = told._replace(ended=RUNNING, gain=0.0)
    if told.ended == Status.RUNNING:
        told = told._replace(ended=int(left))
    return state._replace(
        status=where(status == RUNNING, int(left), status),
        begun=state.begun._replace(norms=norms),
    ), told


def attempt(
    problem: Problem, method: Method, state: State, model: LinearModel
) -> tuple[State, Tried]:
    """One trial from the linear model: make a step, look at its cost, keep it if that gained."""
    running = (state.status == RUNNING) & ~state.stale  # a stale model is not that of x
    step, damping = problem.agreed(propose(problem, method.damping, state, model, running))
    ahead = problem.model(step.trial) if problem.fused(state.trial.accepted) else None
    cost = problem.cost(step.trial) if ahead is None else ahead.cost
    outcome = judge(model, step, state.cost, cost)
    if problem.modelled is not problem:
        outcome = _by_sample(problem.modelled, state.x, step.trial, outcome)
    evidence = gather(
        problem, method.tolerances, state, model, step, outcome, certified=method.certify
    )
    ending = verdict(method.tolerances, evidence)
    outcome, ending = problem.agreed((outcome, ending))
    kept = outcome.accepted
    trial = Trial(
        kept,
        outcome.ratio,
        norm(step.taken),
        damping.damping,
        evidence.optimality,
        model.linearization.cost,
    )
    first = state.trials == 0  # the first trial is of all problems, also of those that are done
    return (
        state._replace(
            x=select(kept, step.trial, state.x),
            cost=where(kept, cost, state.cost),
            status=where(running, ending, state.status),
            damping=select(running, method.damping.update(damping, outcome), damping),
            trial=trial,
            trials=state.trials + (running | first),
            step=None if state.step is None else select(kept, made(problem, step), state.step),
        ),
        Tried(damping, outcome, ahead),
    )


class Advance(NamedTuple):
    """A trial of one small problem, and what follows from it at once."""

    state: State
    tried: Tried | None  # None: the linear model follows
    model: LinearModel | None  # at the trial; None: something else comes first
    gains: Gains


def advance(
    problem: Problem, method: Method, state: State, model: LinearModel, gains: Gains
) -> Advance:
    """A trial, and if it was kept the linear model there, unless the end may be near."""
    after, tried = attempt(problem, method, state, model)
    near, gains = nearing(problem, method, after, tried.outcome, gains)
    onward = after.trial.accepted & (after.status == RUNNING) & ~near
    if not settled(onward):
        return Advance(after, tried, None, gains)
    last = last_of(state, model, tried)
    found = linearize(problem, method, after, last, tried.ahead)
    return Advance(found[0], None, found[1], gains)


def last_of(before: State, model: LinearModel, tried: Tried) -> Last:
    """Where the problems stood before a trial."""
    norms = model.linearization.column_norms
    tried = Tried(tried.damping, tried.outcome)  # without the linear model there
    return Last(before.x, before.cost, norms, tried, before.step)


def judge(model: LinearModel, step: Step, before: Tensor, cost: Tensor) -> Outcome:
    """How a trial went: its cost (...,) beside the one before and what the model promised."""
    linearization = model.linearization
    actual = before - cost
    predicted = to_type(predicted_decrease(linearization, step.linear), cost.dtype)
    ratio = where(step.solved, gain_ratio(actual, predicted), -1.0)
    length = to_type(corrected(model, step.proposed), cost.dtype)
    return Outcome(
        ratio,
        ratio >= SUFFICIENT,
        length=where(step.solved, length, torch.nan),
        slope=to_type(inner(linearization.gradient, step.taken), cost.dtype),
        actual=actual,
        predicted=predicted,
    )


def _by_sample(sample: Problem, x: Tensor, trial: Tensor, outcome: Outcome) -> Outcome:
    """The outcome of a trial whose linear model is of a sample of the rows.

    How good the model is shows in the rows that it is of. That all rows gain less is no reason for
    more damping, but for a larger sample; only where they lose is the trial refused.
    """
    actual = sample.cost(x) - sample.cost(trial)
    ratio = where(outcome.ratio > 0, gain_ratio(actual, outcome.predicted), outcome.ratio)
    return outcome._replace(ratio=ratio, accepted=outcome.accepted & (ratio >= SUFFICIENT))


def tell(problem: Problem, state: State) -> Told:
    """What the host must know of a trial, in one transfer."""
    ratio = state.trial.ratio
    if on_numpy(ratio):  # one problem, of which the host knows everything
        moved, running = state.trial.accepted | state.stale, state.status == RUNNING
        still = problem.rate is not None and not problem.rate.any()
        return Told(bool(moved), int(running), int(state.status), float(ratio), still)
    needed = (state.trial.accepted | state.stale).sum()
    running = (state.status == RUNNING).sum()
    resting = torch.zeros_like(running) if problem.rate is None else (problem.rate == 0).all()
    numbers = (needed, running, state.status.sum(), resting, ratio.sum())
    moved, count, status, zero, gain = torch.stack([n.to(ratio.dtype) for n in numbers]).tolist()
    one = state.x.ndim == 1
    return Told(
        moved > 0, int(count), int(status) if one else None, gain if one else float("nan"), zero > 0
    )


def ended_with_another(state: State) -> State:
    """The state with one linearization more where the last trial was both kept and the end.

    It is made after the loop, to look at the end.
    """
    ended = state.trial.accepted & (state.status != RUNNING)
    if nowhere(ended):
        return state
    return state._replace(linearizations=state.linearizations + ended)


class Beside(NamedTuple):
    """What is thinned beside the state when problems leave."""

    last: Last
    pace: Pace
    ahead: Linearization | None
