"""A model's curve beside the data: new points for it, what it returned, where each set stands."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from ..._arrays import is_tensor
from ..._errors import InputError, InputTypeError
from ...calculus.duals import Dual
from .data import Data
from .integers import like_known
from .reading import as_x, is_table, merged, numbers_of


def points_of(x: Any, known: Any, data: Data) -> tuple[Any, int]:
    """Convert new points, in the layout of xdata, to what f takes, and count them.

    Returns:
        The points and their number.

    Raises:
        InputError: they cannot be counted, there are none, or they have another layout.
    """
    new = tree_map(
        lambda leaf: as_x(leaf, data.y),
        np.asarray(x) if isinstance(x, int | float) else merged(x, "new points"),
    )
    new = tree_map(like_known, new, known)
    for leaf, before in zip(tree_leaves(new), tree_leaves(known), strict=True):
        if is_table(leaf):
            return new, len(leaf)
        shape = np.shape(leaf) if isinstance(leaf, Tensor) or hasattr(leaf, "dtype") else None
        if shape is None:
            continue
        if not shape:
            return leaf[None], 1
        if 0 in shape:
            raise InputError("there are no new points.")
        layout = tuple(np.shape(before))
        if isinstance(leaf, Tensor) and sum(size > 1 for size in shape) > max(1, len(layout)):
            raise InputError(
                f"new points have shape {tuple(shape)}, and xdata {layout}: give them in its "
                "layout, as x.ravel() for a curve, and reshape what comes back."
            )
        if len(layout) > 2 and math.prod(layout[1:]) == data.m:  # grids of an image
            return new, math.prod(shape[1:])
        in_rows = len(np.shape(before)) > 1 and np.shape(before)[-1] not in (*data.sizes, data.m)
        return new, shape[0 if in_rows else -1]
    raise InputError("new points must be arrays or tensors in the layout of xdata.")


def curve_of(values: Any, like: Any, count: int, hint: str = "") -> Tensor:
    """The curve (count,) from what f returned; a single number is taken for all points.

    Returns:
        It, on the device of the tensor `like`.

    Raises:
        InputError: f returned another number of values, or complex ones.
        InputTypeError: f returned nothing, or no numbers.
    """
    # of dual numbers, whose own attributes take longer, the value is looked at
    value = values.value if type(values) is Dual else values
    if type(value) is Tensor and value.shape == (count,) and not value.is_complex():
        there = like.value if type(like) is Dual else like
        if value.device == there.device:
            plain: Any = values
            return plain
    if values is None:
        raise InputTypeError(
            "f returned nothing. It must return the curve, a number for each point."
        )
    if isinstance(values, tuple) and len(values) == 2 and np.ndim(values[1]) == 2:
        raise InputTypeError(
            "f returned two things, as if a curve with its Jacobian: it must return the curve "
            "alone. Derivatives are exact without being given; jac= is for those of your own."
        )
    if values.is_complex() if is_tensor(values) else np.iscomplexobj(values):
        raise InputError(
            "f returned complex numbers: return torch.cat([z.real, z.imag]), and give ydata as "
            "numpy.concatenate([z.real, z.imag])."
        )
    curve = (values if is_tensor(values) else numbers_of(values, "what f returned")).reshape(-1)
    if curve.shape[0] != count:
        if curve.shape[0] != 1:
            raise InputError(
                f"f returned {curve.shape[0]} values for {count} points. It must "
                f"return one for each.{hint or ' Have xdata and ydata one length?'}"
            )
        curve = curve.expand(count)
    return curve.to(like.device)


def places_of(sizes: Sequence[int]) -> list[slice]:
    """Where each data set is among all points."""
    ends = np.cumsum(sizes).tolist()
    return [slice(end - size, end) for end, size in zip(ends, sizes, strict=True)]
