"""The two passes over a stack: in memory as one block, or lazily over the blocks of Dask."""

from collections.abc import Callable, Hashable
from dataclasses import replace
from functools import partial
from typing import Any

import xarray as xr

from .._errors import InputError
from .applying import applied
from .blocks import fit_block, raise_if_failed
from .neighbours import fit_again
from .progress import Bar
from .reading import Stack
from .trial import try_options
from .variables import LABELS, variables


def fit_lazily(stack: Stack, progress: bool) -> dict[str, xr.DataArray]:
    """Fit all pixels, at once or as Dask's tasks.

    Args:
        stack: the array with its task.
        progress: show a bar.

    Returns:
        The variables by name.

    Raises:
        InputError: a pixel's points lie in several chunks, or a bar is asked for of what is lazy.
    """
    if not stack.lazy:
        if not progress:
            return _passes(stack, None)
        with Bar(stack.data[dict.fromkeys(stack.points, 0)].size) as bar:
            return _passes(stack, bar.fits)
    check_chunks(stack)
    if progress:
        raise InputError(
            "progress=True shows fits as they run, and those of an array of Dask run later, when "
            "they are computed. Surround that with dask.diagnostics.ProgressBar(), or give "
            "store=, which computes at once."
        )
    try_options(stack.task)
    return _passes(replace(stack, task=replace(stack.task, alone=True)), None)


def check_chunks(stack: Stack) -> None:
    """See whether each pixel has all of its points in one chunk.

    Raises:
        InputError: it does not.
    """
    for array in (stack.data, *stack.arrays):
        for dim in stack.points:
            if dim in array.dims and len(array.chunksizes.get(dim, (0,))) > 1:
                raise InputError(
                    f"the data lie in {len(array.chunksizes[dim])} chunks along {dim!r}, along "
                    "which is fitted: every pixel needs all of its points in one. Rechunk them, "
                    f"and cut the pixels instead: .chunk({{{dim!r}: -1, "
                    f"{(stack.pixels or ('y',))[0]!r}: 'auto'}})."
                )


def _passes(stack: Stack, seen: Callable[[int, int], Any] | None) -> dict[str, xr.DataArray]:
    """The first pass, and the second where it is asked for."""
    kinds = variables(stack.task.neighbours)
    sizes = dict.fromkeys(LABELS, len(stack.task.names))
    arrays, cores = (stack.data, *stack.arrays), [list(stack.points), *stack.cores]
    first = partial(fit_block, task=stack.task, seen=seen)
    found = applied(stack, first, arrays, cores, kinds, sizes)
    if not stack.task.neighbours or not stack.pixels:
        return found
    from .overlapping import again_over_chunks, numbers_of

    if stack.lazy:
        return again_over_chunks(stack, found)
    behind: list[list[Hashable]] = [list(dims) for _, dims in kinds.values()]
    again = partial(fit_again, task=stack.task)
    arrays = (*arrays, *found.values(), numbers_of(stack))
    found = applied(stack, again, arrays, [*cores, *behind, []], kinds, sizes)
    if stack.task.errors == "raise":
        raise_if_failed(found["status"].values)
    return found
