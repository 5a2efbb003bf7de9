"""The second pass over Dask's chunks, which overlap: nothing runs until it is computed.

As solutions spread by one pixel a round, a chunk with so many pixels around it as there are rounds
finds what the whole array finds, and these pixels are cut off again. Where chunks are smaller than
that, they overlap anew after as many rounds as they have pixels.
"""

from collections.abc import Hashable, Mapping
from functools import partial
from typing import Any

import numpy as np
import xarray as xr

from .applying import applied
from .blocks import raise_if_failed
from .neighbours import ROUNDS, fit_again
from .reading import Stack
from .task import Task, tile_numbers
from .variables import LABELS, variables

# all variables of a pixel side by side, so that one array overlaps instead of seven
SIDE = "lmtorch_variables"


def again_over_chunks(stack: Stack, found: Mapping[str, xr.DataArray]) -> dict[str, xr.DataArray]:
    """Fit pixels that failed from their neighbours, lazily.

    Args:
        stack: what is fitted.
        found: the variables of the first pass.

    Returns:
        The variables by name.
    """
    kinds, count = variables(True), len(stack.task.names)
    widths = [*(count ** len(dims) for _, dims in kinds.values()), 1]
    behind: list[list[Hashable]] = [list(dims) for _, dims in kinds.values()]
    one = {SIDE: ("float64", (SIDE,))}
    chunks = {
        # chunks without pixels, as a selection leaves them, cannot overlap
        dim: tuple(c for c in stack.data.chunksizes.get(dim, (size,)) if c) or (0,)
        for dim, size in zip(stack.pixels, stack.shape, strict=True)
    }
    numbers = numbers_of(stack, chunks)
    several = [dim for dim in stack.pixels if len(chunks[dim]) > 1]
    rounds = min([ROUNDS, *(min(chunks[dim]) for dim in several)])
    depth = dict.fromkeys(several, rounds)
    side = {SIDE: sum(widths)}
    packed = applied(stack, _pack, [*found.values(), numbers], [*behind, []], one, side)[SIDE]
    wide = [_widened(array, chunks, depth) for array in (stack.data, *stack.arrays)]
    for done in range(0, ROUNDS, rounds):
        again = partial(
            _again, task=stack.task, rounds=min(rounds, ROUNDS - done), widths=tuple(widths)
        )
        made = applied(
            stack, again, (*wide, _widened(packed, chunks, depth)),
            [list(stack.points), *stack.cores, [SIDE]], one, side,
        )[SIDE]  # fmt: skip
        packed = _trimmed(made, depth)
    ended = partial(_ended, task=stack.task, widths=tuple(widths))
    sizes = dict.fromkeys(LABELS, count)
    return applied(stack, ended, [packed], [[SIDE]], kinds, sizes)


def numbers_of(stack: Stack, chunks: Mapping[Hashable, Any] | None = None) -> xr.DataArray:
    """The number of the tile that each pixel lies in, (*pixels)."""
    tile = stack.task.tile
    along = tile_numbers(stack.shape, tile, [slice(None)] * len(tile))
    parts = [xr.DataArray(n, dims=[dim]) for dim, n in zip(stack.pixels, along, strict=True)]
    if chunks is not None:
        parts = [part.chunk({part.dims[0]: chunks[part.dims[0]]}) for part in parts]
    return sum(parts[1:], start=parts[0])


def _widened(
    array: xr.DataArray, chunks: Mapping[Hashable, Any], depth: Mapping[Hashable, int]
) -> xr.DataArray:
    """An array whose chunks have so many pixels more at each side, of the chunks beside them."""
    from dask.array.overlap import overlap

    own = {dim: sides for dim, sides in chunks.items() if dim in array.dims}
    if not own:
        return array
    axes = {k: depth.get(dim, 0) for k, dim in enumerate(array.dims)}
    data = array.drop_vars(list(array.coords)).chunk(own).data
    if any(axes.values()):
        data = overlap(data, axes, dict.fromkeys(axes, "none"), allow_rechunk=False)
    return xr.DataArray(data, dims=array.dims)


def _trimmed(array: xr.DataArray, depth: Mapping[Hashable, int]) -> xr.DataArray:
    """An array without what its chunks have had more."""
    from dask.array.overlap import trim_internal

    axes = {k: depth.get(dim, 0) for k, dim in enumerate(array.dims)}
    if not any(axes.values()):
        return array
    data = trim_internal(array.data, axes, dict.fromkeys(axes, "none"))
    return xr.DataArray(data, dims=array.dims)


def _pack(*values: np.ndarray) -> np.ndarray:
    """Arrays of a block, of which the last is (*pixels), side by side: (*pixels, ...)."""
    lead = values[-1].shape
    return np.concatenate([v.reshape(*lead, -1).astype(np.float64) for v in values], -1)


def _unpack(packed: np.ndarray, count: int, widths: tuple[int, ...]) -> list[np.ndarray]:
    """The variables and the number of the tile again, with the dtype of each."""
    lead, found, first = packed.shape[:-1], [], 0
    kinds = [*variables(True).values(), ("int64", ())]
    for (dtype, dims), width in zip(kinds, widths, strict=True):
        value = packed[..., first : first + width].reshape(*lead, *(count for _ in dims))
        found.append(value.astype(dtype))
        first += width
    return found


def _again(*arrays: np.ndarray, task: Task, rounds: int, widths: tuple[int, ...]) -> np.ndarray:
    """A chunk with what overlaps, fitted again."""
    found = _unpack(arrays[-1], len(task.names), widths)
    again = fit_again(*arrays[:-1], *found, task=task, rounds=rounds)
    return _pack(*again, found[-1])


def _ended(packed: np.ndarray, task: Task, widths: tuple[int, ...]) -> tuple[np.ndarray, ...]:
    """The variables of a chunk, of which no pixel failed if the task is to raise."""
    found = _unpack(packed, len(task.names), widths)[:-1]
    if task.errors == "raise":
        raise_if_failed(found[-1])
    return tuple(found)
