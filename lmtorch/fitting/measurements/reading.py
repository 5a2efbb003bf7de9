"""Converts users' data to tensors: masked arrays, lists, decimals, text of digits, table columns.

What a masked array hides becomes NaN, and `shown_of` tells where. Data that are no numbers at all
are left to f if they are x, and are refused otherwise.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..._arrays import tensor_of
from ..._errors import InputError, InputTypeError


def merged(values: Any, name: str) -> Any:
    """Join lists and tuples to one array or tensor that keeps their masks or gradients.

    Raises:
        InputTypeError: their parts differ in length.
    """
    if not isinstance(values, list | tuple):
        return values
    try:
        if values and all(isinstance(value, Tensor) for value in values):
            return torch.stack(list(values))
        if any(map(np.ma.isMaskedArray, values)):
            shown = [np.nan if value is np.ma.masked else value for value in values]
            return np.ma.array(shown, mask=[np.ma.getmaskarray(value) for value in values])
        return np.asarray(values)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputTypeError(
            f"{name} is no array of real numbers: {error}. Give arrays of one length; a dict of "
            "arrays goes to f as it is."
        ) from error


def shown_of(values: Any) -> Tensor | None:
    """Which numbers a masked array shows; None if it hides none."""
    return tensor_of(~np.ma.getmaskarray(values)) if np.ma.is_masked(values) else None


def mask_of(mask: Any) -> Tensor | None:
    """Convert a mask to a tensor, True for points that count; entries that are masked are False.

    Raises:
        InputTypeError: it does not hold truth values.
    """
    if mask is None or isinstance(mask, Tensor):
        return None if mask is None else mask.bool()
    array = mask if isinstance(mask, np.ma.MaskedArray) else np.asarray(merged(mask, "mask"))
    if array.dtype.kind == "O" and all(
        isinstance(value, bool | np.bool_) for value in array.ravel()
    ):
        array = array.astype(bool)
    if array.dtype.kind not in "biuf" or not array.ndim:
        raise InputTypeError(
            f"mask={mask!r} must hold True for each point that counts, and False for the others."
        )
    # copied, as data frames give arrays that cannot be written to
    return tensor_of(np.array(np.ma.filled(array, 0), dtype=bool))


def in_unit_of(errors: Any, values: Any, names: tuple[str, str]) -> Any:
    """Errors in the unit of their values, where both have one, as quantities of astropy do.

    A number that leaves its unit behind in silence would be wrong by a factor.

    Args:
        errors: of the values.
        values: that were measured.
        names: of both, for messages.

    Returns:
        The errors; as they are, where one of both has no unit.

    Raises:
        InputError: the units are of different things.
    """
    unit, own = (getattr(one, "unit", None) for one in (values, errors))
    if unit is None or own is None or own == unit or not hasattr(errors, "to_value"):
        return errors
    try:
        return errors.to_value(unit)
    except Exception as error:  # whatever the package of the units raises
        raise InputError(
            f"{names[0]} is in {own} and {names[1]} in {unit}: errors are in the unit of what they "
            f"are of ({error})."
        ) from error


def numbers_of(values: Any, name: str) -> Tensor:
    """Convert to a floating-point tensor: arrays and numbers to float64, as in scipy.

    Entries that are masked become NaN.

    Raises:
        InputError: the numbers are complex.
        InputTypeError: they are no real numbers.
    """
    values = merged(values, name)
    try:
        array = values if isinstance(values, Tensor | np.ma.MaskedArray) else np.asarray(values)
        if array.is_complex() if isinstance(array, Tensor) else np.iscomplexobj(array):
            raise InputError(
                f"{name} is complex: give numpy.concatenate([z.real, z.imag]), and have f return "
                "torch.cat([z.real, z.imag]), twice as many values as xdata has points."
            )
        if isinstance(array, Tensor):
            return array if array.is_floating_point() else array.to(torch.float64)
        if array.dtype.kind in "mM":
            raise InputTypeError(
                f"{name} has {array.dtype}: give numbers, such as values / np.timedelta64(1, 's')."
            )
        if type(array) is np.ndarray:
            return tensor_of(np.array(array, dtype=np.float64))
        return tensor_of(
            np.ma.filled(np.ma.array(array, dtype=np.float64, copy=True, subok=False), np.nan)
        )
    except InputError:
        raise
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputTypeError(
            f"{name} is no array of real numbers: {error}{_of_text(error)}"
        ) from error


def _of_text(error: Exception) -> str:
    """How text becomes numbers, where a table was read with its numbers as text."""
    if "could not convert string to float" not in str(error):
        return ""
    return (
        ". Text becomes numbers where the table is read, decimal commas by pandas.read_csv(file, "
        "sep=';', decimal=','), or by pandas.to_numeric(column, errors='coerce'), which makes NaN "
        "of words"
    )


def as_x(leaf: Any, y: Tensor) -> Any:
    """Convert numbers to the dtype and device of y; leave what only f understands, as a table.

    A tensor keeps its dtype.
    """
    if is_table(leaf):
        return leaf
    if isinstance(leaf, Tensor):
        return leaf.to(y.device)
    array = leaf if isinstance(leaf, np.ma.MaskedArray) else np.asarray(leaf)
    if array.dtype.kind not in "fiub" and not (array.dtype.kind in "OUS" and array.ndim):
        return leaf
    try:
        return numbers_of(array, "xdata").to(y)  # Decimal and digits are numbers, too
    except InputError:
        return leaf


def is_table(value: Any) -> bool:
    """Whether a value is a data frame, whose columns f takes by name."""
    return hasattr(value, "columns") and hasattr(value, "__len__")
