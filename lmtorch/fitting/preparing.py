"""Before and after a curve fit: its start, its bounds, and what is said when it has failed."""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from .._arrays import all_finite, tensor_of, to_array
from .._errors import InputError, InputTypeError, warn_of_fit
from .._names import meant
from ..arrays import ones, quiet, resolution
from ..core.termination import Status
from ..losses.base import Loss
from ..losses.linear import Linear
from ..minimising.arguments import as_pair, as_pairs, check_pairs, unbounded
from ..minimising.solution import Solution
from .likelihoods import Likelihood
from .measurements.data import Data
from .models import Model, OfNumbers
from .parameters import Parameters

SLIGHTLY = 1e-6  # a fit may cost more than a constant by this part of the constant's cost
TOGETHER = 2**16  # numbers of the data of many fits that are looked at together, in cache
OFFSET = 100.0  # times as far from zero as they are wide: points that a user should move to zero
ROUNDINGS = 16  # a fit may miss every point by so many times the rounding error of the data
EPS = ROUNDINGS * resolution(torch.float64)


def names_of(fixed: Any) -> tuple[str, ...]:
    """The names of the fixed parameters; a string is one name.

    Raises:
        InputTypeError: there are no names, or no numbers for them.
    """
    if fixed is None or isinstance(fixed, str):
        return () if fixed is None else (fixed,)
    if not isinstance(fixed, Collection):
        raise InputTypeError(
            f"fixed={fixed!r} must be a list of names, or a dict of values by name."
        )
    if isinstance(fixed, Mapping):
        for name, value in fixed.items():
            if not hasattr(value, "__float__") or isinstance(value, str) or np.size(value) != 1:
                raise InputTypeError(
                    f"fixed[{name!r}]={value!r} is no number: give the value to hold it at, or a "
                    "list of names to hold them at their start."
                )
    return tuple(fixed)


def check_order(data: Data, p0: Any) -> None:
    """Refuse arguments in MATLAB's order.

    Raises:
        InputError: p0 has as many numbers as there are points, and x has fewer.
    """
    x = data.x
    starts = len(p0) if isinstance(p0, list | tuple | np.ndarray) and np.iterable(p0) else 0
    if isinstance(x, Tensor) and x.ndim == 1 and not data.lead and 1 < len(x) < data.m == starts:
        raise InputError(
            f"p0 has {data.m} entries, as many as ydata, and xdata {len(x)}. The order of the "
            "arguments is (f, xdata, ydata, p0) with f(x, a, b, ...), not MATLAB's (fun, x0, "
            "xdata, ydata) with fun(p, x)."
        )


def start_of(
    model: Model,
    p0: Any,
    data: Data,
    fixed: str | Sequence[str] | Mapping[str, float],
    lower: list[float],
    upper: list[float],
) -> Tensor:
    """The start (..., P), from p0 or defaults, in the dtype and on the device of ydata."""
    given = tensor_of(model.start(p0))
    if given.is_complex():
        raise InputError("p0 is complex: parameters are real numbers, a part of each.")
    given = given.to(data.y).detach().clone()
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
    if not all_finite(given):
        raise InputError("p0 has entries that are NaN or infinite.")
    return given


