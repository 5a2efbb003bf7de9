"""Arguments and results of a recorded function: numbers, arrays and what is made of them."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ..arrays.matrices import SMALL
from .numbers import Matrix, Number, Read, Record, Vector, text_of
from .operators import UnrecordableError

KINDS: dict[type, tuple[type, str]] = {
    np.float64: (float, "float"),
    np.int64: (int, "int"),
    np.bool_: (bool, "bool"),
}
BACK = {float: "float64", int: "int64", bool: "bool_"}
# what stands in the text of a recorded function beside its own names
SCOPE: dict[str, Any] = {
    "array": np.array, "float64": np.float64, "int64": np.int64, "bool_": np.bool_,
    "sqrt": math.sqrt, "copysign": math.copysign, "inf": math.inf, "nan": math.nan,
    # which makes a NamedTuple in half of the time that calling its class takes
    "made": tuple.__new__,
}  # fmt: skip


class Given(Number):
    """A number that is given: it is made Python's own when it is first used."""

    __slots__ = ("_name", "path")

    def __init__(self, record: Record, value: Any, path: str, kind: str, name: str = "") -> None:
        self.record, self.value, self.constant = record, value, False
        self.path, self._name = path, name or f"{kind}({path})"

    @property
    def name(self) -> str:  # type: ignore[override]  # an attribute of Number, here made when asked for
        """Its name, from a line of its own."""
        if self._name.endswith(")"):
            self._name = self.record.line(self._name, (root(self.path),))
        return self._name


class Entry(Number):
    """An entry of an array that is given; all of them are read at the first use of one."""

    __slots__ = ("array", "place")

    def __init__(self, record: Record, value: Any, array: "Array", place: int) -> None:
        self.record, self.value, self.constant = record, value, False
        self.array, self.place = array, place

    @property
    def name(self) -> str:  # type: ignore[override]  # an attribute of Number, here made when asked for
        """Its name, from a line for all entries."""
        return self.array.names()[self.place]


class Array:
    """An array that is given."""

    def __init__(self, record: Record, values: Any, path: str) -> None:
        self.record, self.path = record, path
        self.found: tuple[str, ...] = ()
        self.entries = [Entry(record, v, self, i) for i, v in enumerate(values.tolist())]

    def names(self) -> tuple[str, ...]:
        """The names of the entries."""
        if not self.found:
            count = len(self.entries)
            text = f"{self.path}.tolist()" if count > 1 else f"{self.path}.item()"
            made: Any = self.record.line(text, (root(self.path),), count)
            self.found = made if count > 1 else (made,)
        return self.found


