"""Choosing per problem: masks instead of branches, so that one problem and a million run alike.

With NumPy there is one problem, and its mask is one number: then choosing is a branch after all.
"""

from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from .border import NUMPY, RECORDED

T = TypeVar("T")
# fits from which a look that may save an operation on all of them is worth a wait for the device
MANY = 32
WORTH = 512  # problems of a batch from which on some of them are taken out for the rest of a search
_ndarray: Any = np.ndarray
_bool, _float64 = np.bool_, np.float64
_NO, _YES = b"\0", b"\1"  # entries of a mask: to look for one among them is quickest


def where(mask: Tensor, new: Any, old: Any) -> Tensor:
    """`new` where the mask holds, else `old`, tensors or numbers, as `torch.where`."""
    kind: Any = type(mask)
    if kind is _bool:
        chosen, other = (new, old) if mask else (old, new)
        kind = type(chosen)
        if kind is _ndarray or (kind in NUMPY and type(other) is not _ndarray):
            return chosen
        return _shaped(chosen, other)
    if kind is _ndarray:
        return _chosen(mask, new, old)
    return torch.where(mask, new, old)


def _chosen(mask: Any, new: Any, old: Any) -> Any:
    """By a mask with entries; most often it holds everywhere or nowhere, and nothing is made."""
    entries = mask.tobytes()
    if _NO not in entries and type(new) is _ndarray and new.shape == mask.shape:
        return new
    if _YES not in entries and type(old) is _ndarray and old.shape == mask.shape:
        return old
    return np.where(mask, new, old)


def _shaped(number: Any, like: Any) -> Any:
    """A number as an array of the shape of the other choice, or as a number of NumPy."""
    if type(like) is _ndarray:
        return np.full_like(like, number)
    return type(like)(number) if type(like) in NUMPY else _float64(number)


def _remade(like: tuple[Any, ...], parts: Iterable[Any]) -> Any:
    """Make a tuple of these parts, or a NamedTuple, which has another constructor."""
    kind: Any = type(like)
    return kind._make(parts) if hasattr(kind, "_make") else kind(parts)


def select(mask: Tensor, new: T, old: T) -> T:
    """`new` for problems where `mask` (...,) holds, else `old`, through NamedTuples."""
    kind: Any = type(mask)
    if kind is _bool or kind in RECORDED:
        return new if mask else old
    if isinstance(new, tuple):
        made: Any = new  # a NamedTuple, which has no type of its own to name
        before: Any = old
        return _remade(made, (select(mask, a, b) for a, b in zip(made, before, strict=True)))
    if not isinstance(new, Tensor):
        return new
    assert isinstance(old, Tensor)
    chosen: Any = torch.where(mask.reshape(mask.shape + (1,) * (new.ndim - mask.ndim)), new, old)
    return chosen


def take(value: T, places: Tensor) -> T:
    """The problems at `places` (k,) of a batch (b,), through nested NamedTuples."""
    if isinstance(value, tuple):
        made: Any = value
        return _remade(made, (take(part, places) for part in made))
    chosen: Any = value
    if isinstance(value, Tensor):
        rows = value.movedim(0, -1) if _last(value) else value
        chosen = rows.index_select(-1 if _last(value) else 0, places)
        chosen = chosen.movedim(-1, 0) if _last(value) else chosen
    return chosen


def last(value: Tensor) -> Tensor:
    """The same numbers (b, ...) with the problems last in memory."""
    # Where there are many problems of few numbers, operations on columns of them run over whole
    # vectors then, and sums over the numbers of a problem do not stride. Operations entry by entry
    # keep the order of their arguments.
    return value.movedim(0, -1).contiguous().movedim(-1, 0)


def _last(value: Tensor) -> bool:
    """Whether the problems of (b, ...) are last in memory."""
    return value.ndim > 1 and value.stride(0) == 1 and value.shape[-1] > 1


def places(mask: Tensor, count: int) -> Tensor:
    """Where a mask (b,) holds, (count,), for a known count: `nonzero` would wait for the device."""
    if mask.device.type == "cpu":  # where a sort takes thirty times as long
        return mask.nonzero()[:, 0]
    return mask.to(torch.int8).argsort(descending=True, stable=True)[:count]


