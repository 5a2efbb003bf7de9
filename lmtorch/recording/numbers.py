"""Numbers and short vectors that write down what is computed with them, while it is computed.

They stand where tensors or NumPy's arrays stand elsewhere. Each has its value, so that the code
that runs on them takes the branches that it takes on any other numbers, and a name in the record;
an operator computes a value with Python's floats, entry by entry, and notes the same operation as a
line of Python. To read a mask is noted, too: that is where another run may go another way.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Self

import torch

from .operators import AND, LARGER, OR, SMALLER, Plain, Recorded, UnrecordableError, greater, less

NAMES = {math.inf: "inf", -math.inf: "(-inf)"}
KINDS: dict[Any, type] = {torch.bool: bool, torch.int64: int, torch.float64: float}


class Line:
    """What gets a value: `targets = text`, from other names.

    Attributes:
        targets: the names.
        text: the right-hand side.
        uses: names that stand in it.
        asked: it is a call of something outside, which is made whether its result is used or not.
    """

    __slots__ = ("asked", "targets", "text", "uses")

    def __init__(self, targets: tuple[str, ...], text: str, uses: tuple[str, ...], asked: bool):
        self.targets, self.text, self.uses, self.asked = targets, text, uses, asked


class Read:
    """A mask that was read: the name, and what was found."""

    __slots__ = ("found", "name")

    def __init__(self, name: str, found: bool) -> None:
        self.name, self.found = name, found


class Record:
    """What has been computed, in order."""

    def __init__(self) -> None:
        self.entries: list[Line | Read] = []
        self._known: dict[str, Number] = {}
        self.answers: dict[str, bool] = {}  # of masks that were read
        self._count = 0

    def name(self) -> str:
        """A new name."""
        self._count += 1
        return f"v{self._count}"

    def line(self, text: str, uses: tuple[str, ...], count: int = 1, *, asked: bool = False) -> Any:
        """Note a line, and return the new name, or several."""
        targets = tuple(self.name() for _ in range(count))
        self.entries.append(Line(targets, text, uses, asked))
        return targets if count > 1 else targets[0]

    def made(self, text: str, uses: tuple[str, ...], value: Plain) -> "Number":
        """The number that a line computes; the same for the same line."""
        known = self._known.get(text)
        if known is None:
            known = self._known[text] = Number(self, value, self.line(text, uses))
        return known

    def way(self) -> tuple[bool, ...]:
        """What was found by all that was read."""
        return tuple(entry.found for entry in self.entries if isinstance(entry, Read))

    def read(self, number: "Number") -> bool:
        """The value of a mask, on which the code that runs decides something."""
        if number.constant:
            return bool(number.value)
        if number.name not in self.answers:
            self.answers[number.name] = bool(number.value)
            self.entries.append(Read(number.name, bool(number.value)))
        return self.answers[number.name]


def text_of(value: Any) -> tuple[str, tuple[str, ...], Plain]:
    """How a number is written, the names in that, and its value."""
    if isinstance(value, Number):
        if value.constant:
            return value.name, (), value.value
        name = value.name
        known = value.record.answers.get(name)  # after a read a mask is what was found
        return (name, (name,), value.value) if known is None else (repr(known), (), known)
    if isinstance(value, bool):
        return repr(value), (), value
    if isinstance(value, int | float):
        plain = value if type(value) is int else float(value)
        if math.isnan(plain):
            return "nan", (), plain
        text = NAMES.get(plain) or repr(plain)
        return (f"({text})" if text.startswith("-") else text), (), plain
    raise UnrecordableError(f"a {type(value).__name__} among numbers")


def _value(operand: Any) -> Any:
    return operand.value if isinstance(operand, Number) else operand


def calculated(
    pattern: str, compute: Callable[..., Plain], *operands: Any, record: "Record"
) -> "Number":
    """A number from others: by a line, or at once where all are constants."""
    texts, uses, values = [], list[str](), list[Plain]()
    if pattern in (AND, OR):  # beside a mask that is known nothing is left to compute
        for one, other in (operands, operands[::-1]):
            _, names, value = text_of(one)
            if not names:
                decided = value is (pattern is OR)
                kept = one if decided else other
                if isinstance(kept, Number):
                    return kept
                return Number(record, bool(kept), repr(bool(kept)), constant=True)
    floats = any(isinstance(_value(operand), float) for operand in operands)
    for operand in operands:
        if floats and type(operand) is int:  # beside floats Python computes slower with it
            operand = float(operand)
        text, names, value = text_of(operand)
        texts.append(text)
        uses += names
        values.append(value)
    try:
        result = compute(*values)
    except (ZeroDivisionError, ValueError, OverflowError) as error:
        raise UnrecordableError(str(error)) from error
    if not uses:
        return Number(record, result, text_of(result)[0], constant=True)
    return record.made(pattern.format(*texts), tuple(uses), result)


class Number(Recorded):
    """One number.

    Attributes:
        record: where it is written down.
        value: what it is in this run.
        name: in the record; of a constant the number itself.
        constant: whether it is the same in every run.
    """

    __slots__ = ("constant", "name", "record", "value")
    ndim: ClassVar[int] = 0

    def __init__(self, record: Record, value: Plain, name: str, *, constant: bool = False) -> None:
        self.record, self.value, self.name, self.constant = record, value, name, constant

    def through(self, pattern: str, compute: Callable[..., Plain], *others: Any) -> Any:
        """An operator, with other numbers, or with vectors entry by entry."""
        vector = next((other for other in others if isinstance(other, Vector)), None)
        if vector is not None:
            whole = Vector([self] * len(vector.entries))
            return whole.through(pattern, compute, *others)
        return calculated(pattern, compute, self, *others, record=self.record)

    def __bool__(self) -> bool:
        return self.record.read(self)

    def __float__(self) -> float:
        raise UnrecordableError("a number is read")

    __int__ = __index__ = __float__

    def __getitem__(self, places: Any) -> Self:
        return self  # one number beside vectors is one number

    def sum(self) -> Self:
        """Of all problems: of the only one."""
        return self

    def any(self) -> Self:
        """Whether it holds for any problem: for the only one."""
        return self


class Vector(Recorded):
    """A few numbers.

    Attributes:
        entries: of them.
        whole: the name of an array that holds them in this order, if there is one.
    """

    __slots__ = ("entries", "whole")
    ndim: ClassVar[int] = 1

    def __init__(self, entries: Sequence[Any], whole: str = "") -> None:
        self.entries = list(entries)
        self.whole = whole

    @property
    def shape(self) -> tuple[int]:
        """(n,)."""
        return (len(self.entries),)

    @property
    def record(self) -> Record:
        """Where it is written down."""
        found: Record = self.entries[0].record
        return found

    def through(self, pattern: str, compute: Callable[..., Plain], *others: Any) -> "Vector":
        """An operator, entry by entry."""
        columns = [
            other.entries if isinstance(other, Vector) else [other] * len(self.entries)
            for other in others
        ]
        return Vector([
            calculated(pattern, compute, *row, record=self.record)
            for row in zip(self.entries, *columns, strict=True)
        ])  # fmt: skip

    def __getitem__(self, places: Any) -> Self:
        if places in ((Ellipsis, None), (Ellipsis, 0)):  # a column beside a matrix, and back
            return self
        raise UnrecordableError("an entry of a vector")

    def _folded(self, pattern: str, compute: Callable[..., Plain]) -> Any:
        found = self.entries[0]
        for entry in self.entries[1:]:
            found = found.through(pattern, compute, entry)
        return found

    def sum(self, dim: int = -1) -> Any:
        """Σ xᵢ, from the first to the last."""
        return self._folded("{0} + {1}", lambda a, b: a + b)

    def all(self, dim: int = -1) -> Any:
        """Whether all entries hold."""
        return self._folded(AND, lambda a, b: a & b)

    def any(self, dim: int = -1) -> Any:
        """Whether one of them does."""
        return self._folded(OR, lambda a, b: a | b)

    def amax(self, dim: int = -1) -> Any:
        """The largest entry; NaN if there is one."""
        return self._folded(LARGEST, lambda a, b: a if a >= b or math.isnan(a) else b)


LARGEST = "({0} if {0} >= {1} or {0} != {0} else {1})"


class Matrix:
    """A small matrix.

    Args:
        rows: of it.
        product: its product with a vector; None: it is written out.
        transposed: whether rows and columns are exchanged.
        at: what has written it down, the array, and where that is found; None: it is in no place.
    """

    __slots__ = ("at", "product", "rows", "transposed")

    def __init__(
        self,
        rows: Sequence[Sequence[Any]],
        product: Callable[[Vector, bool], Vector] | None,
        *,
        transposed: bool = False,
        at: tuple[Any, Any, str] | None = None,
    ) -> None:
        self.rows, self.product, self.transposed, self.at = rows, product, transposed, at

    @property
    def asks(self) -> Any:
        """What calls functions outside of the record; None: nothing does."""
        return self.at and self.at[0]

    @property
    def value(self) -> Any:
        """The array, where there is one."""
        return self.at and self.at[1]

    @property
    def recorded_at(self) -> str:
        """Where the array is found; nowhere: empty."""
        return self.at[2] if self.at else ""

    @property
    def mT(self) -> "Matrix":  # noqa: N802  # torch and NumPy spell it with a capital
        """Rows and columns exchanged."""
        rows = list(zip(*self.rows, strict=True))
        return Matrix(rows, self.product, transposed=not self.transposed)

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns)."""
        return len(self.rows), len(self.rows[0])

    def isfinite(self) -> "Matrix":
        """Whether each entry is a finite number."""
        return Matrix([Vector(row).isfinite().entries for row in self.rows], None)

    def all(self, dim: int = -1) -> Vector:
        """Whether all entries of a row hold."""
        return Vector([Vector(row).all() for row in self.rows])

    def __getitem__(self, places: Any) -> Vector:
        if places == (Ellipsis, 0):
            return Vector([row[0] for row in self.rows])
        raise UnrecordableError("a part of a matrix")

    def __matmul__(self, vector: Vector) -> Vector:
        if self.product is not None:
            return self.product(vector, self.transposed)
        return Vector([(Vector(row) * vector).sum() for row in self.rows])


