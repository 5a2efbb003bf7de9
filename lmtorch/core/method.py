"""A known method is a choice of each: who solves, who damps, what is a long step, when to stop."""

from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from ..damping.base import Damping
from ..damping.scaling import Scaling
from ..solvers.base import Solver
from .termination import Tolerances


@dataclass(frozen=True)
class Method:
    """Everything about a run but the problem.

    Moré's method, for example, is `Method(SVD(), TrustRegion(), More())`, and Nielsen's
    `Method(Cholesky(), Nielsen(), Levenberg())`.

    Args:
        solver: solves the damped equations.
        damping: proposes steps.
        scaling: makes D.
        tolerances: when to stop.
        polish: Gauss–Newton and Newton steps at most after convergence, see `core/polish.py` and
            `core/certificate.py`.
        certify: whether the end of a run is looked at, see `core/certificate.py`.
        asks: whether what claims to have converged is asked for a step without damping, see
            `core/last_step.py`.
        patience: share of the cost that 32 trials together must gain; 0: any.
        windows: after so many times 32 trials in a row that gained less, the run is given up; one
            number, or (b,) for each problem of a batch.
        slopes: relative error of the derivatives beyond round-off, as finite differences have it.
        frugal: evaluations are dear: no trial is made that promises next to nothing, and what is
            certified is not polished.
        careful: solves where `solver`, which is quick, has too few digits: what is not at a minimum
            beyond doubt after a glance, see `core/glance.py`, is polished with it. None: no glance.
        momentum: μ, the share of the last step that the first one of a run begins with where the
            data have changed since, see `core/momentum.py`.
        steady: also where they have not.
    """

    solver: Solver
    damping: Damping
    scaling: Scaling
    tolerances: Tolerances = Tolerances()
    polish: int = 0
    certify: bool = False
    asks: bool = False
    patience: float = 0.0
    windows: int | Tensor = 3
    slopes: float = 0.0
    frugal: bool = False
    careful: Solver | None = None
    momentum: float = 0.0
    steady: bool = False

    def take(self, places: Any) -> "Method":
        """The method of some problems of a batch (b,), by their numbers (k,).

        A member that knows a number for each problem, such as a fixed D, has a `take` of its own.
        """
        members: dict[str, Any] = {
            "solver": self.solver,
            "careful": self.careful,
            "damping": self.damping,
            "scaling": self.scaling,
        }
        some: dict[str, Any] = {
            name: member.take(places) for name, member in members.items() if hasattr(member, "take")
        }
        if isinstance(self.windows, Tensor):
            some["windows"] = self.windows[places]
        return replace(self, **some) if some else self
