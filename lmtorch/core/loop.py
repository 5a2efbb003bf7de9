"""Linearize the residuals, solve the damped system, try the step, keep it if it gained, adjust the damping.

Everything is written over problems with any leading batch dimensions (...): one problem has none, its cost is a 0-d
tensor, and the same code runs. There is no inner loop of retries: an iteration is one trial, and a refused one
changes the damping and solves again from the same linear model.

Reference: Levenberg (1944); Marquardt (1963); Moré (1978); Madsen & Nielsen (2010), ch. 6.
"""

from collections.abc import Callable, Mapping
from time import perf_counter
from typing import NamedTuple

import torch
from torch import Tensor

from .._masks import seen, select, settled
from ..damping.base import LinearModel, Outcome, Proposal, gain_ratio
from ..damping.scaling import More, positive
from ..linearizations.base import Linearization, optimality, predicted_decrease, single_moves
from .bend import second_order
from .certificate import blank, certify
from .method import Method
from .polish import polish
from .problem import Problem
from .state import Begun, State, Trial, Tried
from .termination import Status, after_trial, at_point, not_worth_a_trial, rounding, step_lengths
from .working_set import WorkingSet

WINDOW = 32  # trials after which the gain is looked at
FASTER = 1.2  # times the gain before: a run that gathers speed is on its way, and is not given up
SUFFICIENT = 1e-4  # gain ratio from which a trial is kept, MINPACK's; a cost that merely fails to rise is no gain


Watch = Callable[[State], bool]  # sees every state; True: stop


def descend(
    problem: Problem,
    method: Method,
    state: State,
    *,
    trials: int,
    single: bool = False,
    watch: Watch | None = None,
) -> State:
    """Run until every problem is done, at most so many trials; with `single`, until a step has been taken.

    Problems of a batch that are done leave the working set, so that the last ones do not pay for the first.

    Args:
        problem: what is minimised.
        method: how.
        state: from where; only `x` must be set, the rest is carried over from an earlier call if there.
        trials: evaluations of trial points at most.
        single: stop at the first accepted step: one step of an optimizer.
        watch: is shown the state after every trial, of all problems, and may end the run.
    """
    state, model = linearize(problem, method, state)
    if state.begun is None or single:
        state = state._replace(
            begun=Begun(
                state.x,
                model.linearization.cost,
                _largest_norms(method, state, model.linearization.column_norms),
            )
        )
    state = state._replace(certificate=blank(state.x) if method.certify else None)
    before = model.linearization.cost
    pace = Pace(before, torch.ones_like(before), torch.zeros_like(before, dtype=torch.int64))
    whole, working, left = (
        (problem, method),
        WorkingSet(state),
        Status.REFUSED if single else Status.EVALUATIONS,
    )
    for number in range(trials):
        assert state.status is not None
        if not single and settled(state.status != Status.RUNNING):  # the point itself has said so
            break
        x, cost = state.x, state.cost
        state = attempt(problem, method, state, model)
        tried, state = state.tried, state._replace(tried=None)
        if method.patience and not single and number % WINDOW == WINDOW - 1:
            state, pace = give_up(problem, method, state, pace)
        if not single:  # the Jacobian of a point where a run has ended is made, to look at it
            state = _ended_with_another(state)
        moved, running, state = told(problem, state)  # the one host read of an iteration
        over = not running or (single and moved)
        if moved and not over:
            assert state.status is not None
            assert cost is not None
            assert tried is not None
            last = Last(x, cost, model.linearization.column_norms, tried, pace)
            staying = state.status == Status.RUNNING
            problem, method, state, last = working.thin(
                problem, method, state, staying, running, last
            )
            pace = last.pace
            state, model = linearize(problem, method, state, last)
            if seen(
                state.stale
            ):  # on a GPU the next trial, which fails for want of a model, leads here
                state, model = linearize(problem, method, state)
            state = state._replace(ended=None)  # the new point may have a word of its own
        if watch is not None and watch(working.all(state)):
            left = Status.STOPPED
            break
        if over:
            left = Status.RUNNING
            break
        if state.resting:
            break
    problem, method = whole
    state = working.all(state)
    if (
        state.trial is None
    ):  # the start itself has said that it is the end; runs are merged, and each has had a trial
        assert state.cost is not None
        zero = torch.zeros_like(state.cost)
        state = state._replace(trial=Trial(zero > 0, zero, zero, zero, zero, state.cost))
    assert state.status is not None
    state = state._replace(
        status=torch.where(state.status == Status.RUNNING, left, state.status),
        ended=left if state.ended == Status.RUNNING else state.ended,
    )
    assert state.begun is not None
    state = state._replace(
        begun=state.begun._replace(norms=_largest_norms(method, state, state.begun.norms))
    )
    return look(problem, method, state)


