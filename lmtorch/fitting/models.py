"""What may be fitted: a function of x and numbers, of x and a dict, a module; one, or one for each data set.

A model knows the names of its parameters and how to be called with all of them in one flat vector p.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from .._errors import InputError
from ..residuals.swap import call_with


class Model(Protocol):
    """f(x, p)."""

    @property
    def label(self) -> str:
        """How reports call it."""

    @property
    def names(self) -> list[str]:
        """Of the entries of p."""

    def start(self, p0: Any) -> Any:
        """p0 as the user gave it, as numbers (P,) or (..., P)."""

    def named(self, p: Any) -> dict[str, Any]:
        """p (..., P) by name."""

    def __call__(self, x: Any, p: Any, place: int | None = None) -> Any:
        """The curve at x, flat; p (P,) is a tensor or an array. `place`: of one of several data sets."""


class OfNumbers:
    """f(x, a, b, ...), scipy's kind.

    Args:
        function: the user's.
        p0: what the user starts from, to count the parameters of f(x, *p).

    Raises:
        InputError: the number of parameters cannot be told.
    """

    def __init__(self, function: Callable[..., Any], p0: Any) -> None:
        self.function = function
        self.label = _label(function)
        names, defaults, open_ended = _signature(function)
        if isinstance(p0, Mapping):
            unknown = set(p0) - set(names)
            if unknown and not open_ended:
                raise InputError(f"p0 names {sorted(unknown)}, which f does not have: its parameters are {names}.")
        elif p0 is not None:
            count = np.shape(_array(p0))[-1] if np.ndim(_array(p0)) else 1
            if open_ended:
                names = [*names, *(f"p{i}" for i in range(len(names), count))]
            elif count != len(names):
                raise InputError(f"p0 has {count} entries, and f has {len(names)} parameters after x: {names}.")
        if not names:
            raise InputError(
                "the number of parameters cannot be told from f(x, *p): give p0, or name them, f(x, a, b)."
            )
        self.names = names
        self.defaults = defaults

    def start(self, p0: Any) -> Any:
        """Ones where nothing is said, or the default values of f's arguments."""
        if p0 is not None and not isinstance(p0, Mapping):
            return torch.atleast_1d(p0) if isinstance(p0, Tensor) else np.atleast_1d(np.array(_array(p0)))
        given = {**self.defaults, **(p0 or {})}
        return _stacked([given.get(name, 1.0) for name in self.names])

    def named(self, p: Any) -> dict[str, Any]:
        """Numbers."""
        return by_name(self.names, p)

    def __call__(self, x: Any, p: Any, place: int | None = None) -> Any:
        """f(x, *p)."""
        return self.function(x, *(p[i] for i in range(len(self.names))))


class OfTensors:
    """f(x, params) with a dict of tensors, or a module called as module(x).

    Args:
        function: the user's function of x and the dict.
        values: tensors or arrays by name: shapes, and where the fit starts.
        label: for reports.
    """

    def __init__(self, function: Callable[[Any, dict[str, Any]], Any], values: Mapping[str, Any], label: str) -> None:
        self.function = function
        self.label = label
        self.keys = list(values)
        arrays = [_array(value) for value in values.values()]
        self.shapes = [tuple(np.shape(array)) for array in arrays]
        self.sizes = [int(np.prod(shape)) for shape in self.shapes]
        self.values = torch.cat([torch.as_tensor(array).reshape(-1) for array in arrays])
        self.names = [name for key, shape in zip(self.keys, self.shapes, strict=True) for name in entries(key, shape)]

    def start(self, p0: Any) -> Any:
        """The values themselves."""
        return self.values

    def named(self, p: Any) -> dict[str, Any]:
        """In the shapes of the tensors, behind those of a batch."""
        params, begin, lead = {}, 0, tuple(p.shape[:-1])
        for key, shape, size in zip(self.keys, self.shapes, self.sizes, strict=True):
            params[key] = p[..., begin : begin + size].reshape(lead + shape)
            begin += size
        return params

    def __call__(self, x: Any, p: Any, place: int | None = None) -> Any:
        """The function of the dict, its result flat."""
        return self.function(x, self.named(p))


