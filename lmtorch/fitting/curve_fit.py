"""`curve_fit`: scipy's signature, named parameters, and a result that knows its errors."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .._errors import InputError, NotConvergedError
from ..choose import Options
from ..choose import loss as loss_of
from ..core.termination import Status
from ..functional.solution import Solution
from ..losses.robust import Robust
from .data import Data, gather
from .fitter import Fitter
from .models import Model, OfNumbers, model_of
from .parameters import Parameters, Tie, Transform
from .result import CurveFit


def curve_fit(
    f: Callable[..., Any] | nn.Module | Sequence[Callable[..., Any]],
    xdata: Any,
    ydata: Any,
    p0: Any = None,
    sigma: Any = None,
    absolute_sigma: bool = False,
    check_finite: bool | None = None,
    bounds: Any = (-math.inf, math.inf),
    method: str | None = None,
    jac: str | Callable[..., Any] | None = None,
    *,
    full_output: bool = False,
    nan_policy: str | None = None,
    mask: Any = None,
    fixed: Sequence[str] | Mapping[str, float] = (),
    ties: Mapping[str, Tie] | None = None,
    transforms: Mapping[str, Transform] | None = None,
    shared: Sequence[str] | None = None,
    each_x: bool | None = None,
    **options: Any,
) -> CurveFit:
    """Fit a curve f(x, a, b, ...) to data, by least squares of (f(x) − y)/σ.

    To come from `scipy.optimize.curve_fit`, change the import; docs/curve_fit.md lists what differs. Write f in torch
    operations and derivatives are exact; NumPy code is fitted by finite differences after a warning.

    Args:
        f: f(x, a, b, ...), with the parameters' names; f(x, *p) with p0; f(x, params), where p0 is a dict of arrays or
            tensors; or an `nn.Module`, whose parameters are fitted and left as they are (`fit.popt` has the values).
            With `shared`, a list with a function for each data set is allowed.
        xdata: as f takes it: (m,), or (k, m) for k predictors, or anything else. With `shared`, a list.
        ydata: (m,); or (..., m) for a batch of fits, one for each of the leading dimensions. With `shared`, a list.
        p0: the start: numbers in the order of f's arguments, or a dict by name; (..., P) for starts of a batch.
            Default: f's default values, the middle of bounds, or 1.
        sigma: standard deviations of ydata, a number or (m,) or (..., m), infinite for a point that does not count;
            or their covariance (m, m). Default: all equal.
        absolute_sigma: sigma is in the units of ydata, so that χ² needs no scaling. Default: False, as in scipy.
        check_finite: refuse NaN and infinity in the data. Default: True, unless nan_policy says otherwise.
        bounds: (lower, upper), each a number or one for each parameter, `scipy.optimize.Bounds`, or a dict of pairs
            by name. Equal bounds fix a parameter. Default: none.
        method: scipy's names are accepted and all mean the same loop.
        jac: jac(x, *p) → (m, P), "2-point" or "3-point" for finite differences. Default: exact.
        full_output: unpack to popt, pcov, infodict, mesg, ier. Default: False.
        nan_policy: "raise", or "omit" to leave out points with NaN, in each fit of a batch its own. Default: None.
        mask: True for points that count, (m,) or (..., m). Default: all.
        fixed: names of parameters to hold at their start, or a dict of values to hold them at.
        ties: by name, functions of a dict of the other values: `{"b": lambda p: 2 * p["a"]}`.
        transforms: by name, "positive" or an open interval (lower, upper), in which the parameter stays by a change
            of variables.
        shared: names of parameters that several data sets have in common: a global fit. The others get a copy for each,
            called `name[0]`, `name[1]`, ...
        each_x: whether xdata has the leading dimensions of ydata. Default: if it has the shape of ydata.
        options: of `least_squares`: loss, f_scale, max_nfev, ftol, solver, n_starts, callback, verbose, progress, ...

    Returns:
        A `CurveFit`, which unpacks to popt (..., P), pcov (..., P, P). NumPy if ydata was; otherwise tensors with the
        dtype and device of ydata, and popt carries gradients to tensors that require them.

    Raises:
        InputError: data, parameters or options that cannot be fitted. It is also a `ValueError`.
        NotConvergedError: a single fit came to no minimum. It is also a `RuntimeError`. In a batch `success` tells.

    References: Bates & Watts, Nonlinear regression analysis and its applications (1988); Press et al., Numerical
    recipes (2007), §15.

    Example:
        >>> import numpy as np, torch, lmtorch
        >>> x = np.array([0.02, 0.06, 0.11, 0.22, 0.56, 1.10])
        >>> y = np.array([61.5, 102.0, 131.0, 155.5, 196.0, 203.5])
        >>> def rate(concentration, v_max, k):
        ...     return v_max * concentration / (k + concentration)
        >>> popt, pcov = fit = lmtorch.curve_fit(rate, x, y, p0=[200, 0.1])
        >>> print(fit)
        CurveFit(v_max=213(7), k=0.064(8))
    """
    options = dict(options)
    if "maxfev" in options:
        options["max_nfev"] = options.pop("maxfev")  # leastsq's name
    for name in ("args", "kwargs", "in_dims", "x0", "fun"):
        if name in options:
            raise InputError(f"{name} is not an option of curve_fit: put constants into f itself.")
    joint = shared is not None
    data = gather(
        xdata, ydata, sigma, mask,
        check_finite=nan_policy is None if check_finite is None else check_finite,
        nan_policy=nan_policy, joint=joint, each_x=each_x,
    )  # fmt: skip
    model = model_of(f, p0, shared, len(data.sizes))
    parameters = Parameters(list(model.names), tuple(fixed), dict(ties or {}), dict(transforms or {}))
    lower, upper = _bounds(bounds, model, parameters)
    start = _start(model, p0, data, fixed, lower, upper)
    n = len(parameters.variables)
    if data.m < n or (not data.lead and int(data.count) < n):
        raise InputError(
            f"{int(data.count.max())} points cannot determine {n} parameters. Fix some, tie them, or give more data "
            "(least_squares accepts fewer residuals than parameters)."
        )
    places = [model.names.index(name) for name in parameters.variables]
    box = tuple(
        torch.stack([torch.as_tensor(side[i] if model.names[i] not in parameters.transforms else edge) for i in places])
        for side, edge in ((lower, -math.inf), (upper, math.inf))
    )
    box = tuple(side.to(start) for side in box)
    if method is not None:
        options["method"] = method
    robust = _robust(options)
    fitter = Fitter(model, parameters, data, start, (box[0], box[1]), jac, options)
    u = parameters.inward(start.expand(*data.lead, -1) if start.ndim == 1 else start)
    solution = fitter.solve(u.reshape(-1, n) if data.lead else u)
    _check(solution, data)
    quiet = {key: value for key, value in options.items() if key not in ("callback", "verbose", "progress", "history")}
    once = {key: value for key, value in quiet.items() if key not in ("n_starts", "sampler")}
    fitter = Fitter(model, parameters, data, start.detach(), (box[0], box[1]), jac, once)
    return CurveFit(fitter, solution, absolute_sigma=absolute_sigma, full_output=full_output, loss=robust)


def _start(
    model: Model,
    p0: Any,
    data: Data,
    fixed: Sequence[str] | Mapping[str, float],
    lower: list[float],
    upper: list[float],
) -> Tensor:
    """p0 (..., P) in the dtype and on the device of ydata."""
    given = torch.as_tensor(model.start(p0)).to(data.y).detach().clone()
    size = len(model.names)
    if given.shape[-1] != size or (given.ndim > 1 and tuple(given.shape[:-1]) != data.lead):
        raise InputError(
            f"p0 of shape {tuple(given.shape)} does not fit: {size} parameters, {model.names}"
            + (f", of {data.lead} fits." if data.lead else ".")
        )
    if p0 is None and isinstance(model, OfNumbers):
        for i, name in enumerate(model.names):  # scipy's choice inside bounds
            if name in model.defaults:
                continue
            low, high = lower[i], upper[i]
            if math.isfinite(low) and math.isfinite(high):
                given[..., i] = (low + high) / 2
            elif math.isfinite(low) or math.isfinite(high):
                given[..., i] = low + 1 if math.isfinite(low) else high - 1
    if isinstance(fixed, Mapping):
        for name, value in fixed.items():
            given[..., model.names.index(name)] = float(value)
    if not bool(given.isfinite().all()):
        raise InputError("p0 has entries that are NaN or infinite.")
    return given


def _bounds(bounds: Any, model: Model, parameters: Parameters) -> tuple[list[float], list[float]]:
    """One pair for each parameter."""
    size = len(model.names)
    if isinstance(bounds, Mapping):
        unknown = [name for name in bounds if name not in model.names]
        if unknown:
            raise InputError(f"bounds name {unknown}, which the model does not have: {model.names}.")
        pairs = [bounds.get(name, (-math.inf, math.inf)) for name in model.names]
        sides = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    else:
        if hasattr(bounds, "lb") and hasattr(bounds, "ub"):
            bounds = bounds.lb, bounds.ub
        if not isinstance(bounds, tuple | list) or len(bounds) != 2:
            raise InputError("bounds must be a pair (lower, upper), or a dict of pairs by name.")
        sides = bounds[0], bounds[1]
    found = []
    for side in sides:
        array = np.asarray(side, dtype=float)
        if array.ndim > 1 or array.size not in (1, size):
            raise InputError(f"bounds have {array.shape} entries for the {size} parameters {model.names}.")
        found.append(np.broadcast_to(array.reshape(-1), size).tolist())
    for name, low, high in zip(model.names, *found, strict=True):
        if not low <= high:
            raise InputError(f"the lower bound of {name!r} is above its upper bound, or NaN: {low}, {high}.")
        if isinstance(bounds, Mapping) and name in bounds and parameters.role(name):
            raise InputError(f"{name!r} is {parameters.role(name)}: it cannot have bounds, too.")
    return found[0], found[1]


def _robust(options: Mapping[str, Any]) -> Robust | None:
    """The loss, if it is not plain least squares."""
    loss = loss_of(Options(loss=options.get("loss", "linear")))
    return loss if isinstance(loss, Robust) else None


def _check(solution: Solution, data: Data) -> None:
    """A single fit that has no parameters to return."""
    if data.lead:
        return
    status = Status(int(solution.status))
    advice = {
        Status.EVALUATIONS: "Raise max_nfev, start nearer, or check that the data determine all parameters.",
        Status.FLAT: "Start where the curve depends on its parameters.",
        Status.NOT_FINITE: "Keep the parameters where f is defined, by bounds or transforms.",
        Status.REFUSED: "Start nearer.",
    }
    if status in advice:
        raise NotConvergedError(f"no optimal parameters were found: {solution.message}. {advice[status]}")
