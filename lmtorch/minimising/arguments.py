"""scipy's options in ours, and what to say of those that have no meaning here."""

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .. import _checks, choose
from .._checks import choice, count, member, number, positive
from .._errors import InputError, level
from ..core.bounds import Bounds
from ..damping.scaling import FixedScale, Scaling
from ..jacobians.base import JacobianSource
from ..jacobians.finite_difference import FiniteDifference
from ..solvers.base import Solver
from .unknowns import Unknowns

SIDES = frozenset({float, int, tuple, list, np.ndarray, np.float64})
FLOATS = (torch.float64, torch.float32)
METHODS = ("auto", "trf", "dogbox", "lm")
EXACT = ("auto", "forward", "reverse", "autograd")
DIFFERENCES = ("2-point", "3-point")
# default of max_nfev: NIST's hardest problems take a few hundred from the far start
EVALUATIONS = 1000


def check_scipys(
    method: str,
    tr_solver: str | None,
    tr_options: Any,
    jac_sparsity: Any,
    workers: Any,
    verbose: int,
) -> None:
    """Check the options of scipy that choose nothing here, and warn that they are ignored.

    Raises:
        InputError: a name that scipy does not know either.
    """
    choice(method, "method", METHODS, " All of them run the same loop; leave it out.")
    choice(
        tr_solver,
        "tr_solver",
        (None, "exact", "lsmr"),
        " Choose a factorisation by solver= instead.",
    )
    choice(verbose, "verbose", (0, 1, 2), " They mean silent, the end, and every iteration.")
    if not isinstance(tr_options, Mapping | None):
        raise InputError(
            f"tr_options={tr_options!r} is no dict; it chooses nothing here: leave it out."
        )
    for name, value in (
        ("tr_options", tr_options or None),
        ("jac_sparsity", jac_sparsity),
        ("workers", workers),
    ):
        if value is not None:
            _ignored(name)


def _ignored(name: str) -> None:
    warnings.warn(
        f"{name} is ignored: the Jacobian is held dense and exact. The result is the same.",
        UserWarning,
        stacklevel=level(),
    )


def solver_of(solver: str | Solver, tr_solver: str | None, n: int) -> str | Solver:
    """The solver for n parameters: conjugate gradients where scipy's "lsmr" is asked for.

    Few parameters are solved for exactly in less time, and so are those for which a solver is
    given: there "lsmr" is ignored, with a warning.
    """
    if tr_solver != "lsmr":
        return solver
    if n > choose.SMALL and isinstance(solver, str) and solver == "auto":
        return "cg"
    _ignored("tr_solver")
    return solver


def check_functions(fun: Any, callback: Any, sampler: Any, kwargs: Any) -> None:
    """See whether what must be functions are, and keyword arguments a dict.

    Raises:
        InputError: they are not.
    """
    if not callable(fun):
        raise InputError(
            f"fun is {type(fun).__name__}, not a function of x that returns residuals."
        )
    for name, value in (("callback", callback), ("sampler", sampler)):
        if value is not None and not callable(value):
            raise InputError(f"{name} is {type(value).__name__}, not a function.")
    if not isinstance(kwargs, Mapping | None):
        raise InputError(f"kwargs is {type(kwargs).__name__}, not a dict of keyword arguments.")


def dims_of(in_dims: Any, count: int) -> tuple[Any, ...]:
    """The dimension that counts problems, for x0 and each of the arguments.

    Raises:
        InputError: there are not as many of them.
    """
    if in_dims is None or (isinstance(in_dims, int) and not isinstance(in_dims, bool)):
        return (in_dims,) * (count + 1)
    if not isinstance(in_dims, tuple | list) or len(in_dims) != count + 1:
        raise InputError(
            f"in_dims={in_dims!r} must be an int, or have an entry for x0 and one for each of the "
            f"{count} args, as for torch.vmap."
        )
    return tuple(in_dims)


def bounds_of(bounds: Any, unknowns: Unknowns) -> Bounds | None:
    """The box in the shape of x, None if it is infinite everywhere.

    Raises:
        InputError: no pair, reversed, NaN, of another shape, or x0 outside.
    """
    bounds = as_pair(bounds)
    if unbounded(bounds):
        return None
    hint = as_pairs(bounds, unknowns.layout.n, unknowns.start)
    try:
        low, high = bounds
    except (TypeError, ValueError) as error:
        raise InputError(
            f"bounds must be a pair (lower, upper), each one number or of the shape of x0.{hint}"
        ) from error
    try:
        lower = unknowns.vector(low, "the lower bound", -math.inf)
        upper = unknowns.vector(high, "the upper bound", math.inf)
    except InputError as error:
        raise InputError(f"{error}{hint}") from error
    if not bool((lower <= upper).all()):
        raise InputError(
            "a lower bound is above its upper bound, or NaN: "
            f"{_where(~(lower <= upper), unknowns)}.{hint}"
        )
    outside = (unknowns.start < lower) | (unknowns.start > upper)
    if bool(outside.any()):
        raise InputError(
            f"x0 is infeasible: outside its bounds at {_where(outside, unknowns)}. Move it "
            f"inside.{hint}"
        )
    if hint and bool((lower == upper).any()):
        check_pairs(bounds, hint)
    if not bool((lower.isfinite() | upper.isfinite()).any()):
        return None
    return Bounds(lower, upper)


