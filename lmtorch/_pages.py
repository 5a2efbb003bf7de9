"""Room for large results in large pages of memory.

A result of hundreds of megabytes that is written once takes most of its time where the system hands
out its memory, 4 KiB at a time, when each page is first written to. Linux hands out 2 MiB at a time
to who asks for it: 379 MB were filled in 64 instead of 169 ms. What is freed goes back as before.

Reference: Linux manual, madvise(2), MADV_HUGEPAGE.
"""

import ctypes
import sys
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

LARGE = 2**25  # bytes, from which on glibc maps memory for each tensor by itself
PAGE = 2**21
HUGE = 14  # MADV_HUGEPAGE


@cache
def _advise() -> Callable[..., Any] | None:
    """The system's madvise; None where there is none that knows of large pages."""
    if not sys.platform.startswith("linux"):
        return None
    found: Any = getattr(ctypes.CDLL(None), "madvise", None)
    if found is not None:
        found.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    return found


def room(left: Tensor, right: Tensor) -> Tensor | None:
    """Memory for the product of two tensors, entry by entry.

    That it is to be large pages is a hint: where the system does not take it, memory is as always.

    Returns:
        It; None: the product is not large, or torch is to find its memory by itself.
    """
    shape = torch.broadcast_shapes(left.shape, right.shape)
    size = shape.numel() * left.element_size()
    if size < LARGE or not all(type(one) is Tensor for one in (left, right)):
        return None
    if left.dtype != right.dtype or any(one.device.type != "cpu" for one in (left, right)):
        return None
    recorded = torch.is_grad_enabled() and (left.requires_grad or right.requires_grad)
    followed = torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0
    advise = None if recorded or followed or torch.compiler.is_compiling() else _advise()
    if advise is None:
        return None
    found = torch.empty(shape, dtype=left.dtype)
    start = -(-found.data_ptr() // PAGE) * PAGE
    advise(start, (found.data_ptr() + size - start) // PAGE * PAGE, HUGE)
    return found
