"""A lock for what torch and Python keep once for the whole process: threads take turns.

There is one lock for all of it: with two, a fit inside the function of another fit could wait for
itself.
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
    """Surrounds derivatives by forward mode, which only one thread at a time can take.

    torch (2.13) keeps the level of forward mode once for the process: one thread would leave the
    level that another has entered, and tangents would be lost, in silence or with an error. Reverse
    mode and `vmap` have a level for each thread.
    """
    with _TURN:
        _load_formulas()
        yield


@cache
def _load_formulas() -> None:
    """Make torch script its forward formulas, once, without the warning that this brings."""
    with quiet(Warning, "`torch.jit"):
        zero = torch.zeros((), device="cpu")
        jvp(torch.sin, (zero,), (zero,))


@contextmanager
def quiet(category: type[Warning] = Warning, message: str = "") -> Iterator[None]:
    """Silences warnings of a kind, under the lock: Python's list of filters is shared."""
    with _TURN, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message, category)
        yield


@contextmanager
def without_onednn() -> Iterator[None]:
    """A call of torch without oneDNN, which is switched off for the whole process or not at all.

    Without turns a thread could find it switched off by another, and leave it so for good. The
    context that torch has for it would warn of TF32 on other devices.
    """
    with _TURN:
        before = torch._C._get_mkldnn_enabled()
        torch._C._set_mkldnn_enabled(False)
        try:
            yield
        finally:
            torch._C._set_mkldnn_enabled(before)