def bounds_from(
    bounds: Any, model: Model, parameters: Parameters
) -> tuple[list[float], list[float]]:
    """The lower and the upper bound of each parameter, as two lists.

    Raises:
        InputError: bounds are no pairs, are reversed or NaN, or do not fit the parameters.
        InputTypeError: they are no numbers.
    """
    size, hint = len(model.names), ""
    if unbounded(bounds):
        return [-math.inf] * size, [math.inf] * size
    bounds = tree_map(to_array, bounds)  # whatever their device
    if any(map(np.iscomplexobj, tree_leaves(bounds))):
        raise InputTypeError("bounds are complex: give real numbers.")
    if isinstance(bounds, Mapping):
        unknown = [name for name in bounds if name not in model.names]
        if unknown:
            raise InputError(
                f"bounds name {unknown}, which the model does not have: {model.names}."
                f"{meant(unknown, model.names)}"
            )
        pairs = [bounds.get(name, (-math.inf, math.inf)) for name in model.names]
        for name, pair in zip(model.names, pairs, strict=True):
            if np.shape(pair) != (2,):
                raise InputError(
                    f"the bounds of {name!r} are {pair!r}: give a pair, (lower, upper)."
                )
        sides: tuple[Any, Any] = ([pair[0] for pair in pairs], [pair[1] for pair in pairs])
    else:
        hint = as_pairs(bounds, size)
        bounds = as_pair(bounds)
        if not isinstance(bounds, tuple | list | np.ndarray | Tensor) or len(bounds) != 2:
            raise InputTypeError(
                f"bounds must be a pair (lower, upper), or a dict of pairs by name.{hint}"
            )
        sides = (bounds[0], bounds[1])
    found = []
    for side in sides:
        try:
            array = np.asarray(side, dtype=float)
        except (TypeError, ValueError) as error:
            raise InputTypeError(f"bounds must be numbers, not {side!r}.{hint}") from error
        if array.ndim > 1 or array.size not in (1, size):
            raise InputError(
                f"bounds have {array.shape} entries for the {size} parameters {model.names}.{hint}"
            )
        found.append(np.broadcast_to(array.reshape(-1), size).tolist())
    for name, low, high in zip(model.names, *found, strict=True):
        if not low <= high:
            raise InputError(
                f"the lower bound of {name!r} is above its upper bound, or NaN: {low}, "
                f"{high}.{hint}"
            )
        if isinstance(bounds, Mapping) and name in bounds and parameters.role(name):
            raise InputError(f"{name!r} is {parameters.role(name)}: it cannot have bounds, too.")
    if hint and any(low == high for low, high in zip(*found, strict=True)):
        check_pairs(bounds, hint)
    return found[0], found[1]


def box_of(
    lower: list[float], upper: list[float], parameters: Parameters, start: Tensor, bounds: Any
) -> tuple[Tensor, Tensor]:
    """The bounds (n,) of the variables; a transformed one has none, as its transform keeps it.

    `bounds` are as the user gave them, for messages.

    Raises:
        InputError: a variable starts outside its bounds.
    """
    places = [parameters.names.index(name) for name in parameters.variables]
    low, high = (
        start.new_tensor(
            [edge if parameters.names[i] in parameters.transforms else side[i] for i in places]
        )
        for side, edge in ((lower, -math.inf), (upper, math.inf))
    )
    if all(side == -math.inf for side in lower) and all(side == math.inf for side in upper):
        return low, high
    inside = (
        ((start[..., places] >= low) & (start[..., places] <= high)).reshape(-1, len(places)).all(0)
    )
    for name, i, good in zip(parameters.variables, places, inside.tolist(), strict=True):
        if not good and name not in parameters.transforms:
            raise InputError(
                f"p0 is infeasible: {name!r} starts outside its bounds, {lower[i]} to "
                f"{upper[i]}. Move it inside." + as_pairs(bounds, len(parameters.names), start)
            )
    return low, high


def check_count(data: Data, count: int) -> None:
    """Check that there are enough points for so many variables.

    Raises:
        InputTypeError: a single fit, or every fit of a batch, has fewer points.
    """
    if data.m < count or (not data.lead and int(data.count) < count):
        raise InputTypeError(
            f"{int(data.count.max())} points cannot determine {count} parameters. Fix some, tie "
            "them, or give more data (least_squares accepts fewer residuals than parameters)."
        )


def take_back(solution: Solution, data: Data, count: int) -> None:
    """Say of the fits of a batch that have fewer points than variables that they are no success.

    Their cost has no minimum, or a whole line of them, of which any point would pass for one.
    """
    if not data.lead:
        return
    points = data.count.reshape(-1)
    status = tensor_of(solution["status"])
    short = (points < count).to(status.device) & (status > 0)
    if bool(short.any()):
        why = torch.where(points.to(status.device) > 0, int(Status.LOST), int(Status.FLAT))
        status = torch.where(short, why.to(status.dtype), status)
        given = to_array if isinstance(solution["status"], np.ndarray) else torch.Tensor.detach
        solution["status"], solution["success"] = given(status), given(status > 0)
        messages = list(solution["message"])
        for place in short.nonzero()[:, 0].tolist():
            messages[place] = Status(int(status[place])).message
        solution["message"] = messages


