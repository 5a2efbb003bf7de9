"""What an option may be: every check names the option, says what came and what is needed."""

import math
from collections.abc import Iterable
from numbers import Integral
from typing import Any

from ._errors import InputError, InputTypeError


def number(value: Any, name: str, needs: str = "must be a number") -> float:
    """Convert an option to a float; an array or tensor without dimensions is a number, too.

    Raises:
        InputError: it is none.
    """
    try:
        single = not isinstance(value, str | bytes | bool) and getattr(value, "ndim", None) in (
            None,
            0,
        )
        found = float(value) if single else None
    except (TypeError, ValueError, RuntimeError, OverflowError):
        found = None
    if found is None:
        raise InputError(f"{name}={value!r} {needs}.")
    return found


def positive(value: Any, name: str, otherwise: str = "") -> float:
    """Convert an option to a positive float, in the units of the residuals.

    Raises:
        InputError: it is none.
    """
    found = number(value, name, f"must be a positive number{otherwise}")
    if not (math.isfinite(found) and found > 0):
        raise InputError(
            f"{name}={value!r} must be positive and finite: it is in the units of the residuals."
        )
    return found


def tolerance(value: Any, name: str) -> float | None:
    """Convert a tolerance to a float, zero or positive; None stands for the default.

    Raises:
        InputError: it is negative, NaN or no number.
    """
    if value is None:
        return None
    found = number(value, name, "is no number")
    if not found >= 0:
        raise InputError(f"{name}={value!r} must be zero or positive.")
    return found


def count(value: Any, name: str, least: int, otherwise: str = "") -> int:
    """Convert an option to a whole number; 3.0 is one, too.

    Raises:
        InputError: it is none, or less than `least`.
    """
    whole = isinstance(value, Integral) or (isinstance(value, float) and value.is_integer())
    if not whole or isinstance(value, bool) or value < least:
        raise InputError(f"{name}={value!r} must be a whole number, at least {least}{otherwise}.")
    return int(value)


def flag(value: Any, name: str) -> bool:
    """Convert an option to a bool: True or False of Python or NumPy, or 1 or 0.

    Raises:
        InputTypeError: it is something else.
    """
    if type(value).__name__ in ("bool", "bool_") or (isinstance(value, int) and value in (0, 1)):
        return bool(value)
    raise InputTypeError(f"{name}={value!r} must be True or False.")


def choice(value: Any, name: str, known: Iterable[Any], hint: str = "") -> None:
    """Check that an option is one of a few names or numbers.

    Raises:
        InputError: it is none of them.
    """
    names = tuple(known)
    if getattr(value, "ndim", None) not in (None, 0) or not any(value == one for one in names):
        raise InputError(
            f"{name}={value!r} is not known. Use one of {', '.join(map(repr, names))}.{hint}"
        )


def member(
    value: Any,
    name: str,
    known: Iterable[str],
    verb: str,
    *,
    function: bool = False,
    hint: str = "",
) -> None:
    """Check that an option is a known name, an object with the method `verb`, or a function.

    Raises:
        InputError: it is none of these, or a function where that is not allowed.
    """
    if isinstance(value, str):
        choice(value, name, known, hint)
    elif isinstance(value, type):
        raise InputError(f"{name}={value!r} is a class: give an instance, {value.__name__}().")
    elif not (hasattr(value, verb) or (function and callable(value))):
        either = "no name, no function" if function else "no name"
        raise InputError(f"{name}={value!r} is {either} and has no method {verb!r}.{hint}")


def to_compile(wanted: Any) -> bool | str:
    """Check the option `compile`.

    Returns:
        The option as it is given.

    Raises:
        InputError: it is none of True, False and "auto".
    """
    if isinstance(wanted, bool) or (isinstance(wanted, str) and wanted == "auto"):
        return wanted
    raise InputError(f"compile={wanted!r} must be True, False or 'auto'.")
