"""Who solves the damped equations."""

from .base import Factor as Factor
from .base import Solver as Solver
from .base import length_by_solving as length_by_solving
from .cholesky import Cholesky as Cholesky
from .conjugate_gradients import ConjugateGradients as ConjugateGradients
from .dual import Dual as Dual
from .preconditioners import Jacobi as Jacobi
from .preconditioners import KroneckerFactors as KroneckerFactors
from .preconditioners import Nystrom as Nystrom
from .preconditioners import Scales as Scales
from .qr import QR as QR
from .row_sample import RowSample as RowSample
from .svd import SVD as SVD
