"""Models: a function of x and numbers or of x and a dict, a module, or one for each data set.

A model knows the names of its parameters and how to be called with all of them in one flat vector
p.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from numbers import Real
from types import FunctionType
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from .._arrays import is_tensor, tensor_of
from .._errors import InputError, InputTypeError
from .._modules import call_with


class Model(Protocol):
    """A function f(x, p) whose parameters have names."""

    @property
    def label(self) -> str:
        """How reports call it."""

    @property
    def names(self) -> list[str]:
        """Names of the entries of p."""

    def start(self, p0: Any) -> Any:
        """The numbers (P,) or (..., P) of p0, which is as the user gave it."""

    def named(self, p: Any) -> dict[str, Any]:
        """The parameters p (..., P) by name."""

    def __call__(self, x: Any, p: Any, place: int | None = None) -> Any:
        """The curve at x, flat, for p (P,), a tensor or array; `place`: of one data set alone."""


class Arguments(NamedTuple):
    """What a function takes after x."""

    names: list[str]  # of all that can be passed by position
    defaults: dict[str, Any]  # of those that have one
    open_ended: bool  # there is *p

    @property
    def numbers(self) -> list[str]:
        """Names of the parameters: an argument whose default is no number is an option."""
        return [
            name
            for name in self.names
            if name not in self.defaults or is_number(self.defaults[name])
        ]

    def first(self, count: int) -> list[str]:
        """Names of the first arguments, which a start of so many numbers fills as in scipy.

        Raises:
            InputError: an option is among them.
            InputTypeError: f has fewer arguments, or needs more.
        """
        if self.open_ended:
            return [*self.names[:count], *(f"p{i}" for i in range(len(self.names), count))]
        needed = [name for name in self.names[count:] if name not in self.defaults]
        if count > len(self.names) or needed:
            raise InputTypeError(
                f"p0 has {count} entries, and f has {len(self.names)} parameters after x: "
                f"{self.names}."
            )
        for name in self.names[:count]:
            if isinstance(self.defaults.get(name), bool | np.bool_ | str):
                raise InputError(
                    f"p0 has {count} entries, one of them for {name}={self.defaults[name]!r}, "
                    "which is no number: name those that are fitted, "
                    f"p0={{'{self.numbers[0]}': 1.0, ...}}."
                )
        return self.names[:count]

    def passed(
        self, names: Sequence[str], values: Sequence[Any]
    ) -> tuple[Sequence[Any], dict[str, Any]]:
        """The values to pass by position, and by name those after an argument that is left out."""
        count = 0
        while count < len(names) and (
            count >= len(self.names) or names[count] == self.names[count]
        ):
            count += 1
        return values[:count], dict(zip(names[count:], values[count:], strict=True))


class OfNumbers:
    """A function f(x, a, b, ...), scipy's kind of model.

    Args:
        function: the user's.
        p0: what the user starts from: it says how many parameters there are, and the signature what
            they are called.

    Raises:
        InputError: the number of parameters cannot be told.
    """

    def __init__(self, function: Callable[..., Any], p0: Any) -> None:
        self.function = function
        self.arguments = _signature(function)
        names = self.arguments.numbers
        if isinstance(p0, Mapping):
            unknown = [name for name in p0 if name not in self.arguments.names]
            if unknown and not self.arguments.open_ended:
                raise InputError(
                    f"p0 names {unknown}, which f does not have: its parameters are {names}."
                )
            names = [name for name in self.arguments.names if name in names or name in p0]
        elif p0 is not None:
            names = self.arguments.first(np.shape(_array(p0))[-1] if np.ndim(_array(p0)) else 1)
        if not names:
            raise InputError(
                "the number of parameters cannot be told from f(x, *p): give p0, or name them, "
                "f(x, a, b)."
            )
        self.names = names
        self.defaults = {
            name: value for name, value in self.arguments.defaults.items() if is_number(value)
        }

    @cached_property
    def label(self) -> str:
        """The function as its author wrote it, f(x, a, b)."""
        return _label(self.function)

    def start(self, p0: Any) -> Any:
        """The start: p0, else the default values of f's arguments, else ones."""
        if p0 is not None and not isinstance(p0, Mapping):
            return (
                torch.atleast_1d(p0)
                if isinstance(p0, Tensor)
                else np.atleast_1d(np.array(_array(p0)))
            )
        given = {**self.defaults, **(p0 or {})}
        return _stacked({name: given.get(name, 1.0) for name in self.names})

    def named(self, p: Any) -> dict[str, Any]:
        """The numbers of p by name."""
        return by_name(self.names, p)

    def __call__(self, x: Any, p: Any, place: int | None = None) -> Any:
        """The function's value, called as f(x, *p)."""
        positional, keywords = self.arguments.passed(self.names, list(p))
        return self.function(x, *positional, **keywords)


