"""What the user has asked for, checked before any work."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeGuard

import torch.nn.functional as F
from torch.nn.modules.loss import _Loss

from .._checks import choice, count, member, number, positive, tolerance
from .._errors import InputError
from ..damping.base import Damping
from ..damping.scaling import Scaling
from ..jacobians.base import JacobianSource
from ..losses.base import Loss
from ..losses.criterion import Criterion
from ..losses.linear import Linear
from ..losses.robust import Robust, given_rho
from ..solvers.base import Solver
from .members import DAMPINGS, RHOS, SCALINGS, SOLVERS, SOURCES

# up to so many parameters a problem is taken for a curve fit: trust region, Moré's D, float64
SMALL = 64
POLISH = 60  # Gauss–Newton steps at most; a large residual makes them converge linearly
# scale of a loss: beyond it every residual is small, and its square must be a number
LARGEST = 1e100
CURVATURES = ("auto", "full", "sampled")
PRECISIONS = ("auto", "single", "mixed", "double")

OTHERWISE = {  # what is asked for as a loss, and is called otherwise
    "bisquare": " Tukey's bisquare is 'tukey'.",
    "biweight": " Tukey's biweight is 'tukey'.",
    "mse": " Squares are 'linear'.",
    "poisson": " Of counts give likelihood='poisson' to curve_fit.",
    "binomial": " Give likelihood='binomial' to curve_fit.",
}


@dataclass(frozen=True)
class Options:
    """What the user asked for."""

    solver: str | Solver = "auto"
    damping: str | Damping = "auto"
    scaling: str | Scaling = "auto"
    jacobian: str | JacobianSource | Callable[..., Any] = "auto"
    curvature: str = "auto"
    acceleration: bool | str = "auto"
    loss: str | Loss | Callable[..., Any] = "linear"
    loss_scale: float = 1.0
    ftol: float | None = None
    xtol: float | None = None
    gtol: float | None = None
    polish: int | None = None
    memory_limit: int | None = None
    precision: str = "auto"
    momentum: float | str | None = None  # None: of one run there is none
    certified: int = SMALL  # parameters up to which the end of a run is looked at

    def __post_init__(self) -> None:
        """Check them before any work, and keep numbers as numbers."""
        for name, known, verb, function in (
            ("solver", SOLVERS, "factor", False),
            ("damping", DAMPINGS, "propose", False),
            ("scaling", SCALINGS, "update", False),
            ("jacobian", SOURCES, "blocks", True),
            ("loss", ("linear", *RHOS), "expand", True),
        ):
            if (value := getattr(self, name)) is not type(self).__dict__[name]:
                hint = OTHERWISE.get(value, "") if isinstance(value, str) else ""
                if name == "damping" and isinstance(value, int | float):
                    hint = f" For a λ₀ of one's own: lmtorch.damping.Nielsen(initial={value})."
                member(value, name, ("auto", *known), verb, function=function, hint=hint)
        _no_criterion(self.loss)
        choice(self.curvature, "curvature", CURVATURES)
        choice(self.precision, "precision", PRECISIONS)
        accelerated: Any = self.acceleration  # whatever a caller without a type checker passes
        if not isinstance(accelerated, bool) and not (
            isinstance(accelerated, str) and accelerated == "auto"
        ):
            raise InputError(f"acceleration={accelerated!r} must be True, False or 'auto'.")
        self._keep("momentum", _share_of_a_step(self.momentum))
        self._keep("loss_scale", positive(self.loss_scale, "loss_scale"))
        for name in ("ftol", "xtol", "gtol"):
            self._keep(name, tolerance(getattr(self, name), name))
        for name, least in (("polish", 0), ("memory_limit", 1)):
            if getattr(self, name) is not None:
                self._keep(name, count(getattr(self, name), name, least, ", or None"))

    @property
    def plain(self) -> bool:
        """Whether all of them are names and numbers, and none is an object that may change."""
        return all(isinstance(value, str | int | float | None) for value in vars(self).values())

    def _keep(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)


def _no_criterion(loss: Any) -> None:
    """See that the loss is no loss of outputs and targets.

    Raises:
        InputError: it is.
    """
    of_torchs = isinstance(loss, _Loss) or getattr(loss, "__module__", "") == F.__name__
    if of_torchs or isinstance(loss, Criterion):
        raise InputError(
            f"loss={loss!r} is a loss of outputs and targets, and `loss` says what a residual "
            "costs. Leave it out for squares, or take 'huber' or 'soft_l1'; a criterion such as "
            "lmtorch.CrossEntropyLoss is called in the closure."
        )


def _share_of_a_step(momentum: Any) -> float | str | None:
    """Check the momentum that was asked for.

    Raises:
        InputError: it is no share.
    """
    if momentum is None or (isinstance(momentum, str) and momentum == "auto"):
        return momentum
    found = number(momentum, "momentum", "must be 'auto' or a number from 0 to below 1")
    if not 0 <= found < 1:
        raise InputError(
            f"momentum={momentum!r} must be 'auto' or a number from 0 to below 1: it is the share "
            "of the last step that the next one begins with."
        )
    return found


def loss(options: Options) -> Loss:
    """The loss by name or as given."""
    scale = min(options.loss_scale, LARGEST)
    if isinstance(options.loss, str):
        return Linear() if options.loss in ("linear", "auto") else Robust(RHOS[options.loss], scale)
    if _whole(options.loss):
        return options.loss
    assert callable(options.loss)
    return Robust(given_rho(options.loss), scale)


def _whole(loss: Loss | Callable[..., Any]) -> TypeGuard[Loss]:
    """Whether it is a loss, and not its ρ alone."""
    return hasattr(loss, "expand")
