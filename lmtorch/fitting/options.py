"""Options of `curve_fit` that there are not, and what may be meant by them."""

import inspect
from collections.abc import Callable, Collection
from typing import Any

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
}


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
