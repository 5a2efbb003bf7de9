"""Functions of every entry, and arrays full of one number."""

from math import isnan
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .border import NUMPY, RECORDED, on_numpy

_ndarray: Any = np.ndarray
_float64, _int64, _bool = np.float64, np.int64, np.bool_
_maximum: Any = np.maximum
_minimum: Any = np.minimum
_isfinite: Any = np.isfinite
_sqrt: Any = np.sqrt
_FALSE: Any = np.bool_(False)
Number = int | float


def sqrt(x: Tensor) -> Tensor:
    """√x."""
    return _sqrt(x) if type(x) in NUMPY else x.sqrt()


def reciprocal(x: Tensor) -> Tensor:
    """1 / x, in one operation: torch makes two of the division of a number by a tensor."""
    return 1 / x if on_numpy(x) else x.reciprocal()


def finite(x: Tensor) -> Tensor:
    """Whether each entry is a finite number."""
    kind: Any = type(x)
    if kind is _ndarray:
        found: Any = _isfinite(x)
        return found
    return x - x == 0 if kind in NUMPY else x.isfinite()


def is_nan(x: Tensor) -> Tensor:
    """Whether each entry is no number."""
    found: Any = np.isnan(x) if type(x) in NUMPY else x.isnan()
    return found


def maximum(a: Tensor, b: Tensor) -> Tensor:
    """The larger of two entries; NaN where one is."""
    kind: Any = type(a)
    if kind is _float64 and type(b) is kind:
        return a if a > b or isnan(a) else b
    if kind in NUMPY:
        found: Any = _maximum(a, b)
        return found
    return torch.maximum(a, b)


def minimum(a: Tensor, b: Tensor) -> Tensor:
    """The smaller of two entries; NaN where one is."""
    kind: Any = type(a)
    if kind is _float64 and type(b) is kind:
        return a if a < b or isnan(a) else b
    if kind in NUMPY:
        found: Any = _minimum(a, b)
        return found
    return torch.minimum(a, b)


def at_least(x: Tensor, low: float) -> Tensor:
    """No entry below this number; NaN stays."""
    kind: Any = type(x)
    if kind is _float64:
        return _number(low) if x < low else x
    if kind in NUMPY:
        found: Any = _maximum(x, low)
        return found
    return x.clamp(min=low)


def at_most(x: Tensor, high: float) -> Tensor:
    """No entry above this number; NaN stays."""
    kind: Any = type(x)
    if kind is _float64:
        return _number(high) if x > high else x
    if kind in NUMPY:
        found: Any = _minimum(x, high)
        return found
    return x.clamp(max=high)


def _number(value: float) -> Any:
    return _float64(value)


def spread(x: Tensor) -> Tensor:
    """One number for each problem (...,) beside vectors, (..., 1)."""
    return x if type(x) in NUMPY else x[..., None]


def gathered(x: Tensor) -> Tensor:
    """What was spread, (..., 1), as one number for each problem, (...,)."""
    return x if type(x) in NUMPY else x[..., 0]


# ---- arrays full of one number -------------------------------------------------------------------


def filled(like: Tensor, number: Number) -> Tensor:
    """An array of the shape and dtype of `like`, full of a number."""
    kind: Any = type(like)
    if kind is _ndarray:
        found: Any = np.full_like(like, number)
        return found
    return kind(number) if kind in NUMPY else torch.full_like(like, number)


def zeros(like: Tensor) -> Tensor:
    """Zeros of the shape and dtype of `like`."""
    kind: Any = type(like)
    if kind is _ndarray:
        found: Any = np.zeros(like.shape, like.dtype)
        return found
    return kind(0) if kind in NUMPY else torch.zeros_like(like)


def never(like: Tensor) -> Tensor:
    """A mask of the shape of `like` that holds nowhere."""
    kind: Any = type(like)
    if kind is _ndarray:
        found: Any = np.zeros(like.shape, _bool)
        return found
    return _FALSE if kind in NUMPY else torch.zeros_like(like, dtype=torch.bool)


def always(like: Tensor) -> Tensor:
    """A mask of the shape of `like` that holds everywhere."""
    return ~never(like)


def with_shape_of(x: Tensor, like: Tensor) -> Tensor:
    """One number or a vector as a vector of the shape, dtype and device of `like`."""
    if type(like) is _ndarray:
        array: Any = like
        if type(x) is _ndarray and x.shape == array.shape and x.dtype == array.dtype:
            return x
        found: Any = np.broadcast_to(x, array.shape).astype(array.dtype)
        return found
    return x.to(like).expand(like.shape)


def unseen(x: Tensor) -> Tensor:
    """NaN for each problem (...,) of x (..., n), in float64 if the device has it."""
    if type(x) in NUMPY:
        return _number(np.nan)
    if type(x) in RECORDED:
        return filled(x.amax(-1), torch.nan)
    dtype = torch.float32 if x.device.type == "mps" else torch.float64
    return torch.full(x.shape[:-1], torch.nan, dtype=dtype, device=x.device)


def statuses(like: Tensor, number: int) -> Tensor:
    """An integer (int64) for each problem (...,) of `like`."""
    found: Any = _int64(number) if type(like) in NUMPY else None
    return torch.full_like(like, number, dtype=torch.int64) if found is None else found


# ---- what a dtype can hold -----------------------------------------------------------------------

# looked up: to make a `finfo` takes a microsecond. Of torch's dtypes and NumPy's.
_LIMITS: dict[Any, Any] = {
    dtype: torch.finfo(dtype)
    for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16)
} | {np.dtype(name): np.finfo(name) for name in ("float64", "float32", "float16")}
_EPS = {dtype: float(limits.eps) for dtype, limits in _LIMITS.items()}
_TINY = {dtype: float(limits.tiny) for dtype, limits in _LIMITS.items()}
_MAX = {dtype: float(limits.max) for dtype, limits in _LIMITS.items()}


def resolution(dtype: Any) -> float:
    """ε of a dtype of torch or NumPy: the distance from one to the next number."""
    return _EPS[dtype]


def highest(dtype: Any) -> float:
    """The largest number of a dtype of torch or NumPy."""
    return _MAX[dtype]


def smallest(dtype: Any) -> float:
    """The smallest number of a dtype of torch or NumPy with all its digits."""
    return _TINY[dtype]
