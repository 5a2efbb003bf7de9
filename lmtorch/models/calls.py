"""What goes into the formula of a model, and what comes out of it."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .._arrays import is_tensor


def stand_in(value: Any) -> bool:
    """Whether a value stands for the number of one curve, as in a fit."""
    return is_tensor(value) and (type(value) is not Tensor or not value.ndim)


def plain(value: Any) -> Tensor:
    """A tensor in float64 of numbers that are none.

    An array that may not be written to, as pandas gives it, is copied: torch would warn of it.

    Returns:
        It, on the CPU.
    """
    if isinstance(value, np.ndarray) and not value.flags.writeable:
        value = value.copy()
    return torch.as_tensor(value, dtype=torch.float64, device="cpu")


def dated(name: str, dtype: Any) -> str:
    """What is said of dates and lengths of time where numbers are needed."""
    return (
        f"{name} has {dtype}: give numbers, such as (time - time[0]) / np.timedelta64(1, 's') for "
        "dates."
    )


def column(value: Any) -> Any:
    """A number of each curve (...,) as (..., 1), which goes with all points of the curve."""
    if stand_in(value) or not np.ndim(value):
        return value
    return value[..., None] if is_tensor(value) else np.asarray(value)[..., None]


def beside(value: Any, x: Any) -> Any:
    """A plain number as a tensor like x, so that a formula sees tensors alone."""
    if is_tensor(value):
        return value
    dtype = x.dtype if x.is_floating_point() else torch.get_default_dtype()
    return torch.as_tensor(value, dtype=dtype, device=x.device)


def points_of(x: Any) -> Any:
    """The points of a call, lists as one array or tensor; a dict or table is left to functions."""
    if is_tensor(x) or isinstance(x, np.ndarray | Mapping) or hasattr(x, "columns"):
        return x
    if isinstance(x, list | tuple) and x and all(isinstance(one, Tensor) for one in x):
        return torch.stack(list(x))
    array = np.asarray(x)
    return array if array.dtype.kind in "mM" else np.asarray(array, dtype=np.float64)


def filled(x: Any, curve: Any) -> Any:
    """A curve with a value for each point of x where it is the same for all of them."""
    if type(curve) is not Tensor or type(x) is not Tensor or not x.ndim:
        return curve
    if curve.ndim and curve.shape[-1] == x.shape[-1]:
        return curve
    return curve.expand(*curve.shape[:-1], x.shape[-1])
