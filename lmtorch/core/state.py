"""What a run starts from, where much may be missing, and where it stands, where nothing is."""

from typing import Any, NamedTuple

from torch import Tensor

from ..arrays import never, some, unseen, zeros
from ..damping.base import Outcome


class Trial(NamedTuple):
    """What the last trial showed, (...,) each."""

    accepted: Tensor
    ratio: Tensor  # decrease of the cost over the one that the linear model promised
    length: Tensor  # ‖s‖ of the step that was tried
    damping: Tensor  # λ that made it
    optimality: Tensor  # scaled gradient where the linear model was made
    cost: Tensor  # F where the linear model was made


class Tried(NamedTuple):
    """The last trial, as the damping sees it."""

    damping: Any  # the strategy's state that made the step
    outcome: Outcome
    ahead: Any = None  # the linear model at the trial, where it is made together with its cost


class Certificate(NamedTuple):
    """What was seen at the end of a run, see `core/certificate.py`; NaN where nobody looked."""

    promise: Tensor  # (...,), share of the cost that the undamped quadratic model still promises
    lowest: Tensor  # (...,), smallest curvature, where the largest is about one
    # (..., n), direction of the smallest curvature; from where a parameter is lost to where it is
    # not, or zero
    downward: Tensor
    lost: Tensor  # (..., n) bool, parameters that have no influence any more
    # (...,) bool: in single precision curvatures are below round-off, and hide what they promise
    blind: Tensor


class Begun(NamedTuple):
    """Where a run began: what a parameter has lost is measured by what it had."""

    x: Tensor  # (..., n)
    cost: Tensor  # (...,)
    norms: Tensor  # (..., n), ‖J e_j‖


class Start(NamedTuple):
    """What a run starts from: a point, and what an earlier run has left."""

    x: Tensor  # (..., n)
    scale: Tensor | None = None  # (..., n), D as the scaling left it, zero where unknown
    damping: Any = None  # the state of the damping strategy, a NamedTuple; None: none yet
    begun: Begun | None = None  # where the first of several runs began; None: this is the first
    # (..., n), the last step that an earlier run has kept, zero: none yet; None: nobody asks for it
    step: Tensor | None = None
    # (...,), F where an earlier run has ended, on its data; None: nobody asks whether they changed
    cost: Tensor | None = None


class State(NamedTuple):
    """Where a minimisation stands: tensors alone, all of them there but a step not asked for."""

    x: Tensor  # (..., n)
    cost: Tensor  # (...,), F(x)
    status: Tensor  # (...,) int
    scale: Tensor  # (..., n), D as the scaling left it
    damping: Any  # the strategy's NamedTuple of tensors; None once runs of several were merged
    trial: Trial
    trials: Tensor  # (...,) int, evaluations at trial points
    linearizations: Tensor  # (...,) int
    stale: Tensor  # (...,) bool: x went back after the linear model was made elsewhere
    begun: Begun
    certificate: Certificate
    # (..., n), the last step that was kept, as it would be at a rate of one; None: as in `Start`
    step: Tensor | None = None
    # (...,) bool: the data are not those of the run before; None: as in `Start`
    changed: Tensor | None = None


class Told(NamedTuple):
    """What the host knows of the state from its one read of a trial."""

    moved: bool = False  # a problem needs a new linear model
    running: int = 0  # problems that are not done
    ended: int | None = None  # the status with which the run ended; None: many problems, or unread
    gain: float = float("nan")  # gain ratio of the last trial; NaN: of many problems
    resting: bool = False  # all learning rates are zero: nothing was tried in earnest


def fresh(
    x: Tensor,
    cost: Tensor,
    status: Tensor,
    scale: Tensor,
    damping: Any,
    begun: Begun,
    step: Tensor | None = None,
    changed: Tensor | None = None,
) -> State:
    """The state before the first trial: what has not happened yet is there, and neutral.

    Args:
        x: where the run starts, (..., n).
        cost: F(x), (...,).
        status: what the point itself says, (...,).
        scale: D, (..., n).
        damping: the strategy's.
        begun: where the first run began.
        step: the last one of an earlier run, as in `Start`.
        changed: whether the data are not those of that run.
    """
    zero, none, nowhere = zeros(cost), zeros(status), never(cost)
    return State(
        x,
        cost,
        status,
        scale,
        damping,
        trial=Trial(nowhere, zero, zero, zero, zero, cost),
        trials=none,
        linearizations=none + 1,
        stale=nowhere,
        begun=begun,
        certificate=blank(x),
        step=step,
        changed=changed,
    )


def blank(x: Tensor) -> Certificate:
    """The certificate of points x (..., n) at which nobody has looked."""
    nothing, none = unseen(x), never(x)
    return Certificate(nothing, nothing, zeros(x), none, some(none))