def unbounded(bounds: Any) -> bool:
    """Whether the bounds are two numbers, minus infinity and infinity."""
    if not isinstance(bounds, tuple | list) or len(bounds) != 2:
        return False
    lower, upper = bounds
    numbers = isinstance(lower, float) and isinstance(upper, float)
    return numbers and lower == -math.inf and upper == math.inf


def bounds_as_key(bounds: Any) -> tuple[Any, ...] | None:
    """What tells bounds from others, with every number of them: a pair, or pairs by name.

    Returns:
        The key, () of bounds that are none; None: they are of a kind that has no key.
    """
    if unbounded(bounds):
        return ()
    bounds, names = as_pair(bounds), ()
    if type(bounds) is dict:
        names, bounds = tuple(bounds), tuple(bounds.values())
    elif not isinstance(bounds, tuple | list) or len(bounds) != 2:
        return None
    sides = [_side_as_key(side) for side in bounds]
    # whether a list or a tuple was given decides what is refused
    return None if None in sides else (type(bounds), names, *sides)


def _side_as_key(side: Any) -> tuple[Any, ...] | None:
    """The same of one side."""
    kind = type(side)
    if kind is Tensor:
        if side.device.type != "cpu" or side.requires_grad or side.dtype not in FLOATS:
            return None
    elif kind not in SIDES:
        return None
    try:
        array = np.asarray(side)
    except (ValueError, TypeError, RuntimeError):  # whoever reads the bounds knows what to say
        return None
    if array.dtype.kind not in "iuf":
        return None
    return kind, array.dtype.str, array.shape, array.tobytes()


def as_pair(bounds: Any) -> Any:
    """A `scipy.optimize.Bounds` as (lower, upper), anything else as it is."""
    return (bounds.lb, bounds.ub) if hasattr(bounds, "lb") and hasattr(bounds, "ub") else bounds


def as_pairs(bounds: Any, count: int, start: Tensor | None = None) -> str:
    """Say how to write bounds that may be pairs, one for each parameter; "": they are none.

    `scipy.optimize.minimize` takes pairs, `scipy.optimize.least_squares` and this package take
    (lower, upper): of two parameters both fit, unless the start (..., n) tells.
    """
    try:
        pairs = [
            (-math.inf if low is None else float(low), math.inf if high is None else float(high))
            for low, high in bounds
        ]
        lower, upper = map(list, zip(*pairs, strict=True))
        if start is not None:
            low, high = start.new_tensor(pairs).T
            if not bool(((low <= start) & (start <= high)).all()):
                return ""
    except (TypeError, ValueError, RuntimeError):
        return ""
    if len(pairs) != count or not all(low <= high for low, high in pairs):
        return ""
    return f" If they are pairs, one for each parameter, write bounds=({lower}, {upper})."


def check_pairs(bounds: Any, hint: str) -> None:
    """Refuse two tuples that fix a parameter when read as (lower, upper), and that are good pairs.

    Raises:
        InputError: they are.
    """
    if all(isinstance(side, tuple) for side in bounds):
        raise InputError(
            f"bounds={bounds!r} fix a parameter by equal bounds: if so, write lists.{hint}"
        )


def _where(mask: Tensor, unknowns: Unknowns) -> str:
    """The first entry that a mask (..., n) holds for."""
    place = mask.nonzero()[0].tolist()
    entry = place[-1]
    for name, size in zip(unknowns.layout.names, unknowns.layout.sizes, strict=True):
        if entry < size:
            of = f" of problem {place[0]}" if len(place) > 1 else ""
            return f"{name}[{entry}]{of}"
        entry -= size
    raise AssertionError


def tolerance(value: float | str | None, name: str) -> float | None:
    """A tolerance as a number, None for the default; scipy's None, which switches it off, is 0.

    Raises:
        InputError: no number.
    """
    if value is None:
        return 0.0
    if isinstance(value, str) and value == "auto":
        return None
    needs = 'is no number. Use a number, "auto" or None (never by this test)'
    return _checks.tolerance(number(value, name, needs), name)


