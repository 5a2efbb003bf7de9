"""What a closure does while it runs: memory, precision, writing, and habits that cost dearly."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from .._errors import InputError, from_within
from .._modes import DispatchMode, FunctionMode

DIFFERENCES = (torch.ops.aten.sub.Tensor, torch.ops.aten.rsub.Tensor)
# their results do not ask for a gradient, whatever they are given (torch 2.13)
UNDERIVED = frozenset(
    f"special_{name}"
    for name in (
        "airy_ai", "bessel_j0", "bessel_j1", "bessel_y0", "bessel_y1", "modified_bessel_i0",
        "modified_bessel_i1", "modified_bessel_k0", "modified_bessel_k1",
        "scaled_modified_bessel_k0", "scaled_modified_bessel_k1", "spherical_bessel_j0",
        "chebyshev_polynomial_t", "chebyshev_polynomial_u", "chebyshev_polynomial_v",
        "chebyshev_polynomial_w", "shifted_chebyshev_polynomial_t",
        "shifted_chebyshev_polynomial_u", "shifted_chebyshev_polynomial_v",
        "shifted_chebyshev_polynomial_w", "hermite_polynomial_h", "hermite_polynomial_he",
        "laguerre_polynomial_l", "legendre_polynomial_p",
    )
)  # fmt: skip
# they write to running statistics without a word of it in their schema (torch 2.13)
STATISTICS = ("native_batch_norm", "cudnn_batch_norm", "miopen_batch_norm")


class Operators(DispatchMode):
    """Looks at every operator.

    Attributes:
        bytes: of everything that operators return.
        precision: the coarsest floating-point dtype among it.
        written: tensors that were there before and are written to, with copies of what they were.
        spread: entries of what was made of a column (n, 1) and a vector (n,), which is n × n, and
            never met anything else of that size: differences, and what else an operator makes of
            one that follows the parameters and one that is data.
    """

    def __init__(self) -> None:
        # torch 2.13 has no types for it
        start: Callable[[DispatchMode], None] = DispatchMode.__init__
        start(self)
        self.bytes = 0
        self.precision: torch.dtype | None = None
        self.written: list[tuple[Tensor, Tensor]] = []
        self.spread: set[int] = set()
        self._of_spread: set[int] = set()  # the memory of what was made so, and of what follows
        self._made: set[int] = set()

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        for tensor in _targets(func, args, kwargs):
            place = storage(tensor)
            if place is not None and place not in self._made:
                self._made.add(place)
                self.written.append((tensor.detach(), tensor.detach().clone()))
        result = func(*args, **kwargs)
        # what is a view of an argument takes nothing: the transposed weight of a linear layer
        there = {storage(leaf) for leaf in args if isinstance(leaf, Tensor)}
        self._look_for_spread(func, args, result)
        for leaf in tree_leaves(result):
            if not isinstance(leaf, Tensor):
                continue
            if leaf.is_floating_point() and (
                self.precision is None or _eps(leaf.dtype) > _eps(self.precision)
            ):
                self.precision = leaf.dtype
            place = storage(leaf)
            if place is None or place not in there:
                self.bytes += leaf.numel() * leaf.element_size()
            if place is not None:
                self._made.add(place)
        return result

    def _look_for_spread(self, func: Any, args: Sequence[Any], result: Any) -> None:
        """See whether a column meets a vector, or what came of that meets n × n data."""
        if not isinstance(result, Tensor) or torch.Tag.pointwise not in func.tags:
            return
        size, tensors = result.numel(), [arg for arg in args if isinstance(arg, Tensor)]
        if _column_and_vector(func, tensors):
            self.spread.add(size)
        elif size in self.spread:
            ours = [storage(t) in self._of_spread for t in tensors if t.numel() == size]
            if not any(ours):
                return
            if not all(ours):  # a table of all pairs was meant
                self.spread.discard(size)
        else:
            return
        place = storage(result)
        if place is not None:
            self._of_spread.add(place)

    def undo(self) -> None:
        """Put back what was written to."""
        with torch.no_grad():
            for tensor, value in self.written:
                tensor.copy_(value)


class Constants(FunctionMode):
    """Looks for functions of which torch has no derivative, and which it takes for constants.

    What goes on from them has no graph, so that a gradient lacks their share without a word.

    Attributes:
        met: the first one that was given something with a derivative; none: "".
    """

    def __init__(self) -> None:
        # torch 2.13 has no types for it
        start: Callable[[FunctionMode], None] = FunctionMode.__init__
        start(self)
        self.met = ""

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        name = getattr(func, "__name__", "")
        # autograd is off within an `autograd.Function`, which has a derivative of its own
        if name in UNDERIVED and not self.met and torch.is_grad_enabled():
            given = tree_leaves((args, kwargs))
            if any(isinstance(leaf, Tensor) and leaf.requires_grad for leaf in given):
                self.met = f"torch.{name.replace('special_', 'special.', 1)}"
        return func(*args, **(kwargs or {}))


class Habits(Constants):
    """Looks at what other optimizers' closures do, and for what torch takes for constants.

    Attributes:
        differentiates: the closure calls `torch.autograd.grad`, as residuals of differential
            equations do.
    """

    def __init__(self) -> None:
        super().__init__()
        self.differentiates = False

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if func is Tensor.backward:
            raise InputError(
                "the closure calls backward(). Levenberg–Marquardt takes the derivatives of each "
                "residual by itself: return the residuals, model(x) - y, and leave out the loss, "
                "zero_grad() and backward()."
            )
        if func is torch.autograd.grad and not from_within():
            self.differentiates = True
        return super().__torch_function__(func, types, args, kwargs)


def _targets(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> list[Tensor]:
    """The tensors that an operator is about to write to."""
    schema = func._schema
    named = {**dict(zip((a.name for a in schema.arguments), args, strict=False)), **kwargs}
    if schema.is_mutable:
        found = [
            named.get(a.name)
            for a in schema.arguments
            if a.alias_info is not None and a.alias_info.is_write
        ]
    elif schema.name.split("::")[1] in STATISTICS and named.get("training", False):
        found = [named.get("running_mean"), named.get("running_var")]
    else:
        return []
    return [leaf for leaf in tree_leaves(found) if isinstance(leaf, Tensor)]


def storage(tensor: Tensor) -> int | None:
    """Which memory it is a view of; None where it has none of its own, as sparse tensors."""
    with suppress(RuntimeError):  # torch's, by layout, if it has no storage
        return int(tensor.untyped_storage()._cdata)
    return None


def _column_and_vector(func: Any, tensors: Sequence[Tensor]) -> bool:
    """Whether an operator is given a column (n, 1) and a vector (n,), as it is by mistake.

    All products or sums of two factors that are both fitted make a table that is meant.
    """
    columns = [t for t in tensors if t.ndim == 2 and t.shape[1] == 1 and t.shape[0] > 1]
    vectors = [t for t in tensors if t.ndim == 1]
    return any(
        column.shape[0] == vector.shape[0]
        and (func in DIFFERENCES or column.requires_grad != vector.requires_grad)
        for column in columns
        for vector in vectors
    )


def _eps(dtype: torch.dtype) -> float:
    return torch.finfo(dtype).eps
