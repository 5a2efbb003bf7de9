"""Which functions have been looked at before: each is asked once, however often it is written anew.

A training loop makes the same function again at every step, `lambda x: net(x)`. So functions are
told apart by their code and by the modules and functions that they hold, not by the numbers in
them, which change.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from types import FunctionType, MethodType
from typing import Any
from weakref import ref

from torch import Tensor, nn

NEAR = 8  # whole numbers up to this, such as dimensions, tell functions apart; a count of steps not
MANY = 8  # members of a list that are looked at
DEEP = 4  # functions within functions that are told apart
KEPT = 1_000  # functions that are remembered

_here = threading.local()
_asked: dict[Any, list["ref[Any]"]] = {}


@contextmanager
def look() -> Iterator[None]:
    """A context in which a function is only looked at, so that operators in it say nothing yet."""
    before = looking()
    _here.looking = True
    try:
        yield
    finally:
        _here.looking = before


def looking() -> bool:
    """Whether this thread is within `look`."""
    return getattr(_here, "looking", False)


def unless_asked(question: Any, function: Any) -> Callable[[], None] | None:
    """Find out whether a function has been asked before.

    Args:
        question: tells questions apart.
        function: that is asked.

    Returns:
        What remembers that it has been asked; None if it has been.
    """
    held: list[ref[Any]] = []
    key = question, _identity(function, held, 0)
    known = _asked.get(key)
    if known is not None:
        for thing in known:
            if thing() is None:  # another has its address
                break
        else:
            return None

    def remember() -> None:
        if len(_asked) >= KEPT:
            _asked.clear()
        _asked[key] = held

    return remember


def _identity(thing: Any, held: list["ref[Any]"], depth: int) -> Any:
    """Tell a function from others by its code and what it holds, but not by the numbers in it.

    Args:
        thing: a function, or what one holds.
        held: gets what must live for the identity to last, as another may have its address then.
        depth: of functions within functions.

    Returns:
        Something that has a hash.
    """
    if isinstance(thing, nn.Module):
        held.append(ref(thing))
        return id(thing), thing.training
    if thing is None or isinstance(thing, bool | str):
        return thing
    if isinstance(thing, int):
        return thing if abs(thing) <= NEAR else int
    if isinstance(thing, Tensor | float) or depth > DEEP:
        return type(thing)
    inside = partial(_identity, held=held, depth=depth + 1)
    if isinstance(thing, FunctionType):
        code = thing.__code__
        held.append(ref(code))
        there = thing.__globals__
        modules = [there[n] for n in code.co_names if isinstance(there.get(n), nn.Module)]
        cells = [_content(cell) for cell in thing.__closure__ or ()]
        return (id(code), *map(inside, (*modules, *cells, *(thing.__defaults__ or ()))))
    if isinstance(thing, MethodType):
        return inside(thing.__func__), inside(thing.__self__)
    if isinstance(thing, partial):
        return (inside(thing.func), *map(inside, (*thing.args, *thing.keywords.values())))
    if isinstance(thing, tuple | list):
        return type(thing), *map(inside, thing[:MANY])
    try:
        held.append(ref(thing))
    except TypeError:
        return type(thing)
    return id(thing)


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # a name that has no value yet
        return None
