"""Where a minimisation stands."""

from typing import Any, NamedTuple

from torch import Tensor


class Trial(NamedTuple):
    """What the last trial showed, (...,) each."""

    accepted: Tensor
    ratio: Tensor
    length: Tensor  # ‖s‖ of the step that was tried
    damping: Tensor  # λ that made it
    optimality: Tensor  # scaled gradient where the linear model was made
    cost: Tensor  # there


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
    seconds: Seconds = Seconds()