def tolerances(**values: float | str | None) -> tuple[float | None, ...]:
    """Each of the tolerances as `tolerance` gives it.

    Raises:
        InputError: no number, or all of them switched off.
    """
    if all(value is None for value in values.values()):
        *most, last = values
        raise InputError(
            f"{', '.join(most)} and {last} are all None: nothing would end the run. Leave one of "
            "them at a number."
        )
    return tuple(tolerance(value, name) for name, value in values.items())


def limits(max_nfev: int | None) -> int:
    """Trials at most.

    Raises:
        InputError: not positive.
    """
    if max_nfev is None:
        return EVALUATIONS - 1
    return count(max_nfev, "max_nfev", 1, f", or None for {EVALUATIONS}") - 1


def scaling_of(x_scale: Any, unknowns: Unknowns) -> str | Scaling:
    """What counts as a long way for each parameter.

    Raises:
        InputError: not positive, or of another shape.
    """
    if x_scale is None:
        return "auto"
    # dicts, sets and tables of pandas have an `update` of another kind
    if isinstance(x_scale, str | type) or (
        hasattr(x_scale, "update") and not hasattr(x_scale, "__len__")
    ):
        member(x_scale, "x_scale", ("jac", *choose.SCALINGS), "update")
        return "more" if isinstance(x_scale, str) and x_scale == "jac" else x_scale
    vector = unknowns.vector(x_scale, "x_scale", 1.0)
    if not bool((vector.isfinite() & (vector > 0)).all()):
        raise InputError(
            "x_scale must be positive and finite: the size of a typical change of each parameter."
        )
    return FixedScale(1 / vector)


def source_of(
    jac: Any, diff_step: Any, unknowns: Unknowns
) -> tuple[str | JacobianSource | Callable[..., Any], bool | None]:
    """The Jacobian asked for, and whether torch takes it: True, False, or None for if possible.

    Raises:
        InputError: a name that is not known, or a step that cannot be used.
    """
    step = None
    if diff_step is not None:
        step = unknowns.vector(diff_step, "diff_step", 1.0)
        step = step[0] if step.ndim > 1 else step
        if not bool((step.isfinite() & (step != 0)).all()):
            raise InputError(f"diff_step={diff_step!r} must be finite and not zero.")
    if jac is None:
        return FiniteDifference("2-point", step), None
    if isinstance(jac, str):
        if jac in DIFFERENCES:
            return FiniteDifference("2-point" if jac == "2-point" else "3-point", step), False
        if jac in EXACT:
            return jac, True
        hint = " Exact derivatives need no complex step." if jac == "cs" else ""
        raise InputError(
            f"jac={jac!r} is not known. Use one of {(*EXACT, *DIFFERENCES)} or a function.{hint}"
        )
    if isinstance(jac, type) or not (isinstance(jac, JacobianSource) or callable(jac)):
        raise InputError(f"jac={jac!r} is no name and no function.")
    return jac, False


def refuse_sides(jac: Any, bounds: Any) -> None:
    """Refuse numbers in the place of jac, where MATLAB's lsqnonlin has the lower bound.

    Empty vectors mean no bounds there.

    Raises:
        InputError: jac is a number or has entries.
    """
    if isinstance(jac, bool) or not isinstance(
        jac, list | tuple | np.ndarray | Tensor | float | int
    ):
        return
    if np.size(jac) == 0:
        told = "Leave it out: there are no bounds without bounds=(lower, upper)."
    else:
        upper = "upper" if unbounded(bounds) else repr(bounds)
        told = (
            "If bounds are meant, which MATLAB's lsqnonlin has there, write "
            f"bounds=({jac!r}, {upper})."
        )
    raise InputError(f"jac={jac!r} is no name and no function. {told}")


def believed(acceptable: Any, lead: Sequence[int], device: torch.device) -> Tensor | None:
    """The largest cost of each problem that is believed, of shape `lead`; None: any.

    Raises:
        InputError: it is no number, or does not fit the batch.
    """
    if acceptable is None:
        return None
    try:
        bar = (
            torch.as_tensor(acceptable, dtype=torch.float64, device=device)
            .detach()
            .expand(tuple(lead))
        )
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(
            f"acceptable={acceptable!r} must be a cost, or one for each problem."
        ) from error
    if bool(bar.isnan().any()):
        raise InputError(
            f"acceptable={acceptable!r} has NaN: it must be a cost, or one for each problem."
        )
    return bar


def real_number(value: Any, name: str) -> float:
    """A positive number.

    Raises:
        InputError: it is none.
    """
    return positive(value, name, ', or "mad"')
