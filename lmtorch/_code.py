"""A user's code by its import path, "module:name", and back; nothing is pickled or evaluated."""

from importlib import import_module
from types import FunctionType
from typing import Any

from ._errors import InputError


def path_of(code: Any) -> str | None:
    """Where a function or class can be imported from.

    Args:
        code: the function or class.

    Returns:
        "module:name", which leads to this very object; None: there is no such path, as of a lambda
        or of what is defined inside a function.
    """
    module, name = getattr(code, "__module__", None), getattr(code, "__qualname__", None)
    if not isinstance(code, FunctionType | type) or not module or not name or "<" in name:
        return None
    path = f"{module}:{name}"
    try:
        return path if found_at(path) is code else None
    except InputError:
        return None


def found_at(path: Any) -> Any:
    """The function or class at an import path; its module is imported.

    Args:
        path: "module:name".

    Returns:
        The function or class.

    Raises:
        InputError: there is none.
    """
    module, _, name = path.partition(":") if isinstance(path, str) else ("", "", "")
    if not (module and name):  # and nothing is imported
        raise InputError(f"{path!r} is no import path: it must be 'module:name'.")
    try:
        found: Any = import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(f"there is no code at {path!r}: {error}") from error
    # a builtin is nobody's formula, and a file may name any
    if not isinstance(found, FunctionType | type):
        raise InputError(f"what is at {path!r} is no function or class that is written in Python.")
    return found
