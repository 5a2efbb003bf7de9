"""What a model of `lmtorch.models` brings to a fit, beside what the call says, which wins.

It brings a start, guessed from the data, and its rules: bounds, fixed values, ties. For a plain
function there is only what the call says; ties as text are read for both.
"""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from .._arrays import tensor_of
from .._errors import InputError, InputTypeError
from ..minimising.arguments import unbounded
from ..models.base import Model
from ..models.expressions import circle
from ..models.guessing import Points
from ..models.rules import Rules, Tie, ties_of
from .likelihoods import Likelihood
from .measurements.data import Data
from .models import Joint, OfNumbers
from .models import Model as Called
from .preparing import names_of
from .starts.positive import guessed

Pair = tuple[float, float]


class Brought(NamedTuple):
    """The rules of a fit: those of the call, completed by those of its model.

    Attributes:
        bounds: as `curve_fit` takes them.
        fixed: names of fixed parameters, with values where they are held at one.
        ties: functions by name.
        starts: by name, those that the model brings.
        limits: bounds that tied parameters have by themselves, which a fit does not look after.
    """

    bounds: Any
    fixed: dict[str, float | None]
    ties: Mapping[str, Tie]
    starts: Mapping[str, float]
    limits: dict[str, Pair]

    @property
    def values(self) -> dict[str, float]:
        """The values of parameters that are held at one."""
        return {name: value for name, value in self.fixed.items() if value is not None}


class Part(NamedTuple):
    """A model with its data set.

    Attributes:
        model: of the library.
        names: what its parameters are called in the fit, by their own names.
        place: the number of its data set; None: it is the only one.
    """

    model: Model
    names: dict[str, str]
    place: int | None


@dataclass(frozen=True)
class Renamed:
    """A tie of a model whose parameters are called otherwise in the fit, as `g_center[0]`."""

    tie: Tie
    names: tuple[tuple[str, str], ...]

    @property
    def text(self) -> str:
        """The equation in the names of the fit; empty: it is a function."""
        full = dict(self.names)
        written = getattr(self.tie, "text", "")
        return re.sub(r"\b[^\W\d]\w*", lambda name: full.get(name[0], name[0]), written)

    def __call__(self, values: Mapping[str, Any]) -> Any:
        """The value of the tie.

        Raises:
            KeyError: a value that it needs is not known.
        """
        return self.tie({own: values[full] for own, full in self.names if full in values})


def brought(called: Called, bounds: Any, fixed: Any, ties: Any, transforms: Any) -> Brought:
    """What the call says of parameters, completed by what its model or its models know.

    Raises:
        InputError: rules of the model and of the call cannot hold together.
        InputTypeError: ties are neither a dict nor a list of equations.
    """
    bounds = _open_ends(bounds)
    held: dict[str, float | None] = dict.fromkeys(names_of(fixed))
    held.update(fixed if isinstance(fixed, Mapping) else {})
    tied = _read(ties, list(called.names))
    known, parts = Rules(), list(parts_of(called))
    circle(tied)
    if not parts:
        return Brought(bounds, held, tied, {}, {})
    for part in parts:
        known = known.plus(_renamed(part))
    said = {*held, *tied, *(transforms or {})}
    held = {**{name: v for name, v in known.fixed.items() if name not in said}, **held}
    tied = {**{name: tie for name, tie in known.ties.items() if name not in said}, **tied}
    circle(tied)  # those of the model with those of the call
    if unbounded(bounds) or isinstance(bounds, Mapping):
        said = {*held, *tied, *(transforms or {})}
        given = bounds if isinstance(bounds, Mapping) else {}
        _check_values(held, {**known.bounds, **given})
        bounds = {**{n: pair for n, pair in known.bounds.items() if n not in said}, **given}
    limits = {name: known.bounds[name] for name in tied if name in known.bounds}
    return Brought(bounds, held, tied, known.starts, limits)


def start_from(
    called: Called,
    data: Data,
    p0: Any,
    rules: Brought,
    box: tuple[list[float], list[float]],
    likelihood: Likelihood | None = None,
) -> Any:
    """Where a fit starts: p0, and what it does not name as a model of the library guesses it.

    Args:
        called: the model, as the fit calls it.
        data: points.
        p0: as the user gave it.
        rules: of the call and of the model.
        box: the lower and the upper bounds of all parameters.
        likelihood: of the data; None: squares.

    Returns:
        p0 of a plain function as it is; of a model numbers by name.

    Raises:
        InputError: x are no numbers to guess from.
    """
    parts = list(parts_of(called))
    if not parts or (p0 is not None and not isinstance(p0, Mapping)):
        return p0
    given = dict(p0 or {})
    ready = {**rules.starts, **rules.values}
    numbers = {n: float(v) for n, v in given.items() if not np.ndim(v) and hasattr(v, "__float__")}
    bounds = {name: pair for name, *pair in zip(called.names, *box, strict=True)}
    found: dict[str, list[Any]] = {}
    for part in parts:
        names = part.names

        def own(values: Mapping[str, Any], names: dict[str, str] = names) -> dict[str, Any]:
            return {short: values[name] for short, name in names.items() if name in values}

        missing = [n for s, n in names.items() if not {s, n} & given.keys() and n not in ready]
        if missing and not set(missing) <= rules.ties.keys():
            ties = rules.ties if part.place is None else part.model.ties
            local = Rules(own(bounds), own(rules.fixed), ties, {**own(ready), **own(numbers)})
            points = _points(part.place, data, likelihood)
            guess = guessed(part.model, points, local, likelihood)
            for short, name in names.items():
                found.setdefault(name, []).append(guess[short])
    # what several data sets have in common starts in the middle of what they say
    start = {name: sum(values) / len(values) for name, values in found.items()}
    start = {n: v for n, v in start.items() if n not in given and n.partition("[")[0] not in given}
    return {**start, **ready, **given}


