"""Options of `curve_fit` that there are not, and what may be meant by them."""

import inspect
from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np

from .._errors import InputTypeError
from .._names import meant
from ..minimising.least_squares import least_squares

HANDED_ON = frozenset(inspect.signature(least_squares).parameters)
ELSEWHERE = {  # what is called otherwise in other packages
    "yerr": "sigma",
    "error": "sigma",
    "errors": "sigma",
    "params": "p0",
    "guess": "p0",
    "start": "p0",
    "limits": "bounds",
    "constraints": "ties",
    "lb": "bounds",
    "ub": "bounds",
    "lower": "bounds",
    "upper": "bounds",
    "vary": "fixed",
    "robust": "loss",
    "maxiter": "max_nfev",
    "max_iter": "max_nfev",
    "MaxIter": "max_nfev",
    "iter_cb": "callback",
}
ADVICE = {
    "device": " The fit runs where the data are: give xdata and ydata as tensors of that device.",
    "dtype": " Give xdata and ydata in that dtype.",
    "tol": " Tolerances are ftol, xtol and gtol.",
    "options": " Give each option by its name, as in max_nfev=100.",
    "data": " Give columns of a table, curve_fit(f, table['x'], table['y']).",
}
IN_X = " Errors in x are for odr: lmtorch.odr(f, x, y, p0, sx=..., sy=...)."
ADVICE |= dict.fromkeys(("sx", "xerr", "x_err", "dx", "sigma_x", "sigmax"), IN_X)
OF_ODR = {  # what `odr` calls otherwise
    **dict.fromkeys(("xerr", "x_err", "dx", "sigma_x", "sigmax"), "sx"),
    **dict.fromkeys(("yerr", "y_err", "dy", "sigma_y", "sigmay", "sigma"), "sy"),
    "beta0": "p0",
    "ifixb": "fixed",
    "ifixx": "fixed_x",
    "maxit": "max_nfev",
    "fjacb": "jac",
    "fjacd": "jac",
}
HIDE = " Points that are NaN are hidden in a masked array, numpy.ma.masked_invalid(x)."


def check_options(
    options: Collection[str], names: Collection[str], face: Callable[..., Any]
) -> None:
    """Check the names of options that `curve_fit` hands on to `least_squares`.

    Args:
        options: their names.
        names: of the parameters, whose starts may have been given like options, as in lmfit.
        face: `curve_fit`, for its own options.

    Raises:
        InputTypeError: there is no such option.
    """
    unknown = [name for name in options if name not in HANDED_ON]
    if not unknown:
        return
    first = unknown[0]
    if first in names:
        advice = f" A start goes into a dict, p0={{{first!r}: ...}}."
    elif first in ADVICE:
        advice = ADVICE[first]
    elif first in ELSEWHERE:
        advice = f" Is {ELSEWHERE[first]!r} meant?"
    else:
        advice = meant([first], [*inspect.signature(face).parameters, *HANDED_ON])
    raise InputTypeError(f"curve_fit has no option {first!r}.{advice}")


def refuse(options: Collection[str], face: Callable[..., Any]) -> None:
    """Refuse options that `odr` does not have, with the name of what may be meant.

    Args:
        options: their names.
        face: `odr`, for its own options.

    Raises:
        InputTypeError: there is one.
    """
    for name in options:
        advice = HIDE if name in ("nan_policy", "mask") else ADVICE.get(name, "")
        other = OF_ODR.get(name) or ELSEWHERE.get(name)
        if other in inspect.signature(face).parameters:
            advice = f" Is {other!r} meant?"
        advice = advice or meant([name], [*inspect.signature(face).parameters])
        raise InputTypeError(f"odr has no option {name!r}.{advice}")


def refuse_sides(sigma: Any, absolute: Any) -> None:
    """Refuse two vectors where MATLAB's lsqcurvefit has the sides of the bounds.

    Raises:
        InputTypeError: absolute_sigma has entries.
    """
    if isinstance(absolute, Sequence | np.ndarray) and not isinstance(absolute, str):
        raise InputTypeError(
            f"absolute_sigma={absolute!r} must be True or False. If bounds are meant, which MATLAB "
            f"has there, give bounds=({sigma!r}, {absolute!r})."
        )
