"""What the formulas ask of whatever carries derivatives along with a value."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

Multiply = Callable[[Any, Any], Tensor]
Rule = Callable[..., Any]  # (algebra, func, *args, **kwargs) -> what func returns, with derivatives


class NoRuleError(Exception):
    """The function does something that no rule knows of, or that rules cannot see."""


class Carrier:
    """A value with derivatives of it."""

    __slots__ = ()
    value: Tensor


class Slopes(NamedTuple):
    """The value of an elementwise function at z, with its derivatives."""

    value: Tensor  # g(z)
    slope: Tensor  # g′(z)
    curvature: Callable[[], Tensor] | None  # computes g″(z), or g″/g′; None: it is zero
    relative: bool = False  # whether `curvature` is g″/g′


class Multivariate(NamedTuple):
    """The value of an elementwise function of several variables, with its derivatives."""

    value: Tensor
    slopes: tuple[Tensor, ...]  # g_a, g_b, ...
    curvatures: Callable[[], tuple[Tensor, ...]]  # computes g_aa, g_ab, ..., g_bb, ...


class Algebra(Protocol):
    """How one kind of carrier goes through the operators of which all rules are made.

    Methods that take a `func` call it, with the further arguments, as an operator that is linear in
    the carriers among them.
    """

    def compared(self, func: Callable[..., Tensor], a: Any, b: Any) -> Any:
        """A mask, entry by entry."""

    def bare(self, z: Any) -> Tensor:
        """The value, for a rule that needs it as a tensor."""

    def constant(self, func: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """What a function of carriers that have no derivatives is; None where one has some."""

    def chain(self, z: Any, slopes: Slopes) -> Any:
        """g(z), elementwise."""

    def multivariate(self, slopes: Callable[..., Multivariate], *operands: Any) -> Any:
        """g(a, b, ...), elementwise; some of the operands may be constant tensors."""

    def product(self, multiply: Multiply, a: Any, b: Any) -> Any:
        """A bilinear operator of a and b; one of the two may be a constant."""

    def quotient(self, a: Any, b: Any) -> Any:
        """a / b, entry by entry; one of the two may be a constant."""

    def added(self, a: Any, b: Any) -> Any:
        """a + b; one of the two may be a constant."""

    def differentiated(self, call: Callable[[Tensor], Tensor], z: Any) -> Slopes:
        """The slopes of an elementwise function at z, which torch differentiates."""

    def linear(self, func: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Any linear operator, of one carrier or several."""

    def moved(self, func: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """A linear operator that copies entries: an index with tensors, flip, repeat."""

    def reshaped(self, func: Callable[..., Any], z: Any, *args: Any, **kwargs: Any) -> Any:
        """The same entries in the same order in another shape."""

    def broadcast(self, func: Callable[..., Any], z: Any, *args: Any, **kwargs: Any) -> Any:
        """The same entries again and again."""

    def permuted(self, func: Callable[..., Any], z: Any, *args: Any, **kwargs: Any) -> Any:
        """Dimensions in another order."""

    def converted(self, func: Callable[..., Any], z: Any, *args: Any, **kwargs: Any) -> Any:
        """A copy, in this or another dtype."""

    def reduced(self, func: Callable[..., Any], z: Any, *args: Any, **kwargs: Any) -> Any:
        """Sums over dimensions."""

    def unbound(self, func: Callable[..., Any], z: Any, dim: int = 0) -> Any:
        """The parts along a dimension."""

    def indexed(self, func: Callable[..., Any], z: Any, places: Any) -> Any:
        """z[places]."""

    def join(self, func: Callable[..., Any], members: Any, *args: Any, **kwargs: Any) -> Any:
        """cat and stack, some of whose members may be constants."""

    def dense(self, func: Callable[..., Any], z: Any, weight: Any, bias: Any = None) -> Any:
        """z Wᵀ + b."""

    def selected(self, condition: Tensor, a: Any, b: Any) -> Any:
        """where(condition, a, b); one of the two may be a constant."""

    def tanh(self, z: Any) -> Any:
        """The most usual activation, where an algebra may have a kernel of its own."""


def values(argument: Any) -> Any:
    """The value of what carries derivatives; any other argument as it is."""
    return argument.value if isinstance(argument, Carrier) else argument


def slopes_by_vjp(call: Callable[[Tensor], Tensor], z: Tensor, curved: bool) -> Slopes:
    """g with g′ and, if it is asked for, g″, by torch.func, which nests in its other transforms.

    Args:
        call: g, elementwise.
        z: where.
        curved: whether g″ may be asked for.

    Returns:
        g′ is the gradient of the sum of g, and g″ that of the sum of g′.
    """

    def slope(value: Tensor) -> tuple[Tensor, Tensor]:
        result, pullback = torch.func.vjp(call, value)[:2]
        return pullback(torch.ones_like(result))[0], result

    if not curved:
        first, value = slope(z)
        return Slopes(value, first, None)
    with_value: Any = torch.func.vjp(slope, z, has_aux=True)  # three, and torch declares two
    first, pullback, value = with_value
    return Slopes(value, first, lambda: pullback(torch.ones_like(first))[0])