def _read(ties: Any, names: list[str]) -> Mapping[str, Any]:
    """Ties by name, those that are text read.

    Raises:
        InputTypeError: they are neither a dict nor a list.
    """
    if ties is None:
        return {}
    if isinstance(ties, str | list | tuple | Mapping):
        return ties_of(ties, names)
    raise InputTypeError(
        f"ties={ties!r} must be a dict by name, or a list of equations such as 'b = 2 * a'."
    )


def parts_of(called: Called) -> Iterator[Part]:
    """The models of the library with the names that their parameters have in the fit."""
    if isinstance(called, OfNumbers) and isinstance(called.function, Model):
        yield Part(called.function, {name: name for name in called.function.names}, None)
    elif isinstance(called, Joint):
        for place, function in enumerate(called.functions):
            if isinstance(function, Model):
                full = [called.names[i] for i in called.picks[place]]
                yield Part(function, dict(zip(called.own[place], full, strict=True)), place)


def _renamed(part: Part) -> Rules:
    """The rules of a model by the names that its parameters have in the fit."""
    rules, names = part.model._all_rules, part.names
    if part.place is None:
        return rules
    pairs = tuple(names.items())
    return Rules(
        {names[name]: pair for name, pair in rules.bounds.items()},
        {names[name]: value for name, value in rules.fixed.items()},
        {names[name]: Renamed(tie, pairs) for name, tie in rules.ties.items()},
        {names[name]: value for name, value in rules.starts.items()},
    )


def _open_ends(bounds: Any) -> Any:
    """Bounds by name with infinity for None; any others as they are."""
    if not isinstance(bounds, Mapping):
        return bounds
    return {
        name: tuple(
            end if side is None else side
            for side, end in zip(pair, (-math.inf, math.inf), strict=True)
        )
        if isinstance(pair, tuple | list) and len(pair) == 2
        else pair
        for name, pair in bounds.items()
    }


def _check_values(held: Mapping[str, float | None], bounds: Mapping[str, Any]) -> None:
    """Check that fixed values are within bounds.

    Raises:
        InputError: one is not.
    """
    for name, value in held.items():
        if value is not None and name in bounds and np.shape(bounds[name]) == (2,):
            low, high = bounds[name]
            if not low <= value <= high:
                raise InputError(
                    f"{name!r} is fixed at {value}, outside its bounds, {low} to {high}."
                )


def _points(place: int | None, data: Data, likelihood: Likelihood | None) -> Points:
    """The data of a model, ready for a guess; successes as shares of their trials.

    Raises:
        InputError: x are no numbers.
    """
    y, weights, x = data.y.detach(), data.weights, data.x
    if likelihood is not None and likelihood.name == "binomial" and data.total is not None:
        y = y / data.total.clamp(min=1)
    if place is not None:
        rows = slice(sum(data.sizes[:place]), sum(data.sizes[: place + 1]))
        y, x = y[rows], x[place]
        weights = None if weights is None else weights[rows]
    if not isinstance(x, Tensor):
        kind = getattr(x, "dtype", None) or f"type {type(x).__name__}"
        raise InputError(
            f"a model guesses its start from xdata that are numbers in one array, (m,) or (k, m), "
            f"and not of {kind}. Of a table give a column, table['x']; of dates numbers, (time - "
            "time[0]) / np.timedelta64(1, 's'). For a function of something else give p0 with a "
            "value for each parameter, or with_start."
        )
    kept = None if weights is None else (weights > 0).expand(y.shape)
    return Points.of(x, y, kept, data.each_x)


def beyond(limits: Mapping[str, Pair], values: Mapping[str, Any]) -> str:
    """Which tied parameters are outside of their own bounds, in words; none: empty."""
    found = []
    for name, (low, high) in limits.items():
        value = tensor_of(values[name]).detach()
        out = (value < low) | (value > high)
        if bool(out.any()):
            worst = float(value[out][0] if value.ndim else value)
            found.append(f"{name!r} = {worst:.6g}, outside of {low} to {high}")
    return ", ".join(found)
