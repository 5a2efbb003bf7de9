"""What a store was made with, in so many words and digests that another run can compare."""

import functools
from collections.abc import Hashable, Mapping, Sequence
from hashlib import blake2b
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch

from .task import Task

PLAIN = (bool, int, float, complex, str, bytes, type(None), np.generic)
DEEP = 6  # functions that call functions: further ones by name


def digest_of(arrays: Sequence[np.ndarray]) -> int:
    """A number of 63 bits that tells arrays from others, never 0."""
    state = blake2b(digest_size=8)
    for array in arrays:
        state.update(f"{array.dtype.str}{array.shape}".encode())
        whole = np.ascontiguousarray(array)
        state.update(repr(whole.tolist()).encode() if whole.dtype.hasobject else whole.data)
    return (int.from_bytes(state.digest(), "little") >> 1) or 1


def fingerprint(
    task: Task, dims: Sequence[Hashable], shape: Sequence[int], blocks: Sequence[int]
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
        "chunks": repr(tuple(blocks)),
    }


def told(value: Any, depth: int = 0) -> str:
    """A value in a form that is the same in every process, and another for another value."""
    if isinstance(value, PLAIN):
        return repr(value)
    if depth > DEEP:
        return _name(value)
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().numpy()
    if isinstance(value, np.ndarray):
        return f"array {value.shape} {digest_of([value]):x}"
    if isinstance(value, Mapping):
        items = ", ".join(f"{told(k)}: {told(v, depth + 1)}" for k, v in value.items())
        return f"{{{items}}}"
    if isinstance(value, list | tuple | set | frozenset):
        parts = [told(one, depth + 1) for one in value]
        return f"[{', '.join(sorted(parts) if isinstance(value, set | frozenset) else parts)}]"
    if isinstance(value, functools.partial):
        return f"partial {told([value.func, value.args, value.keywords], depth + 1)}"
    if isinstance(value, MethodType):
        return f"{told(value.__func__, depth + 1)} of {told(value.__self__, depth + 1)}"
    if isinstance(value, FunctionType):
        return _function(value, depth)
    if isinstance(value, type | ModuleType) or not hasattr(value, "__dict__"):
        return _name(value)
    inside = {k: v for k, v in vars(value).items() if k != "__signature__"}
    call = type(value).__dict__.get("__call__")
    code = told(call, depth + 1) if isinstance(call, FunctionType) else ""
    return f"{_name(value)} {code}{told(inside, depth + 1)}"


def _name(value: Any) -> str:
    kind = value if hasattr(value, "__qualname__") else type(value)
    return f"{getattr(kind, '__module__', '')}.{getattr(kind, '__qualname__', value)}"


def _function(function: FunctionType, depth: int) -> str:
    """A function by its code, defaults, and what it uses of its surroundings."""
    if (function.__module__ or "").split(".")[0] in ("torch", "numpy", "lmtorch"):
        return _name(function)
    used: list[Any] = [function.__defaults__, function.__kwdefaults__]
    for cell in function.__closure__ or ():
        try:
            used.append(cell.cell_contents)
        except ValueError:  # not filled yet
            used.append(None)
    names = sorted(_names(function.__code__))
    around = {n: function.__globals__[n] for n in names if n in function.__globals__}
    state = blake2b(_code(function.__code__), digest_size=8)
    for one in (*used, around):
        state.update(told(one, depth + 1).encode())
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
        _code(one) if isinstance(one, CodeType) else repr(one).encode() for one in code.co_consts
    ]
    return b" ".join([code.co_code, *constants, repr((code.co_names, code.co_varnames)).encode()])
