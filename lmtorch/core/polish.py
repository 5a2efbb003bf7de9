"""Digits that the cost cannot see: undamped Gauss–Newton steps while the scaled gradient falls.

Near a minimum the cost is flat: differences of costs drown in round-off when the parameters have
half their digits. The gradient still has the others. So once the cost test has nothing left to say,
steps are judged by ‖D⁻¹Jᵀr‖ alone, and kept as long as it falls and the cost does not rise by more
than its own rounding error.

Where columns of J are nearly dependent, round-off in the gradient is worth several digits of the
parameters, and whether it falls there is chance. A step from singular values of J has these digits:
so there a trial is kept, too, if the step that would follow it is much shorter.

Reference: Deuflhard, Newton Methods for Nonlinear Problems (2004), §4.3, on the natural
monotonicity of Gauss–Newton steps.
"""

from dataclasses import replace
from typing import NamedTuple

from torch import Tensor

from ..arrays import all_finite, norm, select, spread, to_type, where, zeros
from ..damping.scaling import positive
from ..linearizations.base import Linearization, optimality, rounding_of_cost
from .columns_of_roundoff import without_roundoff
from .influence import ROUNDINGS
from .method import Method
from .problem import Problem
from .state import State
from .termination import Status, at_rest
from .undamped import carried
from .working_set import WorkingSet

POLISHED = (Status.GRADIENT, Status.COST, Status.STEP, Status.STALLED)
FEW = 3  # Gauss–Newton steps that cost no more than a Newton step and the curvature for it
FINE = 1e-24  # share of the cost below which a decrement is worth no Newton step, in float64
MARGIN = 100  # by so much a gradient is above what Newton's steps, or round-off, leave
CONTRACTED = 0.1  # a step this much shorter than the last one says that the last came nearer
SLACK = 4  # the cost may seem to rise by so many of its rounding errors: it is a difference of two


class Rest(NamedTuple):
    """What is known of the problems at rest."""

    eligible: Tensor  # (...,) bool, for another step
    linearization: Linearization
    measure: Tensor  # (...,), ‖D⁻¹Jᵀr‖
    step: Tensor  # (..., n), the undamped step from there


def polish(
    problem: Problem,
    method: Method,
    state: State,
    ended: int | None = None,
    *,
    trials: int | None = None,
    hurried: bool = False,
) -> State:
    """Polish the problems that have come to rest; their last D is that of the measure.

    Args:
        problem: what is minimised.
        method: how.
        state: where the run has ended.
        ended: the status of a single problem, if the host knows it.
        trials: evaluations at trial points at most, with those of the run; None: any.
        hurried: leave problems to Newton's steps that would need many more of these.
    """
    able = None if trials is None else state.trials < trials
    eligible, count = at_rest(state.status, POLISHED, ended, able)
    if count == 0:
        return state
    if method.careful is not None:
        method = replace(method, solver=method.careful)
        problem = replace(problem, form=method.solver.form)
    eps = problem.eps(state.x)
    working = WorkingSet(state)
    problem, method, state, eligible = working.thin(
        problem, method, state, eligible, count, eligible
    )
    model = problem.linearize(state.x)
    model = without_roundoff(problem, state.x, model, state.begun)
    rest = _rest(method, state, eligible, model)
    for _ in range(method.polish):
        state, ahead = _step(problem, method, state, rest, eps)
        going = ahead.eligible & ~_slow(rest, ahead, eps) if hurried else ahead.eligible
        if trials is not None:
            going = going & (state.trials < trials)
        count = int(going.sum())
        if count == 0:
            break
        rest = select(ahead.eligible, ahead, rest)._replace(eligible=going)
        problem, method, state, rest = working.thin(problem, method, state, going, count, rest)
    return working.all(state)


def _step(
    problem: Problem, method: Method, state: State, rest: Rest, eps: float
) -> tuple[State, Rest]:
    """The state after a Gauss–Newton step where it was better, and what is known of its end."""
    eligible, linearization, before, step = rest
    finite = all_finite(step) & eligible
    trial = problem.move(state.x, where(spread(finite), step, 0.0))
    ahead = without_roundoff(problem, trial, problem.linearize(trial), state.begun)
    noise = SLACK * rounding_of_cost(linearization, to_type(state.x, problem.dtype), eps)
    after = _rest(method, state, eligible, ahead)
    unclear = ROUNDINGS * eps * carried(ahead, to_type(trial, problem.dtype))
    scale = positive(state.scale)
    nearer = norm(after.step * scale) < CONTRACTED * norm(step * scale)
    better = finite & ((after.measure < before) | (nearer & (after.measure <= unclear)))
    better = better & (ahead.cost <= linearization.cost + noise)
    return (
        state._replace(
            x=select(better, trial, state.x),
            cost=where(better, ahead.cost, state.cost),
            trials=state.trials + eligible,
            linearizations=state.linearizations + eligible,
        ),
        after._replace(eligible=better),
    )


def _slow(before: Rest, after: Rest, eps: float) -> Tensor:
    """Whether steps shrink the gradient so slowly that Newton's pay, (...,) bool.

    With large residuals Gauss–Newton steps shrink it by a constant factor. Newton's square it, but
    are taken only where the quadratic model promises enough; both are left alone near round-off.
    """
    cosine = optimality(after.linearization)
    soon = cosine * (after.measure / before.measure) ** FEW
    return (soon > MARGIN * eps) & (cosine * cosine > MARGIN * fine(eps))


def fine(eps: float) -> float:
    """The share of the cost below which a decrement is worth no Newton step."""
    return max(FINE, eps**2)


def _rest(method: Method, state: State, eligible: Tensor, linearization: Linearization) -> Rest:
    """What is known at a point with this linear model."""
    scale = positive(state.scale)
    step = method.solver.factor(linearization, scale).step(zeros(linearization.cost))
    return Rest(eligible, linearization, norm(linearization.gradient / scale), step)
