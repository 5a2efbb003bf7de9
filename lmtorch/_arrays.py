"""From numbers and arrays to tensors, wherever `torch.set_default_device` would have them."""

from typing import Any, TypeGuard

import numpy as np
import torch
from torch import Tensor


def tensor_of(value: Any, dtype: torch.dtype | None = None) -> Tensor:
    """Leave a tensor on its device; make one on the CPU, where NumPy's are, of numbers and arrays.

    `torch.as_tensor` would put those on the default device, and a fit would have tensors on two.
    What stands in for a tensor, as a dual number does, is left as well.
    """
    if is_tensor(value):
        return value if dtype is None else value.to(dtype)
    return torch.as_tensor(value, dtype=dtype, device="cpu")


def all_finite(values: Tensor) -> bool:
    """Whether every number is finite; of a device this waits for it.

    NumPy takes a third of torch's time for a few numbers.
    """
    values = values.detach()
    if values.device.type == "cpu" and values.dtype in (torch.float32, torch.float64):
        return bool(np.isfinite(values.numpy()).all())
    return bool(values.isfinite().all())


def is_tensor(value: Any) -> TypeGuard[Tensor]:
    """Whether it is a tensor, or stands in for one as a dual number does."""
    return hasattr(type(value), "__torch_function__")


def bits_of(tensor: Tensor) -> bytes:
    """The bits of a tensor's numbers, in order."""
    # NumPy has no bfloat16, but numbers of as many bits
    known = tensor.view(torch.int16) if tensor.dtype is torch.bfloat16 else tensor
    return known.numpy(force=True).tobytes()


def to_array(leaf: Any) -> Any:
    """Convert a tensor to a NumPy array; leave anything else as it is."""
    if not isinstance(leaf, Tensor):
        return leaf
    leaf = leaf.detach().cpu()
    # NumPy has no bfloat16; every one of its numbers is a float32
    return (leaf.float() if leaf.dtype is torch.bfloat16 else leaf).numpy()
