"""Products without the price of denormal numbers, those below the least normal one (1e-308).

Where many columns of J are nearly zero, such as those of narrow peaks far from their centres,
products of their entries are smaller than the least normal number. Processors of Intel take a
hundred times as long for these as for others: JᵀJ of sixteen peaks took 18 times as long. They are
taken for zero here. In double precision that changes nothing which could be seen, as J would have
to be smaller than 1e-154 everywhere; in single precision it would (1e-19), and nothing is changed.

Reference: Intel 64 and IA-32 Architectures Software Developer's Manual, vol. 1, §10.2.3.3 and
§10.2.3.4, on flush-to-zero and denormals-are-zeros, which are a state of the thread.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

LEAST = 5e-324


@contextmanager
def denormals_are_zero(like: Tensor) -> Iterator[None]:
    """Within it this thread takes denormal numbers for zero, if `like` is double and on a CPU."""
    # a processor that does so already says that the least number there is equals zero
    if like.dtype != torch.float64 or like.device.type != "cpu" or LEAST == 0.0:
        yield
        return
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)
