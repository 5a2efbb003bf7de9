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

from ..._arrays import tensor_of, to_array
from ..._errors import FallbackWarning
from ..._threads import quiet as silenced
from ...arrays import quiet
from ...minimising.solution import Solution
from ..fitter import Fitter

FAR = 10.0  # times its start: beyond that a parameter may have run away
GROWN = 30.0  # times its start, where a fit without a minimum says so
UNSEEN = 1e-3  # of its standard error: a parameter that is less is not told from its negative
BLIND = 1e300  # the inverse of a singular value that is zero
ROUNDINGS = 8  # of n numbers, which entries of a singular vector are off by
LOWER = 1e-6  # share of the cost by which another end is lower


def runaways(
    fitter: Fitter, solution: Solution, start: Tensor, *, seeking: bool = False
) -> list[int]:
    """Which variables of a single fit by squares have run away.

    Args:
        fitter: of the fit.
        solution: where it has ended.
        start: of the variables, (n,).
        seeking: those are wanted that may be looked for beyond infinity, also where the fit has
            failed, or where the covariance says by itself that they are not determined.

    Returns:
        Their numbers; mostly none.
    """
    ended = to_array(solution.x)
    pairs = zip(ended.tolist(), start.tolist(), strict=True)
    if not any(abs(value) > FAR * abs(begun) > 0 for value, begun in pairs):
        return []
    if fitter.likelihood is not None:
        return []
    x, begun = np.abs(ended), np.abs(to_array(start))
    far = (x > FAR * begun) & (begun > 0)
    freedom = float(fitter.data.count) - x.size
    if freedom <= 0 or not (solution.success or seeking):
        return []
    deviation = (2 * float(solution.cost) / freedom) ** 0.5
    error = deviation * unit_errors(to_array(solution.jac).astype(np.float64), seeking)
    found: list[int] = np.flatnonzero(far & (x < UNSEEN * error)).tolist()
    return found


def unit_errors(jacobian: Any, unbounded: bool) -> Any:
    """Standard errors for residuals of deviation one.

    Args:
        jacobian: (..., m, n).
        unbounded: combinations of parameters that have no influence whatever count as infinite.
            Otherwise they are left out, as the covariance itself says so.

    Returns:
        They, (..., n); zero where J is no number.
    """
    length = np.linalg.norm(jacobian, axis=-2)
    known = np.isfinite(length).all(-1, keepdims=True)
    units = np.where(known & (length > 0), length, 1.0)
    scaled = np.where(known[..., None], jacobian / units[..., None, :], 0.0)
    _, sizes, vectors = np.linalg.svd(scaled, full_matrices=False)
    seen = sizes > np.finfo(np.float64).eps * max(jacobian.shape[-2:]) * sizes[..., :1]
    if unbounded:  # of these entries those are zero that round-off alone has made
        least = ROUNDINGS * sizes.shape[-1] * np.finfo(np.float64).eps
        vectors = np.where(np.abs(vectors) > least, vectors, 0.0)
    inverse = np.divide(1.0, sizes, out=np.full_like(sizes, BLIND if unbounded else 0), where=seen)
    with quiet():  # what overflows is infinite
        error = np.linalg.norm(inverse[..., None] * vectors, axis=-2) / units
    return np.where(known, error, 0.0)


def beyond_infinity(
    fitter: Fitter, solution: Solution, start: Tensor, acceptable: Any = None
) -> tuple[Solution, list[int]]:
    """The best end of a fit and of those from the other side of infinity.

    Args:
        fitter: of the fit.
        solution: where it has ended.
        start: of the variables, (n,).
        acceptable: the largest cost of an end that is believed, as for the fit; None: any.

    Returns:
        The solution, with the evaluations of all, and the variables that have run away there.
    """
    away = runaways(fitter, solution, start, seeking=True)
    if not away:
        return solution, []
    best, spent = solution, int(solution.nfev)
    lower, upper = fitter.bounds
    ended = tensor_of(solution.x).detach()
    # each by itself, and all at once, as an offset goes along with an amplitude; then anew
    places: list[Any] = [*away, *([away] if len(away) > 1 else [])]
    for begun, place in [(ended, place) for place in places] + [(start, place) for place in away]:
        u = begun.detach().clone()
        u[place] = -u[place]
        inside = bool(((lower <= u) & (u <= upper)).all())
        # beyond infinity the curve may be undefined, as a power of what is negative there
        if not (inside and bool(tensor_of(fitter.linear_model(u).cost).isfinite().all())):
            continue
        with silenced(FallbackWarning):  # where it leads is no fit of the user's
            found = fitter.solve(u, acceptable=acceptable)
        spent += int(found.nfev)
        if found.success and float(found.cost) < (1 - LOWER) * float(best.cost):
            best = found
    best.nfev = spent
    return best, runaways(fitter, best, start)


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


def grown(names: list[str], solution: Solution, start: Tensor) -> str:
    """What a user should know of variables that grow where a single fit has found no minimum.

    Returns:
        A sentence with a blank before it; empty where none has grown.
    """
    pairs = zip(names, to_array(start).tolist(), to_array(solution.x).tolist(), strict=True)
    far = [(name, a, b) for name, a, b in pairs if abs(b) > GROWN * abs(a) > 0]
    if not far:
        return ""
    ran = ", ".join(f"{name} (from {a:.3g} to {b:.3g})" for name, a, b in far)
    return (
        f" {ran} still grew: do the data reach where the curve levels off or bends? If not, fix "
        "what they do not show, or bound it."
    )
