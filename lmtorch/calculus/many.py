"""Dual numbers of many problems at once, whose function was written for one.

A value has the problems in front, and shows its user only what is behind them, as under
`torch.vmap`. Operators that go entry by entry act on all problems as they stand: nothing is called
twice, and no dispatcher stands between. What has another rule goes through `torch.vmap`, one
operator at a time; what has none is refused, and another way is taken.

    parameter   (b, 1)      shows ()
    curve       (b, m)      shows (m,)

A number of each problem keeps a dimension of one, so that it broadcasts over points.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.func import vmap

from .base import NoRuleError, Slopes, values
from .dual_algebra import Duals, single_place
from .duals import Dual, Firsts, Seconds, Tangent, full

# functions that go entry by entry and have no derivative
POINTWISE = frozenset(
    [
        "ceil",
        "data",
        "detach",
        "floor",
        "ones_like",
        "round",
        "sign",
        "trunc",
        "zeros_like",
        "isnan",
        "isfinite",
        "isinf",
        "lt",
        "le",
        "gt",
        "ge",
        "eq",
        "ne",
        "logical_and",
        "logical_or",
        "logical_not",
    ]
)
FACTS = ("dtype", "device", "layout", "is_cuda", "is_sparse")  # the same with problems in front


class Many(Dual):
    """A value of each problem, with its derivatives.

    Args:
        value: (b, *shape), or (b, 1) of a number.
        first: ∂ᵢ, numbers, or tensors that broadcast to the value.
        second: ∂ᵢⱼ, likewise.
        single: whether it shows a number.
    """

    __slots__ = ("single",)

    def __init__(
        self, value: Tensor, first: Firsts, second: Seconds | None = None, single: bool = False
    ) -> None:
        super().__init__(value, first, second)
        self.single = single

    @property
    def shape(self) -> torch.Size:
        """Of the value of one problem."""
        return torch.Size(()) if self.single else self.value.shape[1:]

    @property
    def ndim(self) -> int:
        """Of the value of one problem."""
        return 0 if self.single else self.value.ndim - 1

    def dim(self) -> int:
        """Of the value of one problem."""
        return self.ndim

    def numel(self) -> int:
        """Of the value of one problem."""
        return self.shape.numel()

    def size(self, dim: int | None = None) -> Any:
        """Of the value of one problem."""
        return self.shape if dim is None else self.shape[dim]

    def is_floating_point(self) -> bool:
        """Whether it is of a real dtype."""
        return self.value.is_floating_point()

    def is_complex(self) -> bool:
        """Whether it is of a complex dtype."""
        return self.value.is_complex()

    def __len__(self) -> int:
        if self.single:
            raise TypeError("len() of a number")
        return self.value.shape[1]

    def __bool__(self) -> bool:
        raise NoRuleError("a branch on a value that differs between problems")

    def __float__(self) -> float:
        raise NoRuleError("a number that differs between problems")

    def __int__(self) -> int:
        raise NoRuleError("a number that differs between problems")


class ManyVariables(Many):
    """The parameters of each problem, (b, n), in a row.

    Args:
        value: (b, n).
        start: number of the first of them; None: no derivatives are taken in them.
        curved: whether second derivatives are wanted.
    """

    __slots__ = ("start",)

    def __init__(self, value: Tensor, start: int | None, curved: bool) -> None:
        super().__init__(value, {}, {} if curved else None)
        self.start = start
        del self.first  # made when it is asked for, by __getattr__

    def __getattr__(self, name: str) -> Any:
        if name != "first":
            return super().__getattr__(name)
        units = torch.eye(len(self), dtype=self.value.dtype, device=self.value.device).unbind()
        start = self.start
        self.first = {} if start is None else {start + i: unit for i, unit in enumerate(units)}
        return self.first

    def __getitem__(self, places: Any) -> Dual:
        if type(places) is not int:
            return super().__getitem__(places)
        count = self.value.shape[1]
        if not -count <= places < count:
            raise IndexError(places)
        place = places % count
        return Many(
            self.value[:, place : place + 1],
            {} if self.start is None else {self.start + place: 1.0},
            None if self.second is None else {},
            single=True,
        )

    def __iter__(self) -> Iterator[Dual]:
        return (self[place] for place in range(len(self)))


def variables_of_many(value: Tensor, start: int | None, curved: bool = False) -> Dual:
    """The parameters (b, *shape) of each problem, the first of them number `start`.

    Args:
        value: (b, *shape).
        start: None: no derivatives are taken in them.
        curved: whether second derivatives are wanted.

    Returns:
        A dual number.

    Raises:
        NoRuleError: they stand in a matrix.
    """
    if value.ndim > 2:
        raise NoRuleError("parameters in a matrix")
    if value.ndim == 1:
        first: Firsts = {} if start is None else {start: 1.0}
        return Many(value[:, None], first, {} if curved else None, single=True)
    return ManyVariables(value, start, curved)


def constant_of_many(value: Tensor, curved: bool = False) -> Many:
    """What differs between problems and is no function of the parameters, (b, *shape)."""
    if value.ndim == 1:
        return Many(value[:, None], {}, {} if curved else None, single=True)
    return Many(value, {}, {} if curved else None)


class ManyDuals(Duals):
    """How the dual numbers of many problems go through operators."""

    __slots__ = ()

    def made(
        self, operands: tuple[Any, ...], value: Tensor, first: Firsts, second: Seconds | None = None
    ) -> Dual:
        """A number of each problem, if all operands are numbers."""
        single = all(
            z.single if isinstance(z, Many) else not isinstance(z, Tensor) or z.ndim == 0
            for z in operands
        )
        return Many(value, first, second, single)

    def aligned(self, *operands: Any) -> tuple[Any, ...]:
        """The operands with dimensions of one behind that of the problems, as many as needed."""
        ndims = [
            z.value.ndim if isinstance(z, Many) else z.ndim + 1 if isinstance(z, Tensor) else 0
            for z in operands
        ]
        most = max(ndims)
        if all(
            ndim == most or not isinstance(z, Many) for z, ndim in zip(operands, ndims, strict=True)
        ):
            return operands
        return tuple(_padded(z, most) if isinstance(z, Many) else z for z in operands)

    def number(self, number: Any, like: Tensor) -> Any:
        """A number as it is: beside many values its cost does not show."""
        return number

    def plain(
        self, func: Callable[..., Any], name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """What a function without derivative returns, if it goes entry by entry."""
        if name not in POINTWISE or kwargs:
            raise NoRuleError(f"no rule for {name!r} of many problems")
        if not any(isinstance(z, Many) for z in args):
            return func(*args)
        operands = self.aligned(*args)
        curved = next(z.second is not None for z in args if isinstance(z, Many))
        found = self.made(operands, func(*map(values, operands)), {}, {} if curved else None)
        return found

    def attribute(self, z: Dual, name: str) -> Any:
        """A property that all problems have in common."""
        if name not in FACTS:
            raise NoRuleError(f"no rule for {name!r} of many problems")
        return getattr(z.value, name)

    def bare(self, z: Dual) -> Tensor:
        """Refused: a tensor would show the problems."""
        raise NoRuleError("a rule that needs the value itself")

    # ---- what is not pointwise -------------------------------------------------------------------

    def _bilinear(self, multiply: Callable[[Any, Any], Tensor], a: Any, b: Any, value: Any) -> Dual:
        raise NoRuleError("a matrix product of many problems")

    def product(self, multiply: Callable[[Any, Any], Tensor], a: Any, b: Any) -> Dual:
        """a b, entry by entry."""
        if multiply is not torch.mul:
            raise NoRuleError("a matrix product of many problems")
        return super().product(multiply, *self.aligned(a, b))

    def added(self, a: Any, b: Any) -> Dual:
        """a + b; one of the two may be a constant."""
        return super().added(*self.aligned(a, b))

    def difference(self, a: Any, b: Any) -> Dual:
        """a − b; one of the two may be a constant."""
        return super().difference(*self.aligned(a, b))

    def quotient(self, a: Any, b: Any) -> Dual:
        """a / b, entry by entry; one of the two may be a constant."""
        return super().quotient(*self.aligned(a, b))

    def differentiated(self, call: Callable[[Tensor], Tensor], z: Dual) -> Slopes:
        """The slopes of an elementwise function, of all entries."""
        return super().differentiated(call, z)

    def _linear(
        self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], numbers: bool
    ) -> Any:
        place = single_place(func, args, kwargs)
        z = args[place]

        def single(part: Tensor) -> Any:
            return func(*args[:place], part, *args[place + 1 :], **kwargs)

        return self._mapped(z, vmap(single), numbers)

    def _mapped(self, z: Many, every: Callable[[Tensor], Any], numbers: bool) -> Any:
        """A linear operator on the value and each derivative, all problems at once."""

        def of(part: Tangent) -> Any:
            if numbers and not isinstance(part, Tensor):
                return part
            return every(shown(full(part, z.value), z.single))

        value = every(shown(z.value, z.single))
        first = {i: of(t) for i, t in z.first.items()}
        second = None if z.second is None else {key: of(t) for key, t in z.second.items()}
        if isinstance(value, Tensor):
            return _hidden(value, first, second)
        return tuple(
            _hidden(
                part,
                {i: t[at] if isinstance(t, tuple | list) else t for i, t in first.items()},
                second
                and {k: t[at] if isinstance(t, tuple | list) else t for k, t in second.items()},
            )
            for at, part in enumerate(value)
        )

    permuted = Duals.moved

    def reshaped(self, func: Callable[..., Tensor], z: Any, *args: Any, **kwargs: Any) -> Dual:
        """The same entries in another shape; nothing is done where it changes nothing."""
        probe = torch.zeros(z.shape, device="meta")
        if func(probe, *args, **kwargs).shape == z.shape:
            return z
        found: Dual = self._linear(func, (z, *args), kwargs, numbers=True)
        return found

    def broadcast(self, func: Callable[..., Tensor], z: Any, *args: Any, **kwargs: Any) -> Dual:
        """expand; derivatives are expanded with the value."""
        found: Dual = self._linear(func, (z, *args), kwargs, numbers=True)
        return found

    def converted(self, func: Callable[..., Tensor], z: Any, *args: Any, **kwargs: Any) -> Any:
        """clone, contiguous, another dtype: entry by entry."""
        value = func(z.value, *args, **kwargs)
        if value is z.value:
            return z
        if not (value.is_floating_point() or value.is_complex()):
            raise NoRuleError("integers of many problems")

        def of(part: Tangent) -> Tangent:
            return func(part, *args, **kwargs) if isinstance(part, Tensor) else part

        second = None if z.second is None else {key: of(t) for key, t in z.second.items()}
        return Many(value, {i: of(t) for i, t in z.first.items()}, second, z.single)

    def unbound(self, func: Callable[..., Any], z: Dual, dim: int = 0) -> tuple[Dual, ...]:
        """The parts along a dimension."""
        if isinstance(z, ManyVariables):
            return tuple(z)
        found: tuple[Dual, ...] = self._linear(func, (z, dim), {}, numbers=True)
        return found

    def indexed(self, func: Callable[..., Any], z: Any, places: Any) -> Dual:
        """z[places], for places that are the same for all problems."""
        if any(isinstance(p, Dual) for p in (places if isinstance(places, tuple) else (places,))):
            raise NoRuleError("an index that differs between problems")
        if z.single:
            raise NoRuleError("an index into a number")
        found: Dual = self._mapped(z, vmap(lambda part: part[places]), numbers=True)
        return found

    def join(self, func: Callable[..., Any], members: Any, *args: Any, **kwargs: Any) -> Dual:
        """cat and stack."""
        members = list(members)
        count = next(len(m.value) for m in members if isinstance(m, Many))
        every = vmap(lambda *parts: func(list(parts), *args, **kwargs))

        def whole(member: Any, part: Any) -> Tensor:
            if isinstance(member, Many):
                return shown(full(part, member.value), member.single)
            part = part if isinstance(part, Tensor) else torch.full_like(member, part)
            return part.expand(count, *member.shape)

        def of(pick: Callable[[Many], Any]) -> dict[Any, Tangent]:
            parts = [pick(m) or {} if isinstance(m, Many) else {} for m in members]
            keys = dict.fromkeys(key for part in parts for key in part)
            return {
                key: every(
                    *(whole(m, part.get(key, 0.0)) for m, part in zip(members, parts, strict=True))
                )
                for key in keys
            }

        value = every(*(whole(m, values(m)) for m in members))
        curved = any(isinstance(m, Many) and m.second is not None for m in members)
        return _hidden(value, of(lambda m: m.first), of(lambda m: m.second) if curved else None)


Many.algebra = ManyDuals()


def shown(value: Tensor, single: bool) -> Tensor:
    """(b, *shape) of what shows `shape`."""
    return value[:, 0] if single else value


def _hidden(value: Tensor, first: dict[Any, Tangent], second: dict[Any, Tangent] | None) -> Many:
    """What an operator under vmap has returned."""
    if value.ndim > 1:
        return Many(value, first, second)

    def of(part: Tangent) -> Tangent:
        return part[:, None] if isinstance(part, Tensor) else part

    return Many(
        value[:, None],
        {i: of(t) for i, t in first.items()},
        None if second is None else {key: of(t) for key, t in second.items()},
        single=True,
    )


def _padded(z: Many, ndim: int) -> Many:
    """A value whose tensor has so many dimensions; numbers stay numbers."""
    missing = ndim - z.value.ndim
    if missing <= 0:
        return z
    shape = (*(1,) * missing, *z.value.shape[1:])

    def of(part: Tangent) -> Tangent:
        # what has fewer dimensions than the value is the same for all problems
        if not isinstance(part, Tensor) or part.ndim < z.value.ndim:
            return part
        return part.reshape(len(part), *shape)

    second = None if z.second is None else {key: of(t) for key, t in z.second.items()}
    value = z.value.reshape(len(z.value), *shape)
    return Many(value, {i: of(t) for i, t in z.first.items()}, second, z.single)
