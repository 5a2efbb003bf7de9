"""Forward mode beside constants, in the operators for which torch makes them tangents of zero.

The tangent of x·c is ẋ·c + x·ċ. Where c has none, torch (2.13) takes for ċ a tensor that is known
to be zero, and has its Python meta kernels find the shape of what is computed with it: that takes
several times as long as the product. Here ẋ·c is all that is computed. It is what torch finds, to
the last bit, and not to be had by a tangent of zeros: 0 · ∞ is no number.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec

import torch
from torch import Tensor
from torch._C import _functorch
from torch.autograd import forward_ad

from ._modes import FunctionMode

Given = ParamSpec("Given")
Pair = tuple[Tensor, Tensor]  # a value and its tangent


def _as(tangent: Tensor, value: Tensor) -> Tensor:
    """A tangent of the shape of the value that nobody else has, as results may be written to."""
    return tangent.expand(value.shape).clone()


# Of two operands a and b one has a tangent, and that of the other is None.
def _sum(a: Any, b: Any, da: Tensor | None, db: Any) -> Pair:
    value = a + b
    return value, _as(db if da is None else da, value)


def _difference(a: Any, b: Any, da: Tensor | None, db: Any) -> Pair:
    value = a - b
    return value, _as(-db if da is None else da, value)


def _from(a: Any, b: Any, da: Any, db: Tensor | None) -> Pair:
    return _difference(b, a, db, da)


def _product(a: Any, b: Any, da: Tensor | None, db: Any) -> Pair:
    return a * b, a * db if da is None else da * b


def _quotient(a: Any, b: Any, da: Tensor | None, db: Any) -> Pair:
    value = a / b
    return value, -(db * value) / b if da is None else da / b


RULES: dict[Any, Callable[[Any, Any, Any, Any], Pair]] = {
    **dict.fromkeys((Tensor.add, torch.add), _sum),
    **dict.fromkeys((Tensor.sub, torch.sub, torch.subtract), _difference),
    **dict.fromkeys((Tensor.__rsub__, torch.rsub), _from),
    **dict.fromkeys((Tensor.mul, torch.mul, torch.multiply), _product),
    **dict.fromkeys((Tensor.div, torch.div, torch.true_divide), _quotient),
}
OPERANDS = 2


class _ConstantsApart(FunctionMode):
    """Applies the rules within the innermost transform of torch.func, which is a `jvp`."""

    def __init__(self) -> None:
        super().__init__()
        self.level = _functorch.maybe_current_level()

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if func is Tensor.__rdiv__:  # which is no operator of its own
            with self:
                return args[0].reciprocal() * args[1]
        rule = RULES.get(func)
        if rule is None or kwargs or len(args) != OPERANDS or not self._here(args):
            return func(*args, **(kwargs or {}))
        (a, da), (b, db) = map(self._parts, args)
        if (da is None) == (db is None):
            return func(*args)
        return forward_ad.make_dual(*rule(a, b, da, db))

    def _here(self, args: tuple[Any, ...]) -> bool:
        """Whether no other kind of derivative is taken of the operands, and they are of a kind."""
        tensors = [arg for arg in args if isinstance(arg, Tensor)]
        numbers = [arg for arg in args if type(arg) in (int, float)]
        return (
            len(tensors) + len(numbers) == OPERANDS
            and len({tensor.dtype for tensor in tensors}) == 1
            and not any(tensor.requires_grad for tensor in tensors)
            and _functorch.maybe_current_level() == self.level
            and torch._C._is_fwd_grad_enabled()
        )

    def _parts(self, operand: Any) -> tuple[Any, Tensor | None]:
        """Its value and tangent; None: it is constant."""
        if not isinstance(operand, Tensor) or _functorch.maybe_get_level(operand) != self.level:
            return operand, None
        found = forward_ad.unpack_dual(operand)
        return found.primal, found.tangent


def constants_apart(function: Callable[Given, Any]) -> Callable[Given, Any]:
    """The same function, for `torch.func.jvp`: its derivative is found sooner."""

    @wraps(function)
    def called(*args: Given.args, **kwargs: Given.kwargs) -> Any:
        with _ConstantsApart():
            return function(*args, **kwargs)

    return called
