"""What comes out of a stack: the names, dtypes and attributes of the variables, and the statuses.

The names of coefficients and covariance, and of their dimensions, are xarray's own.
"""

from typing import Any

import numpy as np

from ..core.termination import Status

# statuses of pixels that no fit was begun for
EMPTY = -100  # every point is missing or masked
FEW = -101  # fewer points than parameters
INVALID = (
    -102
)  # NaN that is not to be skipped, or numbers that σ, bounds or the likelihood cannot be
UNFITTED = -128  # of a store: its block is not done yet
OWN = {
    EMPTY: ("no_data", "every point is missing or masked"),
    FEW: ("too_few_points", "fewer points than parameters that vary"),
    INVALID: ("invalid_data", "NaN, or numbers that sigma, bounds or the likelihood cannot be"),
    UNFITTED: ("not_fitted", "the block is not done yet"),
}
# name, dtype, further dimensions
VARIABLES: dict[str, tuple[str, tuple[str, ...]]] = {
    "coefficients": ("float64", ("param",)),
    "covariance": ("float64", ("cov_i", "cov_j")),
    "stderr": ("float64", ("param",)),
    "redchi": ("float64", ()),
    "nfev": ("int32", ()),
    "status": ("int8", ()),
}
LABELS = ("param", "cov_i", "cov_j")  # dimensions of parameters
RETRIED = {"from_neighbour": ("bool", ())}  # and where there was a second pass
FILL = {"float64": np.nan, "int32": -1, "int8": UNFITTED, "bool": False}


def variables(neighbours: bool) -> dict[str, tuple[str, tuple[str, ...]]]:
    """All variables of a fit; the status is the last, as it says that the others are there."""
    if not neighbours:
        return VARIABLES
    return {**RETRIED, **VARIABLES}


def empty(b: int, count: int, neighbours: bool) -> dict[str, np.ndarray]:
    """The variables of b pixels and so many parameters, as of pixels that have no data."""
    found = {
        name: np.full((b, *(count for _ in dims)), FILL[dtype], dtype)
        for name, (dtype, dims) in variables(neighbours).items()
    }
    found["status"][:], found["nfev"][:] = EMPTY, 0
    return found


def words(status: int) -> str:
    """A status in words."""
    return OWN[status][1] if status in OWN else Status(status).message


def attributes(name: str, of: str, units: str | None) -> dict[str, Any]:
    """What is written beside a variable.

    Args:
        name: the variable's.
        of: the name of what was fitted.
        units: of the residuals' squares; None: not known.
    """
    what = f" of the fit of {of}" if of else " of the fit"
    if name == "status":
        names = {
            int(status): f"{'converged_' if status.converged else ''}{status.name.lower()}"
            for status in Status
            if status != Status.RUNNING
        }
        names |= {number: label for number, (label, _) in OWN.items()}
        order = sorted(names)
        return {
            "long_name": f"how each fit{f' of {of}' if of else ''} ended",
            "flag_values": np.array(order, np.int8),
            "flag_meanings": " ".join(names[number] for number in order),
            "comment": "a success where positive",
        }
    said = {
        "coefficients": "parameters",
        "covariance": "covariance of the parameters",
        "stderr": "standard errors of the parameters",
        "redchi": "reduced chi-square",
        "nfev": "evaluations of the residuals",
        "from_neighbour": "whether the fit was started from a neighbour's solution,",
    }[name]
    found = {"long_name": said + what}
    if name == "redchi" and units is not None:
        found["units"] = units
    return found
