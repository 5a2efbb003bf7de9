"""What a function computes, as a key: its code, and every constant that the code can reach.

Two functions with the same key compute the same; a constant that has changed in a closure, in a
global, in a default or in an object makes another key. What cannot be read in that way has no key.
"""

import dis
import hashlib
import sys
from collections.abc import Iterator, Mapping
from functools import cached_property, lru_cache, partial
from pathlib import Path
from types import (
    BuiltinFunctionType,
    CodeType,
    FunctionType,
    GetSetDescriptorType,
    MemberDescriptorType,
    MethodDescriptorType,
    MethodType,
    MethodWrapperType,
    ModuleType,
    SimpleNamespace,
    WrapperDescriptorType,
)
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

# modules whose functions are what their names say, in the versions that are part of the key
KNOWN = ("torch", "numpy", "math", "cmath", "scipy", "builtins", "functools", "operator",
         "itertools", "collections", "typing", "lmtorch", "_operator", "abc", "enum",
         "dataclasses", "types")  # fmt: skip
# what finds values by other means than the names in the code
REACHING = frozenset(["globals", "eval", "exec", "open", "__import__"])
READING = frozenset(["load", "loadtxt", "genfromtxt", "fromfile", "import_module"])
BY_NAME = frozenset(["getattr", "vars", "__dict__", "attrgetter"])  # of a module: anything in it
# what Python itself enters into a class, which changes no result
OF_CLASSES = frozenset(
    ["__dict__", "__weakref__", "__module__", "__doc__", "__qualname__", "__firstlineno__",
     "__static_attributes__", "__annotations__", "__annotate__", "__annotate_func__",
     "__annotations_cache__", "__type_params__", "__abstractmethods__", "_abc_impl",
     "__match_args__", "__dataclass_params__", "__dataclass_fields__", "__orig_bases__",
     "__parameters__", "__slots__"]
)  # fmt: skip
LOADING = ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS")  # instructions
PLAIN = (tuple, list, dict, set, frozenset, np.ndarray)  # they hold nothing beside their entries
# what is written in C for a class, and changes with its version alone
IN_C = (BuiltinFunctionType, MethodDescriptorType, WrapperDescriptorType, np.ufunc)
WRITTEN_IN_C = 1 << 9  # the flag that such types lack
POINTER = 8  # bytes
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
    digest.update(f"{torch.get_default_dtype()} {torch.get_default_device()}".encode())
    for part in Reader().all_parts(values):
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