class Joint:
    """One model for each of several data sets, with some parameters in common: a global fit.

    Args:
        functions: f(x, a, b, ...) for each data set; one serves all.
        count: of data sets.
        shared: names of the parameters that are one and the same in all.

    Raises:
        InputError: names that no function has.
    """

    def __init__(self, functions: Sequence[Callable[..., Any]], count: int, shared: Sequence[str]) -> None:
        if len(functions) == 1:
            functions = [functions[0]] * count
        if len(functions) != count:
            raise InputError(f"there are {len(functions)} functions for {count} data sets: give one, or one for each.")
        self.functions = list(functions)
        self.label = ", ".join(dict.fromkeys(_label(f) for f in self.functions))
        own = [_signature(f)[0] for f in self.functions]
        self.bare = list(dict.fromkeys(name for names in own for name in names))
        unknown = [name for name in shared if name not in self.bare]
        if unknown:
            raise InputError(f"shared names {unknown}, which no function has: their parameters are {self.bare}.")
        self.shared = set(shared)
        self.names = []
        for name in self.bare:
            has = [place for place in range(count) if name in own[place]]
            self.names += [name] if name in self.shared else [f"{name}[{place}]" for place in has]
        where = {name: index for index, name in enumerate(self.names)}
        self.picks = [
            [where[name if name in self.shared else f"{name}[{place}]"] for name in own[place]]
            for place in range(count)
        ]

    def start(self, p0: Any) -> Any:
        """From numbers in the order of f's arguments, or a dict; a local parameter may have one for each data set."""
        if p0 is None:
            p0 = {}
        if not isinstance(p0, Mapping):
            values = list(p0)
            if len(values) == len(self.names) != len(self.bare):
                return _stacked(values)
            if len(values) != len(self.bare):
                raise InputError(f"p0 has {len(values)} entries for the parameters {self.bare}.")
            p0 = dict(zip(self.bare, values, strict=True))
        unknown = set(p0) - set(self.bare) - set(self.names)
        if unknown:
            raise InputError(f"p0 names {sorted(unknown)}: the parameters are {self.bare}, and {self.names} in full.")
        starts = []
        for full in self.names:
            bare, _, rest = full.partition("[")
            value = p0.get(full, p0.get(bare, 1.0))
            if rest and full not in p0 and np.ndim(_array(value)):
                if len(value) != len(self.functions):
                    raise InputError(f"p0 of {bare!r} has {len(value)} entries for {len(self.functions)} data sets.")
                value = value[int(rest[:-1])]
            starts.append(value)
        return _stacked(starts)

    def named(self, p: Any) -> dict[str, Any]:
        """Numbers, by their full names."""
        return by_name(self.names, p)

    def __call__(self, x: Any, p: Any, place: int | None = None) -> Any:
        """All curves, one after the other, or that of one data set."""
        if place is not None:
            return self.functions[place](x, *(p[i] for i in self.picks[place]))
        curves = [f(one, *(p[i] for i in picks)) for f, one, picks in zip(self.functions, x, self.picks, strict=True)]
        if any(isinstance(curve, Tensor) for curve in curves):
            return torch.cat([torch.as_tensor(curve).reshape(-1) for curve in curves])
        return np.concatenate([np.ravel(curve) for curve in curves])


def model_of(f: Any, p0: Any, shared: Sequence[str] | None, count: int) -> Model:
    """The kind of model that the user means.

    Raises:
        InputError: it is none.
    """
    if shared is not None:
        return Joint(list(f) if isinstance(f, list | tuple) else [f], count, shared)
    if isinstance(f, nn.Module):
        values = {name: p.detach() for name, p in f.named_parameters() if p.requires_grad}
        if isinstance(p0, Mapping):
            unknown = set(p0) - set(values)
            if unknown:
                raise InputError(f"p0 names {sorted(unknown)}, which the module does not have: {list(values)}.")
            values |= {name: torch.as_tensor(value).to(values[name]) for name, value in p0.items()}
        if not values:
            raise InputError("the module has no parameters that require gradients: there is nothing to fit.")
        return OfTensors(lambda x, params: call_with(f, params, (x,)), values, type(f).__name__)
    if not callable(f):
        raise InputError(f"f is {type(f).__name__}: give a function f(x, a, b, ...), f(x, params) or a module.")
    if isinstance(p0, Mapping):
        names, _, open_ended = _signature(f)
        if not set(p0) <= set(names) and len(names) == 1 and not open_ended:
            return OfTensors(f, p0, _label(f))
    return OfNumbers(f, p0)


def by_name(names: list[str], p: Any) -> dict[str, Any]:
    """The entries of p (..., P): numbers of one fit, (...,) of a batch."""
    return {name: p[i] if p.ndim == 1 else p[..., i] for i, name in enumerate(names)}


def entries(key: str, shape: tuple[int, ...]) -> list[str]:
    """Names of the entries of a tensor: w[0], w[1]; the bare name for a single number."""
    return [key] if not shape else [f"{key}[{','.join(map(str, index))}]" for index in np.ndindex(*shape)]


def _signature(function: Callable[..., Any]) -> tuple[list[str], dict[str, float], bool]:
    """Names of the parameters after x, numbers that they default to, and whether there is *p."""
    try:
        given = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return [], {}, True
    positional = [p for p in given if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if not given or (not positional and not any(p.kind == p.VAR_POSITIONAL for p in given)):
        raise InputError("f takes no arguments: it must be f(x, a, b, ...).")
    defaults = {p.name: p.default for p in positional[1:] if isinstance(p.default, int | float)}
    return [p.name for p in positional[1:]], defaults, any(p.kind == p.VAR_POSITIONAL for p in given)


def _label(function: Callable[..., Any]) -> str:
    """f(x, a, b), without annotations."""
    name = getattr(function, "__name__", type(function).__name__)
    try:
        given = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return str(name)
    bare = inspect.Signature([p.replace(annotation=inspect.Parameter.empty) for p in given])
    return f"{'f' if name == '<lambda>' else name}{bare}"


def _array(value: Any) -> Any:
    """A start as numbers.

    Raises:
        InputError: it is none.
    """
    try:
        return value if isinstance(value, Tensor) else np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"p0 has {value!r}, where numbers are needed: {error}") from error


def _stacked(values: Sequence[Any]) -> Any:
    """One vector (P,), or (..., P) where some are batches."""
    if any(isinstance(value, Tensor) for value in values):
        like = next(value for value in values if isinstance(value, Tensor))
        tensors = [torch.as_tensor(value, dtype=like.dtype, device=like.device) for value in values]
        return torch.stack(torch.broadcast_tensors(*tensors), -1)
    return np.stack(np.broadcast_arrays(*(np.asarray(value, dtype=np.float64) for value in values)), -1)
