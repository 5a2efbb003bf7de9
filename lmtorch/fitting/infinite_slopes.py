"""A model that is a number where its derivatives are none: a power or a root of zero.

(t/τ)^β at t = 0 is zero whatever τ is, and its derivative in τ the product of zero and infinity,
which no rule of differentiation makes a number. A difference of values does: it is zero, as the
derivative is. So a fit that has ended there is made again by finite differences.
"""

import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .._arrays import tensor_of
from .._errors import FallbackWarning, level
from ..core.termination import Status
from ..minimising.least_squares import least_squares
from ..minimising.solution import Solution
from .fitter import Fitter


def met(fitter: Fitter, solution: Solution) -> bool:
    """Whether a fit has ended where the residuals are numbers, and exact derivatives are none.

    Of a batch all must have failed: fits that came to an end keep every digit, whatever their
    neighbours do.

    Returns:
        True where finite differences may lead on.
    """
    if fitter.jac is not None:
        return False
    status = tensor_of(solution.status)
    lost = status == int(Status.NOT_FINITE)
    return not bool((status > 0).any()) and bool((lost & tensor_of(solution.cost).isfinite()).any())


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


def better(second: Solution, first: Solution) -> bool:
    """Whether a second run has more fits that came to an end than the first had."""
    ended = (tensor_of(one.status) > 0 for one in (second, first))
    others, own = (int(torch.count_nonzero(one)) for one in ended)
    return others > own


def by_differences(asked: dict[str, Any]) -> Solution:
    """The solution of `least_squares`, asked as before, by finite differences."""
    with np.errstate(all="ignore"):  # what the exact run has met is met again, on arrays
        return least_squares(**{**asked, "jac": "2-point", "compile": False})
