"""Levenberg–Marquardt for PyTorch: sums of squares, from a curve of three parameters to a network.

`LevenbergMarquardt` is a `torch.optim.Optimizer` whose closure returns residuals instead of a loss.
"""

from . import models as models
from ._errors import FallbackWarning as FallbackWarning
from ._errors import InputError as InputError
from ._errors import NotConvergedError as NotConvergedError
from ._errors import RankError as RankError
from ._errors import ZeroDerivativeWarning as ZeroDerivativeWarning
from .core.report import Report as Report
from .core.termination import Status as Status
from .derivatives import DerivativeCheck as DerivativeCheck
from .derivatives import ValueJacobianHessian as ValueJacobianHessian
from .derivatives import batch_hessian as batch_hessian
from .derivatives import batch_jacobian as batch_jacobian
from .derivatives import check_derivatives as check_derivatives
from .derivatives import curl as curl
from .derivatives import divergence as divergence
from .derivatives import finite_difference_jacobian as finite_difference_jacobian
from .derivatives import gradient as gradient
from .derivatives import hessian as hessian
from .derivatives import hessian_diagonal as hessian_diagonal
from .derivatives import hvp as hvp
from .derivatives import jacobian as jacobian
from .derivatives import jvp as jvp
from .derivatives import laplacian as laplacian
from .derivatives import parameter_column as parameter_column
from .derivatives import parameter_jacobian as parameter_jacobian
from .derivatives import second_directional_derivative as second_directional_derivative
from .derivatives import value_jacobian_hessian as value_jacobian_hessian
from .derivatives import vjp as vjp
from .fitting.curve_fit import curve_fit as curve_fit
from .fitting.loading import load as load
from .fitting.orthogonal.fit import OrthogonalFit as OrthogonalFit
from .fitting.orthogonal.odr import odr as odr
from .fitting.results.result import CurveFit as CurveFit
from .losses import BCEWithLogitsLoss as BCEWithLogitsLoss
from .losses import BinomialNLLLoss as BinomialNLLLoss
from .losses import CrossEntropyLoss as CrossEntropyLoss
from .losses import GaussianNLLLoss as GaussianNLLLoss
from .losses import MSELoss as MSELoss
from .losses import NegativeBinomialNLLLoss as NegativeBinomialNLLLoss
from .losses import PoissonNLLLoss as PoissonNLLLoss
from .minimising.least_squares import least_squares as least_squares
from .minimising.leastsq import leastsq as leastsq
from .minimising.solution import Solution as Solution
from .minimising.watch import Iterate as Iterate
from .training.optimizer import LevenbergMarquardt as LevenbergMarquardt

__version__ = "0.1.0"