class Reader:
    """Reads values, each object once."""

    def __init__(self) -> None:
        self.seen: dict[int, int] = {}
        self.alive: list[Any] = []  # so that no number of an object is used twice
        self.depth = 0

    def all_parts(self, values: tuple[Any, ...]) -> Iterator[str | bytes]:
        """The parts of a key of some values.

        Yields:
            Strings and bytes.

        Raises:
            NoKeyError: something cannot be read, as where a `__getattr__` of the user's own fails.
        """
        try:
            yield from self.parts(values)
        except NoKeyError:
            raise
        except Exception as error:  # of any kind: it comes from an object that is only looked at
            raise NoKeyError(f"it holds what fails when it is looked at: {error!r}") from error

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
            yield from self._attributes(value)
        elif isinstance(value, Mapping | set | frozenset | tuple | list):
            yield from self._container(value)
            yield from self._attributes(value)
        elif isinstance(value, CodeType):
            yield from self._code(value)
        elif isinstance(value, ModuleType):
            if not known(value):
                raise NoKeyError("it holds a module, in which anything may change")
            yield value.__name__
        elif isinstance(value, MethodType):
            yield from self.parts(value.__func__)
            yield from self.parts(value.__self__)
        elif isinstance(value, partial):
            yield from self.parts((value.func, value.args, value.keywords))
        elif isinstance(value, BuiltinFunctionType | MethodWrapperType) and _bound(value):
            yield value.__name__
            yield from self.parts(value.__self__)
        elif isinstance(value, BuiltinFunctionType) and not _pure(value):
            name = f"{value.__module__}.{value.__name__}"
            raise NoKeyError(f"it uses {name}, which may give another value next time")
        elif known(value):
            yield f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', value)}"
        elif isinstance(value, FunctionType):
            yield from self._function(value)
        elif isinstance(value, type):
            yield from self._class(value)
        elif speaks_for_itself(value) and known(type(value)):  # a subclass may see more
            yield from self.parts(value.compiled_by)
        elif hasattr(value, "__dict__") or hasattr(value, "__slots__"):
            yield from self._instance(value)
        else:
            raise NoKeyError(f"it uses {type(value).__name__}, which cannot be compared")

    def _container(self, value: Any) -> Iterator[str | bytes]:
        yield str(len(value))
        if isinstance(value, Mapping):
            for name, entry in value.items():
                yield from self.parts(name)
                yield from self.parts(entry)
        else:
            for entry in sorted(value, key=repr) if isinstance(value, set | frozenset) else value:
                yield from self.parts(entry)

    def _attributes(self, value: Any) -> Iterator[str | bytes]:
        """What a container holds beside its entries."""
        if type(value) in PLAIN:
            return
        held = getattr(value, "__dict__", None)
        if held:
            yield from self._container(dict(held))
        if not known(type(value)):
            yield from self.parts(type(value))

    def _instance(self, value: Any) -> Iterator[str | bytes]:
        """An object, by its class and what it holds, unless a type written in C hides it."""
        kind = type(value)
        yield from self.parts(kind)
        held = dict(getattr(value, "__dict__", {}))
        for base in kind.__mro__:
            if base in (int, float, complex, str, bytes):
                yield base.__repr__(value)
            elif base not in (object, SimpleNamespace) and "__wrapped__" not in held:
                if not base.__flags__ & WRITTEN_IN_C or _hides(base):
                    raise NoKeyError(f"it uses {kind.__name__}, which cannot be compared")
                for name, entry in vars(base).items():
                    if isinstance(entry, MemberDescriptorType):
                        held[name] = getattr(value, name, None)
        yield from self._container(held)

    def _function(self, function: FunctionType) -> Iterator[str | bytes]:
        yield from self.parts(function.__code__)
        yield from self.parts((function.__defaults__, function.__kwdefaults__))
        for cell in function.__closure__ or ():
            try:
                content = cell.cell_contents
            except ValueError:
                content = None
            yield from self.parts(content)
        if vars(function):
            yield from self._container(dict(vars(function)))
        names = names_in(function.__code__)
        if names.refused:
            raise NoKeyError(f"it uses {names.refused}, which may give another value next time")
        for name in names.all:
            if name not in function.__globals__:
                continue
            found = function.__globals__[name]
            # an attribute may have the name of a module, as data.time has
            if name in names.loaded or not isinstance(found, ModuleType):
                yield name
                yield from self._named(found, names)

    def _named(self, found: Any, names: "Names") -> Iterator[str | bytes]:
        """A global, or what the code may read of a module of the user's own."""
        if not isinstance(found, ModuleType) or known(found):
            yield from self.parts(found)
            return
        if id(found) in self.seen:
            return
        if BY_NAME.intersection(names.all):
            raise NoKeyError(f"it reads {found.__name__} by names that are not in its code")
        self.seen[id(found)] = len(self.seen)
        for other in names.all:
            if other in vars(found):
                yield other
                yield from self._named(vars(found)[other], names)

    def _code(self, code: CodeType) -> Iterator[str | bytes]:
        yield code.co_code
        yield repr((code.co_names, code.co_varnames, code.co_freevars, code.co_flags))
        for constant in code.co_consts:
            yield from self.parts(constant)

    def _class(self, kind: type) -> Iterator[str | bytes]:
        yield f"{kind.__module__}.{kind.__qualname__}"
        for base in kind.__mro__:
            if known(base):
                continue
            for name, entry in sorted(vars(base).items()):
                field = isinstance(entry, GetSetDescriptorType | MemberDescriptorType)
                if name in OF_CLASSES or field or type(entry).__name__ == "_tuplegetter":
                    continue
                if isinstance(entry, staticmethod | classmethod):
                    entry = entry.__func__
                elif isinstance(entry, property):
                    entry = entry.fget
                elif isinstance(entry, cached_property):
                    entry = entry.func
                elif name == "__repr__" and "__dataclass_params__" in vars(base):
                    # around it stands what asks for the number of the thread
                    entry = getattr(entry, "__wrapped__", entry)
                yield name
                yield from self.parts(entry)
        if not known(type(kind)):
            yield from self.parts(type(kind))


class Names(NamedTuple):
    """Names that a code uses.

    Attributes:
        all: of globals and attributes alike.
        refused: one of them for which it has no key; empty: there is none.
        loaded: those of globals.
    """

    all: tuple[str, ...]
    refused: str
    loaded: frozenset[str]


@lru_cache(maxsize=256)
def names_in(code: CodeType) -> Names:
    """The names that a code uses, with those of the functions within it."""
    found, refused, loaded = set(code.co_names), "", set[str]()
    for instruction in dis.get_instructions(code):
        name = instruction.argval
        if instruction.opname in LOADING:
            loaded.add(name)
            refused = name if name in REACHING else refused
        elif instruction.opname == "IMPORT_NAME" and name.split(".")[0] not in KNOWN:
            refused = f"import {name}"
    refused = next((name for name in code.co_names if name in READING), refused)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            inner = names_in(constant)
            found.update(inner.all)
            loaded.update(inner.loaded)
            refused = refused or inner.refused
    return Names(tuple(sorted(found)), refused, frozenset(loaded))


def _bound(value: Any) -> bool:
    """Whether a method that is written in C belongs to an object, which may change."""
    owner = getattr(value, "__self__", None)
    return owner is not None and not isinstance(owner, ModuleType | type)


def _pure(value: Any) -> bool:
    """Whether a function that is written in C is one of `KNOWN`, unlike `time.time`."""
    module = value.__module__ or ""  # that of a method has none
    return not module or module.split(".")[0].removeprefix("_") in KNOWN


def _hides(kind: type) -> bool:
    """Whether a class has room for more than its slots, as a generator of random numbers has."""
    slots = sum(isinstance(entry, MemberDescriptorType) for entry in vars(kind).values())
    parent: Any = kind.__base__
    return kind.__basicsize__ - parent.__basicsize__ > POINTER * (slots + 2)  # and two of its own


def speaks_for_itself(value: Any) -> bool:
    """Whether a class, not only an object with an answer to any name, has `compiled_by`."""
    return hasattr(type(value), "compiled_by")


def known(value: Any) -> bool:
    """Whether a value is what its name says, in the versions that are part of the key."""
    if isinstance(value, ModuleType):
        return value.__name__.split(".")[0] in KNOWN
    if isinstance(value, IN_C):
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