class OfTensors:
    """A function f(x, params) of a dict of tensors, or a module called as module(x).

    Args:
        function: the user's function of x and the dict.
        values: tensors or arrays by name: shapes, and where the fit starts.
        label: for reports.
    """

    def __init__(
        self, function: Callable[[Any, dict[str, Any]], Any], values: Mapping[str, Any], label: str
    ) -> None:
        self.function = function
        self.label = label
        self.keys = list(values)
        arrays = [_array(value) for value in values.values()]
        self.shapes = [tuple(np.shape(array)) for array in arrays]
        self.sizes = [int(np.prod(shape)) for shape in self.shapes]
        self.values = torch.cat([tensor_of(array).reshape(-1) for array in arrays])
        self.names = [
            name
            for key, shape in zip(self.keys, self.shapes, strict=True)
            for name in entries(key, shape)
        ]

    def start(self, p0: Any) -> Any:
        """The start of the fit: the values themselves, whatever p0 is."""
        return self.values

    def named(self, p: Any) -> dict[str, Any]:
        """The tensors by name, in their shapes, behind the dimensions of a batch."""
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
        functions: f(x, a, b, ...) for each data set; one is used for all.
        count: of data sets.
        shared: names of the parameters that are one and the same in all.

    Raises:
        InputError: names that no function has.
    """

    def __init__(
        self, functions: Sequence[Callable[..., Any]], count: int, shared: Sequence[str]
    ) -> None:
        if len(functions) == 1:
            functions = [functions[0]] * count
        if len(functions) != count:
            raise InputError(
                f"there are {len(functions)} functions for {count} data sets: give one, or one for "
                "each."
            )
        self.functions = list(functions)
        self.label = ", ".join(dict.fromkeys(_label(f) for f in self.functions))
        self.arguments = [_signature(f) for f in self.functions]
        own = self.own = [arguments.numbers for arguments in self.arguments]
        self.bare = list(dict.fromkeys(name for names in own for name in names))
        unknown = [name for name in shared if name not in self.bare]
        if unknown:
            raise InputError(
                f"shared names {unknown}, which no function has: their parameters are {self.bare}."
            )
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
        """The start from numbers in the order of f's arguments, or from a dict by name.

        A local parameter may have one number for each data set.

        Raises:
            InputError: names or numbers that do not fit the parameters.
        """
        if p0 is None:
            p0 = {}
        if not isinstance(p0, Mapping):
            values = list(p0) if np.iterable(p0) and not isinstance(p0, str) else [_array(p0)]
            if len(values) == len(self.names) != len(self.bare):
                return _stacked(dict(zip(self.names, values, strict=True)))
            if len(values) != len(self.bare):
                raise InputError(f"p0 has {len(values)} entries for the parameters {self.bare}.")
            p0 = dict(zip(self.bare, values, strict=True))
        unknown = [name for name in p0 if name not in (*self.bare, *self.names)]
        if unknown:
            raise InputError(
                f"p0 names {unknown}: the parameters are {self.bare}, and {self.names} in full."
            )
        starts = {}
        for full in self.names:
            bare, _, rest = full.partition("[")
            value = p0.get(full, p0.get(bare, 1.0))
            if rest and full not in p0 and np.ndim(_array(value)):
                if len(value) != len(self.functions):
                    raise InputError(
                        f"p0 of {bare!r} has {len(value)} entries for {len(self.functions)} data "
                        "sets."
                    )
                value = value[int(rest[:-1])]
            starts[full] = value
        return _stacked(starts)

    def named(self, p: Any) -> dict[str, Any]:
        """The numbers of p by their full names, as a[0]."""
        return by_name(self.names, p)

    def __call__(self, x: Any, p: Any, place: int | None = None) -> Any:
        """All curves, one after the other, or that of one data set."""
        if place is not None:
            values = [p[i] for i in self.picks[place]]
            positional, keywords = self.arguments[place].passed(self.own[place], values)
            return self.functions[place](x, *positional, **keywords)
        curves = [self(one, p, place) for place, one in enumerate(x)]
        if any(map(is_tensor, curves)):
            return torch.cat([tensor_of(curve).reshape(-1) for curve in curves])
        return np.concatenate([np.ravel(curve) for curve in curves])


def model_of(f: Any, p0: Any, shared: Sequence[str] | None, count: int) -> Model:
    """The kind of model that the user means.

    Raises:
        InputError: it is none.
        InputTypeError: f is no function, or `shared` no list.
    """
    if shared is not None:
        if not isinstance(shared, list | tuple | set | frozenset):
            raise InputTypeError(f"shared={shared!r} must be a list of names of parameters.")
        return Joint(list(f) if isinstance(f, list | tuple) else [f], count, shared)
    if isinstance(f, nn.Module):
        values = {name: p.detach() for name, p in f.named_parameters() if p.requires_grad}
        if isinstance(p0, Mapping):
            unknown = set(p0) - set(values)
            if unknown:
                raise InputError(
                    f"p0 names {sorted(unknown)}, which the module does not have: {list(values)}."
                )
            values |= {
                name: tensor_of(_array(value)).to(values[name]) for name, value in p0.items()
            }
        if not values:
            raise InputError(
                "the module has no parameters that require gradients: there is nothing to fit."
            )
        return OfTensors(lambda x, params: call_with(f, params, (x,)), values, type(f).__name__)
    if not callable(f):
        raise InputTypeError(
            f"f is {type(f).__name__}: give a function f(x, a, b, ...), f(x, params) or a module."
        )
    if isinstance(p0, Mapping):
        arguments = _signature(f)
        if (
            not set(p0) <= set(arguments.names)
            and len(arguments.numbers) == 1
            and not arguments.open_ended
        ):
            return OfTensors(f, p0, _label(f))
    return OfNumbers(f, p0)


def started(p0: Any) -> Any:
    """A start with labels (a pandas Series) as a dict by name, any other as it is."""
    if hasattr(p0, "to_dict") and all(
        isinstance(label, str) for label in getattr(p0, "index", [None])
    ):
        return p0.to_dict()
    return p0


def by_name(names: list[str], p: Any) -> dict[str, Any]:
    """The entries of p (..., P): numbers of one fit, (...,) of a batch."""
    return {name: p[i] if p.ndim == 1 else p[..., i] for i, name in enumerate(names)}


def entries(key: str, shape: tuple[int, ...]) -> list[str]:
    """Names of the entries of a tensor: w[0], w[1]; the bare name for a single number."""
    return (
        [key]
        if not shape
        else [f"{key}[{','.join(map(str, index))}]" for index in np.ndindex(*shape)]
    )


def is_number(value: Any) -> bool:
    """Whether it is a real number, and no truth value."""
    return isinstance(value, Real) and not isinstance(value, bool | np.bool_)


def _signature(function: Callable[..., Any]) -> Arguments:
    """What the function takes after x.

    Raises:
        InputError: nothing, not even x.
    """
    if plain := _plain_signature(function):
        return plain
    try:
        given = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return Arguments([], {}, True)
    positional = [p for p in given if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if not given or (not positional and not any(p.kind == p.VAR_POSITIONAL for p in given)):
        raise InputError("f takes no arguments: it must be f(x, a, b, ...).")
    defaults = {p.name: p.default for p in positional[1:] if p.default is not p.empty}
    return Arguments(
        [p.name for p in positional[1:]], defaults, any(p.kind == p.VAR_POSITIONAL for p in given)
    )


def _plain_signature(function: Callable[..., Any]) -> Arguments | None:
    """What a plain function with named arguments takes after x, read from its code; else None.

    `inspect` gives the same, and takes as long as some evaluations of the function.
    """
    dressed = ("__wrapped__", "__signature__", "__text_signature__")
    if type(function) is not FunctionType or any(name in vars(function) for name in dressed):
        return None
    code, defaults = function.__code__, function.__defaults__ or ()
    names = code.co_varnames[: code.co_argcount]
    if not names:
        return None
    known = dict(zip(names[len(names) - len(defaults) :], defaults, strict=True))
    known.pop(names[0], None)
    return Arguments(list(names[1:]), known, bool(code.co_flags & inspect.CO_VARARGS))


def _label(function: Callable[..., Any]) -> str:
    """The label of a function, "f(x, a, b)", without annotations."""
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
        InputTypeError: it is none.
    """
    try:
        return value if isinstance(value, Tensor) else np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputTypeError(f"p0 has {value!r}, where numbers are needed: {error}") from error


def _stacked(values: Mapping[str, Any]) -> Any:
    """One vector (P,) of starts by name, or (..., P) where some are batches.

    Raises:
        InputError: no numbers, or batches of several sizes.
    """
    arrays = [_array(value) for value in values.values()]
    try:
        if any(isinstance(array, Tensor) for array in arrays):
            like = next(array for array in arrays if isinstance(array, Tensor))
            tensors = [
                torch.as_tensor(array, dtype=like.dtype, device=like.device) for array in arrays
            ]
            return torch.stack(torch.broadcast_tensors(*tensors), -1)
        return np.stack(np.broadcast_arrays(*arrays), -1)
    except (RuntimeError, ValueError) as error:
        shapes = {name: np.shape(array) for name, array in zip(values, arrays, strict=True)}
        raise InputError(
            f"p0 has entries of shapes that do not fit each other: {shapes}."
        ) from error
