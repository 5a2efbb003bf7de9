"""`leastsq`: the signature and the result of MINPACK's interface in scipy, by `least_squares`."""

import math
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .._arrays import to_array
from .._checks import count, flag, number
from .._errors import InputError, level
from .._faces import face
from ..choose import DAMPINGS
from ..core.termination import Status
from .least_squares import least_squares
from .solution import Solution

# what MINPACK says with these numbers; whatever else is no success is OTHER
NUMBERS = {
    Status.COST: 1,
    Status.ZERO: 1,
    Status.MINIMUM: 1,
    Status.RUNAWAY: 1,
    Status.STEP: 2,
    Status.GRADIENT: 4,
    Status.EVALUATIONS: 5,
    Status.STOPPED: 5,
    Status.STALLED: 6,
}
OTHER = 9
SUCCESS = (1, 2, 3, 4)
FACTOR = 100.0  # MINPACK's default of `factor`, which stands for ours


@face
def leastsq(
    func: Callable[..., Any],
    x0: Any,
    args: Any = (),
    Dfun: Callable[..., Any] | None = None,
    full_output: bool = False,
    col_deriv: bool = False,
    ftol: float = 1.49012e-08,
    xtol: float = 1.49012e-08,
    gtol: float = 0.0,
    maxfev: int = 0,
    epsfcn: float | None = None,
    factor: float = FACTOR,
    diag: Any = None,
) -> tuple[Any, ...]:
    """Minimise Σ func(x)², called as `scipy.optimize.leastsq` and with what it returns.

    It is for programs that call scipy's; `least_squares` says more of what it found. The loop is
    that of `least_squares`: derivatives are exact where `func` is written in torch, and an end
    that is seen to be no minimum is no success.

    Args:
        func: func(x, *args) → residuals (m,). x is flat. It is given an array if x0 is no tensor
            and it refuses tensors, or derivatives are by `Dfun` or `epsfcn`.
        x0: the start, a number, array or tensor of n numbers in any shape. Results are tensors on
            its device if it is a tensor.
        args: further arguments of func and Dfun; what is no tuple is the only one.
        Dfun: Dfun(x, *args) → the Jacobian (m, n). Default: exact derivatives by torch, or else
            differences, after a warning.
        full_output: return all that is listed below, not just x and ier.
        col_deriv: Dfun returns the transposed, (n, m).
        ftol: stop when the relative decrease of the sum, found and promised, is no more than that.
        xtol: stop when the relative length of a step is no more than that.
        gtol: stop when the largest cosine between the residuals and a column of the Jacobian is no
            more than that.
        maxfev: calls of func at most, those of differences counted; looked at after each step, so
            that the last one may go beyond. Default: 0, which is 200 (n + 1) evaluations, with
            Dfun half of them, those of differences not counted.
        epsfcn: ask for forward differences with steps √epsfcn |x|.
        factor: the first step is no longer than factor · ‖diag · x0‖. Default: 100, which leaves it
            to `least_squares`; any other number leaves out its second opinions as well.
        diag: scale factors of the variables (n,), positive. Default: the norms of the columns.

    Returns:
        x (n,) and ier; with full_output x, cov_x, infodict, mesg and ier. ier from 1 to 4 is
        success; 5: maxfev is reached; 6: ended by round-off at what is not seen to be a minimum; 9:
        any other end without a minimum, and mesg says which. cov_x is (JᵀJ)⁻¹, not multiplied by
        the variance of the residuals; None where columns of J depend on each other or there is no
        success; scipy's is None as well where a variable ends at zero but for round-off and no Dfun
        is given, as its differences by a part of that see nothing. infodict has nfev (calls of
        func; with Dfun also njev), fvec (m,), and a QR factorisation of J with column pivoting as
        scipy ≥ 1.17 gives it: fjac (n, m) with Rᵀ in its first n columns, ipvt (n,) counted from 0,
        and qtf (n,). Without full_output, an end that is no success warns.

    Raises:
        InputError: what was passed cannot be minimised. It is also a `ValueError`.

    Reference: Moré, Garbow & Hillstrom (1980), User guide for MINPACK-1, lmder and lmdif.

    Example:
        >>> import numpy as np, lmtorch
        >>> x, ier = lmtorch.leastsq(lambda x: 2 * (x - 3) ** 2 + 1, 0)
        >>> x.round(4), ier in (1, 2, 3, 4)
        (array([3.]), True)
    """
    if not callable(func):
        raise InputError(f"func is {type(func).__name__}, not a function that returns residuals.")
    full, columns = flag(full_output, "full_output"), flag(col_deriv, "col_deriv")
    limit = count(maxfev, "maxfev", 0, ", 0 for the default")
    start = _array_or_tensor(x0).reshape(-1)
    calls = _Calls(func, limit)
    step = None if epsfcn is None else _step(epsfcn)
    solution = least_squares(
        calls if limit else func,
        start,
        jac=_derivatives(Dfun, columns, step),
        ftol=ftol,
        xtol=xtol,
        gtol=gtol,
        x_scale=_sizes(diag),
        max_nfev=limit or (200 if Dfun is None else 100) * (len(start) + 1),
        args=args if isinstance(args, tuple) else (args,),
        callback=calls.stop if limit else None,
        diff_step=step if Dfun is None else None,
        damping=_damping(factor),
    )
    ier = NUMBERS.get(Status(solution.status), OTHER)
    message = solution.message
    if limit and ier == NUMBERS[Status.STOPPED]:
        message = f"out of calls: maxfev = {limit} of func are spent, and the last steps gained"
    if full:
        covariance, info = _details(solution, ier in SUCCESS)
        info |= {} if Dfun is None else {"njev": solution.njev}
        return solution.x, covariance, info, message, ier
    if ier not in SUCCESS:
        warnings.warn(message, RuntimeWarning, stacklevel=level())
    return solution.x, ier