@contextmanager
def understood(data: Data, xdata: Any) -> Iterator[None]:
    """Explain an error that f raises because xdata are no numbers: dates, text or a table.

    One that a function of `math` raises, which takes single numbers, gets a note.

    Raises:
        InputTypeError: f raised a TypeError or AttributeError, and xdata are no numbers.
        TypeError: f raised it, and xdata are numbers.
        AttributeError: likewise.
        ValueError: f raised it.
    """
    try:
        yield
    except (TypeError, AttributeError, ValueError) as error:
        if "converted to Python scalar" in str(error):
            error.add_note("f is called with all points at once: torch.exp in place of math.exp.")
        if "values to unpack" in str(error):
            _note_shape(error, xdata)
        if isinstance(error, ValueError) and not isinstance(error, TypeError):
            raise
        if isinstance(error, InputError) or all(
            isinstance(leaf, Tensor) for leaf in tree_leaves(data.x)
        ):
            raise
        kind = getattr(xdata, "dtype", None) or f"type {type(xdata).__name__}"
        raise InputTypeError(
            f"xdata of {kind} are no numbers, and f cannot use them: {error}. Give "
            "numbers, such as (time - time[0]) / np.timedelta64(1, 's') for dates (of text "
            "pandas.to_datetime makes them), or a column of a table, table['x']; of several "
            "columns give a dict, dict(table[['x', 'y']]), whose entries f gets as tensors."
        ) from error


def _note_shape(error: Exception, xdata: Any) -> None:
    """Note on an error that x could not be taken apart which shape it has, and what may be meant.

    Of a table or of points in rows f unpacks the points, and not their coordinates.
    """
    shape = np.shape(xdata)
    if len(shape) != 2 or not (shape[1] < shape[0] or hasattr(xdata, "columns")):
        return
    turned = "xdata.to_numpy()" if hasattr(xdata, "to_numpy") else "xdata"
    turned += ".T" if shape[1] < shape[0] else ""
    error.add_note(
        f"xdata has shape {shape}, and f gets it as it is. Give {turned} where f takes "
        "x, y = xdata; or take columns in f, x = xdata[:, 0]."
    )


def failure(solution: Solution, data: Data, hint: str = "") -> str:
    """Why a single fit has no parameters to return, and what to do; empty if it has some.

    The hint says what was found to be the reason.
    """
    if data.lead:
        return ""
    status = Status(int(solution.status))
    advice = {
        Status.EVALUATIONS: (
            "Raise max_nfev, start nearer, or check that the data determine all parameters."
        ),
        Status.FLAT: "Start where the curve depends on its parameters.",
        Status.NOT_FINITE: "Keep the parameters where f is defined, by bounds or transforms.",
        Status.REFUSED: "Start nearer.",
    }
    if status not in advice:
        return ""
    helps = offset(data) if status != Status.EVALUATIONS else ""
    helps = hint or helps or advice[status]
    return f"no optimal parameters were found: {solution.message}. {helps}"


def offset(data: Data) -> str:
    """Say what to do where x lies far from zero, as times in seconds since 1970 do; "": nothing."""
    x = data.x
    if not isinstance(x, Tensor) or x.ndim != 1 or not x.is_floating_point() or x.numel() < 2:
        return ""
    low, high = float(x.min()), float(x.max())
    least = min(abs(low), abs(high))
    if not (low * high > 0 and high > low and least > OFFSET * (high - low)):
        return ""
    return (
        f"x runs from {low:.10g} to {high:.10g}, {least / (high - low):.2g} times farther from "
        "zero than it is wide: parameters that say what the curve does at x = 0 are out of reach "
        "there. Fit x - x[0]."
    )


def warn_of(solution: Solution, data: Data, hint: str = "") -> None:
    """Warn if a single fit returns parameters that should not be trusted; the hint says why."""
    if data.lead or bool(solution.success) or int(solution.status) == Status.STOPPED:
        return
    advice = {
        Status.LOST: "Start nearer, leave the parameter out, or keep it where it counts by bounds.",
        Status.POOR: "Start nearer (p0), or doubt the model.",
        Status.SADDLE: "Start from unequal parameters.",
    }
    helps = advice.get(
        Status(int(solution.status)),
        "Start nearer, or see whether the data determine all parameters.",
    )
    helps = hint or offset(data) or helps
    warn_of_fit(f"the fit is not to be trusted: {solution.message}. {helps}")


