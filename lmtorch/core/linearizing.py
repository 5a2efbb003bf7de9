"""The linear model at a point, with D and factored equations, and what the point itself says."""

from typing import NamedTuple

import torch
from torch import Tensor

from ..arrays import (
    all_finite,
    every,
    filled,
    maximum,
    never,
    nowhere,
    on_numpy,
    select,
    settled,
    some,
    spread,
    to_type,
    where,
    zeros,
)
from ..damping.base import LinearModel
from ..damping.scaling import positive
from ..linearizations.base import Linearization, measures, predicted_decrease
from .bend import of_rows, row_bends, second_order
from .columns_of_roundoff import scaled_by
from .method import Method
from .momentum import with_momentum
from .problem import Problem
from .state import Begun, Start, State, Tried, fresh
from .termination import COST, NOTHING, RUNNING, at_point

# Share of the cost from which one Newton step with the exact Hessian leaves nothing that float64
# shows: it squares the distance from the minimum, measured in standard errors.
AHEAD = 1e-12


class Last(NamedTuple):
    """Where the problems stood before their last trial, and that trial, which may be withdrawn."""

    x: Tensor  # (..., n)
    cost: Tensor  # (...,)
    norms: Tensor  # (..., n), ‖J e_j‖
    tried: Tried
    step: Tensor | None = None  # (..., n), the last one that was kept then


def begin(problem: Problem, method: Method, start: Start) -> tuple[State, LinearModel]:
    """The state at the start of a run, and the linear model there."""
    x = start.x
    whole = problem.model(x)
    held = scaled_by(problem, method, x, hold(problem, x, whole), start.scale, start.begun)
    scale = method.scaling.update(start.scale, held.column_norms)
    model = factored(problem, method, x, held, scale)
    changed = None if start.cost is None else _changed(problem, x, start.cost, model)
    status = at_point(held, model.measures, method.tolerances, whole.column_norms)
    status, changed = problem.agreed((status, changed))
    model = _carried_on(problem, method, start.step, changed, model)
    damping, begun = start.damping, start.begun
    if damping is None:
        damping = method.damping.start(held, model.scale, to_type(x, problem.dtype))
        damping = problem.agreed(damping)
    if begun is None:
        begun = Begun(x, held.cost, largest_norms(method, scale, held.column_norms))
    return fresh(x, held.cost, status, scale, damping, begun, start.step, changed), model


def _changed(problem: Problem, x: Tensor, before: Tensor, model: LinearModel) -> Tensor:
    """Whether the cost at x is another than the one an earlier run has ended with, (...,) bool.

    That is seen of any data, however they are passed, and of what multiplies them as well.
    """
    cost = model.linearization.cost
    unclear = problem.eps(x) ** 0.5 * maximum(cost, before) + model.measures.noise
    return abs(cost - before) > unclear


def _carried_on(
    problem: Problem,
    method: Method,
    last: Tensor | None,
    changed: Tensor | None,
    model: LinearModel,
) -> LinearModel:
    """The model with momentum of the last step, where there is to be any."""
    if not method.momentum or last is None:
        return model
    shift = method.momentum * last
    # a sample has other rows in each step, whether or not the data are others
    if not method.steady and problem.modelled is problem:
        if changed is None or nowhere(changed):
            return model
        shift = where(spread(changed), shift, 0.0)
    return with_momentum(model, method.solver, shift)


def linearize(
    problem: Problem,
    method: Method,
    state: State,
    last: Last | None = None,
    known: Linearization | None = None,
) -> tuple[State, LinearModel]:
    """The linear model at x after a trial that was kept, and the state with what the point says.

    A trial from which no step can begin is withdrawn: x is again what it was in `last`. The model
    that was made at the trial is of no use then; `stale` says so.

    Args:
        problem: what is minimised.
        method: how.
        state: after the trial.
        last: before the trial; None: nothing is withdrawn, and no linearization counted.
        known: the linear model at x, if it was made with the trial.
    """
    x = state.x
    whole = problem.model(x) if known is None else known
    held = scaled_by(problem, method, x, hold(problem, x, whole), state.scale, state.begun)
    running = state.status == RUNNING
    scale = method.scaling.update(state.scale, held.column_norms)
    model = factored(problem, method, x, held, scale)
    status = at_point(held, model.measures, method.tolerances, whole.column_norms)
    if last is None:
        status = where(running, problem.agreed(status), state.status)
        return state._replace(
            cost=held.cost, status=status, scale=scale, stale=never(running)
        ), model
    share = _worth_no_trial(problem, method)
    if share:
        converged = _converged_ahead(model, share)
        status = where((status == RUNNING) & converged, COST, status)
    finite = model.measures.finite if whole is held else None
    refused = dead_end(problem, x, whole, last, finite) & running
    status, refused = problem.agreed((status, refused))
    counted = (state.trial.accepted | refused) & running
    if not settled(~refused):
        state = withdraw(method, state, last, refused)
    return state._replace(
        cost=where(refused, last.cost, held.cost),
        status=where(running & ~refused, status, state.status),
        scale=select(refused, state.scale, scale),
        linearizations=state.linearizations + counted,
        stale=refused,
    ), model


