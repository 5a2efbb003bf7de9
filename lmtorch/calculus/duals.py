"""Dual numbers: a value with its derivatives in each of a few parameters, in one evaluation.

    (a, ∂ᵢa) + (b, ∂ᵢb) = (a + b, ∂ᵢa + ∂ᵢb)
    (a, ∂ᵢa) · (b, ∂ᵢb) = (a b, a ∂ᵢb + b ∂ᵢa)
    g(z, ∂ᵢz) = (g(z), g′(z) ∂ᵢz)

The derivatives stand in a dict by the number of the parameter. One that is zero is not there, and
costs nothing: a peak knows nothing of the parameters of the other peaks. One that is the same
everywhere is a plain number, as that of a parameter itself is one. What is left of a model of few
parameters are a few operations on tensors for each of its own.

A `Dual` is no tensor. torch hands over every function that is called with one (`__torch_function__`
), and refuses it where it does not ask: there an exception says that another way must be taken.

Reference: Griewank & Walther, Evaluating Derivatives (2008), ch. 3 and 13.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from .base import Carrier, NoRuleError, Rule, values
from .rules import CONSTANT, RULES, name_of

_grad_is_enabled = torch.is_grad_enabled
Tangent = Tensor | float
Firsts = dict[int, Tangent]  # by parameter
Seconds = dict[tuple[int, int], Tangent]  # by parameters i ≤ j
# a result of one of these types carries no derivative
FACTS = ("shape", "ndim", "dtype", "device")  # attributes of which that is known
PLAIN = (bool, int, float, complex, str, torch.Size, torch.dtype, torch.device, torch.layout)


class Dual(Carrier):
    """A value with its derivatives.

    Attributes:
        value: a tensor.
        first: ∂ᵢ, tensors that broadcast to the value, or numbers; one that is zero is not there.
        second: ∂ᵢⱼ for i ≤ j, likewise; None: second derivatives are not wanted.
    """

    __slots__ = ("first", "second", "value")
    algebra: ClassVar[Any]  # `Duals`, which stands in a file of its own and enters itself here
    __array_ufunc__ = None  # NumPy leaves operators to us, and refuses its own functions

    def __init__(self, value: Tensor, first: Firsts, second: Seconds | None = None) -> None:
        if not _grad_is_enabled():
            raise NoRuleError("a result under no_grad is a constant")
        self.value = value
        self.first = first
        self.second = second

    # ---- operators -------------------------------------------------------------------------------

    # What asks for gradients is left to torch's own operator from the right: a mode that sets
    # parameters into a closure sees the functions of torch, not these operators.

    def __add__(self, other: Any) -> "Dual":
        if isinstance(other, Tensor) and other.requires_grad:
            return NotImplemented
        return self.algebra.added(self, other)

    __radd__ = __add__

    def __sub__(self, other: Any) -> "Dual":
        if isinstance(other, Tensor) and other.requires_grad:
            return NotImplemented
        return self.algebra.difference(self, other)

    def __rsub__(self, other: Any) -> "Dual":
        return self.algebra.difference(other, self)

    def __mul__(self, other: Any) -> "Dual":
        if isinstance(other, Tensor) and other.requires_grad:
            return NotImplemented
        return self.algebra.product(torch.mul, self, other)

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> "Dual":
        if isinstance(other, Tensor) and other.requires_grad:
            return NotImplemented
        return self.algebra.quotient(self, other)

    def __rtruediv__(self, other: Any) -> "Dual":
        return self.algebra.quotient(other, self)

    def __pow__(self, other: Any) -> "Dual":
        if isinstance(other, Tensor) and other.requires_grad:
            return NotImplemented
        return RULES["pow"](self.algebra, torch.pow, self, other)

    def __rpow__(self, other: Any) -> "Dual":
        return RULES["pow"](self.algebra, torch.pow, other, self)

    def __matmul__(self, other: Any) -> "Dual":
        if isinstance(other, Tensor) and other.requires_grad:
            return NotImplemented
        return self.algebra.product(torch.matmul, self, other)

    def __rmatmul__(self, other: Any) -> "Dual":
        return self.algebra.product(torch.matmul, other, self)

    def __neg__(self) -> "Dual":
        return self.algebra.negated(self)

    def __pos__(self) -> "Dual":
        return self

    def __abs__(self) -> "Dual":
        return RULES["abs"](self.algebra, torch.abs, self)

    def __getitem__(self, places: Any) -> "Dual":
        return self.algebra.indexed(torch.Tensor.__getitem__, self, places)

    def __iter__(self) -> Iterator["Dual"]:
        return iter(self.algebra.unbound(torch.unbind, self))

    def __setitem__(self, places: Any, value: Any) -> None:
        raise NoRuleError("x is written to")

    def _in_place(self, other: Any) -> Self:
        raise NoRuleError("an operator works in place")

    __iadd__ = __isub__ = __imul__ = __itruediv__ = __ipow__ = __imatmul__ = _in_place

    # ---- what is plain ---------------------------------------------------------------------------

    def __lt__(self, other: Any) -> Any:
        return self.algebra.plain(torch.lt, "lt", (self, other), {})

    def __le__(self, other: Any) -> Any:
        return self.algebra.plain(torch.le, "le", (self, other), {})

    def __gt__(self, other: Any) -> Any:
        return self.algebra.plain(torch.gt, "gt", (self, other), {})

    def __ge__(self, other: Any) -> Any:
        return self.algebra.plain(torch.ge, "ge", (self, other), {})

    def __eq__(self, other: object) -> Any:
        return self.algebra.plain(torch.eq, "eq", (self, other), {})

    def __ne__(self, other: object) -> Any:
        return self.algebra.plain(torch.ne, "ne", (self, other), {})

    __hash__ = object.__hash__

    def __bool__(self) -> bool:
        return bool(self.value)

    def __float__(self) -> float:
        return float(self.value.detach())

    def __int__(self) -> int:
        return int(self.value.detach())

    def __len__(self) -> int:
        return len(self.value)

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        raise NoRuleError("an array is made of it")

    @property
    def requires_grad(self) -> bool:
        """True, as for a tensor that derivatives are taken in."""
        return True

    # the two that models ask for at every call, which `__getattr__` would find late

    @property
    def dtype(self) -> Any:
        """That of the value."""
        return self.value.dtype

    @property
    def device(self) -> Any:
        """That of the value."""
        return self.value.device

    def __getattr__(self, name: str) -> Any:
        known = _METHODS.get(name)
        if known is None:
            known = _METHODS[name] = _method(name)
        return known(self)

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        rule = _BY_FUNCTION.get(func)
        if rule is None:
            rule = _BY_FUNCTION[func] = _ruled(func)
        if not kwargs:
            return rule(cls.algebra, func, *args)
        return _checked(rule)(cls.algebra, func, *args, **kwargs)


def _method(name: str) -> Callable[[Dual], Any]:
    """How an attribute of a tensor is had of a dual number."""
    attribute = getattr(Tensor, name, None)
    if attribute is None or name.startswith("__"):
        raise AttributeError(name)
    if not callable(attribute):  # a property: .shape, .dtype, .T
        rule = RULES.get(name)
        if rule is not None or name in CONSTANT:
            return lambda dual: _ruled(attribute.__get__)(dual.algebra, attribute.__get__, dual)
        if name in FACTS:
            return lambda dual: dual.algebra.attribute(dual, name)
        return lambda dual: _plain(dual.algebra.attribute(dual, name), name)
    rule = _checked(_ruled(attribute))
    return lambda dual: partial(rule, dual.algebra, attribute, dual)


def _ruled(func: Callable[..., Any]) -> Rule:
    """The rule of a function; of one that has none, what evaluates it and looks at the result."""
    if func == _ASKS:
        return lambda *args: True  # as the property says
    name = name_of(func)
    rule = RULES.get(name)
    if name in CONSTANT:
        return _constant
    if rule is None:
        return _without
    return rule


def _checked(rule: Rule) -> Rule:
    def checked(algebra: Any, func: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if kwargs and kwargs.get("out") is not None:
            raise NoRuleError("a result is written into a given tensor")
        return rule(algebra, func, *args, **kwargs)

    return checked


def _constant(algebra: Any, func: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """What has no derivative: it is called on values."""
    return algebra.plain(func, name_of(func), args, kwargs)


def _without(algebra: Any, func: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """A function without a rule: shapes, comparisons and integers carry no derivative."""
    name = name_of(func)
    if name.endswith("_") and not name.endswith("__"):
        raise NoRuleError(f"{name!r} works in place")
    if name in ("__setitem__", "__set__", "__delete__") or kwargs.get("out") is not None:
        raise NoRuleError(f"{name!r} writes")
    return _plain(algebra.plain(func, name, args, kwargs), name)


def _plain(result: Any, name: str) -> Any:
    """The result, if it certainly carries no derivative; arrays, iterators and None might."""
    for leaf in result if type(result) in (tuple, list) else (result,):
        plain = (
            not (leaf.is_floating_point() or leaf.is_complex())
            if isinstance(leaf, Tensor)
            else isinstance(leaf, PLAIN)
        )
        if not plain:
            raise NoRuleError(f"no rule for {name!r}")
    return result


def bare(arguments: Any) -> Any:
    """Arguments with values in the place of dual numbers."""
    if isinstance(arguments, tuple | list):
        return type(arguments)(map(bare, arguments))
    if isinstance(arguments, dict):
        return {key: bare(value) for key, value in arguments.items()}
    return values(arguments)


class Variables(Dual):
    """Parameters themselves: their derivatives are unit vectors, which are not written out.

    Args:
        value: (*shape, ...), numbers in a row, behind which there may be problems of a batch.
        start: number of the first of them.
        ndim: of the shape.
        curved: whether second derivatives are wanted.
    """

    __slots__ = ("_entries", "ndim_", "start")

    def __init__(self, value: Tensor, start: int, ndim: int, curved: bool) -> None:
        super().__init__(value, {}, {} if curved else None)
        self.start = start
        self.ndim_ = ndim
        self._entries: tuple[Dual, ...] | None = None  # made at the first use, all at once
        del self.first  # made when it is asked for, by __getattr__

    def __getattr__(self, name: str) -> Any:
        if name != "first":
            return super().__getattr__(name)
        shape, behind = self.value.shape[: self.ndim_], self.value.ndim - self.ndim_
        count = shape.numel()
        units = torch.eye(count, dtype=self.value.dtype, device=self.value.device)
        self.first = {
            self.start + i: unit.reshape(*shape, *(1,) * behind)
            for i, unit in enumerate(units.unbind())
        }
        return self.first

    def __getitem__(self, places: Any) -> Dual:
        return self.entry(places) if type(places) is int else super().__getitem__(places)

    def entries(self) -> tuple[Dual, ...]:
        """The parts along the first dimension."""
        if self._entries is None:
            parts = enumerate(self.value.unbind())
            if self.ndim_ == 1:
                curved, start = self.second is not None, self.start
                self._entries = tuple(
                    [Dual(part, {start + i: 1.0}, {} if curved else None) for i, part in parts]
                )
            else:
                width = self.value.shape[1 : self.ndim_].numel()
                self._entries = tuple(self.part(part, i * width, 1) for i, part in parts)
        return self._entries

    def entry(self, place: int) -> Dual:
        """The part at one place; negative ones count from the end."""
        try:
            return self.entries()[place]
        except IndexError:
            self.value[place]  # torch says that the place is outside
            raise

    def part(self, value: Tensor, place: int, fewer: int) -> Dual:
        """Parameters in a row that begin at a place among these, `fewer` dimensions of them."""
        if fewer == self.ndim_:
            curved: Seconds | None = None if self.second is None else {}
            return Dual(value, {self.start + place: 1.0}, curved)
        return Variables(value, self.start + place, self.ndim_ - fewer, self.second is not None)


def variables(value: Tensor, start: int, ndim: int, curved: bool = False) -> Dual:
    """The parameters that stand in a tensor (*shape, ...), the first of them number `start`."""
    if ndim:
        return Variables(value, start, ndim, curved)
    return Dual(value, {start: 1.0}, {} if curved else None)


_PROPERTY: Any = Tensor.requires_grad  # declared as the bool that it is of an instance
_ASKS = _PROPERTY.__get__


def in_a_row(members: list[Any]) -> int | None:
    """The number of the first, where all are single parameters of which each follows the last."""
    start = None
    for place, member in enumerate(members):
        if type(member) is not Dual or member.value.ndim or len(member.first) != 1 or member.second:
            return None
        ((number, part),) = member.first.items()
        if start is None:
            start = number
        if number != start + place or type(part) is not float or part != 1:
            return None
    return start


_BY_FUNCTION: dict[Callable[..., Any], Rule] = {}
_METHODS: dict[str, Callable[[Dual], Any]] = {}


def full(part: Tangent, value: Tensor) -> Tensor:
    """A derivative in the shape and dtype of its value."""
    if not isinstance(part, Tensor):
        return torch.full_like(value, part)
    if part.dtype != value.dtype:
        part = part.to(value.dtype)
    return part if part.shape == value.shape else part.expand(value.shape)
