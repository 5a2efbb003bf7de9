"""From numbers and arrays to tensors, wherever `torch.set_default_device` would have them."""

from typing import Any

import torch
from torch import Tensor


def tensor_of(value: Any, dtype: torch.dtype | None = None) -> Tensor:
    """Leave a tensor on its device; make one on the CPU, where NumPy's are, of numbers and arrays.

    `torch.as_tensor` would put those on the default device, and a fit would have tensors on two.
    """
    if isinstance(value, Tensor):
        return value if dtype is None else value.to(dtype)
    return torch.as_tensor(value, dtype=dtype, device="cpu")


def to_array(leaf: Any) -> Any:
    """Convert a tensor to a NumPy array; leave anything else as it is."""
    return leaf.detach().cpu().numpy() if isinstance(leaf, Tensor) else leaf