class Scribe:
    """Makes stand-ins for what is given, and writes results.

    Args:
        n: numbers in a vector.
        member: makes the stand-in of an object whose class names what is `recorded` of it.
        kinds: of what earlier records have found, by the way they had gone and the path.
        scope: what stands in the lines of earlier records.
    """

    def __init__(
        self,
        n: int,
        member: Callable[["Scribe", Any, str], Any],
        kinds: dict[Any, type],
        scope: dict[str, Any],
    ) -> None:
        self.n, self.member, self.kinds = n, member, kinds
        self.record = Record()
        self.scope = dict(scope)
        self._lines: dict[str, str] = {}  # names by what they stand for
        self._tuples: dict[int, tuple[Any, str]] = {}  # by number: those that are given, and where

    def given(self, value: Any, path: str) -> Any:
        """The stand-in of a value that is found under a path."""
        kind = type(value)
        if kind in KINDS:
            plain, name = KINDS[kind]
            return Given(self.record, plain(value), path, name)
        if kind is np.ndarray and value.ndim == 1 and len(value) == self.n:
            return Vector(Array(self.record, value, path).entries, path)
        if kind is np.ndarray and value.shape == (self.n, self.n):
            rows = [
                Array(self.record, row, f"{path}[{i}]").entries for i, row in enumerate(value)
            ]  # fmt: skip
            product = self._product(value, path) if value.size > SMALL else None
            return Matrix(rows, product, at=(self, value, path))
        if value is None or hasattr(kind, "recorded"):
            self._same_kind(kind, path)
            return value if value is None else self.member(self, value, path)
        if isinstance(value, tuple) and hasattr(kind, "_fields"):
            fields: Any = kind._fields
            made = kind._make(  # which parts there are is known of the problem
                None if part is None else self.given(part, f"{path}.{name}")
                for name, part in zip(fields, value, strict=True)
            )
            self._tuples[id(made)] = made, path
            return made
        return Raw(value, path)

    def _same_kind(self, kind: type, path: str) -> None:
        """Note that what is found under a path is of a kind, as what is recorded of it depends.

        Where a source of derivatives gives way to another the linear model is of another kind.

        Raises:
            UnrecordableError: an earlier record of this way has found another kind.
        """
        way = self.record.way()
        if self.kinds.setdefault((way, path), kind) is not kind:
            raise UnrecordableError(f"a {kind.__name__} where there was another kind")
        self.decided(f"type({path}) is {self.known(kind)}", path, True)

    def decided(self, text: str, path: str, found: bool) -> None:
        """Note something that the code that runs has decided by what is under a path."""
        name = self.record.line(text, (root(path),))
        self.record.entries.append(Read(name, found))

    def _product(self, matrix: Any, path: str) -> Callable[[Vector, bool], Vector]:
        """How a matrix that is not written out is multiplied with a vector."""

        def product(vector: Vector, transposed: bool) -> Vector:
            text, uses, value = self.array(vector)
            whole, name = (matrix.T, f"{path}.T") if transposed else (matrix, path)
            made = self.record.line(f"{name}.dot({text})", (root(path), *uses))
            found: Vector = self.given(whole.dot(value), made)
            return found

        return product

    def asked(self, text: str, uses: tuple[str, ...], value: Any) -> Any:
        """The stand-in of what a call of something outside has returned."""
        return self.given(value, self.record.line(text, uses, asked=True))

    def called(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """The stand-in of what a function gives that is called outside.

        Args:
            function: the same in every run.
            arguments: its own, stand-ins and what is written.

        Returns:
            The stand-in.
        """
        return self.called_by(self.known(function), (), function, arguments)

    def called_by(
        self, text: str, uses: tuple[str, ...], function: Callable[..., Any], arguments: Any
    ) -> Any:
        """The same of a function of which it is known how it is written.

        Args:
            text: how.
            uses: names that stand in that.
            function: the function.
            arguments: its own.

        Returns:
            The stand-in of what it gives.
        """
        given = [self.written(argument) for argument in arguments]
        for _, names in given:
            uses = (*uses, *names)
        found = function(*(real(argument) for argument in arguments))
        return self.asked(f"{text}({', '.join(part for part, _ in given)})", uses, found)

    def known(self, value: Any) -> str:
        """A name for something that is the same in every run."""
        name = getattr(value, "__name__", type(value).__name__)
        name = f"{name}_{id(value)}" if self.scope.get(name, value) is not value else name
        self.scope[name] = value
        return name

    def array(self, vector: Vector) -> tuple[str, tuple[str, ...], Any]:
        """A vector as an array: how it is written, the names in that, and its value."""
        if vector.whole:
            text: str = vector.whole
            return text, (root(text),), _values(vector)
        parts = [text_of(entry) for entry in vector.entries]
        uses = tuple(name for _, names, _ in parts for name in names)
        text = "array((" + ", ".join(part for part, _, _ in parts) + ",))"
        vector.whole = self._line(text, uses)  # nobody writes into it: it may stand in two places
        return vector.whole, (vector.whole,), _values(vector)

    def _line(self, text: str, uses: tuple[str, ...]) -> str:
        """The name of what a line makes; the same for the same line."""
        if text not in self._lines:
            self._lines[text] = self.record.line(text, uses)
        return self._lines[text]

    def written(self, value: Any) -> tuple[str, tuple[str, ...]]:
        """How a result is written, and the names in that."""
        if isinstance(value, Given):
            return value.path, (root(value.path),)
        if isinstance(value, Number):
            text, uses, plain = text_of(value)
            name = self._line(f"{BACK[type(plain)]}({text})", uses)
            return name, (name,)
        if isinstance(value, Vector):
            return self.array(value)[:2]
        path = getattr(value, "recorded_at", None) or self._tuples.get(id(value), ("", ""))[1]
        if path:
            return path, (root(path),)
        if isinstance(value, tuple) and hasattr(value, "_fields"):
            parts = [self.written(part) for part in value]
            uses = tuple(name for _, names in parts for name in names)
            kind = self.known(type(value))
            return f"made({kind}, ({', '.join(p for p, _ in parts)},))", uses
        if value is None:
            return "None", ()
        raise UnrecordableError(f"a {type(value).__name__} among results")


class Raw:
    """Something that is handed on as it is."""

    def __init__(self, value: Any, path: str) -> None:
        self.value, self.recorded_at = value, path


def real(value: Any) -> Any:
    """The values that stand-ins stand for."""
    if isinstance(value, Number):
        plain = value.value
        kind: Any = {bool: np.bool_, int: np.int64, float: np.float64}[type(plain)]
        return kind(plain)
    if isinstance(value, Vector):
        return np.array([entry.value for entry in value.entries])
    if isinstance(value, tuple):
        made: Any = value
        parts = [real(part) for part in value]
        return made._make(parts) if hasattr(made, "_make") else tuple(parts)
    return getattr(value, "value", value) if hasattr(value, "recorded_at") else value


def _values(vector: Vector) -> Any:
    return np.array([text_of(entry)[2] for entry in vector.entries])


def root(path: str) -> str:
    """The name in which something is found."""
    return path.split(".", maxsplit=1)[0]
