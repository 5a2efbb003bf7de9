"""From numbers and arrays to tensors, wherever `torch.set_default_device` would have them."""

from typing import Any

import torch
from torch import Tensor


def tensor_of(value: Any, dtype: torch.dtype | None = None) -> Tensor:
    """A tensor as it is, on its device; numbers and arrays of NumPy as tensors on the CPU, where NumPy's own are.

    `torch.as_tensor` would bring both to the default device, and one fit's tensors would be on two.
    """
    if isinstance(value, Tensor):
        return value if dtype is None else value.to(dtype)
    return torch.as_tensor(value, dtype=dtype, device="cpu")


def to_array(leaf: Any) -> Any:
    """A tensor as NumPy numbers, other things as they are."""
    return leaf.detach().cpu().numpy() if isinstance(leaf, Tensor) else leaf
