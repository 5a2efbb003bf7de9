"""Choosing per problem: masks instead of branches, so that one problem and a million run the same code."""

from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")


def _remade(like: tuple[Any, ...], parts: Iterable[Any]) -> Any:
    """A tuple of these parts, of the same type: a NamedTuple has another constructor than a tuple."""
    kind: Any = type(like)
    return kind._make(parts) if hasattr(kind, "_make") else kind(parts)


def select(mask: Tensor, new: T, old: T) -> T:
    """Per problem `new` where `mask` (...,) holds and `old` elsewhere, through NamedTuples; others as in `new`."""
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
    """The problems at `places` (k,) of a batch (b,), through nested NamedTuples; other things as they are."""
    if isinstance(value, tuple):
        made: Any = value
        return _remade(made, (take(part, places) for part in made))
    chosen: Any = value[places] if isinstance(value, Tensor) else value
    return chosen


def places(mask: Tensor, count: int) -> Tensor:
    """Where a mask (b,) holds, (count,), in order, when it is known how often: `nonzero` would wait for the number."""
    return mask.to(torch.int8).argsort(descending=True, stable=True)[:count]


def read(*numbers: Tensor) -> list[int]:
    """Counts and flags, 0-d each, as numbers of the host: one transfer, which waits for the device."""
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
    """Whether the mask holds everywhere, read only where reading costs nothing: on a CPU.

    An inner iteration of fixed length may end early on it; on a GPU the read would wait for the device.
    """
    return _readable(mask) and bool(mask.all())


def seen(mask: Tensor) -> bool:
    """Whether the mask is known to hold somewhere, read only where reading costs nothing: on a CPU."""
    return _readable(mask) and bool(mask.any())


def _readable(mask: Tensor) -> bool:
    """Whether a value may decide what comes next: not where that would wait for a device, nor while compiling."""
    return mask.device.type == "cpu" and not torch.compiler.is_compiling()


def join(parts: Sequence[T]) -> T:
    """Batches (b, ...) one after the other, through nested NamedTuples of tensors; other things as in the last."""
    first = parts[-1]
    if isinstance(first, tuple):
        made: Any = first
        columns: Any = parts
        return _remade(made, (join(column) for column in zip(*columns, strict=True)))
    tensors: list[Any] = [part for part in parts if isinstance(part, Tensor)]
    joined: Any = torch.cat(tensors) if tensors else first
    return joined
