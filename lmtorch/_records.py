"""Numbers, arrays and trees of them as JSON and back, bit for bit.

An array becomes an object with its dtype, its shape and its numbers: nested lists of decimals,
which give every bit of a float back, or from `LARGE` numbers on its bytes in base64. JSON has no
words for what is not finite: in arrays they are the strings "nan", "inf" and "-inf", which Python's
float() reads.
"""

import base64
import math
from collections.abc import Mapping
from importlib import import_module
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ._arrays import tensor_of, to_array
from ._errors import InputError

LARGE = 10_000  # from so many numbers on an array is written as bytes
NOT_FINITE = ("nan", "inf", "-inf")
KINDS = "biufcMm"  # of NumPy's dtypes: numbers, truth values, dates and durations


def encoded(value: Any) -> Any:
    """A value in the terms of JSON.

    Args:
        value: None, numbers, text, arrays, tensors, data frames, or lists, tuples and dicts of such
            things.

    Returns:
        It, as `json.dumps(..., allow_nan=False)` takes it.

    Raises:
        InputError: it is something else.
    """
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, Tensor):
        return {"tensor": _array(_plain(value)), "dtype": str(value.dtype).removeprefix("torch.")}
    if isinstance(value, np.ndarray | np.generic):
        return _labels(value) if value.dtype.kind in "OU" else {"array": _array(np.asarray(value))}
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else {"float": str(value)}
    if isinstance(value, complex):
        return {"array": _array(np.asarray(value)), "scalar": True}
    if isinstance(value, list | tuple):
        items = [encoded(item) for item in value]
        return {"tuple": items} if isinstance(value, tuple) else items
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {"dict": {key: encoded(item) for key, item in value.items()}}
    if hasattr(value, "columns") and hasattr(value, "to_numpy"):
        return {"table": {str(key): encoded(value[key].to_numpy()) for key in value.columns}}
    raise InputError(
        f"{type(value).__name__} cannot be saved as JSON: numbers, text, arrays, tensors, data "
        "frames, and lists and dicts of them can."
    )


def decoded(value: Any, device: Any = None) -> Any:
    """The value that `encoded` has written down.

    Args:
        value: as from `json.loads`.
        device: of tensors. Default: the CPU.

    Returns:
        The value.

    Raises:
        InputError: it is no such value.
    """
    if isinstance(value, list):
        return [decoded(item, device) for item in value]
    if not isinstance(value, dict):
        return value
    try:
        if "tensor" in value:
            found = tensor_of(_from_array(value["tensor"]))
            return found.to(device=device, dtype=getattr(torch, value["dtype"]))
        if "array" in value:
            array = _from_array(value["array"])
            return array.item() if value.get("scalar") else array
        if "float" in value:
            return _number(value["float"])
        if "tuple" in value:
            return tuple(decoded(item, device) for item in value["tuple"])
        if "labels" in value:
            return np.array(value["labels"], dtype=object)
        if "table" in value:
            return _frame({key: decoded(item) for key, item in value["table"].items()})
        return {key: decoded(item, device) for key, item in value["dict"].items()}
    except InputError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise InputError(f"the file is damaged, or was changed by hand: {error!r}.") from error


def _plain(value: Tensor) -> np.ndarray:
    """The numbers of a tensor; a dtype that NumPy lacks becomes a wider one."""
    value = value.detach()
    narrow = value.dtype.is_floating_point and value.dtype.itemsize < torch.float32.itemsize
    return np.asarray(to_array(value.float() if narrow else value))


def _array(array: np.ndarray) -> dict[str, Any]:
    """An array with its dtype and shape."""
    if array.dtype.kind not in KINDS:
        raise InputError(f"arrays of {array.dtype} cannot be saved.")
    found: dict[str, Any] = {"dtype": str(array.dtype), "shape": list(array.shape)}
    if array.size >= LARGE:
        ordered = np.ascontiguousarray(array.astype(array.dtype.newbyteorder("<"), copy=False))
        return found | {"base64": base64.b64encode(ordered.tobytes()).decode("ascii")}
    if array.dtype.kind == "c":  # pairs of real and imaginary part
        array = np.stack([array.real, array.imag], -1)
    elif array.dtype.kind in "mM":
        array = array.astype(np.int64)
    values = array.tolist()
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        values = _worded(values)
    return found | {"values": values}


def _from_array(given: dict[str, Any]) -> np.ndarray:
    """The array again, as one that may be written to."""
    dtype, shape = np.dtype(given["dtype"]), tuple(given["shape"])
    if dtype.kind not in KINDS:
        raise ValueError(f"an array of {dtype}")
    if "base64" in given:
        raw = np.frombuffer(base64.b64decode(given["base64"]), dtype.newbyteorder("<"))
        return raw.astype(dtype).reshape(shape)
    flat = _flat(given["values"])
    if dtype.kind == "c":
        part = np.dtype(f"f{dtype.itemsize // 2}")
        pairs = np.array([_number(item) for item in flat], dtype=part)
        return pairs.view(dtype).reshape(shape)
    if dtype.kind in "mM":
        return np.array(flat, dtype=np.int64).astype(dtype).reshape(shape)
    if dtype.kind == "f":
        flat = [_number(item) for item in flat]
    return np.array(flat, dtype=dtype).reshape(shape)


def _labels(array: Any) -> dict[str, Any]:
    """An array of text."""
    labels = np.asarray(array).tolist()
    if not isinstance(labels, list) or not all(isinstance(one, str | None) for one in labels):
        raise InputError("arrays of objects cannot be saved, unless they are columns of text.")
    return {"labels": labels}


def _frame(columns: dict[str, Any]) -> Any:
    try:
        return import_module("pandas").DataFrame(columns)
    except ImportError as error:
        raise InputError("the file has a table, which needs pandas: pip install pandas.") from error


def _worded(values: Any) -> Any:
    """Nested lists with words for what is not finite."""
    if isinstance(values, list):
        return [_worded(item) for item in values]
    return values if math.isfinite(values) else str(values)


def _number(value: Any) -> float:
    """A number, or the word for one that is not finite."""
    if isinstance(value, str) and value not in NOT_FINITE:
        raise ValueError(f"{value!r} among numbers")
    return float(value)


def _flat(values: Any) -> list[Any]:
    """The numbers of nested lists."""
    if not isinstance(values, list):
        return [values]
    flat: list[Any] = []
    for item in values:
        if isinstance(item, list):
            flat.extend(_flat(item))
        else:
            flat.append(item)
    return flat