class _Calls:
    """The user's function, whose calls are counted; `stop` ends the run once they are spent."""

    def __init__(self, func: Callable[..., Any], limit: int) -> None:
        self.func, self.limit, self.made = func, limit, 0

    def __call__(self, x: Any, *args: Any) -> Any:
        self.made += 1
        return self.func(x, *args)

    def stop(self, iterate: Any) -> None:
        if self.made >= self.limit:
            raise StopIteration


def _array_or_tensor(value: Any) -> Any:
    """A tensor as it is, anything else as an array."""
    return value if isinstance(value, Tensor) else np.asarray(value)


def _step(epsfcn: Any) -> float:
    """The step of differences relative to x: √epsfcn, where less than round-off is round-off."""
    value = number(epsfcn, "epsfcn")
    if not (math.isfinite(value) and value >= 0):
        raise InputError(f"epsfcn={epsfcn!r} must be zero or positive, and finite.")
    return math.sqrt(max(value, float(np.finfo(np.float64).eps)))


def _derivatives(Dfun: Any, columns: bool, step: float | None) -> Any:
    """What `jac` of `least_squares` is to be."""
    if Dfun is None:
        return None if step is None else "2-point"
    if not callable(Dfun):
        raise InputError(f"Dfun is {type(Dfun).__name__}, not a function of x.")
    return (lambda x, *args: _array_or_tensor(Dfun(x, *args)).T) if columns else Dfun


def _sizes(diag: Any) -> Any:
    """The sizes of the parameters, of which MINPACK's scale factors are the reciprocals."""
    if diag is None:
        return None
    scale = np.asarray(to_array(diag))
    if scale.dtype.kind not in "iuf" or not (np.isfinite(scale).all() and (scale > 0).all()):
        raise InputError(f"diag={diag!r} must be positive and finite, a number for each variable.")
    return 1 / scale.astype(float)


def _damping(factor: Any) -> Any:
    """A trust region whose first radius is of that size; MINPACK's own default leaves ours."""
    first = number(factor, "factor")
    if not (math.isfinite(first) and first > 0):
        raise InputError(f"factor={factor!r} must be positive and finite.")
    region: Any = DAMPINGS["trust_region"]
    return "auto" if first == FACTOR else replace(region, initial=first)


def _details(solution: Solution, success: bool) -> tuple[Any, dict[str, Any]]:
    """cov_x and infodict; J P = Q R with columns of J in the order in which they add most."""
    from scipy.linalg import qr, solve_triangular

    jacobian, residual = to_array(solution.jac), to_array(solution.fun)
    m, n = jacobian.shape
    Q, R, order = qr(jacobian, mode="economic", pivoting=True)
    size = np.linalg.norm(jacobian[:, order], axis=0)[: len(R)]
    alone = max(m, n) * np.finfo(R.dtype).eps * size
    determined = len(R) == n and bool((np.abs(R.diagonal()) > alone).all())
    covariance = None
    if success and determined:
        inverse = np.empty_like(R)
        inverse[order] = solve_triangular(R, np.eye(n, dtype=R.dtype))
        covariance = _as(inverse @ inverse.T, solution.x)
    packed = np.zeros((n, m), R.dtype)
    packed[:, : len(R)] = R.T
    return covariance, {
        "fvec": solution.fun,
        "nfev": solution.calls,
        "fjac": _as(packed, solution.x),
        "ipvt": _as(order, solution.x),
        "qtf": _as(Q.T @ residual, solution.x),
    }


def _as(array: Any, like: Any) -> Any:
    """An array, or a tensor of it where x is one."""
    return torch.as_tensor(array, device=like.device) if isinstance(like, Tensor) else array
