"""Digits that the cost cannot see: undamped Gauss–Newton steps as long as the scaled gradient falls.

Near a minimum the cost is flat: differences of costs drown in round-off when the parameters have half their digits.
The gradient still has the others. So once the cost test has nothing left to say, steps are judged by ‖D⁻¹Jᵀr‖ alone,
and kept as long as it falls and the cost does not rise by more than its own rounding error.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from .._masks import select
from ..damping.scaling import positive
from ..linearizations.base import Linearization
from .method import Method
from .problem import Problem
from .state import State
from .termination import Status, among, rounding
from .working_set import WorkingSet

POLISHED = (Status.GRADIENT, Status.COST, Status.STEP, Status.STALLED)
SLACK = 4  # times the rounding error that the cost may seem to rise by: it is a difference of two such costs


class Rest(NamedTuple):
    """What is known of the problems at rest."""

    eligible: Tensor  # (...,) bool, for another step
    linearization: Linearization | None = None


def polish(problem: Problem, method: Method, state: State) -> State:
    """Polish the problems that have come to rest; their last D is that of the measure."""
    assert state.status is not None
    eligible = among(state.status, POLISHED)
    count = int(eligible.sum()) if state.ended is None else int(state.ended in POLISHED)
    if count == 0:
        return state
    eps = problem.eps(state.x)
    working = WorkingSet(state)
    problem, method, state, rest = working.thin(
        problem, method, state, eligible, count, Rest(eligible)
    )
    rest = rest._replace(linearization=problem.linearize(state.x))
    for _ in range(method.polish):
        eligible, linearization = rest
        assert linearization is not None
        assert state.scale is not None
        assert state.cost is not None
        assert state.trials is not None
        assert state.linearizations is not None
        scale = positive(state.scale)
        step = method.solver.factor(linearization, scale).step(torch.zeros_like(linearization.cost))
        finite = step.isfinite().all(-1) & eligible
        trial = problem.move(state.x, torch.where(finite[..., None], step, 0.0))
        ahead = problem.linearize(trial)
        noise = SLACK * rounding(linearization, state.x.to(problem.dtype), eps)
        better = finite & (_measure(ahead, scale) < _measure(linearization, scale))
        better = better & (ahead.cost <= linearization.cost + noise)
        state = state._replace(
            x=select(better, trial, state.x),
            cost=torch.where(better, ahead.cost, state.cost),
            trials=state.trials + eligible,
            linearizations=state.linearizations + eligible,
        )
        count = int(better.sum())
        if count == 0:
            break
        rest = Rest(better, select(better, ahead, linearization))
        problem, method, state, rest = working.thin(problem, method, state, better, count, rest)
    return working.all(state)


def _measure(linearization: Linearization, scale: Tensor) -> Tensor:
    """‖D⁻¹Jᵀr‖, (...,)."""
    return torch.linalg.vector_norm(linearization.gradient / scale, dim=-1)