def look(problem: Problem, method: Method, state: State) -> State:
    """The end polished and certified; where evaluations are dear, polished only where it is not certified as it is."""
    if not method.certify:
        return polish(problem, method, state) if method.polish else state
    if not (method.frugal and method.polish):
        return certify(problem, method, polish(problem, method, state) if method.polish else state)
    certified = certify(problem, method, state)
    assert certified.status is not None
    assert state.status is not None
    doubt = certified.status <= 0
    if not seen(doubt):
        return certified
    polished = polish(
        problem, method, state._replace(status=torch.where(doubt, state.status, Status.EVALUATIONS))
    )
    return select(doubt, certify(problem, method, polished), certified)


def _ended_with_another(state: State) -> State:
    """The state with a linearization counted where the last trial was both kept and the end."""
    assert state.trial is not None
    assert state.linearizations is not None
    ended = state.trial.accepted & (state.status != Status.RUNNING)
    return state._replace(linearizations=state.linearizations + ended)


def _largest_norms(method: Method, state: State, norms: Tensor) -> Tensor:
    """The largest ‖J e_j‖ that is known: those given, or what D has kept, from the trials before and earlier steps."""
    kept = state.scale if isinstance(method.scaling, More) else None
    return norms if kept is None else torch.maximum(norms, kept)


class Pace(NamedTuple):
    """How fast the problems gain."""

    cost: Tensor  # (...,), when it was looked at last
    gain: Tensor  # (...,), share of the cost that it had fallen by then
    windows: Tensor  # (...,) int, in a row without a gain worth the while


class Last(NamedTuple):
    """Where the problems stood before their last trial, the trial, and what is kept of earlier ones."""

    x: Tensor
    cost: Tensor
    norms: Tensor  # (..., n), ‖J e_j‖
    tried: Tried
    pace: Pace


def linearize(
    problem: Problem, method: Method, state: State, last: Last | None = None
) -> tuple[State, LinearModel]:
    """The linear model at x, factored, with D and the damping that go with it.

    An accepted trial from which no step can begin is refused after all: x is again what it was in `last`. The model
    that was made at the trial is of no use then, which `stale` says.
    """
    begun = perf_counter()
    whole = problem.model(state.x)
    linearization = (
        whole if problem.bounds is None else whole.freeze(problem.free(state.x, whole.gradient))
    )
    refused = torch.zeros_like(whole.cost, dtype=torch.bool)
    if last is not None:
        refused = dead_end(problem, state.x, whole, last) & (state.status == Status.RUNNING)
        state = withdraw(method, state, last, refused)
    seconds = state.seconds._replace(linearize=state.seconds.linearize + perf_counter() - begun)

    begun = perf_counter()
    scale = method.scaling.update(state.scale, linearization.column_norms)
    scale = scale if state.scale is None else select(refused, state.scale, scale)
    factor = method.solver.factor(linearization, positive(scale))
    moving = (
        linearization.column_norms > 0
    )  # a variable held at its bound is held against the acceleration, too
    model = LinearModel(
        linearization,
        positive(scale),
        factor,
        lambda v: torch.where(moving, second_order(problem, state.x, v, linearization), 0.0),
    )
    x = state.x.to(problem.dtype)
    damping = state.damping
    if damping is None or isinstance(damping, Mapping):
        damping = method.damping.start(linearization, model.scale, x)._replace(
            **(state.damping or {})
        )
    seconds = seconds._replace(solve=seconds.solve + perf_counter() - begun)

    status = at_point(linearization, method.tolerances, whole.column_norms)
    if method.frugal and last is not None:
        promised = predicted_decrease(
            linearization, factor.step(torch.zeros_like(linearization.cost))
        )
        enough = not_worth_a_trial(
            method.tolerances, linearization.cost, promised.to(last.cost.dtype)
        )
        status = torch.where((status == Status.RUNNING) & enough, Status.COST, status)
    trials = made = torch.zeros_like(status)
    if state.status is not None and state.trials is not None and state.linearizations is not None:
        status = torch.where((state.status == Status.RUNNING) & ~refused, status, state.status)
        trials, made = state.trials, state.linearizations
        assert state.trial is not None
        moved = (state.trial.accepted | refused) & (state.status == Status.RUNNING)
    else:
        moved = torch.ones_like(status, dtype=torch.bool)
    return state._replace(
        cost=linearization.cost
        if last is None
        else torch.where(refused, last.cost, linearization.cost),
        scale=scale,
        damping=damping,
        status=status,
        trials=trials,
        linearizations=made + moved,
        stale=refused,
        seconds=seconds,
    ), model


