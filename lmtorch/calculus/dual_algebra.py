"""How dual numbers go through the operators of which all rules are made."""

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations_with_replacement
from typing import Any

import torch
from torch import Tensor

from .base import Multiply, Multivariate, NoRuleError, Slopes, slopes_by_vjp, values
from .duals import Dual, Firsts, Seconds, Tangent, Variables, bare, full, in_a_row
from .rules import name_of
from .tangents import FLOATING, add_, add_outer_, fused, like, number_as_tensor, times

NUMBERS = (int, float)  # of which torch subtracts a tensor by a function that is written in Python


class Duals:
    """How dual numbers go through operators."""

    __slots__ = ()

    def made(
        self, operands: tuple[Any, ...], value: Tensor, first: Firsts, second: Seconds | None = None
    ) -> Dual:
        """The result of an elementwise operator."""
        return Dual(value, first, second)

    def aligned(self, *operands: Any) -> tuple[Any, ...]:
        """The operands of an elementwise operator, so that their values broadcast."""
        return operands

    def number(self, number: Any, like: Tensor) -> Any:
        """A number beside a tensor, as a tensor: torch makes one of it at each operation else."""
        # zero has a sign, by which it is not told from the other zero
        if type(number) in NUMBERS and number and like.dtype in FLOATING:
            return number_as_tensor(number, like.dtype)
        return number

    # ---- what has no derivative ------------------------------------------------------------------

    def plain(
        self, func: Callable[..., Any], name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """What a function returns of values."""
        if not torch.is_grad_enabled():  # in an autograd.Function, which has its own derivative
            raise NoRuleError("a constant under no_grad")
        return func(*bare(args), **bare(kwargs))

    def attribute(self, z: Dual, name: str) -> Any:
        """A property of the value, as its shape."""
        return getattr(z.value, name)

    def compared(self, func: Callable[..., Tensor], a: Any, b: Any) -> Any:
        """A mask of values."""
        return self.plain(func, name_of(func), (a, b), {})

    def bare(self, z: Dual) -> Tensor:
        """The value."""
        return z.value

    def constant(self, func: Callable[..., Any], *args: Any, **kwargs: Any) -> Dual | None:
        """What an elementwise function of constants is; None where one has derivatives."""
        if type(args[0]) is Dual and args[0].first:
            return None
        curved = False
        for z in args:
            if isinstance(z, Dual):
                if isinstance(z, Variables) or z.first:
                    return None
                curved = z.second is not None
        args = self.aligned(*args)
        value = func(*map(values, args), **kwargs)
        return self.made(args, value, {}, {} if curved else None)

    # ---- elementwise -----------------------------------------------------------------------------

    def chain(self, z: Dual, slopes: Slopes) -> Dual:
        """g(z): ∂ᵢy = g′ ∂ᵢz and ∂ᵢⱼy = g′ ∂ᵢⱼz + g″ ∂ᵢz ∂ⱼz."""
        value, slope, curvature, relative = slopes
        first = {i: times(t, slope) for i, t in z.first.items()}
        if z.second is None:
            return self.made((z,), value, first)
        second: Seconds = dict(z.second)
        bend = None if curvature is None else curvature()
        if bend is not None and relative:  # g′ (∂ᵢⱼz + g″/g′ ∂ᵢz ∂ⱼz)
            add_outer_(second, z.first, z.first, bend, symmetric=True)
        second = {key: times(t, slope) for key, t in second.items()}
        if bend is not None and not relative:
            add_outer_(second, z.first, z.first, bend, symmetric=True)
        return self.made((z,), value, first, second)

    def multivariate(self, slopes: Callable[..., Multivariate], *operands: Any) -> Dual:
        """g(a, b, ...), by the chain rule in all."""
        operands = self.aligned(*operands)
        return self._of_several(operands, slopes(*map(values, operands)))

    def _of_several(self, operands: tuple[Any, ...], found: Multivariate) -> Dual:
        """A function of several variables from its value and derivatives."""
        carriers = [(i, z, found.slopes[i]) for i, z in enumerate(operands) if isinstance(z, Dual)]
        first: Firsts = {}
        for _, z, slope in carriers:
            add_(first, {i: times(t, slope) for i, t in z.first.items()})
        if any(z.second is None for _, z, _ in carriers):
            return self.made(operands, found.value, first)
        second: Seconds = {}
        for _, z, slope in carriers:
            add_(second, {key: times(t, slope) for key, t in (z.second or {}).items()})
        pairs = combinations_with_replacement(enumerate(operands), 2)
        for ((i, a), (j, b)), bend in zip(pairs, found.curvatures(), strict=True):
            if isinstance(a, Dual) and isinstance(b, Dual):
                add_outer_(second, a.first, b.first, bend, symmetric=i == j)
        return self.made(operands, found.value, first, second)

    def differentiated(self, call: Callable[[Tensor], Tensor], z: Dual) -> Slopes:
        """g′ is the gradient of the sum of g, and g″ that of the sum of g′."""
        curved = z.second is not None
        if torch._C._are_functorch_transforms_active():
            return slopes_by_vjp(call, z.value, curved)
        twin = z.value.detach().requires_grad_()
        result = call(twin)
        (first,) = torch.autograd.grad(result, twin, torch.ones_like(result), create_graph=curved)

        def curvature() -> Tensor:
            if not first.requires_grad:
                return torch.zeros_like(first)
            found: Tensor = torch.autograd.grad(first, twin, torch.ones_like(first))[0]
            return found

        return Slopes(result.detach(), first.detach(), curvature)

    def tanh(self, z: Dual) -> Dual:
        """The hyperbolic tangent."""
        t = torch.tanh(z.value)
        return self.chain(z, Slopes(t, 1 - t * t, lambda: -2 * t, relative=True))

    # ---- sums and products -----------------------------------------------------------------------

    def added(self, a: Any, b: Any) -> Dual:
        """a + b; one of the two may be a constant."""
        if not isinstance(b, Dual):
            b = self.number(b, a.value)
            return self.made((a, b), a.value + b, a.first, a.second)
        if not isinstance(a, Dual):
            a = self.number(a, b.value)
            return self.made((a, b), a + b.value, b.first, b.second)
        first = dict(a.first)
        add_(first, b.first)
        second = None
        if a.second is not None and b.second is not None:
            second = dict(a.second)
            add_(second, b.second)
        return self.made((a, b), a.value + b.value, first, second)

    def difference(self, a: Any, b: Any) -> Dual:
        """a − b; one of the two may be a constant."""
        if not isinstance(b, Dual):
            b = self.number(b, a.value)
            return self.made((a, b), a.value - b, a.first, a.second)
        minus = {i: -t for i, t in b.first.items()}
        second = None if b.second is None else {key: -t for key, t in b.second.items()}
        if not isinstance(a, Dual):
            a = self.number(a, b.value)
            value = torch.rsub(b.value, a) if type(a) in NUMBERS else a - b.value
            return self.made((a, b), value, minus, second)
        first = dict(a.first)
        add_(first, minus)
        if a.second is not None and second is not None:
            both = dict(a.second)
            add_(both, second)
            second = both
        return self.made((a, b), a.value - b.value, first, second)

    def negated(self, z: Dual) -> Dual:
        """−z."""
        second = None if z.second is None else {key: -t for key, t in z.second.items()}
        return self.made((z,), -z.value, {i: -t for i, t in z.first.items()}, second)

    def product(self, multiply: Multiply, a: Any, b: Any) -> Dual:
        """A bilinear operator of a and b; one of the two may be a constant."""
        if multiply is not torch.mul:
            return self._bilinear(multiply, a, b, multiply(values(a), values(b)))
        if not isinstance(b, Dual):
            a, b = b, a
        if not isinstance(a, Dual):  # a constant a
            number, a = a, self.number(a, b.value)
            value = a * b.value
            factor = like(a, value)
            if number is not a:  # a derivative that is a number stays one

                def of(part: Tangent) -> Tangent:
                    return part * number if type(part) is float else times(part, factor)

                first = {i: of(t) for i, t in b.first.items()}
                second = None if b.second is None else {k: of(t) for k, t in b.second.items()}
                return self.made((a, b), value, first, second)
            first = {i: times(t, factor) for i, t in b.first.items()}
            if b.second is None:
                return self.made((a, b), value, first)
            return self.made(
                (a, b), value, first, {key: times(t, factor) for key, t in b.second.items()}
            )
        value = a.value * b.value
        of_a, of_b = like(a.value, value), like(b.value, value)
        first = {i: times(t, of_b) for i, t in a.first.items()}
        for i, t in b.first.items():
            known = first.get(i)
            first[i] = times(t, of_a) if known is None else fused(known, t, of_a)
        if a.second is None or b.second is None:
            return self.made((a, b), value, first)
        second = {key: times(t, of_b) for key, t in a.second.items()}
        add_(second, {key: times(t, of_a) for key, t in b.second.items()})
        add_outer_(second, a.first, b.first, None)
        return self.made((a, b), value, first, second)

    def quotient(self, a: Any, b: Any) -> Dual:
        """y = a / b; one of the two may be a constant."""
        known = self.constant(torch.div, a, b)
        if known is not None:
            return known
        if not isinstance(b, Dual):
            b = self.number(b, a.value)
        value = values(a) / values(b)
        by = like(values(b), value)
        if not isinstance(b, Dual):
            second = None if a.second is None else {k: t / by for k, t in a.second.items()}
            return self.made((a, b), value, {i: t / by for i, t in a.first.items()}, second)
        inverse = torch.reciprocal(by)
        down = value * -inverse  # what is divided by is never larger, and often one number
        if not isinstance(a, Dual):
            return self.chain(b, Slopes(value, down, lambda: -2 * down * inverse))

        def curvatures() -> tuple[Tensor, Tensor, Tensor]:
            zero = torch.zeros((), dtype=value.dtype, device=value.device)
            return zero, -inverse * inverse, -2 * down * inverse

        return self._of_several((a, b), Multivariate(value, (inverse, down), curvatures))

    def _bilinear(self, multiply: Multiply, a: Any, b: Any, value: Tensor) -> Dual:
        """A product that does not go entry by entry."""
        if isinstance(b, Variables) and b.value.ndim == b.ndim_ == 1 and not isinstance(a, Dual):
            # A x: the derivatives are the columns of A
            columns = zip(range(len(b)), like(a, value).unbind(-1), strict=True)
            first = {b.start + i: column for i, column in columns}
            return Dual(value, first, None if b.second is None else {})
        if isinstance(a, Dual) and isinstance(b, Dual):
            return self._product_of_two(multiply, a, b, value)
        if isinstance(a, Dual):
            return self._linear(lambda z: multiply(z, b), (a,), {}, numbers=False)
        return self._linear(lambda z: multiply(a, z), (b,), {}, numbers=False)

    @staticmethod
    def _product_of_two(multiply: Multiply, a: Dual, b: Dual, value: Tensor) -> Dual:
        def of(left: dict[Any, Tangent], right: dict[Any, Tangent]) -> dict[Any, Tangent]:
            found: dict[Any, Tangent] = {}
            for key, part in left.items():
                found[key] = multiply(full(part, a.value), b.value)
            for key, part in right.items():
                add_(found, {key: multiply(a.value, full(part, b.value))})
            return found

        if a.second is None or b.second is None:
            return Dual(value, of(a.first, b.first))
        second = of(a.second, b.second)
        for i, left in a.first.items():
            for j, right in b.first.items():
                both = multiply(full(left, a.value), full(right, b.value))
                add_(second, {(min(i, j), max(i, j)): 2 * both if i == j else both})
        return Dual(value, of(a.first, b.first), second)

    # ---- linear: the operator itself acts on each derivative -------------------------------------

    def linear(self, func: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """y = A z, for one dual number; the other arguments only say what A is."""
        return self._linear(func, args, kwargs, numbers=False)

    def moved(self, func: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """A linear operator that copies entries: what is the same everywhere stays so."""
        return self._linear(func, args, kwargs, numbers=True)

    permuted = moved

    def _linear(
        self,
        func: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        numbers: bool,  # whether a derivative that is a number stays one
    ) -> Any:
        place = single_place(func, args, kwargs)
        z = args[place]

        def of(part: Tangent) -> Any:
            if numbers and not isinstance(part, Tensor):
                return part
            return func(*args[:place], full(part, z.value), *args[place + 1 :], **kwargs)

        value = func(*args[:place], z.value, *args[place + 1 :], **kwargs)
        first = {i: of(t) for i, t in z.first.items()}
        second = None if z.second is None else {key: of(t) for key, t in z.second.items()}
        if isinstance(value, Tensor):
            return Dual(value, first, second)
        return tuple(  # a tensor for each of several parts
            Dual(
                part,
                {i: t[at] if isinstance(t, tuple | list) else t for i, t in first.items()},
                second
                and {k: t[at] if isinstance(t, tuple | list) else t for k, t in second.items()},
            )
            for at, part in enumerate(value)
        )

    def reshaped(self, func: Callable[..., Tensor], z: Dual, *args: Any, **kwargs: Any) -> Dual:
        """reshape, view, flatten, squeeze and the like."""
        value = func(z.value, *args, **kwargs)
        if value.dtype != z.value.dtype:
            raise NoRuleError("the same bits in another dtype")
        if value.shape == z.value.shape:
            return z
        if isinstance(z, Variables) and z.ndim_ == z.value.ndim:
            return Variables(value, z.start, value.ndim, z.second is not None)

        def of(part: Tangent) -> Tangent:
            return full(part, z.value).reshape(value.shape) if isinstance(part, Tensor) else part

        second = None if z.second is None else {key: of(t) for key, t in z.second.items()}
        return Dual(value, {i: of(t) for i, t in z.first.items()}, second)

    def broadcast(self, func: Callable[..., Tensor], z: Dual, *args: Any, **kwargs: Any) -> Dual:
        """expand: the value is expanded, and its derivatives broadcast as they are."""
        return Dual(func(z.value, *args, **kwargs), z.first, z.second)

    def converted(self, func: Callable[..., Tensor], z: Dual, *args: Any, **kwargs: Any) -> Any:
        """clone, contiguous, another dtype; an integer has no derivative."""
        value = func(z.value, *args, **kwargs)
        if not (value.is_floating_point() or value.is_complex()):
            return value
        if value is z.value:
            return z
        return self._linear(func, (z, *args), kwargs, numbers=True)

    def reduced(self, func: Callable[..., Any], z: Dual, *args: Any, **kwargs: Any) -> Any:
        """sum and mean."""
        return self._linear(func, (z, *args), kwargs, numbers=False)

    def unbound(self, func: Callable[..., Any], z: Dual, dim: int = 0) -> tuple[Dual, ...]:
        """The parts along a dimension."""
        if isinstance(z, Variables) and dim == 0:
            return z.entries()
        found: tuple[Dual, ...] = self._linear(func, (z, dim), {}, numbers=True)
        return found

    def indexed(self, func: Callable[..., Any], z: Dual, places: Any) -> Dual:
        """z[places]: of parameters, parameters again where places are integers or slices."""
        if type(places) is int and isinstance(z, Variables):
            return z.entry(places)
        value = z.value[places]
        if isinstance(z, Variables):
            width = z.value.shape[1 : z.ndim_].numel()
            if type(places) is slice and places.step in (None, 1):
                return z.part(value, places.indices(len(z.value))[0] * width, 0)
        if any(isinstance(p, Dual) for p in (places if isinstance(places, tuple) else (places,))):
            raise NoRuleError("an index that is a function of x")

        def of(part: Tangent) -> Tangent:
            return full(part, z.value)[places] if isinstance(part, Tensor) else part

        second = None if z.second is None else {key: of(t) for key, t in z.second.items()}
        return Dual(value, {i: of(t) for i, t in z.first.items()}, second)

    def join(self, func: Callable[..., Any], members: Any, *args: Any, **kwargs: Any) -> Dual:
        """cat and stack; the derivatives of members that are constants are zero."""
        members = list(members)
        if func is torch.stack and not args and not kwargs:
            start = in_a_row(members)
            if start is not None:
                value = torch.stack([member.value for member in members])
                return Variables(value, start, 1, members[0].second is not None)
        value = func([values(member) for member in members], *args, **kwargs)

        def of(pick: Callable[[Dual], Any]) -> dict[Any, Tangent]:
            parts = [pick(m) or {} if isinstance(m, Dual) else {} for m in members]
            keys = dict.fromkeys(key for part in parts for key in part)
            return {
                key: func(
                    [
                        full(part.get(key, 0.0), values(member))
                        for member, part in zip(members, parts, strict=True)
                    ],
                    *args,
                    **kwargs,
                )
                for key in keys
            }

        curved = any(isinstance(m, Dual) and m.second is not None for m in members)
        return Dual(value, of(lambda m: m.first), of(lambda m: m.second) if curved else None)

    def dense(self, func: Callable[..., Tensor], z: Any, weight: Any, bias: Any = None) -> Any:
        """z Wᵀ + b."""
        if isinstance(weight, Dual):
            across = self.permuted(torch.Tensor.t, weight)
            result = self.product(torch.matmul, z, across)
        else:
            result = self._linear(func, (z, weight), {}, numbers=False)
        return result if bias is None else self.added(result, bias)

    def selected(self, condition: Tensor, a: Any, b: Any) -> Dual:
        """where(condition, a, b), with the same choice for derivatives as for values."""
        condition, a, b = self.aligned(condition, a, b)
        operands, condition = (condition, a, b), values(condition)
        value = torch.where(condition, values(a), values(b))

        def of(left: dict[Any, Tangent], right: dict[Any, Tangent]) -> dict[Any, Tangent]:
            return {
                key: torch.where(condition, left.get(key, 0.0), right.get(key, 0.0)).to(value.dtype)
                for key in dict.fromkeys((*left, *right))
            }

        firsts = [x.first if isinstance(x, Dual) else {} for x in (a, b)]
        seconds = [x.second if isinstance(x, Dual) else {} for x in (a, b)]
        if any(second is None for second in seconds):
            return self.made(operands, value, of(*firsts))
        return self.made(operands, value, of(*firsts), of(*(second or {} for second in seconds)))


Dual.algebra = Duals()


def single_place(func: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> int:
    """Where the only dual number stands among the arguments of an operator.

    Returns:
        Its place among `args`.

    Raises:
        NoRuleError: there is another.
    """
    places = [place for place, arg in enumerate(args) if isinstance(arg, Dual)]
    if len(places) != 1 or any(isinstance(arg, Dual) for arg in kwargs.values()):
        raise NoRuleError(f"{name_of(func)!r} of several functions of x")
    return places[0]
