"""Digits that the cost cannot see: undamped Gauss–Newton steps while the scaled gradient falls.

Near a minimum the cost is flat: differences of costs drown in round-off when the parameters have
half their digits. The gradient still has the others. So once the cost test has nothing left to say,
steps are judged by ‖D⁻¹Jᵀr‖ alone, and kept as long as it falls and the cost does not rise by more
than its own rounding error.
"""

from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from .._masks import select
from ..damping.scaling import positive
from ..linearizations.base import Linearization
from .method import Method
from .problem import Problem
from .state import State
from .termination import Status, at_rest
from .working_set import WorkingSet

POLISHED = (Status.GRADIENT, Status.COST, Status.STEP, Status.STALLED)
SLACK = 4  # the cost may seem to rise by so many of its rounding errors: it is a difference of two


class Rest(NamedTuple):
    """What is known of the problems at rest."""

    eligible: Tensor  # (...,) bool, for another step
    linearization: Linearization


def polish(problem: Problem, method: Method, state: State, ended: int | None = None) -> State:
    """Polish the problems that have come to rest; their last D is that of the measure.

    Args:
        problem: what is minimised.
        method: how.
        state: where the run has ended.
        ended: the status of a single problem, if the host knows it.
    """
    eligible, count = at_rest(state.status, POLISHED, ended)
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
    rest = Rest(eligible, problem.linearize(state.x))
    for _ in range(method.polish):
        state, better, ahead = _step(problem, method, state, rest, eps)
        count = int(better.sum())
        if count == 0:
            break
        rest = Rest(better, select(better, ahead, rest.linearization))
        problem, method, state, rest = working.thin(problem, method, state, better, count, rest)
    return working.all(state)


def _step(
    problem: Problem, method: Method, state: State, rest: Rest, eps: float
) -> tuple[State, Tensor, Linearization]:
    """The state after a Gauss–Newton step, where it was better, and the linear model at its end."""
    eligible, linearization = rest
    scale = positive(state.scale)
    step = method.solver.factor(linearization, scale).step(torch.zeros_like(linearization.cost))
    finite = step.isfinite().all(-1) & eligible
    trial = problem.move(state.x, torch.where(finite[..., None], step, 0.0))
    ahead = problem.linearize(trial)
    noise = SLACK * linearization.rounding(state.x.to(problem.dtype), eps)
    better = finite & (_measure(ahead, scale) < _measure(linearization, scale))
    better = better & (ahead.cost <= linearization.cost + noise)
    return (
        state._replace(
            x=select(better, trial, state.x),
            cost=torch.where(better, ahead.cost, state.cost),
            trials=state.trials + eligible,
            linearizations=state.linearizations + eligible,
        ),
        better,
        ahead,
    )


def _measure(linearization: Linearization, scale: Tensor) -> Tensor:
    """‖D⁻¹Jᵀr‖, (...,)."""
    return torch.linalg.vector_norm(linearization.gradient / scale, dim=-1)
