"""A known method is a combination of choices: who solves, who damps, what is a long step, when to stop."""

from dataclasses import dataclass

from ..damping.base import Damping
from ..damping.scaling import Scaling
from ..solvers.base import Solver
from .termination import Tolerances


@dataclass(frozen=True)
class Method:
    """For example `Method(SVD(), TrustRegion(), More())`, Moré's; `Method(Cholesky(), Nielsen(), Levenberg())`.

    Args:
        solver: of the damped equations.
        damping: proposes steps.
        scaling: makes D.
        tolerances: when to stop.
        polish: Gauss–Newton steps at most after convergence, see `core/polish.py`.
    """

    solver: Solver
    damping: Damping
    scaling: Scaling
    tolerances: Tolerances = Tolerances()
    polish: int = 0