def hold(problem: Problem, x: Tensor, whole: Linearization) -> Linearization:
    """The model with those variables held that descent would push out of the box."""
    if problem.bounds is None:
        return whole
    free = problem.free(x, whole.gradient)
    return whole if on_numpy(x) and settled(every(free)) else whole.freeze(free)


def factored(
    problem: Problem, method: Method, x: Tensor, held: Linearization, scale: Tensor
) -> LinearModel:
    """The linear model with D and its equations factored; bends of the residuals are taken at x."""
    moving = held.column_norms > 0  # a held variable is held against the acceleration, too
    modelled = problem.modelled

    def bend(direction: Tensor) -> Tensor:
        return where(moving, second_order(modelled, x, direction, held), 0.0)

    def bend_of_rows(direction: Tensor) -> Tensor:
        return row_bends(modelled, x, direction, held)

    units = positive(scale)
    known = measures(held, to_type(x, problem.dtype), problem.eps(x))
    factor = method.solver.factor(held, units)
    by_rows = hasattr(factor, "solve_rows") and of_rows(modelled, held)
    return LinearModel(
        held, units, factor, bend, known, row_bends=bend_of_rows if by_rows else None
    )


def _worth_no_trial(problem: Problem, method: Method) -> float:
    """Share of the cost that a step may promise and not be tried; 0: every step is tried.

    The end of many small problems is looked at with the exact Hessian: Newton's step from there is
    worth more than the last of Gauss–Newton's, which the tolerance would not let another follow. At
    a bound the step that is tried is not the one that was promised.
    """
    if method.frugal:
        return NOTHING * method.tolerances.cost
    if (
        method.careful is None
        or not (method.certify and method.polish)
        or problem.bounds is not None
    ):
        return 0.0
    return min(method.tolerances.cost, AHEAD)


def _converged_ahead(model: LinearModel, share: float) -> Tensor:
    """Whether even the undamped step promises no more than a share of the cost, (...,) bool."""
    cost = model.linearization.cost
    step = model.factor.step(zeros(cost))
    promised = to_type(predicted_decrease(model.linearization, step), cost.dtype)
    return abs(promised) <= share * cost


def dead_end(
    problem: Problem, x: Tensor, model: Linearization, last: Last, finite: Tensor | None = None
) -> Tensor:
    """Whether no step can begin at a trial although its cost is finite, (...,) bool.

    Its derivatives are not finite; or no parameter has any influence there; or a bound has been met
    at which the parameter itself has none, so that nothing would ever lead away from it.

    Args:
        problem: what is minimised.
        x: the trial.
        model: there, whatever may move.
        last: before the trial.
        finite: whether the derivatives are finite, if that is known.
    """
    if finite is None:
        finite = all_finite(model.gradient) & all_finite(model.column_norms)
    zero = model.column_norms == 0
    if nowhere(some(zero)):
        return ~finite
    died = zero & (last.norms > 0)
    trapped = every(zero) & some(died)
    if problem.bounds is not None:
        trapped = trapped | some(died & problem.bounds.touched(x) & (x != last.x))
    return ~finite | (trapped & (model.cost > 0))


def withdraw(method: Method, state: State, last: Last, refused: Tensor) -> State:
    """The state with the trials of some problems refused after all, and their damping told so."""
    if nowhere(refused):
        return state
    damping, outcome, _ = last.tried
    outcome = outcome._replace(
        ratio=filled(outcome.ratio, -1.0),
        accepted=never(outcome.accepted),
        actual=filled(outcome.actual, -torch.inf),
    )
    return state._replace(
        x=select(refused, last.x, state.x),
        step=select(refused, last.step, state.step),
        damping=select(refused, method.damping.update(damping, outcome), state.damping),
        trial=state.trial._replace(accepted=state.trial.accepted & ~refused),
    )


def largest_norms(method: Method, scale: Tensor, norms: Tensor) -> Tensor:
    """The largest ‖J e_j‖ that is known: `norms`, or what Moré's D has kept of earlier points."""
    remembers = getattr(method.scaling, "remembers", False)
    if isinstance(remembers, Tensor):  # of each problem of a batch
        return where(remembers[..., None], maximum(norms, scale), norms)
    return maximum(norms, scale) if remembers else norms
