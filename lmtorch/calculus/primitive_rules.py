"""Rules of what an algebra has a way of its own for: functions of entries, sums, products, moves.

How rules are called says `rules.py`, where they stand by name.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from . import slopes as formulas
from .base import Algebra, Carrier, Multivariate, NoRuleError, Rule, Slopes, values


def primitive(name: str) -> Rule:
    """The rule of what each algebra has a way of its own for."""

    def rule(algebra: Algebra, func: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if not isinstance(args[0], Carrier):
            raise NoRuleError(f"{name} by a number that is a function of x")
        return getattr(algebra, name)(func, *args, **kwargs)

    return rule


linear, moved, reshaped, broadcast, permuted, reduced, unbound = map(
    primitive, ["linear", "moved", "reshaped", "broadcast", "permuted", "reduced", "unbound"]
)


def converted(algebra: Algebra, func: Callable[..., Any], z: Any, *args: Any, **kwargs: Any) -> Any:
    """clone, contiguous, another dtype, perhaps that of another tensor."""
    others = tuple(map(values, args))
    if not isinstance(z, Carrier):
        return func(z, *others, **kwargs)
    return algebra.converted(func, z, *others, **kwargs)


def together(algebra: Algebra, func: Callable[..., Any], *tensors: Any) -> tuple[Any, ...]:
    """broadcast_tensors: all of them in one shape."""
    shape = torch.broadcast_shapes(*(getattr(t, "shape", values(t).shape) for t in tensors))
    return tuple(
        algebra.broadcast(torch.Tensor.expand, t, shape)
        if isinstance(t, Carrier)
        else t.expand(shape)
        for t in tensors
    )


# ---- elementwise ---------------------------------------------------------------------------------


def elementwise(slopes: Callable[..., Slopes]) -> Rule:
    """Make the rule of a function from its slopes at z."""

    def rule(
        algebra: Algebra, func: Callable[..., Tensor], z: Any, *args: Any, **kwargs: Any
    ) -> Any:
        if args or kwargs:
            _constants(func, *args, **kwargs)
        known = algebra.constant(func, z, *args, **kwargs)
        if known is not None:
            return known
        return algebra.chain(z, slopes(z.value, *args, **kwargs))

    return rule


def of_several(slopes: Callable[..., Multivariate]) -> Rule:
    """Make the rule of a function of several variables, some of which may be constant tensors."""

    def rule(algebra: Algebra, func: Callable[..., Tensor], *operands: Any) -> Any:
        if not all(isinstance(z, Carrier | Tensor) for z in operands):
            raise NoRuleError(f"{func.__name__} of a number")
        return algebra.multivariate(slopes, *operands)

    return rule


def by_autograd(
    algebra: Algebra, func: Callable[..., Tensor], z: Any, *args: Any, **kwargs: Any
) -> Any:
    """The rule of a function that torch differentiates."""
    _constants(func, *args, **kwargs)
    if not isinstance(z, Carrier) or z.value.is_complex():
        raise NoRuleError(f"{func.__name__} of complex numbers, or of several variables")
    return algebra.chain(z, algebra.differentiated(lambda v: func(v, *args, **kwargs), z))


def kinked(algebra: Algebra, func: Callable[..., Tensor], z: Any, *args: Any, **kwargs: Any) -> Any:
    """The rule of a piecewise linear function that torch differentiates."""
    _constants(func, *args, **kwargs)
    if not isinstance(z, Carrier) or z.value.is_complex():
        raise NoRuleError(f"{func.__name__} of complex numbers, or of several variables")
    slopes = algebra.differentiated(lambda v: func(v, *args, **kwargs), z)
    return algebra.chain(z, slopes._replace(curvature=None))


def _constants(func: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
    """Raise where a further argument is a function of x, or the operator writes over its input."""
    if kwargs.get("inplace") or any(isinstance(a, Carrier) for a in (*args, *kwargs.values())):
        raise NoRuleError(f"{func.__name__} in place, or of several variables")


def tanh(algebra: Algebra, func: Callable[..., Tensor], z: Any) -> Any:
    """The algebra's own tanh."""
    return algebra.tanh(z)


def powered(algebra: Algebra, func: Callable[..., Any], a: Any, b: Any) -> Any:
    """a^b, where one of the two may be a constant."""
    known = algebra.constant(torch.pow, a, b)
    if known is not None:
        return known
    if isinstance(a, Carrier) and isinstance(b, Carrier):
        return algebra.multivariate(formulas.pow_of_both, a, b)
    if isinstance(b, Carrier):
        return algebra.chain(b, formulas.raised(a, b.value))
    if isinstance(b, Tensor):
        return algebra.multivariate(formulas.pow_of_both, a, b)
    if not isinstance(b, int | float) or b == 0:
        raise NoRuleError("a power whose exponent is no number, or zero")
    return algebra.chain(a, formulas.power(a.value, b))


# ---- sums and products ---------------------------------------------------------------------------


def added(algebra: Algebra, func: Callable[..., Any], a: Any, b: Any, *, alpha: float = 1) -> Any:
    """a + αb; one of the two may be a constant."""
    if alpha != 1:
        b = algebra.product(torch.mul, alpha, b) if isinstance(b, Carrier) else alpha * b
    return algebra.added(a, b)


def subtracted(
    algebra: Algebra, func: Callable[..., Any], a: Any, b: Any, *, alpha: float = 1
) -> Any:
    """a − αb."""
    return added(algebra, func, a, b, alpha=-alpha)


