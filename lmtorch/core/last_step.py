"""The end of a run at which nobody looks: what one step without damping still promises.

A step by products is as good as its last iteration, and a trial may promise little because λ is
large or the iterations were few. So a run that calls itself converged is asked for a step without
damping, in units of the column norms. What the linear model promises of it is a lower bound of
what it promises at all: where that is more than the tolerances allow, the end is no minimum. How
the cost curves beyond the linear model, and which parameters have an influence, nobody looks at.

Where round-off has refused the last trial, the same step tells a minimum from a high λ.
"""

import torch
from torch import Tensor

from ..arrays import filled, minimum, resolution, sqrt, to_type, total, where
from ..damping.scaling import positive
from ..linearizations.base import (
    Linearization,
    predicted_decrease,
    relative_length,
    rounding_of_cost,
)
from .allowance import allowance
from .certificate import VALLEY
from .columns_of_roundoff import without_roundoff
from .influence import ROUNDINGS
from .method import Method
from .polish import SLACK
from .problem import Problem
from .state import State, blank
from .termination import SINGLE_MOVE_SLACK, Status, at_rest
from .undamped import carried

COST = int(Status.COST)
CLAIMS = (Status.GRADIENT, Status.COST, Status.STEP)


def asked(problem: Problem, method: Method, state: State, ended: int | None = None) -> State:
    """The state in which what claims to have converged has been asked for one more step.

    Args:
        problem: what is minimised.
        method: how.
        state: where the run has ended.
        ended: the status of a single problem, if the host knows it.
    """
    claimed, count = at_rest(state.status, CLAIMS, ended)
    if count == 0:
        return state
    promised, far, unclear, cost = _promised(problem, method, state)
    promised = where(torch.isfinite(promised), promised, 0.0)
    share = where(promised > 0, promised / cost, 0.0)
    enough = allowance(method.tolerances, problem.precision or state.x.dtype)
    more = claimed & (share > enough) & (promised > unclear)
    # where the data are met a step promises all of the cost, however short it is
    more = more & (far > SINGLE_MOVE_SLACK * max(method.tolerances.step, problem.eps(state.x)))
    seen = blank(state.x)
    return state._replace(
        status=where(more, VALLEY, state.status),
        certificate=seen._replace(promise=where(claimed, share, seen.promise)),
    )


def resolved(problem: Problem, method: Method, state: State, ended: int | None = None) -> State:
    """The state in which what round-off has ended is called converged, if no step promises more.

    It has to be about the tolerance of the cost with no more damping than hides the round-off of
    JᵀJ, which may be singular. Where it cannot be factored so, the status stands.

    Args:
        problem: what is minimised.
        method: how.
        state: where the run has ended.
        ended: the status of a single problem, if the host knows it.
    """
    stalled, count = at_rest(state.status, (Status.STALLED,), ended)
    if count == 0 or problem.modelled is not problem:
        return state
    rounding = state.x.shape[-1] ** 0.5 * resolution(problem.dtype)
    promised, _, _, cost = _promised(problem, method, state, rounding)
    little = abs(promised) < SLACK * method.tolerances.cost * cost
    return state._replace(status=where(stalled & little, COST, state.status))


def _promised(
    problem: Problem, method: Method, state: State, damping: float = 0.0
) -> tuple[Tensor, ...]:
    """A step without damping, or with as little, where columns are of length one.

    Returns:
        What the linear model promises of it, its relative length, how much of the promise may be
        round-off, and the cost, (...,).
    """
    x = state.x
    model = problem.model_at_end(x)
    if problem.bounds is not None:
        model = model.freeze(problem.free(x, model.gradient))
    model = without_roundoff(problem, x, model, state.begun)
    factor = method.solver.factor(model, positive(model.column_norms))
    step = factor.step(filled(model.cost, damping))
    promised = to_type(predicted_decrease(model, step), model.cost.dtype)
    wide = to_type(x, problem.dtype)
    far = relative_length(model, wide, step)
    return promised, far, _unclear(model, wide, step, problem.eps(x)), model.cost


def _unclear(model: Linearization, x: Tensor, step: Tensor, eps: float) -> Tensor:
    """How much of what the linear model promises of an undamped step may be round-off, (...,).

    It promises ½‖P r‖², P the projection on the columns of J: of an error e of the residuals ½‖e‖²
    and less, where the cost would hide ‖r‖ ‖e‖. What rounding J costs the gradient tells along the
    step.
    """
    length = to_type(sqrt(2 * model.cost), step.dtype)
    of_rows = ROUNDINGS * eps * carried(model, x)
    of_columns = ROUNDINGS * eps * length * total(abs(model.column_norms * step))
    found = to_type(of_rows * of_rows / 2 + of_columns, model.cost.dtype)
    return minimum(found, ROUNDINGS * rounding_of_cost(model, x, eps))
