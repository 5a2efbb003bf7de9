"""What a function computes, as a key: its code, and every constant that the code can reach.

Two functions with the same key compute the same; a constant that has changed in a closure, in a
global, in a default or in an object makes another key. What cannot be read in that way has no key.
"""

import hashlib
import sys
from collections.abc import Iterator, Mapping
from functools import lru_cache, partial
from pathlib import Path
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

# modules whose functions are what their names say, in the versions that are part of the key
KNOWN = ("torch", "numpy", "math", "cmath", "scipy", "builtins", "functools", "operator",
         "itertools", "collections", "typing", "lmtorch", "_operator")  # fmt: skip
LARGEST = 2**24  # bytes of a tensor in a closure up to which its numbers are read
DEEPEST = 60


class NoKeyError(Exception):
    """Something that a function uses cannot be told from what it may be next time."""


def key_of(*values: Any) -> str:
    """Make one key for all of these.

    Returns:
        The key.

    Raises:
        NoKeyError: a value, or something that it reaches, cannot be read.
    """
    digest = hashlib.sha256(_versions().encode())
    for part in _Reader().parts(values):
        digest.update(part if isinstance(part, bytes) else part.encode())
        digest.update(b"\0")
    return digest.hexdigest()[:32]


@lru_cache(maxsize=1)
def _versions() -> str:
    """This package, torch, NumPy and Python, as they are installed."""
    package = Path(__file__).parent.parent
    files = sorted(package.rglob("*.py"))
    stamps = [f"{path.relative_to(package)} {path.stat().st_mtime_ns}" for path in files]
    return "\n".join([torch.__version__, np.__version__, sys.version, *stamps])


class _Reader:
    """Reads values, each object once."""

    def __init__(self) -> None:
        self.seen: dict[int, int] = {}
        self.alive: list[Any] = []  # so that no number of an object is used twice
        self.depth = 0

    def parts(self, value: Any) -> Iterator[str | bytes]:
        """The parts of a key."""
        kind = type(value)
        if value is None or kind in (bool, int, float, complex, str, bytes) or value is Ellipsis:
            yield f"{kind.__name__} {value!r}"
            return
        if isinstance(value, torch.dtype | torch.device | np.dtype | range | slice):
            yield repr(value)
            return
        if id(value) in self.seen:
            yield f"again {self.seen[id(value)]}"
            return
        self.seen[id(value)] = len(self.seen)
        self.alive.append(value)
        self.depth += 1
        if self.depth > DEEPEST:
            raise NoKeyError("it reaches too far")
        yield kind.__qualname__
        yield from self._of(value)
        self.depth -= 1

    def _of(self, value: Any) -> Iterator[str | bytes]:
        if isinstance(value, Tensor | np.ndarray | np.generic):
            yield str(tuple(np.shape(value)))
            yield from _numbers(value)
        elif isinstance(value, Mapping):
            for name, entry in value.items():
                yield from self.parts(name)
                yield from self.parts(entry)
        elif isinstance(value, set | frozenset):
            for entry in sorted(value, key=repr):
                yield from self.parts(entry)
        elif isinstance(value, tuple | list):
            yield str(len(value))
            for entry in value:
                yield from self.parts(entry)
        elif isinstance(value, CodeType):
            yield from self._code(value)
        elif isinstance(value, ModuleType):
            yield value.__name__
        elif isinstance(value, MethodType):
            yield from self.parts(value.__func__)
            yield from self.parts(value.__self__)
        elif isinstance(value, partial):
            yield from self.parts((value.func, value.args, value.keywords))
        elif _known(value):
            yield f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', value)}"
        elif isinstance(value, FunctionType):
            yield from self._function(value)
        elif isinstance(value, type):
            yield from self._class(value)
        elif hasattr(value, "compiled_by"):  # says by itself what it computes
            yield from self.parts(value.compiled_by)
        elif hasattr(value, "__dict__") or hasattr(value, "__slots__"):
            yield from self.parts(type(value))
            slots = getattr(type(value), "__slots__", ())
            held = {name: getattr(value, name, None) for name in slots}
            yield from self.parts({**held, **getattr(value, "__dict__", {})})
        else:
            raise NoKeyError(f"it uses {type(value).__name__}, which cannot be compared")

    def _function(self, function: FunctionType) -> Iterator[str | bytes]:
        yield from self.parts(function.__code__)
        yield from self.parts((function.__defaults__, function.__kwdefaults__))
        for cell in function.__closure__ or ():
            try:
                content = cell.cell_contents
            except ValueError:
                content = None
            yield from self.parts(content)
        names = _names(function.__code__)
        for name in names:
            if name in function.__globals__:
                found = function.__globals__[name]
                yield name
                yield from self.parts(found)
                if isinstance(found, ModuleType) and not _known(found):
                    # what the code may read of a module of the user's own
                    for other in names:
                        if other in vars(found):
                            yield from self.parts(vars(found)[other])

    def _code(self, code: CodeType) -> Iterator[str | bytes]:
        yield code.co_code
        yield repr((code.co_names, code.co_varnames, code.co_freevars, code.co_flags))
        for constant in code.co_consts:
            yield from self.parts(constant)

    def _class(self, kind: type) -> Iterator[str | bytes]:
        yield f"{kind.__module__}.{kind.__qualname__}"
        for base in kind.__mro__:
            if _known(base):
                continue
            for name, entry in sorted(vars(base).items()):
                entry = getattr(entry, "__func__", entry)
                entry = entry.fget if isinstance(entry, property) else entry
                plain = entry is None or isinstance(entry, bool | int | float | str | Tensor)
                if isinstance(entry, FunctionType) or plain:
                    yield name
                    yield from self.parts(entry)


def _names(code: CodeType) -> list[str]:
    found = list(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            found += _names(constant)
    return sorted(set(found))


def _known(value: Any) -> bool:
    if isinstance(value, ModuleType):
        return value.__name__.split(".")[0] in KNOWN
    if isinstance(value, BuiltinFunctionType | np.ufunc):
        return True
    if isinstance(value, type | FunctionType) or callable(value):
        module = getattr(value, "__module__", None) or ""
        named = isinstance(getattr(value, "__qualname__", None), str)
        local = "<locals>" in getattr(value, "__qualname__", "")
        return named and not local and module.split(".")[0] in KNOWN
    return False


def _numbers(value: Any) -> Iterator[str | bytes]:
    if isinstance(value, Tensor):
        if value.device.type != "cpu" or value.layout != torch.strided:
            raise NoKeyError("it holds a tensor that is not on the CPU")
        value = value.detach().contiguous().view(-1).numpy() if not value.is_complex() else (
            torch.view_as_real(value.detach()).contiguous().numpy()
        )  # fmt: skip
    array = np.ascontiguousarray(value)
    if array.dtype.hasobject or array.nbytes > LARGEST:
        raise NoKeyError("it holds an array that is too large to compare: pass it in args")
    yield f"{array.dtype} {np.shape(value)}"
    yield array.tobytes()
