"""A pure function of the flat vector, r(x), batched over leading dimensions of x if it is."""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from torch import Tensor

from .._autodiff import Params
from .base import Part


class FunctionResidual:
    """fun: (..., n) → (..., m), torch code.

    Args:
        fun: the residual function. With leading dimensions it must treat each problem by itself.
        x: a point of the shape that will be used, to learn m from.
    """

    def __init__(self, fun: Callable[[Tensor], Tensor], x: Tensor) -> None:
        self.fun = fun
        self.batch = x.ndim - 1
        self.rows = fun(x).shape[-1]

    def params(self, x: Tensor) -> Params:
        """x itself, as the only tensor."""
        return (x,)

    def parts(self) -> Iterable[Part]:
        """All rows, in one part."""
        yield Part(lambda params: self.fun(params[0]), self._run, self.batch)

    def replay(self) -> AbstractContextManager[None]:
        """A pure function draws nothing."""
        return nullcontext()

    def take(self, places: Tensor) -> "FunctionResidual":
        """The function does not know the problems apart."""
        return self

    def _run(self, other: Callable[..., Any], params: Params) -> Any:
        return other(params[0])
