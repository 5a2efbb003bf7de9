"""Models: a function of x and numbers or of x and a dict, a module, or one for each data set.

A model knows the names of its parameters and how to be called with all of them in one flat vector
p.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from .._arrays import is_tensor, tensor_of
from .._errors import InputError, InputTypeError
from .._modules import call_with
from .._names import meant
from ..models import base as library
from ..models.signatures import is_number, label_of, signature_of


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
        self.arguments = signature_of(function)
        names = self.arguments.numbers
        if isinstance(p0, Mapping):
            unknown = [name for name in p0 if name not in self.arguments.names]
            if unknown and not self.arguments.open_ended:
                raise InputError(
                    f"p0 names {unknown}, which f does not have: its parameters are {names}."
                    f"{meant(unknown, names)}"
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
        # to take a tensor apart by itself is quicker than to go over it
        values = p.unbind() if type(p) is Tensor else list(p)
        if self._by_position:
            return self.function(x, *values)
        positional, keywords = self.arguments.passed(self.names, values)
        return self.function(x, *positional, **keywords)

    @cached_property
    def _by_position(self) -> bool:
        """Whether no parameter is passed by its name."""
        return not self.arguments.passed(self.names, self.names)[1]


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


class OfModule:
    """A module as a function f(x, params) of its parameters; it is pickled as the module is.

    Args:
        module: the user's.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def __call__(self, x: Any, params: dict[str, Any]) -> Any:
        """What the module returns at x with these parameters."""
        return call_with(self.module, params, (x,))


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
        self.label = ", ".join(dict.fromkeys(map(_label, self.functions)))
        self.arguments = [signature_of(f) for f in self.functions]
        own = self.own = [arguments.numbers for arguments in self.arguments]
        self.bare = list(dict.fromkeys(name for names in own for name in names))
        unknown = [name for name in shared if name not in self.bare]
        if unknown:
            raise InputError(
                f"shared names {unknown}, which no function has: their parameters are {self.bare}."
                f"{meant(unknown, self.bare)}"
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
                f"{meant(unknown, (*self.bare, *self.names))}"
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
                    f"{meant(sorted(unknown), list(values))}"
                )
            values |= {
                name: tensor_of(_array(value)).to(values[name]) for name, value in p0.items()
            }
        if not values:
            raise InputError(
                "the module has no parameters that require gradients: there is nothing to fit."
            )
        return OfTensors(OfModule(f), values, type(f).__name__)
    if not callable(f):
        raise InputTypeError(
            f"f is {type(f).__name__}: give a function f(x, a, b, ...), f(x, params) or a module."
        )
    if isinstance(p0, Mapping):
        arguments = signature_of(f)
        if (
            not set(p0) <= set(arguments.names)
            and len(arguments.numbers) == 1
            and not arguments.open_ended
        ):
            return OfTensors(f, p0, label_of(f))
    return OfNumbers(f, p0)


def started(p0: Any) -> Any:
    """A start with labels (a pandas Series) as a dict by name, a fit as its parameters.

    Returns:
        It; any other as it is given.

    Raises:
        InputTypeError: it is lmfit's, with bounds and fixed values that would be lost.
    """
    if hasattr(p0, "valuesdict"):
        raise InputTypeError(
            f"p0 is {type(p0).__name__} of lmfit. Give p0=params.valuesdict(), and what else it "
            "holds as bounds={name: (low, high)}, fixed=[name] and ties={name: expression}."
        )
    if hasattr(p0, "popt"):  # an earlier fit, of a neighbour
        return p0.popt
    if hasattr(p0, "to_dict") and all(
        isinstance(label, str) for label in getattr(p0, "index", [None])
    ):
        return p0.to_dict()
    return p0


def of_lmfit(f: Any) -> str:
    """What to write in the place of a model of lmfit; "": it is none."""
    kind = type(f)
    if not kind.__module__.startswith("lmfit."):
        return ""
    from .. import models as shapes  # all of them: this module needs their base alone

    name = kind.__name__.removesuffix("Model")
    if name and hasattr(shapes, name):
        return f"f is {kind.__name__} of lmfit: write lmtorch.models.{name}()."
    return f"f is {kind.__name__} of lmfit: give its function, of torch's operations."


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


def _label(function: Callable[..., Any]) -> str:
    """A model of the library as it is written, any other function with its arguments."""
    return repr(function) if isinstance(function, library.Model) else label_of(function)


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
