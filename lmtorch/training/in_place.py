"""Calling a closure with other values in the parameters themselves, also in its backward pass.

The adjoint of a differential equation solves another one backward, and calls the module anew to do
so. Twins that stood in for the parameters while the closure ran are gone by then. Here the
parameters carry the values while the closure runs and again while its backward pass does, and are
put back after each.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils._pytree import tree_flatten, tree_unflatten


class InPlaceSwap:
    """Puts values into the parameters while a closure runs; only plain autograd goes through it.

    Args:
        tensors: the parameters, in the order of the twins.
    """

    buffers: tuple[Tensor, ...] = ()

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self.tensors = tuple(tensors)

    def __call__(self, twins: Sequence[Tensor], closure: Callable[..., Any], *args: Any) -> Any:
        """closure(*args) with the values of the twins; gradients lead to the twins."""
        leaves, spec = [], []

        def run() -> Sequence[Tensor]:
            found, tree = tree_flatten(closure(*args))
            leaves.extend(found)
            spec.append(tree)
            return [leaf for leaf in found if isinstance(leaf, Tensor)]

        apply: Any = _Through.apply  # torch annotates no types on it (2.13)
        outputs = iter(apply(self, run, *twins))
        return tree_unflatten(
            [next(outputs) if isinstance(leaf, Tensor) else leaf for leaf in leaves], spec[0]
        )

    @contextmanager
    def holding(self, values: Sequence[Tensor]) -> Iterator[None]:
        """A context in which the parameters have these values."""
        own = [t.data for t in self.tensors]
        # not a copy into them: what autograd has saved for backward would count as modified
        try:
            for tensor, value in zip(self.tensors, values, strict=True):
                tensor.data = value.detach()
            yield
        finally:
            for tensor, value in zip(self.tensors, own, strict=True):
                tensor.data = value


class _Through(torch.autograd.Function):
    """Runs the closure, and hands gradients in the parameters on to the twins."""

    @staticmethod
    def forward(
        ctx: Any, swap: InPlaceSwap, run: Callable[[], Sequence[Tensor]], *twins: Tensor
    ) -> tuple[Tensor, ...]:
        ctx.swap = swap
        ctx.values = tuple(twin.detach().clone() for twin in twins)
        with torch.set_grad_enabled(any(ctx.needs_input_grad)), swap.holding(ctx.values):
            ctx.outputs = run()
        return tuple(output.detach() for output in ctx.outputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Any, ...]:
        pairs = [(y, w) for y, w in zip(ctx.outputs, cotangents, strict=True) if y.requires_grad]
        if not pairs:
            return (None,) * (2 + len(ctx.values))
        with ctx.swap.holding(ctx.values):
            gradients = torch.autograd.grad(
                [y for y, _ in pairs],
                ctx.swap.tensors,
                [w for _, w in pairs],
                retain_graph=True,
                allow_unused=True,
            )
        return None, None, *gradients
