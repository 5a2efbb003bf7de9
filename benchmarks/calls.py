"""Calls of a black box: how often lmtorch and scipy evaluate a function and its own Jacobian."""

import warnings
from typing import Any

import numpy as np
import scipy.optimize

import lmtorch
from tests.minimising.setting import Counted
from tests.minimising.test_black_boxes import ORDINARY

from .machine import table

TOLERANCES = {"ftol": 1e-8, "xtol": 1e-8, "gtol": 1e-8}


def run() -> str:
    """The table."""
    rows = []
    for name, (fun, own, start, bounds) in ORDINARY.items():
        row = [name]
        for jac in ("2-point", "3-point", "own"):
            row.append(
                " / ".join(
                    _calls(fit, fun, own if jac == "own" else jac, start, bounds) for fit in FITTERS
                )
            )
        rows.append(row)
    intro = (
        "The numbers are calls of the function by lmtorch / by scipy's trf, including those of "
        "differences; in brackets are calls of the Jacobian if it is the user's own. Starts are "
        "good, and tolerances are 1e-8 for both."
    )
    return (
        f"## Calls of a black box\n\n{intro}\n\n"
        f"{table(['', '2-point', '3-point', 'own Jacobian'], rows)}"
    )


FITTERS = (lmtorch.least_squares, scipy.optimize.least_squares)


def _calls(fit: Any, fun: Any, jac: Any, start: Any, bounds: Any) -> str:
    function, derivative = Counted(fun), None if isinstance(jac, str) else Counted(jac)
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit(function, np.array(start), derivative or jac, bounds=bounds, **TOLERANCES)
    return f"{len(function.points)}" + (f" ({len(derivative.points)})" if derivative else "")


if __name__ == "__main__":
    print(run())
