"""exp of numbers so far below zero that the result is denormal or nothing, at the price of others.

Intel's vector library, of which torch's exp is made, leaves such numbers to a way that goes one by
one: 8,192 of them take 130 to 800 µs, and others 5. The flanks of narrow peaks are made of them.
Here exp is asked for no number below the limit but for those few whose results are denormal; the
results of those yet farther below are zero. Every result is torch's own, to the last bit.
"""

import torch
from torch import Tensor

# below the first the library goes one by one; below the second, half of the least number, is zero
LIMITS = {torch.float64: (-707.0, -745.2), torch.float32: (-87.0, -104.0)}
SLOW = torch.backends.mkl.is_available()


def exp(z: Tensor, *, out: Tensor) -> Tensor:
    """exp z, written to `out`, which may be z."""
    limits = LIMITS.get(z.dtype)
    if limits is None or not SLOW or z.device.type != "cpu" or out.dtype != z.dtype:
        return torch.exp(z, out=out)
    low, nothing = limits
    values = z.numpy()
    if not values.size or not values.min() < low:  # of a NaN among them, too
        return torch.exp(z, out=out)
    if values.max() < nothing:
        return out.zero_()
    between = values > nothing
    between &= values < low
    few = values[between]
    near = torch.ge(z, low, out=torch.empty_like(z))
    torch.exp(torch.clamp(z, min=low, out=out), out=out).mul_(near)
    if few.size:
        out.numpy()[between] = torch.from_numpy(few).exp().numpy()
    return out
