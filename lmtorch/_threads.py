"""What torch and Python keep once for the whole process, and threads therefore take turns at.

One lock for all of it: with two, a fit inside the function of another fit could wait for itself.
"""

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch
from torch.func import jvp

_TURN = threading.RLock()


@contextmanager
def forward_mode() -> Iterator[None]:
    """Around derivatives by forward mode.

    torch (2.13) keeps the level of forward mode once for the process: what one thread enters
    another one leaves, and tangents are lost, in silence or with an error. Reverse mode and `vmap`
    have a level for each thread.
    """
    with _TURN:
        _load_formulas()
        yield


@cache
def _load_formulas() -> None:
    """Let torch script its formulas for forward mode, which it does once, with a warning that is not the user's."""
    with quiet(Warning, "`torch.jit"):
        zero = torch.zeros((), device="cpu")
        jvp(torch.sin, (zero,), (zero,))


@contextmanager
def quiet(category: type[Warning] = Warning, message: str = "") -> Iterator[None]:
    """Without warnings of a kind; Python keeps the filters of all threads in one list."""
    with _TURN, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message, category)
        yield