def minority(mask: Tensor) -> Tensor | None:
    """Where a mask (b,) holds, (k,), if it is known to hold at few of many places."""
    # to take them out of the batch costs many calls, and each of them as much as one on a few
    # hundred numbers: it pays where a quarter of many is left
    if type(mask) in NUMPY or mask.ndim != 1 or len(mask) < WORTH or not readable(mask):
        return None
    count = int(mask.sum())
    return places(mask, count) if 4 * count <= len(mask) else None


def read(*numbers: Tensor) -> list[int]:
    """Counts and flags, 0-d each, as the host's numbers: one transfer that waits."""
    if type(numbers[0]) in NUMPY:
        return [int(number) for number in numbers]
    if type(numbers[0]) in RECORDED:  # flags of one problem
        return [int(bool(number)) for number in numbers]
    return [
        int(number)
        for number in torch.stack([number.to(torch.int64) for number in numbers]).tolist()
    ]


def put(whole: T, places: Tensor, part: T) -> T:
    """`whole` (b, ...) with the problems at `places` (k,) replaced; other things as in `part`."""
    if isinstance(whole, tuple):
        made: Any = whole
        new: Any = part
        return _remade(made, (put(a, places, b) for a, b in zip(made, new, strict=True)))
    if not isinstance(whole, Tensor):
        return part
    assert isinstance(part, Tensor)
    merged: Any = whole.index_copy(0, places, part)
    return merged


def settled(mask: Tensor) -> bool:
    """Whether the mask is known to hold everywhere, read only where that is cheap."""
    if type(mask) in NUMPY or type(mask) in RECORDED:
        return bool(mask.all()) if type(mask) is _ndarray else bool(mask)
    return readable(mask) and bool(mask.all())


def seen(mask: Tensor) -> bool:
    """Whether the mask is known to hold somewhere, read only where that is cheap."""
    if type(mask) in NUMPY or type(mask) in RECORDED:
        return bool(mask.any()) if type(mask) is _ndarray else bool(mask)
    return readable(mask) and bool(mask.any())


def nowhere(mask: Tensor) -> bool:
    """Whether the mask is known to hold nowhere, read only on a CPU, where nobody waits for it."""
    if type(mask) in NUMPY or type(mask) in RECORDED:
        return not mask.any() if type(mask) is _ndarray else not mask
    return mask.device.type == "cpu" and readable(mask) and not mask.any()


def readable(mask: Tensor) -> bool:
    """Whether a value may be read: not while compiling, nor where one fit waits for a device."""
    # many fits do wait: what they would do in vain costs more
    cheap = mask.device.type == "cpu" or (mask.ndim > 0 and len(mask) >= MANY)
    return cheap and not torch.compiler.is_compiling()


def unbatched(value: T, place: int) -> T:
    """One problem of a batch (b,), without its dimension, through nested NamedTuples."""
    if isinstance(value, tuple):
        made: Any = value
        return _remade(made, (unbatched(part, place) for part in made))
    chosen: Any = value[place].contiguous() if isinstance(value, Tensor) else value
    return chosen


def stacked(parts: Sequence[T]) -> T:
    """Single problems as a batch, through nested NamedTuples of tensors."""
    first = parts[0]
    if isinstance(first, tuple):
        made: Any = first
        columns: Any = parts
        return _remade(made, (stacked(column) for column in zip(*columns, strict=True)))
    tensors: list[Any] = [part for part in parts if isinstance(part, Tensor)]
    joined: Any = torch.stack(tensors) if tensors else first
    return joined


def join(parts: Sequence[T]) -> T:
    """Join batches (b, ...) through nested NamedTuples of tensors; other things as in the last."""
    first = parts[-1]
    if isinstance(first, tuple):
        made: Any = first
        columns: Any = parts
        return _remade(made, (join(column) for column in zip(*columns, strict=True)))
    tensors: list[Any] = [part for part in parts if isinstance(part, Tensor)]
    if tensors and _last(tensors[0]):
        whole: Any = torch.cat([t.movedim(0, -1) for t in tensors], -1).movedim(-1, 0)
        return whole
    joined: Any = torch.cat(tensors) if tensors else first
    return joined
