"""Where a minimisation stands."""

from typing import Any, NamedTuple

from torch import Tensor

from ..damping.base import Outcome


class Trial(NamedTuple):
    """What the last trial showed, (...,) each."""

    accepted: Tensor
    ratio: Tensor
    length: Tensor  # ‖s‖ of the step that was tried
    damping: Tensor  # λ that made it
    optimality: Tensor  # scaled gradient where the linear model was made
    cost: Tensor  # there


class Tried(NamedTuple):
    """The last trial, as the damping sees it."""

    damping: Any  # the strategy's state that made the step
    outcome: Outcome


class Certificate(NamedTuple):
    """What was seen at the end of a run, see `core/certificate.py`; NaN where nothing was looked at."""

    promise: (
        Tensor  # (...,), share of the cost that the quadratic model without damping still promises
    )
    lowest: Tensor  # (...,), smallest curvature, where the largest is about one
    downward: Tensor  # (..., n), the direction of it
    lost: Tensor  # (..., n) bool, parameters that have no influence any more
    blind: Tensor  # (...,) bool: curvatures are below round-off in single precision, and hide what they promise


class Begun(NamedTuple):
    """Where a run began: what a parameter has lost is measured by what it had."""

    x: Tensor  # (..., n)
    cost: Tensor  # (...,)
    norms: Tensor  # (..., n), ‖J e_j‖


class Seconds(NamedTuple):
    """Wall-clock of the parts; on a GPU the time that it took to queue them."""

    linearize: float = 0.0
    solve: float = 0.0
    trial: float = 0.0


class State(NamedTuple):
    """Where a minimisation stands: enough to go on from."""

    x: Tensor  # (..., n)
    cost: Tensor | None = None  # (...,), F(x)
    scale: Tensor | None = None  # (..., n), as the scaling left it; None: none yet
    damping: Any = None  # the strategy's own NamedTuple, or its fields in a dict; None: none yet
    status: Tensor | None = None  # (...,) int
    trial: Trial | None = None
    trials: Tensor | None = None  # (...,) int, evaluations at trial points
    linearizations: Tensor | None = None  # (...,) int
    begun: Begun | None = None
    certificate: Certificate | None = None
    stale: Tensor | None = (
        None  # (...,) bool: went back to x after the linear model was made elsewhere
    )
    tried: Tried | None = None
    seconds: Seconds = Seconds()
    # what the host knows, from its one read of a trial
    ended: int | None = None  # of one problem: the status with which the run ended
    gain: float = float("nan")  # of one problem: the gain ratio of the last trial
    resting: bool = False  # all learning rates are zero: nothing was tried in earnest
