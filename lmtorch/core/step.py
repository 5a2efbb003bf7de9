"""A step: what the damping proposes, where it leads, and what the box and the dtype leave of it."""

from typing import Any, NamedTuple

from torch import Tensor

from ..arrays import all_finite, spread, to_type, where
from ..damping.base import Damping, LinearModel, Proposal
from .problem import Problem
from .state import State


class Step(NamedTuple):
    """A step from x to a trial point."""

    proposed: Tensor  # (..., n), zero where it could not be solved for
    solved: Tensor  # (...,) bool: the problem is running, and its step is finite
    trial: Tensor  # (..., n), the point to try, in the dtype of the parameters
    taken: Tensor  # (..., n), what the box and rounding left of the step: trial − x
    linear: Tensor  # (..., n), the part of `taken` that the linear model makes a promise for


def propose(
    problem: Problem, strategy: Damping, state: State, model: LinearModel, running: Tensor
) -> tuple[Step, Any]:
    """The next step of the running problems, and the damping's state with the λ that made it."""
    step, damping, linear = Proposal(*strategy.propose(model, state.damping))
    solved = all_finite(step) & running  # a factorisation that failed leaves NaN
    step = where(spread(solved), step, 0.0)  # the user's function never sees a NaN of ours
    trial = problem.move(state.x, step)
    taken = to_type(trial, problem.dtype) - to_type(state.x, problem.dtype)
    if linear is None:
        return Step(step, solved, trial, taken, taken), damping
    part = problem.move(state.x, where(spread(solved), linear, 0.0))
    return Step(step, solved, trial, taken, to_type(part, problem.dtype) - state.x), damping


def made(problem: Problem, step: Step) -> Tensor:
    """The step that was taken, as it would have been at a rate of one, (..., n).

    Zero where the rate is zero: nothing was taken there.
    """
    if problem.rate is None:
        return step.taken
    return where(problem.rate == 0, 0.0, step.taken / problem.rate)
