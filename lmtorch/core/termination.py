"""When to stop, and what may be said of the point: a status, and the evidence for it.

The tests here cost nothing beyond the trial. They say when to stop; whether the point is a minimum is for
`core/certificate.py` to say, which looks at the point itself and may take a success back or grant one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import torch
from torch import Tensor

from ..linearizations.base import Linearization, optimality


class Status(IntEnum):
    """Where a minimisation stands: scipy's numbers where scipy has one, and positive ones for success alone.

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
    Status.EVALUATIONS: "out of evaluations: max_nfev is spent, and the last steps still gained",
    Status.STOPPED: "stopped by the callback",
    Status.STALLED: "stalled at round-off: what is left to gain is less than the cost's own rounding error",
    Status.REFUSED: "refused: no trial of this step lowered the cost; the damping is kept for the next step",
    Status.FLAT: "flat: no parameter has any influence there; J is zero, or f_scale is so small that all is rejected",
    Status.NOT_FINITE: "not finite: NaN or infinity among the residuals or their derivatives at the current parameters",
    Status.SADDLE: "saddle: the gradient vanishes, but the cost curves downward in some direction: no minimum",
    Status.VALLEY: "valley: the steps became short, but a model of the cost still promises a decrease: no minimum",
    Status.LOST: "lost: a parameter has run to where it has no influence any more: no minimum",
    Status.SLOW: "slow: the cost hardly falls any more, but nothing shows a minimum",
    Status.POOR: "poor: a minimum, but it explains less than a constant would, and no other start led to a better one",
}


def among(status: Tensor, chosen: Sequence[Status]) -> Tensor:
    """Which problems stand at one of these, (...,) bool."""
    return torch.stack([status == s for s in chosen]).any(0)


@dataclass(frozen=True)
class Tolerances:
    """When a minimisation has converged; each is relative and without units.

    Args:
        cost: decrease of the cost, both found and promised by the linear model, over the cost.
        step: length of the step beside that of the parameters, see `step_lengths`.
        gradient: largest cosine between the residuals and a column of the Jacobian.
    """

    cost: float = 1e-10
    step: float = 1e-10
    gradient: float = 1e-10


SLACK = 1e3  # by which what a single parameter promises may exceed the tolerance at a minimum


def rounding(linearization: Linearization, x: Tensor, eps: float) -> Tensor:
    """How far round-off alone may move the cost, (...,): ε (F + ‖r‖ ‖J∘x‖).

    A relative change ε of each parameter, which is what storing them costs, moves the residuals by up to
    ε Σ ‖J e_j‖ |x_j|, and so the cost by up to ‖r‖ times that.
    """
    moved = torch.linalg.vector_norm(linearization.column_norms * x, dim=-1).to(
        linearization.cost.dtype
    )
    return eps * (linearization.cost + (2 * linearization.cost).sqrt() * moved)


def carried(linearization: Linearization, x: Tensor) -> Tensor:
    """‖r‖ + ‖J∘x‖, (...,): of ε of that size is what rounding x and r costs an entry of the scaled gradient."""
    length = (2 * linearization.cost).sqrt().to(x.dtype)
    return length + torch.linalg.vector_norm(linearization.column_norms * x, dim=-1)


def step_lengths(linearization: Linearization, x: Tensor, step: Tensor) -> Tensor:
    """The longest of a step's entries, each beside its parameter, (...,): max |s_j| / max(|x_j|, ‖r‖ / ‖J e_j‖).

    The second length is the one by which the parameter, moved alone, changes the residuals by as much as they are: it
    stands where a parameter is zero. No norm over all parameters will do, as ‖D s‖ / ‖D x‖ in MINPACK: one that runs
    away makes ‖D x‖ so large that every step is short beside it.
    """
    norms = linearization.column_norms
    alone = (2 * linearization.cost).sqrt()[..., None].to(norms.dtype) / norms
    beside = torch.where(norms > 0, torch.maximum(x.abs(), alone), torch.inf)
    return torch.where(step == 0, 0.0, step.abs() / beside).amax(-1).to(linearization.cost.dtype)


def at_point(linearization: Linearization, tolerances: Tolerances, norms: Tensor) -> Tensor:
    """The status of a point by itself, (...,); `norms` (..., n) are ‖J e_j‖, those of variables held at bounds too."""
    cost, gradient = linearization.cost, linearization.gradient
    status = torch.full_like(cost, Status.RUNNING, dtype=torch.int64)
    status = torch.where(optimality(linearization) <= tolerances.gradient, Status.GRADIENT, status)
    # no column of J is orthogonal to anything where all are zero
    status = torch.where((norms == 0).all(-1), Status.FLAT, status)
    status = torch.where(cost <= torch.finfo(gradient.dtype).tiny, Status.ZERO, status)
    finite = (
        cost.isfinite()
        & gradient.isfinite().all(-1)
        & linearization.column_norms.isfinite().all(-1)
    )
    return torch.where(finite, status, Status.NOT_FINITE)


NOTHING = 1e-4  # of the tolerance: a promise that is never worth an evaluation


def not_worth_a_trial(tolerances: Tolerances, cost: Tensor, promised: Tensor) -> Tensor:
    """Whether the next step, undamped, is promised so little that the fit has converged without it, (...,) bool.

    Args:
        tolerances: in which the cost's is a share of it.
        cost: at the point, (...,).
        promised: decrease of the cost, (...,).
    """
    return promised <= NOTHING * tolerances.cost * cost


def after_trial(
    tolerances: Tolerances,
    eps: float,  # of the dtype in which the residuals are evaluated
    cost: Tensor,  # (...,), before the trial
    actual: Tensor,  # (...,)
    predicted: Tensor,  # (...,)
    relative_step: Tensor,  # (...,), `step_lengths`
    accepted: Tensor,  # (...,)
    noise: Tensor,  # (...,), `rounding`
    cosine: Tensor,  # (...,), `optimality` before the trial
    relative_alone: Tensor,  # (...,), `step_lengths` of the best moves of single parameters
    trusting: Tensor,  # (...,), a refused trial that promised nothing is enough to stop
) -> Tensor:
    """The status after a trial, (...,)."""

    def within(change: Tensor, tolerance: float) -> Tensor:
        return (change <= tolerance) & accepted

    status = torch.full_like(cost, Status.RUNNING, dtype=torch.int64)
    # what the dtype cannot resolve cannot be called converged: tolerances below ε say "stalled" from ε on
    change = torch.maximum(actual, predicted) / cost
    status = torch.where(within(change, eps) | within(relative_step, eps), Status.STALLED, status)
    # one parameter alone, moved to its best, lowers the linear model's cost by cos² F: where that, or the way to it, is
    # far more than the tolerance, the step was short because the damping was high, and it says nothing of a minimum
    flat = cosine.square() <= SLACK * max(tolerances.cost, eps)
    close = relative_alone <= SLACK * max(tolerances.step, eps)
    status = torch.where(
        within(relative_step, tolerances.step) & (flat | close), Status.STEP, status
    )
    status = torch.where(within(change, tolerances.cost) & (flat | close), Status.COST, status)
    # a promise far below zero is a step badly solved for, which more damping heals: no stall. Nor is it one where the
    # region is so small that the step promises nothing, but a single parameter, moved to its best, still would
    little = cosine.square() * cost <= SLACK * noise
    return torch.where(
        ~accepted & (predicted.abs() <= noise) & (little | trusting), Status.STALLED, status
    )
