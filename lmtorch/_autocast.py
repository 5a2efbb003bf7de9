"""A model runs under the autocast that is on round a step; our own sums do not, nor do fits.

Autocast makes half precision of every float32 matrix product that it surrounds. A model may be
meant to run so. JᵀJ and the equations for a step made of it are not: their digits would be lost in
silence, and in torch 2.11 bfloat16 has no Cholesky factorisation on a GPU.
"""

import functools
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, ParamSpec, TypeVar

import torch

P = ParamSpec("P")
R = TypeVar("R")
DEVICES = ("cpu", "cuda", "mps", "xpu")


class UnderAutocast:
    """A function that runs under an autocast that was on once.

    Args:
        function: the user's.
        dtypes: for each type of device, what is cast to there.
    """

    def __init__(self, function: Callable[..., Any], dtypes: dict[str, torch.dtype]) -> None:
        self.function = function
        self.dtypes = dtypes

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function."""
        with ExitStack() as stack:
            for device, dtype in self.dtypes.items():
                stack.enter_context(torch.autocast(device, dtype))
            return self.function(*args, **kwargs)


def users_own(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function as the user has written it."""
    return function.function if isinstance(function, UnderAutocast) else function


@contextmanager
def apart_from_autocast() -> Iterator[Callable[[Callable[..., Any]], Callable[..., Any]]]:
    """Turn autocast off where it is on.

    Yields:
        What a function of the user's has to be passed through to run under that autocast.
    """
    dtypes = {
        device: torch.get_autocast_dtype(device)
        for device in DEVICES
        if torch.is_autocast_enabled(device)
    }
    if not dtypes:
        yield lambda function: function
        return
    with ExitStack() as stack:
        for device in dtypes:
            stack.enter_context(torch.autocast(device, enabled=False))
        yield lambda function: UnderAutocast(function, dtypes)


def without_autocast(function: Callable[P, R]) -> Callable[P, R]:
    """A fit round which autocast is off: half precision has no digits to fit to.

    A function that is meant to run under autocast turns it on itself.

    Returns:
        The decorated fit.
    """

    @functools.wraps(function)
    def apart(*args: P.args, **kwargs: P.kwargs) -> R:
        if not any(map(torch.is_autocast_enabled, DEVICES)):  # as nearly always
            return function(*args, **kwargs)
        with apart_from_autocast():
            return function(*args, **kwargs)

    return apart
