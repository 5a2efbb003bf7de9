"""Whether what a key was made of is still as it was: a look of microseconds instead of a new key.

A key is made of everything that a function can reach (`keys`). Each of these things is kept here
with what it held then: the code, defaults, cells and globals of a function, the attributes of an
object, the entries of a list, the numbers of an array. They are as they were if each holds the same
objects as then, by identity, and every array and tensor the same numbers: nothing is trusted that
may change in silence, such as the version of a tensor, which NumPy does not count.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain, repeat
from operator import attrgetter, is_
from types import CellType, CodeType, FunctionType, MemberDescriptorType, MethodType, ModuleType
from typing import Any

import numpy as np
from torch import Tensor

from .keys import Names, NoKeyError, Reader, known, names_in, speaks_for_itself

LARGEST = 2**18  # bytes of arrays up to which they are compared number by number in each call
MISSING = object()  # in the place of a name that there is not
# what holds nothing beside what is looked at in other ways
BARE = (Tensor, np.ndarray, list, dict, set, frozenset, tuple, partial, MethodType, FunctionType,
        ModuleType, CodeType)  # fmt: skip
PLAIN = (bool, int, float, complex, str, bytes)
# of a function, what may be set
OWN: Callable[[Any], tuple[Any, ...]] = attrgetter("__code__", "__defaults__", "__kwdefaults__")
SPEAKING = frozenset(["print", "input", "breakpoint"])

Look = Callable[[], tuple[Any, ...]]  # what something holds now


class Unchanged:
    """What some values reached when this was made, to be compared with what they reach now.

    Args:
        function: of the user's. Another with the same code that holds the same objects may stand in
            for it, as one that is defined anew in each turn of a loop.
        values: further ones.

    Attributes:
        speaks: whether a function prints, or asks, so that to call it does more than to compute.

    Raises:
        NoKeyError: something cannot be compared.
    """

    def __init__(self, function: Any, *values: Any) -> None:
        noting = _Noting()
        for _ in noting.all_parts((function, *values)):
            pass
        self.function = function
        self.looks = [*noting.looks, *_of_functions(noting.functions)]
        self.kept = [look() for look in self.looks]
        self.sizes = list(map(len, self.kept))
        self.arrays = noting.arrays
        self.speaks = noting.speaks
        self.own: tuple[Any, ...] | None = None
        if type(function) is FunctionType:
            # the function itself is looked at as the one that is given
            self.own = _of_function(function, names_in(function.__code__).all)

    def holds(self, function: Any) -> bool:
        """Whether everything is as it was, for this function."""
        before = self.function
        if function is not before:
            if type(function) is MethodType and type(before) is MethodType:
                same = function.__func__ is before.__func__ and function.__self__ is before.__self__
            else:
                same = self.own is not None and type(function) is FunctionType
                same = same and before.__globals__ is function.__globals__
                if same:
                    now = _of_function(function, names_in(function.__code__).all)
                    same = self.own is not None and _same(now, self.own)
            if not same:
                return False
        seen = [look() for look in self.looks]
        # all at once, as nearly always everything is the same
        whole = chain.from_iterable
        same = list(map(len, seen)) == self.sizes and all(map(is_, whole(seen), whole(self.kept)))
        if not (same or all(map(_same, seen, self.kept))):
            return False
        return all(array.same() for array in self.arrays)


def place_of(function: Any) -> tuple[Any, ...]:
    """Make what may be hashed of a function, the same for those that `Unchanged` takes for one.

    Returns:
        Numbers of objects, which tell only while the objects are kept.
    """
    if type(function) is MethodType:
        return id(function.__func__), id(function.__self__)
    return (id(function.__code__ if type(function) is FunctionType else function),)


def _same(now: tuple[Any, ...], kept: tuple[Any, ...]) -> bool:
    """Whether all are the same objects, or the same plain values."""
    return len(now) == len(kept) and all(
        a is b or (type(a) is type(b) and type(a) in PLAIN and repr(a) == repr(b))
        for a, b in zip(now, kept, strict=True)
    )


class _Array:
    """An array or a tensor on the CPU, with its numbers."""

    def __init__(self, value: Any) -> None:
        self.value = value
        self.tensor = isinstance(value, Tensor)
        try:
            self.view: Any = value.detach().numpy() if self.tensor else value
            self.numbers = self.view.tobytes()
        except (TypeError, RuntimeError) as error:
            raise NoKeyError("it holds a tensor that NumPy cannot read") from error
        self.form = self._form()

    def _form(self) -> tuple[Any, ...]:
        value = self.value
        if self.tensor:
            return value.data_ptr(), value.shape, value.stride(), value.dtype, value.requires_grad
        return value.shape, value.dtype

    def same(self) -> bool:
        """Whether it has the same numbers, in the same memory."""
        found: bool = self._form() == self.form and self.view.tobytes() == self.numbers
        return found


class _Noting(Reader):
    """Reads values as for a key, and notes where it has read."""

    def __init__(self) -> None:
        super().__init__()
        self.looks: list[Look] = []
        self.functions: list[tuple[FunctionType, Names]] = []
        self.arrays: list[_Array] = []
        self.bytes = 0
        self.speaks = False

    def _of(self, value: Any) -> Iterator[str | bytes]:
        if isinstance(value, Tensor | np.ndarray):
            self.arrays.append(_Array(value))
            self.bytes += len(self.arrays[-1].numbers)
            if self.bytes > LARGEST:
                raise NoKeyError("it holds arrays that take long to compare")
        elif isinstance(value, Mapping):
            self.looks.append(partial(_of_mapping, value))
        elif isinstance(value, list | set):
            self.looks.append(partial(tuple, value))
        elif isinstance(value, partial):
            self.looks.append(lambda: (value.func, value.args, value.keywords))
        if type(value) not in BARE and not isinstance(value, type) and not known(value):
            self._note_attributes(value)
        if speaks_for_itself(value):
            # what it says of itself is made anew each time, and may be less than what it holds
            yield from self._instance(value)
            return
        yield from super()._of(value)

    def _note_attributes(self, value: Any) -> None:
        """Note the attributes of an object, those in slots as well."""
        if isinstance(getattr(value, "__dict__", None), dict):
            self.looks.append(partial(_of_attributes, value))
        self.looks.append(lambda: (type(value),))
        slots = [
            name
            for base in type(value).__mro__ if not known(base)
            for name, entry in vars(base).items() if isinstance(entry, MemberDescriptorType)
        ]  # fmt: skip
        if slots:
            self.looks.append(lambda: tuple(getattr(value, name, None) for name in slots))

    def _function(self, function: FunctionType) -> Iterator[str | bytes]:
        names = names_in(function.__code__)
        self.speaks = self.speaks or not SPEAKING.isdisjoint(names.loaded)
        self.functions.append((function, names))
        yield from super()._function(function)

    def _named(self, found: Any, names: Names) -> Iterator[str | bytes]:
        if isinstance(found, ModuleType) and not known(found) and id(found) not in self.seen:
            self.looks.append(partial(_of_names, vars(found), names.all))
        yield from super()._named(found, names)

    def _class(self, kind: type) -> Iterator[str | bytes]:
        for base in kind.__mro__:
            if not known(base):
                self.looks.append(partial(_of_class, base))
        yield from super()._class(kind)


def _of_mapping(value: Mapping[Any, Any]) -> tuple[Any, ...]:
    return (*value.keys(), *value.values())


def _of_attributes(value: Any) -> tuple[Any, ...]:
    held = value.__dict__
    return (*held, *held.values())


def _of_names(space: dict[str, Any], names: tuple[str, ...]) -> tuple[Any, ...]:
    return tuple(map(space.get, names, repeat(MISSING)))


def _of_class(kind: type) -> tuple[Any, ...]:
    return (kind.__bases__, *vars(kind), *vars(kind).values())


def _of_functions(noted: Sequence[tuple[FunctionType, Names]]) -> list[Look]:
    """Looks at several functions, of which most are plain and of one module.

    Returns:
        As few of them as there may be, as each takes its time.
    """
    if not noted:
        return []
    functions = [function for function, _ in noted]
    cells = [cell for function in functions for cell in function.__closure__ or ()]
    spaces: dict[int, tuple[dict[str, Any], set[str]]] = {}
    for function, names in noted:
        space = function.__globals__
        spaces.setdefault(id(space), (space, set()))[1].update(names.all)
    looks: list[Look] = [
        lambda: tuple(chain.from_iterable(map(OWN, functions))),
        lambda: tuple(_attributes(functions)),
        *(partial(_of_names, space, tuple(sorted(names))) for space, names in spaces.values()),
    ]
    return [*looks, partial(_of_cells, cells)] if cells else looks


def _attributes(functions: Sequence[FunctionType]) -> Iterator[Any]:
    for function in functions:
        if held := function.__dict__:
            yield from (function, *held, *held.values())


def _of_cells(cells: Sequence[CellType]) -> tuple[Any, ...]:
    try:
        return tuple([cell.cell_contents for cell in cells])
    except ValueError:  # one of them is empty yet
        return tuple(map(_content, cells))


def _content(cell: CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return MISSING


def _of_function(function: FunctionType, names: tuple[str, ...]) -> tuple[Any, ...]:
    found = [*OWN(function)]
    if cells := function.__closure__:
        found += _of_cells(cells)
    if held := function.__dict__:
        found += [*held, *held.values()]
    found += map(function.__globals__.get, names, repeat(MISSING))
    return tuple(found)
