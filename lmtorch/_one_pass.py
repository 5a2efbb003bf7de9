"""Sums of products over rows in one pass, for vectors over many problems on a CPU.

Σ aᵢ bᵢ over rows i of arrays (m, b) is made by torch as a plane of products, which is written and
read again. `numpy.einsum` adds each product to a vector over the problems that stays in the first
cache, several times as fast, and a call costs a fifth of the two. The sum of a problem is the same
to the last bit whatever the others are.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd import forward_ad

# Products that are summed one after the other; sums of so many are added up in pairs, so that the
# rounding error does not grow with the number of rows.
PIECE = 64
DTYPES = (torch.float64, torch.float32)


def in_one_pass(*operands: Tensor) -> bool:
    """Whether NumPy may read these: plain numbers of one dtype on a CPU, seen by nobody else."""
    kind = operands[0].dtype
    for one in operands:
        if (
            type(one) is not Tensor
            or one.dtype is not kind
            or one.device.type != "cpu"
            or one.requires_grad
        ):
            return False
    return (
        kind in DTYPES
        and not torch.compiler.is_compiling()
        and not torch._C._len_torch_dispatch_stack()
        and torch._C._functorch.peek_interpreter_stack() is None
        and forward_ad._current_level < 0
    )


def sum_of_products(one: Any, other: Any, out: Any) -> None:
    """Write Σ one · other of NumPy's arrays (m, b) over their rows into `out` (b,)."""
    rows = len(one)
    if rows <= 2 * PIECE:
        np.einsum("mb,mb->b", one, other, out=out)
        return
    half = PIECE * (rows // (2 * PIECE))
    sum_of_products(one[:half], other[:half], out)
    rest = np.empty_like(out)
    sum_of_products(one[half:], other[half:], rest)
    out += rest


def sum_of(one: Any, out: Any) -> None:
    """Write the sum of an array (m, b) over its rows into `out` (b,)."""
    rows = len(one)
    if rows <= 2 * PIECE:
        np.add.reduce(one, 0, out=out)
        return
    half = PIECE * (rows // (2 * PIECE))
    sum_of(one[:half], out)
    rest = np.empty_like(out)
    sum_of(one[half:], rest)
    out += rest


def _pair(one: Any, other: Any, rows: int, out: Any) -> None:
    """Write Σ one · other into `out` (b,), of arrays (m, b) or (1,): the same number everywhere."""
    if one.ndim == 1:
        one, other = other, one
    if one.ndim == 1:
        out[:] = one * other * rows
    elif other.ndim == 1:
        sum_of(one, out)
        out *= other
    else:
        sum_of_products(one, other, out)


def products(vectors: Sequence[Tensor | None], rows: int, sums: Tensor) -> None:
    """Write the sums of products of all pairs of vectors over their rows into `sums`.

    Args:
        vectors: (m, b) each, or (1,) for the same number everywhere; None: zeros.
        rows: m.
        sums: (k, k, b), of zeros.
    """
    whole: Any = sums.numpy()
    arrays: list[Any] = [None if one is None else one.numpy() for one in vectors]
    with _silent():
        for i, one in enumerate(arrays):
            for j, other in enumerate(arrays[: i + 1]):
                if one is not None and other is not None:
                    entry = whole[i, j]
                    _pair(one, other, rows, entry)
                    if i != j:
                        whole[j, i] = entry


def products_with(weights: Tensor, vectors: Sequence[Tensor | None]) -> list[Tensor]:
    """Σ w v over the rows, (b,) each, of vectors as in `products` and weights w (m, b)."""
    sums = weights.new_zeros(len(vectors), weights.shape[-1])
    own: Any = weights.numpy()
    whole: Any = sums.numpy()
    with _silent():
        for vector, entry in zip(vectors, whole, strict=True):
            if vector is not None:
                _pair(own, vector.numpy(), len(own), entry)
    return list(sums.unbind())


def inner_of_last(one: Tensor, other: Tensor) -> Tensor | None:
    """Σ one · other of the rows of many problems, (b, m) each with the problems last in memory.

    Returns:
        The sums (b,); None: they are not to be had in one pass.
    """
    if not (_last(one) and _last(other) and one.shape == other.shape and in_one_pass(one, other)):
        return None
    found = one.new_empty(len(one))
    with _silent():
        sum_of_products(one.mT.numpy(), other.mT.numpy(), found.numpy())
    return found


def _last(rows: Tensor) -> bool:
    return rows.ndim == 2 and rows.stride(0) == 1 and rows.stride(1) > 1 and len(rows) > 1


def _silent() -> Any:
    """Overflow gives infinity in silence, as torch's does."""
    return np.errstate(all="ignore")
