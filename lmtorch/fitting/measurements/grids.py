"""A surface z over a grid: x is a pair of grids of its shape, as `numpy.meshgrid` makes them.

Data of several dimensions are a batch of fits. Where every coordinate has the shape of the data,
and there are several of them, they are one surface instead: a batch whose fits have several
predictors each has them behind its own dimensions, (..., k, m). Where grids have the last
dimensions of the data, (H, W) of (b, H, W), the data are a batch of surfaces.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..._errors import InputError
from ...models.base import Model

AXES = (
    "xdata has the axes {axes} of ydata, of shape {shape}, and not a pair of coordinates for each "
    "point: give grids, numpy.meshgrid(x, y) of the axes of columns and rows, which have the shape "
    "of ydata."
)
SQUARE = (
    " If ydata are {count} curves instead, each at all {count} points of {predictors} predictors, "
    "say each_x=False."
)


def flattened(f: Any, xdata: Any, *of_points: Any) -> tuple[Any, ...] | None:
    """See whether data are a surface over a grid, or a batch of them, and make one curve of each.

    Args:
        f: the user's function; a model of `lmtorch.models` gets coordinates in rows, (k, m).
        xdata: coordinates, as the user gave them.
        of_points: ydata, and what else may have its shape: sigma, mask, total_count.

    Returns:
        Coordinates (k, *grid) and the others (m,) or (..., m); None: the data are no surface.

    Raises:
        InputError: the axes of the grid were given, and not its points.
    """
    if type(xdata) not in (list, tuple) and not isinstance(xdata, np.ndarray | Tensor):
        return None
    if not isinstance(xdata, list | tuple) and xdata.ndim < 2:
        return None
    ydata = of_points[0]
    shape = _shape(ydata)
    if len(shape) < 2 or math.prod(shape[:-1]) == 1:
        return None
    coordinates, lead = _coordinates(xdata, ydata, shape), 0
    if coordinates is None:
        lead = _images(xdata, shape)
        coordinates = _coordinates(xdata, ydata, shape[lead:]) if lead else None
    if coordinates is None:
        return None
    if isinstance(f, Model):
        coordinates = coordinates.reshape(len(coordinates), -1)
    return coordinates, *(_rows(values, shape, lead) for values in of_points)


def _images(xdata: Any, shape: tuple[int, ...]) -> int:
    """How many dimensions of the data count images of the grids; 0: they are no images."""
    if not isinstance(xdata, list | tuple):
        own = tuple(xdata.shape) == shape  # x of each curve, as ever
        return 0 if own or xdata.ndim < 3 else max(0, len(shape) - xdata.ndim + 1)
    dims = {getattr(part, "ndim", 0) for part in xdata}
    return max(0, len(shape) - dims.pop()) if len(dims) == 1 and min(dims) > 1 else 0


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
        if xdata.ndim == 2 and tuple(xdata.shape) != shape:
            _refuse_axes([tuple(row.shape) for row in xdata], list(xdata), shape)
        whole = xdata.ndim > 2 and tuple(xdata.shape[1:]) == shape
        return xdata if whole else None
    if len(xdata) < 2 or not all(hasattr(part, "shape") for part in xdata):
        return None
    parts = [_as_dims_of(ydata, part) for part in xdata]
    shapes = [tuple(part.shape) for part in parts]
    if _refuse_axes(shapes, parts, shape):
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


def _refuse_axes(shapes: Sequence[tuple[int, ...]], parts: Any, shape: tuple[int, ...]) -> bool:
    """See whether coordinates are rows of numbers, one for each dimension of the data.

    Returns:
        Whether they are.

    Raises:
        InputError: they are the axes of an image. Of a square one as many curves may be meant; but
            what rises along all coordinates at once tells nothing of them apart.
    """
    if len(shape) != len(parts) or any(len(one) != 1 for one in shapes):
        return False
    axes = [one[0] for one in shapes]
    if sorted(axes) != sorted(shape):
        return True
    if len(set(axes)) > 1:
        raise InputError(AXES.format(axes=tuple(axes), shape=shape))
    if axes[0] > len(axes) and all(map(_monotone, parts)):
        told = SQUARE.format(count=axes[0], predictors=len(axes))
        raise InputError(AXES.format(axes=tuple(axes), shape=shape) + told)
    return True


def _monotone(part: Any) -> bool:
    """Whether numbers rise or fall from each to the next."""
    values = np.asarray(part.detach().cpu() if isinstance(part, Tensor) else part)
    if values.dtype.kind not in "iuf":
        return False
    steps = np.diff(values.astype(float))
    return bool((steps > 0).all() or (steps < 0).all())


def _as_dims_of(ydata: Any, part: Any) -> Any:
    """A coordinate of xarray along the dimensions of ydata, by their names; others as they are."""
    if not (hasattr(ydata, "dims") and hasattr(part, "broadcast_like")):
        return part
    if not set(part.dims) <= set(ydata.dims):
        return part
    return part.broadcast_like(ydata)


def _rows(values: Any, shape: tuple[int, ...], lead: int) -> Any:
    """Values of the shape of the data, or of their grid, as rows; others, one for all, as given."""
    if values is None or isinstance(values, int | float):
        return values
    if isinstance(values, list | tuple):
        values = np.asarray(values)
    if not hasattr(values, "reshape"):
        values = values.to_numpy() if hasattr(values, "to_numpy") else np.asarray(values)
    own = tuple(np.shape(values))
    if own not in (shape, shape[lead:]):
        return values
    values = values.to_numpy() if hasattr(values, "to_numpy") else values
    return values.reshape(*own[: len(own) - len(shape) + lead], -1)