def _chosen(mask: Any, new: Any, old: Any) -> Any:
    """One of two numbers; none is computed where the mask is known."""
    _, uses, value = text_of(mask)
    if uses:
        pattern = "({1} if {0} else {2})"
        return calculated(
            pattern, lambda m, a, b: a if m else b, mask, new, old, record=mask.record
        )
    chosen = new if value else old
    if isinstance(chosen, Number):
        return chosen
    text, _, plain = text_of(chosen)
    return Number(mask.record, plain, text, constant=True)


def _where(mask: Any, new: Any, old: Any) -> Any:
    vectors = [one for one in (mask, new, old) if isinstance(one, Vector)]
    if not vectors:
        return _chosen(mask, new, old)
    n = len(vectors[0].entries)
    columns = [
        one.entries if isinstance(one, Vector) else [one] * n for one in (mask, new, old)
    ]  # fmt: skip
    return Vector([_chosen(*row) for row in zip(*columns, strict=True)])


def _full(like: Any, number: Plain, dtype: Any = None) -> Any:
    entries = like.entries if isinstance(like, Vector) else [like]
    kind = KINDS.get(dtype) or type(entries[0].value)
    text, _, value = text_of(kind(number))
    found = [Number(one.record, value, text, constant=True) for one in entries]
    return Vector(found) if isinstance(like, Vector) else found[0]


def _zeros(like: Any, dtype: Any = None) -> Any:
    return _full(like, 0, dtype)


def _norm(x: Vector, dim: int = -1) -> Any:
    return (x * x).sum().sqrt()


def _first(a: Any, b: Any, pattern: str, compute: Callable[..., Plain]) -> Any:
    if isinstance(a, Recorded):
        return a.through(pattern, compute, b)
    raise UnrecordableError("a number before a recorded one")


Recorded.functions.update(
    {
        torch.where: _where,
        torch.full_like: _full,
        torch.zeros_like: _zeros,
        torch.linalg.vector_norm: _norm,
        torch.maximum: lambda a, b: _first(a, b, LARGER, greater),
        torch.minimum: lambda a, b: _first(a, b, SMALLER, less),
    }
)
