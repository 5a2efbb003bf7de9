"""The user's function runs under the autocast that is on where lmtorch is called; our sums do not.

Autocast makes half precision of every float32 matrix product that it surrounds. A model may be
meant to run so. JᵀJ and the equations for a step made of it are not: their digits would be lost in
silence, and in torch 2.11 bfloat16 has no Cholesky factorisation on a GPU.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch


class UnderAutocast:
    """A function that runs under an autocast that was on once.

    Args:
        function: the user's.
        device: type of the device that the autocast is for.
        dtype: to which it casts.
    """

    def __init__(self, function: Callable[..., Any], device: str, dtype: torch.dtype) -> None:
        self.function = function
        self.device = device
        self.dtype = dtype

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function."""
        with torch.autocast(self.device, self.dtype):
            return self.function(*args, **kwargs)


def users_own(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function as the user has written it."""
    return function.function if isinstance(function, UnderAutocast) else function


@contextmanager
def apart_from_autocast(
    device: torch.device,
) -> Iterator[Callable[[Callable[..., Any]], Callable[..., Any]]]:
    """Turn an autocast off, if there is one.

    Args:
        device: where our sums are made.

    Yields:
        What a function of the user's has to be passed through to run under that autocast.
    """
    if not torch.is_autocast_enabled(device.type):
        yield lambda function: function
        return
    dtype = torch.get_autocast_dtype(device.type)
    with torch.autocast(device.type, enabled=False):
        yield lambda function: UnderAutocast(function, device.type, dtype)
