"""Levenberg–Marquardt for PyTorch: sums of squares, from a curve of three parameters to a network.

`LevenbergMarquardt` is a `torch.optim.Optimizer` whose closure returns residuals instead of a loss.
"""

from importlib.metadata import version

from ._errors import FallbackWarning as FallbackWarning
from ._errors import InputError as InputError
from ._errors import NotConvergedError as NotConvergedError
from ._least_squares import least_squares as least_squares
from ._optimizer import LevenbergMarquardt as LevenbergMarquardt
from .core.report import Report as Report
from .core.termination import Status as Status
from .fitting.curve_fit import curve_fit as curve_fit
from .fitting.odr import OrthogonalFit as OrthogonalFit
from .fitting.odr import odr as odr
from .fitting.result import CurveFit as CurveFit
from .functional.solution import Solution as Solution
from .functional.watch import Iterate as Iterate

__version__ = version("lmtorch")
