"""The two passes over a stack: in memory as one block, or lazily over the blocks of Dask."""

from collections.abc import Callable, Hashable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import xarray as xr

from .._errors import InputError
from .blocks import fit_block
from .neighbours import fit_again, shifted
from .progress import Bar
from .reading import Stack
from .variables import variables


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
    found = _applied(
        stack, partial(fit_block, task=stack.task, seen=seen), (stack.data, *stack.arrays),
        [list(stack.points), *stack.cores],
    )  # fmt: skip
    if not stack.task.neighbours or not stack.pixels:
        return found
    starts = shifted(found["coefficients"], found["status"], stack.pixels)
    behind: list[list[Hashable]] = [list(dims) for _, dims in variables(True).values()]
    return _applied(
        stack, partial(fit_again, task=stack.task),
        (stack.data, *stack.arrays, starts, *found.values()),
        [list(stack.points), *stack.cores, ["neighbour", "param"], *behind],
    )  # fmt: skip


def _applied(
    stack: Stack, function: Callable[..., Any], arrays: Any, cores: list[list[Hashable]]
) -> dict[str, xr.DataArray]:
    """A function of blocks, applied to all of them."""
    kinds = variables(stack.task.neighbours)
    sizes = dict.fromkeys(("param", "cov_i", "cov_j"), len(stack.task.names))
    bare = [array.drop_vars(list(array.coords)) for array in arrays]
    made = xr.apply_ufunc(
        function,
        *bare,
        input_core_dims=cores,
        output_core_dims=[list(dims) for _, dims in kinds.values()],
        exclude_dims=set(stack.points),
        dask="parallelized",
        output_dtypes=[np.dtype(dtype) for dtype, _ in kinds.values()],
        dask_gufunc_kwargs={"output_sizes": sizes},
    )
    return dict(zip(kinds, made, strict=True))