def acceptable_counts(data: Data, likelihood: Likelihood) -> Tensor | None:
    """The largest cost (...,) of a fit of counts that is not doubtful: that of the best constant.

    None where that is not known.
    """
    level = likelihood.level(data)
    if level is None:
        return None
    y = data.y.detach()
    constant = level.expand(y.shape)
    loss = likelihood.of(constant, y, data.weights, data.total).bound()
    cost = loss.each(constant.reshape(-1)).reshape(y.shape).sum(-1)
    least = loss.criterion.least(1, *loss.targets).reshape(y.shape).sum(-1)
    bar = cost + least + SLIGHTLY * cost + ROUNDINGS * torch.finfo(y.dtype).eps * least.abs()
    return bar.nan_to_num(torch.inf, torch.inf)


def _moments(y: Tensor) -> tuple[Tensor, Tensor]:
    """Variance and mean of y (..., m) over the points, (...,), in float64."""
    # of many curves a few at a time: all in float64 might be larger than all that is fitted
    few = max(1, TOGETHER // max(1, y.shape[-1])) if y.device.type == "cpu" else y.numel() or 1
    found = []
    for part in y.reshape(-1, y.shape[-1]).split(few):
        wide = part.double()
        mean = wide.mean(-1, keepdim=True)
        found.append(((wide - mean).square_().mean(-1), mean[:, 0]))
    spread, mean = (torch.cat(parts).reshape(y.shape[:-1]) for parts in zip(*found, strict=True))
    return spread, mean


def acceptable_of_one(y: Any) -> float:
    """`acceptable` of one curve without weights, an array (m,) in float64: NumPy sums quicker."""
    m = len(y)
    with quiet():
        mean = float(ones(m).dot(y)) / m
        apart = y - mean
        spread = float(apart.dot(apart))
    floor = EPS * mean
    bar = (1 + SLIGHTLY + EPS * EPS) * (spread / 2) + floor * floor * (m / 2)
    return bar if math.isfinite(bar) else math.inf


def acceptable(data: Data, loss: Loss) -> Tensor:
    """The largest cost (...,) of a fit that is not doubtful: that of the better of two constants.

    The constants are the mean and the median. A model that follows the data explains more than a
    constant does. A fit that does not may still be at a minimum, but at a wrong one: beyond a pole,
    say.
    """
    if isinstance(loss, Linear) and data.weights is None and data.root is None:
        # the mean is the best constant of all: the variance and the mean square tell its cost
        y, eps = data.y.detach(), ROUNDINGS * torch.finfo(data.y.dtype).eps
        if y.ndim == 1 and y.device.type == "cpu" and y.dtype is torch.float64:
            return tensor_of(acceptable_of_one(y.numpy()), torch.float64)
        spread, mean = _moments(y)
        floor = eps * mean
        bar = ((1 + SLIGHTLY + eps**2) * spread + floor * floor) * (data.m / 2)
        return tensor_of(bar, torch.float64).nan_to_num(torch.inf, torch.inf)
    y = data.y.detach().double()
    count = torch.ones_like(y) if data.weights is None else data.weights.double().expand(y.shape)
    kept = torch.where(count > 0, y, torch.nan)
    levels = torch.nanmean(kept, -1), kept.nanmedian(-1).values
    if data.root is None:
        largest = count.amax(-1, keepdim=True)
        share = (count / torch.where(largest > 0, largest, 1.0)).square()
        levels = (torch.where(count > 0, share * y, 0.0).sum(-1) / share.sum(-1), levels[1])
    costs = []
    for constant in levels:
        apart = constant[..., None] - y
        rows = torch.where(count > 0, count * apart, 0.0)
        rows = rows if data.root is None else (data.root.double() @ apart[..., None])[..., 0]
        costs.append(loss.cost(rows))
    # a constant fits constant data to the last digit; a model can do so only to rounding errors
    rounding = torch.finfo(data.y.dtype).eps * torch.where(count > 0, count * y, 0.0)
    bar = (1 + SLIGHTLY) * torch.minimum(*costs) + ROUNDINGS**2 * rounding.square().sum(-1) / 2
    return torch.where(bar.isnan(), torch.inf, bar)  # no limit if the data are not finite
