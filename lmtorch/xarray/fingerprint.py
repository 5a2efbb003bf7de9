"""What a store was made with, in so many words and digests that another run can compare."""

import functools
import sys
from collections.abc import Hashable, Mapping, Sequence
from hashlib import blake2b
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch

from .task import Task

PLAIN = (bool, int, float, complex, str, bytes, type(None), np.generic)
# packages whose functions and classes are told by name
INSTALLED = ("torch", "numpy", "lmtorch", "scipy", "xarray", "pandas", "dask")


def digest_of(arrays: Sequence[np.ndarray]) -> int:
    """A number of 63 bits that tells arrays from others, never 0."""
    state = blake2b(digest_size=8)
    for array in arrays:
        state.update(f"{array.dtype.str}{array.shape}".encode())
        whole = np.ascontiguousarray(array)
        whole = whole.view(np.int64) if whole.dtype.kind in "mM" else whole  # they have no buffer
        state.update(repr(whole.tolist()).encode() if whole.dtype.hasobject else whole.data)
    return (int.from_bytes(state.digest(), "little") >> 1) or 1


def fingerprint(
    task: Task,
    dims: Sequence[Hashable],
    shape: Sequence[int],
    blocks: Sequence[int],
    labels: Mapping[Hashable, np.ndarray],
) -> dict[str, str]:
    """What results depend on besides the data, by the names that users know."""
    return {
        "func": told(task.func),
        "parameters": repr(task.names),
        "p0": told(task.start) + repr([n for kind, n in task.fields if kind == "p0"]),
        "bounds": told(task.bounds) + repr([f for f in task.fields if f[0] in ("lower", "upper")]),
        "sigma, mask or total_count": repr([f[0] for f in task.fields if not f[1]]),
        "options": told(task.options),
        "skipna": repr(task.skipna),
        "errors": repr(task.errors),
        "start": repr(task.neighbours),
        "dimensions of the data": repr((tuple(dims), tuple(shape))),
        "labels of the pixels": told(labels),
        "chunks": repr(tuple(blocks)),
    }


def told(value: Any, seen: set[int] | None = None) -> str:
    """A value in a form that is the same in every process, and another for another value."""
    if isinstance(value, PLAIN):
        return repr(value)
    seen = set() if seen is None else seen
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().numpy()
    if isinstance(value, np.ndarray):
        return f"array {value.shape} {digest_of([value]):x}"
    if isinstance(value, Mapping):
        items = ", ".join(f"{told(k, seen)}: {told(v, seen)}" for k, v in value.items())
        return f"{{{items}}}"
    if isinstance(value, list | tuple | set | frozenset):
        parts = [told(one, seen) for one in value]
        return f"[{', '.join(sorted(parts) if isinstance(value, set | frozenset) else parts)}]"
    if isinstance(value, functools.partial):
        return f"partial {told([value.func, value.args, value.keywords], seen)}"
    if isinstance(value, staticmethod | classmethod | MethodType):
        return f"{told(value.__func__, seen)} of {told(getattr(value, '__self__', None), seen)}"
    if isinstance(value, property):
        return f"property {told(value.fget, seen)}"
    if id(value) in seen or isinstance(value, ModuleType) or _is_installed(value):
        return _name(value)
    seen.add(id(value))
    if isinstance(value, FunctionType):
        return _function(value, seen)
    if isinstance(value, type):
        return _class(value, seen)
    code = _class(type(value), seen) if not _is_installed(type(value)) else _name(value)
    return f"{code} {told(_state(value), seen)}"


def _is_installed(value: Any) -> bool:
    """Whether it is code that changes with versions only, and is as good as told by its name."""
    if not isinstance(value, type | FunctionType):
        return False
    root = (value.__module__ or "").split(".")[0]
    return root in INSTALLED or (root in sys.stdlib_module_names and root != "__main__")


def _state(value: Any) -> Any:
    """What an object holds: its attributes, or what it would be made again from."""
    if hasattr(value, "__dict__"):
        return {k: v for k, v in vars(value).items() if k != "__signature__"}
    try:
        made = value.__reduce_ex__(2)
    except Exception:  # an object of which nothing can be told, as a lock
        return None
    return made[1:] if isinstance(made, tuple) else made


def _name(value: Any) -> str:
    kind = value if hasattr(value, "__qualname__") else type(value)
    return f"{getattr(kind, '__module__', '')}.{getattr(kind, '__qualname__', value)}"


def _class(kind: type, seen: set[int]) -> str:
    """A class by its bases, its methods and what else it has."""
    seen.add(id(kind))
    own = {
        name: value
        for name, value in vars(kind).items()
        if not name.startswith("__") or isinstance(value, FunctionType)
    }
    members = (FunctionType, staticmethod, classmethod, property, type, *PLAIN)
    inside = {k: v for k, v in own.items() if isinstance(v, members) or not hasattr(v, "__get__")}
    return f"{_name(kind)} {told([*kind.__bases__, inside], seen)}"


def _function(function: FunctionType, seen: set[int]) -> str:
    """A function by its code, defaults, and what it uses of its surroundings."""
    used: list[Any] = [function.__defaults__, function.__kwdefaults__]
    for cell in function.__closure__ or ():
        try:
            used.append(cell.cell_contents)
        except ValueError:  # not filled yet
            used.append(None)
    names = sorted(_names(function.__code__))
    around = {n: function.__globals__[n] for n in names if n in function.__globals__}
    for module in [m for m in (*used, *around.values()) if isinstance(m, ModuleType)]:
        root = module.__name__.split(".")[0]
        if root not in INSTALLED and root not in sys.stdlib_module_names:
            used += [vars(module)[n] for n in names if n in vars(module)]
    state = blake2b(_code(function.__code__), digest_size=8)
    for one in (*used, around):
        state.update(told(one, seen).encode())
    return f"{function.__qualname__} {state.hexdigest()}"


def _names(code: CodeType) -> set[str]:
    found = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            found |= _names(constant)
    return found


def _code(code: CodeType) -> bytes:
    """The code, without the places of its lines."""
    constants = [
        _code(one) if isinstance(one, CodeType) else told(one).encode() for one in code.co_consts
    ]
    return b" ".join([code.co_code, *constants, repr((code.co_names, code.co_varnames)).encode()])
