"""A curve that is a number where its derivatives are none: a power or a root of zero.

The fit is made again by finite differences, see `minimising/infinite_slopes.py`; here it is told at
which point.
"""

import warnings

from torch import Tensor

from .._arrays import tensor_of
from .._errors import FallbackWarning, level
from ..minimising import infinite_slopes as slopes
from ..minimising.solution import Solution
from .fitter import Fitter


def met(fitter: Fitter, solution: Solution) -> bool:
    """Whether finite differences may lead on where exact derivatives have not.

    Returns:
        False where a way to the derivatives was asked for, or a fit came to an end.
    """
    return fitter.jac is None and slopes.met(solution)


def tell(fitter: Fitter, solution: Solution) -> None:
    """Warn that finite differences serve, and say at which x derivatives are not finite.

    Args:
        fitter: with exact derivatives.
        solution: of it.
    """
    place, x = "", fitter.data.x
    if isinstance(x, Tensor) and x.ndim == 1:
        rows = tensor_of(fitter.linear_model(tensor_of(solution.x)).jac).detach()
        bad = ~rows.isfinite().all(-1)
        if bool(bad.any()):
            place = f" at x = {float(x[int(bad.reshape(-1, bad.shape[-1]).any(0).nonzero()[0])]):g}"
    warnings.warn(
        f"the derivatives of f are not finite{place}, where f itself is, as with a power or a root "
        'of zero; finite differences serve, jac="2-point". A point there that tells nothing may '
        "be left out, and derivatives are exact.",
        FallbackWarning,
        stacklevel=level(),
    )