def dead_end(problem: Problem, x: Tensor, model: Linearization, last: Last) -> Tensor:
    """Whether no step can begin at a trial although its cost is finite, (...,) bool.

    Its derivatives are not finite; or no parameter has any influence there; or a bound has been met at which the
    parameter itself has none, so that nothing would ever lead away from it.
    """
    finite = model.gradient.isfinite().all(-1) & model.column_norms.isfinite().all(-1)
    died = (model.column_norms == 0) & (last.norms > 0)
    trapped = (model.column_norms == 0).all(-1) & died.any(-1)
    if problem.bounds is not None:
        trapped = trapped | (died & problem.bounds.touched(x) & (x != last.x)).any(-1)
    return ~finite | (trapped & (model.cost > 0))


def withdraw(method: Method, state: State, last: Last, refused: Tensor) -> State:
    """The state with the trials of some problems refused after all."""
    damping, outcome = last.tried
    outcome = outcome._replace(
        ratio=torch.full_like(outcome.ratio, -1.0),
        accepted=torch.zeros_like(outcome.accepted),
        actual=torch.full_like(outcome.actual, -torch.inf),
    )
    assert state.trial is not None
    return state._replace(
        x=select(refused, last.x, state.x),
        damping=select(refused, method.damping.update(damping, outcome), state.damping),
        trial=state.trial._replace(accepted=state.trial.accepted & ~refused),
    )


