"""Choosing per problem: masks instead of branches, so that one problem and a million run the same code."""

from typing import Any, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")


def select(mask: Tensor, new: T, old: T) -> T:
    """Per problem `new` where `mask` (...,) holds and `old` elsewhere, through nested NamedTuples of tensors."""
    if new is None:
        return new
    if isinstance(new, tuple):
        made: Any = new  # a NamedTuple, which has no type of its own to name
        before: Any = old
        return made._make(select(mask, a, b) for a, b in zip(made, before, strict=True))
    assert isinstance(new, Tensor)
    assert isinstance(old, Tensor)
    chosen: Any = torch.where(mask.reshape(mask.shape + (1,) * (new.ndim - mask.ndim)), new, old)
    return chosen


def settled(mask: Tensor) -> bool:
    """Whether the mask holds everywhere, read only where reading costs nothing: on a CPU.

    An inner iteration of fixed length may end early on it; on a GPU the read would wait for the device.
    """
    return mask.device.type == "cpu" and bool(mask.all())
