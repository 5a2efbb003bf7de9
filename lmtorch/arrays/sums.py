"""Sums, extremes and decisions over the entries of a vector: the last dimension, (..., n) → (...,).

NumPy's own reductions of a few numbers cost a microsecond, most of it in Python; products and
counts do the same for a tenth of that. Sums of a few products are made one after the other, by
Python's own numbers, as `recording` makes them: to the last bit they do not depend on which does.
"""

from collections.abc import Sequence
from functools import reduce
from math import sqrt
from operator import and_, or_
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .._one_pass import inner_of_last

_ndarray: Any = np.ndarray
_float64 = np.float64
SHORT = 8  # entries of a vector in double precision up to which they are summed one by one
_NO, _YES = b"\0", b"\1"  # entries of a mask: to look for one among them is quickest
FEW = 16  # entries of a vector up to which whole vectors over the problems are combined
_TRUE: Any = np.bool_(True)
_FALSE: Any = np.bool_(False)


def _short(x: Any) -> bool:
    """Whether a vector is of a few numbers in double precision."""
    return len(x) <= SHORT and x.dtype.char == "d"


def _number(value: float) -> Any:
    return _float64(value)


def dot(x: Sequence[float], y: Sequence[float]) -> Any:
    """Σ xᵢ yᵢ, from the first to the last, as a number of NumPy."""
    found = None
    for one, other in zip(x, y, strict=True):
        found = one * other if found is None else found + one * other
    return _float64(0.0 if found is None else found)


def total(x: Tensor) -> Tensor:
    """Σ xᵢ."""
    if type(x) is _ndarray:
        if x.ndim == 1 and _short(x):
            entries: Any = x.tolist()
            return _number(sum(entries[1:], entries[0]) if entries else 0.0)
        found: Any = np.add.reduce(x, -1)
        return found
    return x.sum(-1)


def inner(x: Tensor, y: Tensor) -> Tensor:
    """Σ xᵢ yᵢ."""
    if type(x) is _ndarray:
        found: Any = dot(x.tolist(), y.tolist()) if _short(x) else x.dot(y)
        return found
    summed = inner_of_last(x, y)
    return (x * y).sum(-1) if summed is None else summed


def squared(x: Tensor) -> Tensor:
    """Σ xᵢ²."""
    if type(x) is _ndarray:
        return inner(x, x)
    summed = inner_of_last(x, x)
    return x.square().sum(-1) if summed is None else summed


def norm(x: Tensor) -> Tensor:
    """√Σ xᵢ²."""
    if type(x) is _ndarray:
        found: Any = _float64(sqrt(inner(x, x))) if _short(x) else x.dot(x) ** 0.5
        return found
    if x.ndim > 1 and x.stride(-1) != 1:  # the kernel runs along the dimension, one by one
        return squared(x).sqrt()
    return torch.linalg.vector_norm(x, dim=-1)


def largest(x: Tensor) -> Tensor:
    """The largest entry; NaN if there is one."""
    if type(x) is _ndarray:
        found: Any = x[x.argmax()]
        return found
    return x.amax(-1)


def every(mask: Tensor) -> Tensor:
    """Whether the mask holds at all entries."""
    if type(mask) is _ndarray:
        array: Any = mask
        return _FALSE if _NO in array.tobytes() else _TRUE
    return reduce(and_, mask.unbind(-1)) if _apart(mask) else mask.all(-1)


def some(mask: Tensor) -> Tensor:
    """Whether the mask holds at any entry."""
    if type(mask) is _ndarray:
        array: Any = mask
        return _TRUE if _YES in array.tobytes() else _FALSE
    return reduce(or_, mask.unbind(-1)) if _apart(mask) else mask.any(-1)


def count(mask: Tensor) -> Tensor:
    """At how many entries the mask holds."""
    if type(mask) is _ndarray:
        found: Any = np.int64(np.count_nonzero(mask))
        return found
    return mask.sum(-1)


def every_entry(mask: Tensor) -> Tensor:
    """Whether a mask (..., n, n) holds everywhere, (...,)."""
    return every(mask) if type(mask) is _ndarray else mask.all(-1).all(-1)


def all_entries_finite(matrix: Tensor) -> Tensor:
    """Whether all entries (..., m, n) are finite numbers, (...,)."""
    if type(matrix) is _ndarray:
        return all_finite(matrix.reshape(-1))
    return matrix.isfinite().all(-1).all(-1)


def all_finite(x: Tensor) -> Tensor:
    """Whether all entries are finite numbers."""
    if type(x) is _ndarray:
        array: Any = x
        square = array.dot(array)  # finite only if all entries are, but for overflow
        if square - square == 0 or _NO not in np.isfinite(array).tobytes():
            return _TRUE
        return _FALSE
    if _apart(x):  # a maximum is NaN where an entry is
        return x.abs().amax(-1) < torch.inf
    return x.isfinite().all(-1)


def _apart(x: Tensor) -> bool:
    """Whether the few entries of each of many problems lie apart in memory, the problems last."""
    # reductions of masks run along their dimension one by one, operations on whole vectors do not
    return x.ndim == 2 and 0 < x.shape[-1] <= FEW and x.stride(-1) != 1
