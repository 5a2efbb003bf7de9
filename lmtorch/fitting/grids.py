"""A surface z over a grid: x is a pair of grids of its shape, as `numpy.meshgrid` makes them.

Data of several dimensions are a batch of fits. Where every coordinate has the shape of the data,
and there are several of them, they are one surface instead: a batch whose fits have several
predictors each has them behind its own dimensions, (..., k, m).
"""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .._errors import InputError
from ..models.base import Model

AXES = (
    "xdata has the axes {axes} of ydata, of shape {shape}, and not a pair of coordinates for each "
    "point: give grids, numpy.meshgrid(x, y) of the axes of columns and rows, which have the shape "
    "of ydata."
)


def flattened(f: Any, xdata: Any, *of_points: Any) -> tuple[Any, ...] | None:
    """See whether data are a surface over a grid, and make one curve of it.

    Args:
        f: the user's function; a model of `lmtorch.models` gets coordinates in rows, (k, m).
        xdata: coordinates, as the user gave them.
        of_points: ydata, and what else may have its shape: sigma, mask, total_count.

    Returns:
        Coordinates (k, *shape) and the others (m,); None: the data are no surface.

    Raises:
        InputError: the axes of the grid were given, and not its points.
    """
    if type(xdata) not in (list, tuple) and not isinstance(xdata, np.ndarray | Tensor):
        return None
    if not isinstance(xdata, list | tuple) and xdata.ndim < 3:
        return None
    ydata = of_points[0]
    shape = _shape(ydata)
    if len(shape) < 2 or math.prod(shape[:-1]) == 1:
        return None
    coordinates = _coordinates(xdata, ydata, shape)
    if coordinates is None:
        return None
    if isinstance(f, Model):
        coordinates = coordinates.reshape(len(coordinates), -1)
    return coordinates, *(_row(values, shape) for values in of_points)


def _shape(values: Any) -> tuple[int, ...]:
    """The shape of data; (): a list that has no rows, or rows that differ in length."""
    if isinstance(values, list | tuple) and not (
        len(values) and isinstance(values[0], list | tuple | np.ndarray | Tensor)
    ):
        return ()
    try:
        return tuple(np.shape(values))
    except (TypeError, ValueError, RuntimeError):
        return ()


def _coordinates(xdata: Any, ydata: Any, shape: tuple[int, ...]) -> Any:
    """The coordinates as one array (k, *shape); None: they are no grids."""
    if not isinstance(xdata, list | tuple):
        return xdata if tuple(xdata.shape[1:]) == shape else None
    if len(xdata) < 2 or not all(hasattr(part, "shape") for part in xdata):
        return None
    parts = [_as_dims_of(ydata, part) for part in xdata]
    shapes = [tuple(part.shape) for part in parts]
    if len(shape) == len(parts) and all(len(one) == 1 for one in shapes):
        axes = [one[0] for one in shapes]
        if sorted(axes) == sorted(shape) and len(set(axes)) > 1:
            raise InputError(AXES.format(axes=tuple(axes), shape=shape))
        return None
    if any(len(one) != len(shape) for one in shapes):
        return None
    try:
        if np.broadcast_shapes(*shapes) != shape:
            return None
    except ValueError:
        return None
    if any(isinstance(part, Tensor) for part in parts):
        return torch.stack([torch.as_tensor(part).expand(shape) for part in parts])
    hides = any(map(np.ma.isMaskedArray, parts))
    stack = np.ma.stack if hides else np.stack
    whole = [np.ma.array(part) if hides else np.asarray(part) for part in parts]
    return stack([np.broadcast_to(part, shape, subok=True) for part in whole])


def _as_dims_of(ydata: Any, part: Any) -> Any:
    """A coordinate of xarray along the dimensions of ydata, by their names; others as they are."""
    if not (hasattr(ydata, "dims") and hasattr(part, "broadcast_like")):
        return part
    if not set(part.dims) <= set(ydata.dims):
        return part
    return part.broadcast_like(ydata)


def _row(values: Any, shape: tuple[int, ...]) -> Any:
    """Values (*shape) as one row; others, such as one for all points, as they are."""
    if values is None or isinstance(values, int | float):
        return values
    if isinstance(values, list | tuple):
        values = np.asarray(values)
    if not hasattr(values, "reshape"):
        values = values.to_numpy() if hasattr(values, "to_numpy") else np.asarray(values)
    if tuple(np.shape(values)) != shape:
        return values
    return values.to_numpy().reshape(-1) if hasattr(values, "to_numpy") else values.reshape(-1)
