"""A function of blocks, applied to labelled arrays: to all at once, or to each of Dask's chunks."""

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from .reading import Stack


def applied(
    stack: Stack,
    function: Callable[..., Any],
    arrays: Iterable[xr.DataArray],
    cores: Sequence[Sequence[Hashable]],
    kinds: Mapping[str, tuple[str, Sequence[str]]],
    sizes: Mapping[str, int],
) -> dict[str, xr.DataArray]:
    """Apply a function.

    Args:
        stack: to which the arrays belong.
        function: of arrays of NumPy, with the pixels in front.
        arrays: of which it is.
        cores: the dimensions of each that are not of pixels.
        kinds: dtype and further dimensions of each result, by name.
        sizes: of these dimensions.

    Returns:
        The results by name.
    """
    made = xr.apply_ufunc(
        function,
        *(array.drop_vars(list(array.coords)) for array in arrays),
        input_core_dims=cores,
        output_core_dims=[list(dims) for _, dims in kinds.values()],
        exclude_dims={dim for dim in stack.points if any(dim in core for core in cores)},
        dask="parallelized",
        output_dtypes=[np.dtype(dtype) for dtype, _ in kinds.values()],
        dask_gufunc_kwargs={"output_sizes": dict(sizes)},
    )
    return dict(zip(kinds, made if len(kinds) > 1 else (made,), strict=True))
