"""When to stop: the evidence that a point and a trial give, and the status that follows from it.

These tests cost no evaluation. They say when to stop; whether the point is a minimum is for
`core/certificate.py` to say, which looks at the point itself and may take a success back or grant
one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

import torch
from torch import Tensor

from ..arrays import (
    every,
    filled,
    finite,
    maximum,
    never,
    nowhere,
    on_numpy,
    seen,
    smallest,
    some,
    statuses,
    to_type,
    where,
)
from ..damping.base import LinearModel, Outcome
from ..linearizations.base import (
    Linearization,
    Measures,
    longest_single_move,
    predicted_decrease,
    relative_length,
)
from .bounds import Bounds
from .problem import Problem
from .state import State
from .step import Step


class Status(IntEnum):
    """Where a minimisation stands: scipy's numbers if it has one, positive ones for success alone.

    Example:
        >>> Status.COST.converged, Status.STALLED.converged, Status.STALLED.final
        (True, False, True)
        >>> print(Status.GRADIENT.message)
        converged: the residuals are orthogonal to the columns of the Jacobian
        >>> print(Status.SADDLE.message)
        saddle: the gradient vanishes, but the cost curves downward in some direction: no minimum
    """

    GRADIENT = 1
    COST = 2
    STEP = 3
    ZERO = 5  # 4 is scipy's "both cost and step"
    MINIMUM = 6
    RUNAWAY = 7
    EVALUATIONS = 0
    STOPPED = -2  # -1 is MINPACK's improper input, which is an exception here
    STALLED = -3
    REFUSED = -4
    NOT_FINITE = -5
    FLAT = -6
    RUNNING = -7
    SADDLE = -8
    VALLEY = -9
    LOST = -10
    POOR = -11
    SLOW = -12

    @property
    def converged(self) -> bool:
        """A minimum was found, to the tolerances."""
        return self > 0

    @property
    def final(self) -> bool:
        """Nothing is to be gained from further steps on the same data."""
        return self is not Status.RUNNING

    @property
    def message(self) -> str:
        """The status in words."""
        return _MESSAGES[self]


_MESSAGES = {
    Status.RUNNING: "running: the last step was taken and there is more to gain",
    Status.GRADIENT: "converged: the residuals are orthogonal to the columns of the Jacobian",
    Status.COST: "converged: neither the last step nor the linear model changes the cost any more",
    Status.STEP: "converged: the last step did not change the parameters any more",
    Status.ZERO: "converged: the residuals are zero",
    Status.MINIMUM: "converged: what the model of second order still promises is below round-off",
    Status.RUNAWAY: (
        "converged, but a parameter has run away: the curve hardly depends on it there, and the "
        "cost falls towards its infinity, if at all"
    ),
    Status.EVALUATIONS: "out of evaluations: max_nfev is spent, and the last steps still gained",
    Status.STOPPED: "stopped by the callback",
    Status.STALLED: (
        "stalled at round-off: what is left to gain is less than the cost's own rounding error"
    ),
    Status.REFUSED: (
        "refused: no trial of this step lowered the cost; the damping is kept for the next step"
    ),
    Status.FLAT: (
        "flat: no parameter has any influence there; J is zero, or f_scale is so small that all "
        "is rejected"
    ),
    Status.NOT_FINITE: (
        "not finite: NaN or infinity among the residuals or their derivatives at the current "
        "parameters"
    ),
    Status.SADDLE: (
        "saddle: the gradient vanishes, but the cost curves downward in some direction: no minimum"
    ),
    Status.VALLEY: (
        "valley: the steps became short, but a model of the cost still promises a decrease: no "
        "minimum"
    ),
    Status.LOST: "lost: a parameter has run to where it has no influence any more: no minimum",
    Status.SLOW: "slow: the cost hardly falls any more, but nothing shows a minimum",
    Status.POOR: (
        "poor: a minimum, but it explains less than a constant would, and no other start led to a "
        "better one"
    ),
}


# plain ints: torch.compile gets it wrong where a tensor meets a member of an enum
RUNNING, NOT_FINITE = int(Status.RUNNING), int(Status.NOT_FINITE)
GRADIENT, COST, STEP, ZERO = (
    int(s) for s in (Status.GRADIENT, Status.COST, Status.STEP, Status.ZERO)
)
FLAT, STALLED = int(Status.FLAT), int(Status.STALLED)


def among(status: Tensor, chosen: Sequence[Status]) -> Tensor:
    """Which problems stand at one of these, (...,) bool."""
    found = status == int(chosen[0])
    for other in chosen[1:]:
        found = found | (status == int(other))
    return found


def at_rest(
    status: Tensor, chosen: Sequence[Status], ended: int | None, able: Tensor | None = None
) -> tuple[Tensor, int]:
    """Which problems have ended at one of these, (...,) bool, and how many.

    Args:
        status: of all problems, (...,).
        chosen: the statuses asked for.
        ended: the status of a single problem, if the host knows it: to read the number would wait
            for the device.
        able: (...,) bool, of which only these are meant; None: of all.
    """
    found = among(status, chosen)
    if able is not None:
        found = found & able
    if ended is not None:
        return found, int(ended in chosen)
    return found, int(seen(found)) if on_numpy(found) else int(found.sum())


@dataclass(frozen=True)
class Tolerances:
    """When a minimisation has converged; each is relative and without units.

    Args:
        cost: decrease of the cost over the cost, both the one found and the one that the linear
            model promised.
        step: length of the step beside that of the parameters, see `relative_length`.
        gradient: largest cosine between the residuals and a column of the Jacobian.
    """

    cost: float = 1e-10
    step: float = 1e-10
    gradient: float = 1e-10


# at a minimum, moving one parameter alone may still promise up to so many times the tolerance
SINGLE_MOVE_SLACK = 1e3
# share of the cost's tolerance up to which a promised decrease is not worth an evaluation
NOTHING = 1e-4


def at_point(
    linearization: Linearization, known: Measures, tolerances: Tolerances, norms: Tensor
) -> Tensor:
    """What a point says by itself.

    Args:
        linearization: the linear model there, with variables held at their bounds.
        known: its measures.
        tolerances: only the gradient's is used.
        norms: ‖J e_j‖ of all variables, held or not, (..., n).

    Returns:
        The status, (...,): RUNNING if there is no reason to stop.
    """
    cost, gradient = linearization.cost, linearization.gradient
    status = statuses(cost, RUNNING)
    status = where(known.optimality <= tolerances.gradient, GRADIENT, status)
    # no column of J is orthogonal to anything where all are zero
    status = where(every(norms == 0), FLAT, status)
    status = where(cost <= smallest(gradient.dtype), ZERO, status)
    return where(finite(cost) & known.finite, status, NOT_FINITE)


class Evidence(NamedTuple):
    """What a trial says about whether to go on, (...,) each."""

    cost: Tensor  # before the trial
    actual: Tensor  # decrease of the cost
    promised: Tensor  # decrease that the linear model promised of the whole step
    accepted: Tensor  # bool
    length: Tensor  # relative length of the step
    noise: Tensor  # how far round-off alone may move the cost
    optimality: Tensor  # cosine between the residuals and the best column of J, before the trial
    single_move: Tensor  # relative length of the longest best move of one parameter alone
    trusting: Tensor  # bool: a refused trial that promised nothing is enough to stop
    at_wall: Tensor  # bool: the trial has met a bound
    eps: float  # round-off of the residuals, relative


def gather(
    problem: Problem,
    tolerances: Tolerances,
    state: State,
    model: LinearModel,
    step: Step,
    outcome: Outcome,
    *,
    certified: bool,
) -> Evidence:
    """The evidence of one trial.

    Args:
        problem: what is minimised.
        tolerances: within which a step is short enough for a closer look.
        state: before the trial.
        model: the linear model that the step was made from.
        step: the step and its trial point.
        outcome: how the trial went.
        certified: the end of the run will be looked at once more.
    """
    x, eps = to_type(state.x, problem.dtype), problem.eps(state.x)
    linearization, known = model.linearization, model.measures
    # the whole step is judged: a small learning rate, or a wall that cut the step short, is no
    # convergence
    uncut = problem.rate is None and problem.bounds is None
    promised = outcome.predicted
    if not uncut:
        promised = to_type(predicted_decrease(linearization, step.proposed), promised.dtype)
    length = relative_length(linearization, x, step.taken if uncut else step.proposed)
    change = maximum(outcome.actual, promised)
    short = (length <= tolerances.step) | (change <= tolerances.cost * state.cost)
    # a long step does not ask how far a single parameter could move
    asked = not nowhere(short & outcome.accepted)
    alone = longest_single_move(linearization, x) if asked else filled(length, torch.inf)
    still = every(step.taken == 0)  # a step that changes nothing leaves nothing to try
    return Evidence(
        state.cost,
        outcome.actual,
        # a step that could not be solved for is no stall: the damping rises, and the next trial has
        # another chance
        where(step.solved, promised, torch.inf),
        outcome.accepted,
        length=length,
        noise=known.noise,
        optimality=known.optimality,
        single_move=alone,
        trusting=still | certified,
        at_wall=never(state.cost)
        if problem.bounds is None
        else _at_wall(problem.bounds, state.x, step.trial),
        eps=eps,
    )


def _at_wall(bounds: Bounds, x: Tensor, trial: Tensor) -> Tensor:
    """Whether a trial has met a bound that x did not touch, (...,) bool."""
    return some(bounds.touched(trial) & (trial != x))


def verdict(tolerances: Tolerances, seen: Evidence) -> Tensor:
    """The status after a trial, (...,): RUNNING where there is more to gain."""

    def within(change: Tensor, tolerance: float) -> Tensor:
        return (change <= tolerance) & seen.accepted

    status = statuses(seen.cost, RUNNING)
    # what the dtype cannot resolve cannot be called converged: tolerances below ε say "stalled"
    # from ε on
    change = maximum(seen.actual, seen.promised) / seen.cost
    stalled = within(change, seen.eps) | within(seen.length, seen.eps)
    # where the data are met exactly only round-off is left, and every step changes it
    drowned = (seen.cost <= seen.noise) & (seen.actual < seen.cost)  # what is zero has not stalled
    stalled = stalled | (seen.accepted & drowned)
    status = where(stalled, STALLED, status)
    # A short step proves a minimum only if no single parameter could still do much better. Its best
    # move lowers the model's cost by cos² F: if that, and the length of that move, are far above
    # the tolerance, the step was short because λ was large.
    share = seen.optimality * seen.optimality
    flat = share <= SINGLE_MOVE_SLACK * max(tolerances.cost, seen.eps)
    close = seen.single_move <= SINGLE_MOVE_SLACK * max(tolerances.step, seen.eps)
    status = where(within(seen.length, tolerances.step) & (flat | close), STEP, status)
    status = where(within(change, tolerances.cost) & (flat | close), COST, status)
    # A refused trial that promised nothing is a stall: unless the promise is far below zero, which
    # is a step badly solved for, and more damping heals it; or the region is so small that a single
    # parameter could still do better.
    little = share * seen.cost <= SINGLE_MOVE_SLACK * seen.noise
    empty = ~seen.accepted & (abs(seen.promised) <= seen.noise)
    status = where(empty & (little | seen.trusting), STALLED, status)
    # at a wall that has just been met derivatives may be of another kind
    return where(seen.accepted & seen.at_wall, RUNNING, status)