def attempt(problem: Problem, method: Method, state: State, model: LinearModel) -> State:
    """One trial from the linear model."""
    assert state.status is not None
    assert state.cost is not None
    assert state.trials is not None
    linearization = model.linearization
    running = state.status == Status.RUNNING
    if state.stale is not None:  # the linear model is not that of x
        running = running & ~state.stale

    begun = perf_counter()
    step, damping, linear = Proposal(*method.damping.propose(model, state.damping))
    valid = step.isfinite().all(-1) & running  # a failed factorisation leaves NaN
    step = torch.where(valid[..., None], step, 0.0)  # the user's function never sees a NaN of ours

    tried = perf_counter()
    trial = problem.move(state.x, step)
    cost = problem.cost(trial)
    taken = trial.to(problem.dtype) - state.x.to(
        problem.dtype
    )  # what projection and rounding left of the step

    seconds = state.seconds
    seconds = seconds._replace(
        solve=seconds.solve + tried - begun, trial=seconds.trial + perf_counter() - tried
    )

    actual = state.cost - cost
    if (
        linear is not None
    ):  # the linear model promises for a part of the step, moved as the whole is
        linear = (
            problem.move(state.x, torch.where(valid[..., None], linear, 0.0)).to(problem.dtype)
            - state.x
        )
    predicted = predicted_decrease(linearization, taken if linear is None else linear).to(
        cost.dtype
    )
    ratio = torch.where(valid, gain_ratio(actual, predicted), -1.0)
    accepted = ratio >= SUFFICIENT

    outcome = Outcome(
        ratio,
        accepted,
        length=torch.where(
            valid, torch.linalg.vector_norm(model.scale * step, dim=-1).to(cost.dtype), torch.nan
        ),
        slope=(linearization.gradient * taken).sum(-1).to(cost.dtype),
        actual=actual,
        predicted=predicted,
    )
    x = state.x.to(problem.dtype)
    # convergence is judged by the whole step: a small learning rate, or a wall that cut the step short, is none
    whole = problem.rate is None and problem.bounds is None
    promised = predicted if whole else predicted_decrease(linearization, step).to(cost.dtype)
    # a step that could not be solved for is no stall: the damping rises, and the next trial has another chance
    promised = torch.where(valid, promised, torch.inf)
    relative = step_lengths(linearization, x, taken if whole else step)
    alone = step_lengths(linearization, x, single_moves(linearization))
    eps = problem.eps(state.x)
    noise = rounding(linearization, x, eps)
    cosine = optimality(linearization)
    # the end is looked at again where it is to be certified; and a step that changes nothing leaves nothing to try
    trusting = (taken == 0).all(-1) | method.certify
    status = after_trial(
        method.tolerances,
        eps,
        state.cost,
        actual,
        promised,
        relative,
        accepted,
        noise,
        cosine,
        alone,
        trusting,
    )
    if (
        problem.bounds is not None
    ):  # at a wall that has just been met derivatives may be of another kind
        met = problem.bounds.touched(trial) & (trial != state.x)
        status = torch.where(accepted & met.any(-1), Status.RUNNING, status)
    return state._replace(
        x=select(accepted, trial, state.x),
        cost=torch.where(accepted, cost, state.cost),
        damping=select(running, method.damping.update(damping, outcome), damping),
        status=torch.where(running, status, state.status),
        trial=Trial(
            accepted,
            ratio,
            torch.linalg.vector_norm(taken, dim=-1),
            damping.damping,
            cosine,
            linearization.cost,
        ),
        trials=state.trials
        + (running if state.trial is not None else 1),  # the first is made of all problems
        tried=Tried(damping, outcome),
        seconds=seconds,
    )


def give_up(problem: Problem, method: Method, state: State, pace: Pace) -> tuple[State, Pace]:
    """The state with what no longer gains called slow, and the pace to compare with next time.

    So small a gain is either that of the last steps towards a minimum with large residuals, where Newton steps get
    there at once; or, if it stays so small, that of a valley without end, or of one so narrow that another strategy
    gets along better.
    """
    assert state.status is not None
    assert state.cost is not None
    gain = 1 - state.cost / pace.cost
    poor = (
        (gain < method.patience) & (gain <= FASTER * pace.gain) & (state.status == Status.RUNNING)
    )
    windows = torch.where(poor, pace.windows + 1, 0)
    status = torch.where(windows >= method.windows, Status.SLOW, state.status)
    cost = state.cost
    if seen(
        poor
    ):  # not where the question would wait for the device: there they are only given up in the end
        status_now = torch.where(poor, Status.SLOW, Status.RUNNING)
        hurried = certify(problem, method, state._replace(status=status_now, ended=None))
        assert hurried.status is not None
        there = poor & (hurried.status > 0)
        status = torch.where(there, hurried.status, status)
        state = select(there, hurried, state._replace(certificate=hurried.certificate))
    return state._replace(status=status), Pace(cost, gain, windows)


def told(problem: Problem, state: State) -> tuple[bool, int, State]:
    """What the host must know of a trial, in one transfer.

    Whether any problem needs a new linear model, how many are not done, and the state with what the host knows of it.
    """
    assert state.trial is not None
    assert state.status is not None
    needed = state.trial.accepted if state.stale is None else state.trial.accepted | state.stale
    running = (state.status == Status.RUNNING).sum()
    resting = torch.zeros_like(running) if problem.rate is None else (problem.rate == 0).all()
    numbers = (needed.sum(), running, state.status.sum(), resting, state.trial.ratio.sum())
    moved, count, status, zero, gain = torch.stack(
        [number.to(state.trial.ratio.dtype) for number in numbers]
    ).tolist()
    one = state.x.ndim == 1
    state = state._replace(
        ended=int(status) if one else None, gain=gain if one else float("nan"), resting=zero > 0
    )
    return moved > 0, int(count), state
