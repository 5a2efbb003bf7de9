"""What a function takes after x, read from its signature: the parameters of a model."""

import inspect
from collections.abc import Callable, Sequence
from numbers import Real
from types import FunctionType
from typing import Any, NamedTuple

import numpy as np

from .._errors import InputError, InputTypeError
from .adding import Terms


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
            vector = len(self.names) == 1 < count
            if vector and self.names[0] in ("x", "t"):  # scipy.odr's order, and that of many
                raise InputTypeError(
                    f"f takes {self.names[0]} last: here it comes first, then every parameter by "
                    "itself, f(x, a, b, ...). Of f(beta, x) make lambda x, *beta: f(beta, x)."
                )
            advice = f" If it is a vector of all of them, write f(x, *{self.names[0]})."
            raise InputTypeError(
                f"p0 has {count} entries, and f has {len(self.names)} parameters after x: "
                f"{self.names}.{advice if vector else ''}"
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


def is_number(value: Any) -> bool:
    """Whether it is a real number, and no truth value."""
    return isinstance(value, Real) and not isinstance(value, bool | np.bool_)


def signature_of(function: Callable[..., Any]) -> Arguments:
    """What the function takes after x.

    Raises:
        InputError: nothing, not even x.
        InputTypeError: it is a class of models, and no model.
    """
    if isinstance(function, type) and issubclass(function, Terms):
        raise InputTypeError(
            f"{function.__name__} is a class of models: write {function.__name__}(), or with a "
            f"prefix {function.__name__}('a')."
        )
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


def label_of(function: Callable[..., Any]) -> str:
    """The label of a function, "f(x, a, b)", without annotations."""
    name = getattr(function, "__name__", type(function).__name__)
    try:
        given = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return str(name)
    bare = inspect.Signature([p.replace(annotation=inspect.Parameter.empty) for p in given])
    return f"{'f' if name == '<lambda>' else name}{bare}"
