"""Functions that a record calls as they are: their work is not written down."""

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])


def outside(function: F) -> F:
    """Decorate a function that is called outside of a record where one is being written.

    Its first argument is then a stand-in that knows the record.

    Returns:
        The function.
    """

    @wraps(function)
    def called(first: Any, *others: Any) -> Any:
        scribe = getattr(type(first), "asks", None) and first.asks
        if scribe:
            return scribe.called(function, first, *others)
        return function(first, *others)

    made: Any = called
    return made
