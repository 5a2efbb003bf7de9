"""The operators of numbers and vectors that are written down: how each reads as a line of Python.

What they do with an operator is the business of `numbers.py`.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, Self

import torch

Plain = float | int | bool
SQUARE = 2
AND, OR = "{0} and {1}", "{0} or {1}"  # of masks, which are bools
LARGER = "({0} if {0} > {1} or {0} != {0} else {1})"
QUOTIENT = "({0} / {1} if {1} else {0} * copysign(inf, {1}))"
REVERSED = "({1} / {0} if {0} else {1} * copysign(inf, {0}))"
SMALLER = "({0} if {0} < {1} or {0} != {0} else {1})"


class UnrecordableError(Exception):
    """Something that cannot be written down, or that Python's floats refuse to compute."""


def greater(a: Any, b: Any) -> Any:
    """The larger one; NaN if the first is."""
    return a if a > b or math.isnan(a) else b


def less(a: Any, b: Any) -> Any:
    """The smaller one; NaN if the first is."""
    return a if a < b or math.isnan(a) else b


def quotient(a: Any, b: Any) -> Any:
    """a / b, by zero infinite or NaN as NumPy's is: a variable at a bound has a norm of zero."""
    return a / b if b else a * math.copysign(math.inf, b)


def _finite(a: Any) -> bool:
    return bool(a - a == 0)


class Recorded(ABC):
    """A number or a vector of the record; its operators are those of both.

    Each is given as a pattern for the line, and a function for the value.
    """

    __slots__ = ()
    functions: ClassVar[dict[Any, Callable[..., Any]]] = {}  # those of torch that can be recorded
    dtype: ClassVar[torch.dtype] = torch.float64
    __array_ufunc__: ClassVar[None] = None  # NumPy's numbers leave operators to us

    @abstractmethod
    def through(self, pattern: str, compute: Callable[..., Plain], *others: Any) -> Any:
        """An operator on every entry."""

    def __add__(self, other: Any) -> Any:
        return self.through("{0} + {1}", lambda a, b: a + b, other)

    def __radd__(self, other: Any) -> Any:
        return self.through("{1} + {0}", lambda a, b: b + a, other)

    def __sub__(self, other: Any) -> Any:
        return self.through("{0} - {1}", lambda a, b: a - b, other)

    def __rsub__(self, other: Any) -> Any:
        return self.through("{1} - {0}", lambda a, b: b - a, other)

    def __mul__(self, other: Any) -> Any:
        return self.through("{0} * {1}", lambda a, b: a * b, other)

    def __rmul__(self, other: Any) -> Any:
        return self.through("{1} * {0}", lambda a, b: b * a, other)

    def __truediv__(self, other: Any) -> Any:
        return self.through(QUOTIENT, quotient, other)

    def __rtruediv__(self, other: Any) -> Any:
        return self.through(REVERSED, lambda a, b: quotient(b, a), other)

    def __pow__(self, other: Any) -> Any:
        if type(other) is int and other == SQUARE:
            return self * self
        return self.through("{0} ** {1}", lambda a, b: a**b, other)

    def __neg__(self) -> Any:
        return self.through("-{0}", lambda a: -a)

    def __abs__(self) -> Any:
        return self.through("abs({0})", abs)

    def __lt__(self, other: Any) -> Any:
        return self.through("{0} < {1}", lambda a, b: a < b, other)

    def __le__(self, other: Any) -> Any:
        return self.through("{0} <= {1}", lambda a, b: a <= b, other)

    def __gt__(self, other: Any) -> Any:
        return self.through("{0} > {1}", lambda a, b: a > b, other)

    def __ge__(self, other: Any) -> Any:
        return self.through("{0} >= {1}", lambda a, b: a >= b, other)

    def __eq__(self, other: object) -> Any:
        return self.through("{0} == {1}", lambda a, b: a == b, other)

    def __ne__(self, other: object) -> Any:
        return self.through("{0} != {1}", lambda a, b: a != b, other)

    __hash__ = object.__hash__

    def __and__(self, other: Any) -> Any:
        return self.through(AND, lambda a, b: a & b, other)

    __rand__ = __and__

    def __or__(self, other: Any) -> Any:
        return self.through(OR, lambda a, b: a | b, other)

    __ror__ = __or__

    def __invert__(self) -> Any:
        return self.through("not {0}", lambda a: not a)

    # ---- what `arrays` asks of tensors -----------------------------------------------------------

    def sqrt(self) -> Any:
        """√x."""
        return self.through("sqrt({0})", math.sqrt)

    def isfinite(self) -> Any:
        """Whether each entry is a finite number."""
        return self.through("{0} - {0} == 0.0", _finite)

    def isnan(self) -> Any:
        """Whether each entry is no number."""
        return self.through("{0} != {0}", math.isnan)

    def clamp(self, min: Any = None, max: Any = None) -> Any:
        """No entry below one number, or above the other."""
        found = self if min is None else self.through(LARGER, greater, min)
        return found if max is None else found.through(SMALLER, less, max)

    def square(self) -> Any:
        """x²."""
        return self * self

    def to(self, dtype: torch.dtype) -> Self:
        """Itself: all are in double precision."""
        if dtype is not torch.float64:
            raise UnrecordableError(f"numbers in {dtype}")
        return self

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        found = cls.functions.get(func)
        if found is None:
            raise UnrecordableError(f"the function {func}")
        return found(*args, **(kwargs or {}))
