"""From tensors to NumPy arrays and back, without a copy where one is not needed."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

T = TypeVar("T")

_NOTHING = nullcontext()
NUMPY = frozenset({np.ndarray, np.float64, np.float32, np.bool_, np.int64})
# types of numbers that write down what is done with them, see `recording`; they are of one problem
RECORDED: set[type] = set()
# the types of numbers, for which `astype` is quickest, of dtypes of both
OF: dict[Any, Any] = {torch.float64: np.dtype("float64"), torch.float32: np.dtype("float32")}
OF |= {dtype: dtype for dtype in tuple(OF.values())}


def on_numpy(value: Any) -> bool:
    """Whether a value is NumPy's, or stands for one that is while a record is made."""
    kind = type(value)
    return kind in NUMPY or kind in RECORDED


def quiet() -> AbstractContextManager[None]:
    """Around work on NumPy: a division by zero gives infinity in silence, as torch's does."""
    return np.errstate(all="ignore")


def noises() -> dict[str, Any]:
    """What NumPy says of divisions by zero and their like, as its user has set it."""
    found: dict[str, Any] = dict(np.geterr())
    return found


def heard(noises: dict[str, Any] | None) -> AbstractContextManager[None]:
    """Around a user's function within `quiet`: NumPy says what its user has asked for."""
    return _NOTHING if noises is None else np.errstate(**noises)


def with_type_of(value: Any, like: Any) -> Any:
    """A tensor as NumPy's array or number if `like` is NumPy's; anything else as it is."""
    return _array(value) if type(like) in NUMPY and isinstance(value, Tensor) else value


def tensor_from(value: Any) -> Tensor:
    """What is NumPy's as a tensor on the CPU that shares its memory; a tensor as it is."""
    kind = type(value)
    if kind is np.ndarray:
        return torch.from_numpy(value)
    return torch.from_numpy(np.asarray(value)) if kind in NUMPY else value


def to_type(value: Tensor, dtype: torch.dtype) -> Tensor:
    """The value in another dtype; itself if that is its own."""
    if type(value) not in NUMPY:
        return value.to(dtype)
    made: Any = value
    wanted = OF[dtype]
    return made if made.dtype is wanted else made.astype(wanted)


def arrays_of(value: T) -> T:
    """Tensors of one problem as NumPy arrays and numbers, through NamedTuples."""
    made: Any = value
    if type(made) is Tensor:
        found: T = _array(made)
        return found
    return _through(value, _array, Tensor)


def tensors_of(value: T) -> T:
    """NumPy arrays and numbers as tensors, through NamedTuples."""
    return _through(value, _own_tensor, tuple(NUMPY))


def _through(value: Any, convert: Callable[[Any], Any], kinds: Any) -> Any:
    if isinstance(value, kinds):
        return convert(value)
    if not isinstance(value, tuple):
        return value
    kind: Any = type(value)
    parts = [_through(part, convert, kinds) for part in value]
    return tuple(parts) if kind is tuple else kind._make(parts)


def _array(tensor: Tensor) -> Any:
    """A tensor on the CPU as an array, one without dimensions as a number."""
    if tensor.requires_grad:
        tensor = tensor.detach()
    if tensor.dtype is torch.bfloat16:  # NumPy has none; every one of its numbers is a float32
        tensor = tensor.float()
    array = tensor.numpy()
    return array if array.ndim else array[()]


def _own_tensor(value: Any) -> Tensor:
    """A tensor, with memory of its own where it is a number."""
    return torch.from_numpy(value if type(value) is np.ndarray else np.array(value))