def negated(algebra: Algebra, func: Callable[..., Any], z: Any) -> Any:
    """−z."""
    return algebra.product(torch.mul, -1, z)


def multiplied(algebra: Algebra, func: Callable[..., Any], a: Any, b: Any) -> Any:
    """a b, entry by entry."""
    return algebra.product(torch.mul, a, b)


def divided(algebra: Algebra, func: Callable[..., Any], a: Any, b: Any) -> Any:
    """a / b, entry by entry."""
    return algebra.quotient(a, b)


def added_product(
    algebra: Algebra, func: Callable[..., Any], c: Any, a: Any, b: Any, *, value: float = 1
) -> Any:
    """addcmul, c + value · a b, which the rules of this package use and nested modes then meet."""
    if not (isinstance(a, Carrier) or isinstance(b, Carrier)):
        return added(algebra, func, c, a * b, alpha=value)
    return added(algebra, func, c, multiplied(algebra, func, a, b), alpha=value)


def matrix_product(algebra: Algebra, func: Callable[..., Any], a: Any, b: Any) -> Any:
    """A B, where the first or the second may be a vector."""
    return algebra.product(torch.matmul, a, b)


def multiplied_along(
    algebra: Algebra,
    func: Callable[..., Any],
    z: Any,
    dim: int | None = None,
    keepdim: bool = False,
    *,
    dtype: Any = None,
) -> Any:
    """prod: neighbours are multiplied, then their products; so zeros among the factors are fine."""
    shape = getattr(z, "shape", None) or values(z).shape
    if dtype is not None or not shape or not shape.numel():
        raise NoRuleError("a product in another dtype, of a number, or of no factors")
    if dim is None:
        z, shape, dim = algebra.reshaped(torch.Tensor.reshape, z, (-1,)), (shape.numel(),), 0
    behind = dim if dim < 0 else dim - len(shape)

    def part(z: Any, of: slice) -> Any:
        return algebra.indexed(torch.Tensor.__getitem__, z, (..., of, *[slice(None)] * ~behind))

    count, apart = shape[behind], []
    while count > 1:
        half = count // 2
        if count % 2:
            apart.append(part(z, slice(count - 1, count)))
        z = algebra.product(torch.mul, part(z, slice(half)), part(z, slice(half, 2 * half)))
        count = half
    for factor in apart:
        z = algebra.product(torch.mul, z, factor)
    return z if keepdim else algebra.reshaped(torch.Tensor.squeeze, z, behind)


def contraction(algebra: Algebra, func: Callable[..., Any], equation: Any, *operands: Any) -> Any:
    """einsum with one factor that is a function of x."""
    if sum(isinstance(operand, Carrier) for operand in operands) != 1:
        raise NoRuleError("einsum with several factors that are functions of x")
    return algebra.linear(func, equation, *operands)


def swapped(rule: Rule) -> Rule:
    """The rule of an operator whose operands come in the other order, such as `__rsub__`."""

    def turned(algebra: Algebra, func: Callable[..., Any], a: Any, b: Any, **kwargs: Any) -> Any:
        return rule(algebra, func, b, a, **kwargs)

    return turned


# ---- which entries -------------------------------------------------------------------------------


def join(
    algebra: Algebra, func: Callable[..., Any], members: Any, *args: Any, **kwargs: Any
) -> Any:
    """cat and stack, hstack and vstack."""
    return algebra.join(func, members, *args, **kwargs)


def index(algebra: Algebra, func: Callable[..., Any], z: Any, places: Any) -> Any:
    """z[places]."""
    if not isinstance(z, Carrier):
        raise NoRuleError("an index that is a function of x")
    return algebra.indexed(func, z, places)


def selected(algebra: Algebra, func: Callable[..., Any], condition: Any, a: Any, b: Any) -> Any:
    """where(condition, a, b), with the same choice for derivatives as for values."""
    if func is torch.Tensor.where:  # a.where(condition, b)
        condition, a = a, condition
    if values(condition).dtype != torch.bool:
        raise NoRuleError("a condition that is no mask")
    return algebra.selected(condition, a, b)


def larger(algebra: Algebra, func: Callable[..., Any], a: Any, b: Any) -> Any:
    """maximum(a, b); of two that are equal, half the derivative of each."""
    return _one_of(algebra, a, b, torch.le)


def smaller(algebra: Algebra, func: Callable[..., Any], a: Any, b: Any) -> Any:
    """minimum(a, b); of two that are equal, half the derivative of each."""
    return _one_of(algebra, a, b, torch.ge)


def _one_of(algebra: Algebra, a: Any, b: Any, second: Callable[..., Tensor]) -> Any:
    """Where `second` holds of them b, elsewhere a, and the mean where they are equal."""
    half = algebra.added(
        algebra.product(torch.mul, 0.5, a) if isinstance(a, Carrier) else 0.5 * a,
        algebra.product(torch.mul, 0.5, b) if isinstance(b, Carrier) else 0.5 * b,
    )
    # NaN in a is kept as no comparison with it holds, and one in b is by the mean
    either = algebra.selected(algebra.compared(second, a, b), b, a)
    equal = algebra.compared(torch.eq, a, b)
    nan = algebra.compared(torch.ne, b, b)
    return algebra.selected(nan, half, algebra.selected(equal, half, either))
