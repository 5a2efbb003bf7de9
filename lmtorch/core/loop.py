"""Linearize the residuals, solve the damped system, try the step, keep it if it gained, adjust the damping.

Everything is written over problems with any leading batch dimensions (...): one problem has none, its cost is a 0-d
tensor, and the same code runs. There is no inner loop of retries: an iteration is one trial, and a refused one
changes the damping and solves again from the same linear model.

Reference: Levenberg (1944); Marquardt (1963); Moré (1978); Madsen & Nielsen (2010), ch. 6.
"""

from collections.abc import Callable, Mapping
from time import perf_counter

import torch

from .._masks import select, settled
from ..damping.base import Model, Outcome, Proposal, gain_ratio
from ..damping.scaling import positive
from ..linearizations.base import optimality, predicted_decrease, single_moves
from .method import Method
from .polish import polish
from .problem import Problem
from .state import State, Trial
from .termination import Status, after_trial, at_point, rounding
from .working_set import WorkingSet

SUFFICIENT = 1e-4  # gain ratio from which a trial is kept, MINPACK's; a cost that merely fails to rise is no gain


Watch = Callable[[State], bool]  # sees every state; True: stop


def descend(
    problem: Problem, method: Method, state: State, *, trials: int, single: bool = False, watch: Watch | None = None
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
    whole, working, left = problem, WorkingSet(state), Status.REFUSED if single else Status.EVALUATIONS
    for _ in range(trials):
        assert state.status is not None
        if not single and settled(state.status != Status.RUNNING):  # the point itself has said so
            break
        state = attempt(problem, method, state, model)
        accepted, running = flags(state)  # the one host read of an iteration
        ended = not running or (single and accepted)
        if accepted and not ended:
            assert state.status is not None
            problem, state, _ = working.thin(problem, state, state.status == Status.RUNNING, running, None)
            state, model = linearize(problem, method, state)
        if watch is not None and watch(working.all(state)):
            left = Status.STOPPED
            break
        if ended:
            left = Status.RUNNING
            break
    state = working.all(state)
    assert state.status is not None
    state = state._replace(status=torch.where(state.status == Status.RUNNING, left, state.status))
    return polish(whole, method, state) if method.polish else state


def linearize(problem: Problem, method: Method, state: State) -> tuple[State, Model]:
    """The linear model at x, factored, with D and the damping that go with it."""
    begun = perf_counter()
    linearization = problem.linearize(state.x)
    seconds = state.seconds._replace(linearize=state.seconds.linearize + perf_counter() - begun)

    begun = perf_counter()
    scale = method.scaling.update(state.scale, linearization.column_norms)
    factor = method.solver.factor(linearization, positive(scale))
    moving = linearization.column_norms > 0  # a variable held at its bound is held against the acceleration, too
    model = Model(
        linearization, positive(scale), factor, lambda v: torch.where(moving, problem.second_order(state.x, v), 0.0)
    )
    x = state.x.to(problem.dtype)
    damping = state.damping
    if damping is None or isinstance(damping, Mapping):
        damping = method.damping.start(linearization, model.scale, x)._replace(**(state.damping or {}))
    seconds = seconds._replace(solve=seconds.solve + perf_counter() - begun)

    status = at_point(linearization, method.tolerances)
    trials = made = torch.zeros_like(status)
    if state.status is not None and state.trials is not None and state.linearizations is not None:
        status = torch.where(state.status == Status.RUNNING, status, state.status)
        trials, made = state.trials, state.linearizations
        assert state.trial is not None
        moved = state.trial.accepted & (state.status == Status.RUNNING)
    else:
        moved = torch.ones_like(status, dtype=torch.bool)
    return state._replace(
        cost=linearization.cost,
        scale=scale,
        damping=damping,
        status=status,
        trials=trials,
        linearizations=made + moved,
        seconds=seconds,
    ), model


def attempt(problem: Problem, method: Method, state: State, model: Model) -> State:
    """One trial from the linear model."""
    assert state.status is not None
    assert state.cost is not None
    assert state.trials is not None
    linearization = model.linearization
    running = state.status == Status.RUNNING

    begun = perf_counter()
    step, damping, linear = Proposal(*method.damping.propose(model, state.damping))
    valid = step.isfinite().all(-1) & running  # a failed factorisation leaves NaN
    step = torch.where(valid[..., None], step, 0.0)  # the user's function never sees a NaN of ours

    tried = perf_counter()
    trial = problem.move(state.x, step)
    cost = problem.cost(trial)
    taken = trial.to(problem.dtype) - state.x.to(problem.dtype)  # what projection and rounding left of the step

    seconds = state.seconds
    seconds = seconds._replace(solve=seconds.solve + tried - begun, trial=seconds.trial + perf_counter() - tried)

    actual = state.cost - cost
    if linear is not None:  # the linear model promises for a part of the step, moved as the whole is
        linear = problem.move(state.x, torch.where(valid[..., None], linear, 0.0)).to(problem.dtype) - state.x
    predicted = predicted_decrease(linearization, taken if linear is None else linear).to(cost.dtype)
    ratio = torch.where(valid, gain_ratio(actual, predicted), -1.0)
    accepted = ratio >= SUFFICIENT

    outcome = Outcome(
        ratio,
        accepted,
        length=torch.where(valid, torch.linalg.vector_norm(model.scale * step, dim=-1).to(cost.dtype), torch.nan),
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
    # parameters that never had an influence have D = 1 in a step, and would set the length of x in units of their own
    weight = model.scale if state.scale is None else state.scale
    relative = torch.linalg.vector_norm(weight * (taken if whole else step), dim=-1)
    eps = problem.eps(state.x)
    noise = rounding(linearization, x, eps)
    cosine = optimality(linearization)
    alone = torch.linalg.vector_norm(weight * single_moves(linearization), ord=torch.inf, dim=-1)
    relative, alone = (length / torch.linalg.vector_norm(weight * x, dim=-1) for length in (relative, alone))
    relative, alone = relative.to(cost.dtype), alone.to(cost.dtype)
    status = after_trial(method.tolerances, eps, state.cost, actual, promised, relative, accepted, noise, cosine, alone)
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
        trials=state.trials + (running if state.trial is not None else 1),  # the first is made of all problems
        seconds=seconds,
    )


def flags(state: State) -> tuple[bool, int]:
    """Whether any problem took a step, and how many are not done: one transfer."""
    assert state.trial is not None
    assert state.status is not None
    accepted, running = torch.stack([state.trial.accepted.sum(), (state.status == Status.RUNNING).sum()]).tolist()
    return accepted > 0, running
