"""Every member by its name: here a string becomes the object.

A new member that is to have a name has its line here. What "auto" chooses is decided in
`planning.py`.
"""

from collections.abc import Callable

from torch import Tensor

from ..damping.base import Damping
from ..damping.marquardt import Marquardt
from ..damping.nielsen import Nielsen
from ..damping.scaling import CurrentNorms, Levenberg, More, Scaling
from ..damping.trust_region import TrustRegion
from ..jacobians.finite_difference import FiniteDifference
from ..linearizations.blocks import BlocksForm
from ..losses.base import Rho
from ..losses.robust import Barron, arctan, cauchy, geman_mcclure, huber, soft_l1, tukey
from ..solvers.base import Solver
from ..solvers.cholesky import Cholesky
from ..solvers.conjugate_gradients import ConjugateGradients
from ..solvers.dual import Dual
from ..solvers.preconditioners import Jacobi, KroneckerFactors, Nystrom, Preconditioner, Scales
from ..solvers.qr import QR
from ..solvers.row_sample import RowSample
from ..solvers.schur import Schur
from ..solvers.svd import SVD

SOLVERS: dict[str, Solver] = {
    "cholesky": Cholesky(),
    "qr": QR(),
    "svd": SVD(),
    "dual": Dual(),
    "cg": ConjugateGradients(),
}
# of conjugate gradients: ConjugateGradients(preconditioner=PRECONDITIONERS["nystrom"])
PRECONDITIONERS: dict[str, Preconditioner] = {
    "scales": Scales(),
    "jacobi": Jacobi(),
    "nystrom": Nystrom(),
    "layers": KroneckerFactors(),
    "rows": RowSample(),
}
DAMPINGS: dict[str, Damping] = {
    "trust_region": TrustRegion(),
    "nielsen": Nielsen(),
    "marquardt": Marquardt(),
}
SCALINGS: dict[str, Scaling] = {
    "more": More(),
    "levenberg": Levenberg(),
    "marquardt": CurrentNorms(),
}
RHOS: dict[str, Callable[[Tensor], Rho]] = {
    "soft_l1": soft_l1,
    "huber": huber,
    "cauchy": cauchy,
    "arctan": arctan,
    "tukey": tukey,
    "geman_mcclure": geman_mcclure,
    "barron": Barron(),
}
DIFFERENCES = {"2-point": FiniteDifference("2-point"), "3-point": FiniteDifference("3-point")}
SOURCES = ("forward", "reverse", "per_sample", "autograd", *DIFFERENCES)


def elimination(own: int) -> Solver:
    """What eliminates the variables that single points have, so many each: errors in x."""
    return Schur(BlocksForm(own))
