"""Parameters that have run away: the cost only falls towards their infinity, and hardly any more.

What enters a curve by its inverse, as the decay time τ of exp(−x/τ), may have its minimum on the
other side of infinity: the rate 1/τ passes through zero, where τ goes from −∞ to +∞. No descent
crosses that, and where it ends the curve does not change with τ as far as anybody can see: so the
end looks like a minimum. The fit is made once more from the other side, −τ, and kept if it ends
lower.
"""

from typing import Any

import numpy as np
from torch import Tensor

from .._arrays import tensor_of, to_array
from ..minimising.solution import Solution
from .fitter import Fitter

FAR = 10.0  # times its start: beyond that a parameter may have run away
UNSEEN = 1e-3  # of its standard error: a parameter that is less is not told from its negative
LOWER = 1e-6  # share of the cost by which another end is lower


def runaways(fitter: Fitter, solution: Solution, start: Tensor) -> list[int]:
    """Which variables of a single fit by squares have run away.

    Args:
        fitter: of the fit.
        solution: where it has ended.
        start: of the variables, (n,).

    Returns:
        Their numbers; mostly none.
    """
    x, begun = np.abs(to_array(solution.x)), np.abs(to_array(start))
    far = (x > FAR * begun) & (begun > 0)
    if not far.any() or fitter.likelihood is not None:
        return []
    freedom = float(fitter.data.count) - x.size
    if freedom <= 0 or not solution.success:
        return []
    deviation = (2 * float(solution.cost) / freedom) ** 0.5
    error = deviation * _errors(to_array(solution.jac).astype(np.float64))
    found: list[int] = np.flatnonzero(far & (x < UNSEEN * error)).tolist()
    return found


def _errors(jacobian: Any) -> Any:
    """Standard errors for residuals of deviation one.

    Where combinations of parameters have no influence whatever, the covariance itself says so, and
    they are left out.

    Returns:
        They, (n,).
    """
    length = np.linalg.norm(jacobian, axis=0)
    if not np.isfinite(length).all():
        return np.zeros_like(length)
    units = np.where(length > 0, length, 1.0)
    _, sizes, vectors = np.linalg.svd(jacobian / units, full_matrices=False)
    seen = sizes > np.finfo(np.float64).eps * max(jacobian.shape) * sizes[0]
    inverse = np.divide(1.0, sizes, out=np.zeros_like(sizes), where=seen)
    return np.linalg.norm(inverse[:, None] * vectors, axis=0) / units


def beyond_infinity(fitter: Fitter, solution: Solution, away: list[int]) -> Solution:
    """The best end of a fit and of those from the other side of infinity.

    Args:
        fitter: of the fit.
        solution: where it has ended.
        away: numbers of the variables that have run away.

    Returns:
        The solution, with the evaluations of all.
    """
    best, spent = solution, int(solution.nfev)
    lower, upper = fitter.bounds
    for place in away:
        u = tensor_of(solution.x).detach().clone()
        u[place] = -u[place]
        if not lower[place] <= u[place] <= upper[place]:
            continue
        found = fitter.solve(u)
        spent += int(found.nfev)
        if found.success and float(found.cost) < (1 - LOWER) * float(best.cost):
            best = found
    best.nfev = spent
    return best


def told(names: list[str], away: list[int], solution: Solution, start: Tensor) -> str:
    """What a user should know of variables that have run away."""
    ran = ", ".join(
        f"{names[i]} (from {float(start[i]):.3g} to {float(solution.x[i]):.3g})" for i in away
    )
    return (
        f"{ran} ran away: the curve hardly depends on it there, and the cost falls towards its "
        "infinity, if at all. The data may not determine it: fix it, bound it, leave its term out, "
        "or start nearer."
    )
