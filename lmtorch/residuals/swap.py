"""Calling a user's closure with other values in place of the parameters, without touching them.

A closure sees its parameters through a module it closes over, or as tensors it names. The first are replaced by
`torch.func.functional_call` on an owner module whose forward calls the closure; the second by a
`TorchFunctionMode`, which swaps each registered tensor wherever it appears among the arguments of a torch function.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

from .._errors import InputError


class Swap(Protocol):
    """Calls with twins in place of the parameters."""

    def __call__(self, twins: Sequence[Tensor], closure: Callable[..., Any], *args: Any) -> Any:
        """closure(*args), in which each parameter is its twin."""


class ModuleSwap:
    """For parameters of a module. Buffers are cloned, so that no evaluation writes to the user's.

    Args:
        module: what the closure calls.
        names: the parameters' names in it, in the order of the twins.
        tensors: the parameters, which the closure may also name directly (`w = model.weight`).
    """

    def __init__(self, module: nn.Module, names: Sequence[str], tensors: Sequence[Tensor] = ()) -> None:
        self.owner = _Owner(module)
        self.module = module
        self.names = [f"module.{name}" for name in names]
        self.direct = TensorSwap(tensors) if tensors else None

    def __call__(self, twins: Sequence[Tensor], closure: Callable[..., Any], *args: Any) -> Any:
        """Through `functional_call`: tied weights follow, attribute access inside the module sees the twin."""
        values: dict[str, Tensor] = dict(zip(self.names, twins, strict=True))
        if self.module.training:
            values |= {f"module.{name}": buffer.clone() for name, buffer in self.module.named_buffers()}
        if self.direct is not None:
            closure = partial(self.direct, twins, closure)
        return functional_call(self.owner, values, (closure, *args))


class _Owner(nn.Module):
    """Has the user's module as a child, so that its parameters can be swapped while a closure runs."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, closure: Callable[..., Any], *args: Any) -> Any:
        return closure(*args)


class TensorSwap:
    """For tensors whose module, if any, is not known."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self.tensors = tuple(tensors)

    def __call__(self, twins: Sequence[Tensor], closure: Callable[..., Any], *args: Any) -> Any:
        """Under a mode that sees every torch function."""
        with _Replace({id(t): twin for t, twin in zip(self.tensors, twins, strict=True)}):
            result = closure(*args)
        return tree_map(lambda leaf: _twin_of(leaf, self.tensors, twins), result)


def check_swap(parameters: Sequence[Tensor], closure: Callable[..., Any], args: tuple[Any, ...], swap: Swap) -> None:
    """Hold the gradients in the twins to those in the parameters themselves: does the mode see every use of them?

    An `autograd.Function` takes its arguments past every torch function mode.

    Raises:
        InputError: it does not.
    """

    def gradients(call: Callable[[], Any], inputs: Sequence[Tensor]) -> list[Tensor]:
        with torch.enable_grad():
            leaves = [leaf for leaf in tree_leaves(call()) if isinstance(leaf, Tensor) and leaf.requires_grad]
            sizes.append([leaf.shape for leaf in leaves])
            total = [torch.view_as_real(leaf).sum() if leaf.is_complex() else leaf.sum() for leaf in leaves]
        if not total:
            return []
        return list(torch.autograd.grad(total, inputs, allow_unused=True, materialize_grads=True))

    sizes: list[list[torch.Size]] = []
    twins = [t.detach().clone().requires_grad_() for t in parameters]
    try:
        mine = gradients(lambda: swap(twins, closure, *args), twins)
        theirs = gradients(lambda: closure(*args), parameters)
    except RuntimeError:
        return  # not to be differentiated like this: nothing to compare with
    if mine and theirs and sizes[0] != sizes[1]:
        return  # not the same data at every call, which the next evaluation will say
    eps = torch.finfo(parameters[0].dtype).eps ** 0.5
    same = len(mine) == len(theirs) and all(
        torch.allclose(a.to_dense(), b.to_dense(), rtol=eps, atol=eps, equal_nan=True)
        for a, b in zip(mine, theirs, strict=True)
    )
    if not same:
        raise InputError(
            "the parameters act where their values cannot be replaced (an autograd.Function takes them directly, or a "
            "layer changes its buffers at each call). Pass the module instead of its parameters: "
            "LevenbergMarquardt(model)."
        )


def check_reach(residual: Tensor, parameters: Sequence[Tensor], names: Sequence[str]) -> None:
    """Hold a swapped evaluation to its word: no gradient may lead to the parameters themselves.

    Where one does, their values act past the swap, and their columns of J would silently be zero. Nothing is
    evaluated for it, and where all is well autograd finds no path and runs no backward pass.

    Raises:
        InputError: one does.
    """
    if not residual.requires_grad:
        return
    cotangent = torch.zeros_like(residual)
    reached: Sequence[Tensor | None] = torch.autograd.grad(
        residual, parameters, cotangent, retain_graph=True, allow_unused=True
    )
    missed = next((name for name, gradient in zip(names, reached, strict=True) if gradient is not None), None)
    if missed is not None:
        raise InputError(
            f"{missed!r} acts where its value cannot be replaced: an autograd.Function takes the tensor itself, or the "
            "closure uses a result that was computed before the step. Pass the module instead of its parameters, "
            "LevenbergMarquardt(model); let the closure call the module rather than name its weights; and compute "
            "inside the closure what depends on the parameters, or detach it."
        )


class BothSwap:
    """For parameters of a module together with others that the closure names: an unknown coefficient, say."""

    def __init__(self, inner: ModuleSwap, outer: TensorSwap, inside: Sequence[bool]) -> None:
        self.inner = inner
        self.outer = outer
        self.inside = tuple(inside)

    def __call__(self, twins: Sequence[Tensor], closure: Callable[..., Any], *args: Any) -> Any:
        """The tensors' mode around the module's call."""
        mine = [twin for twin, inside in zip(twins, self.inside, strict=True) if inside]
        others = [twin for twin, inside in zip(twins, self.inside, strict=True) if not inside]
        return self.outer(others, lambda *rest: self.inner(mine, closure, *rest), *args)


def combined(module: nn.Module, names: dict[int, str], tensors: Sequence[Tensor]) -> Swap:
    """The swap for tensors of which those in `names` (by id) are parameters of the module."""
    inside = [id(t) in names for t in tensors]
    mine = [t for t in tensors if id(t) in names]
    own = ModuleSwap(module, [names[id(t)] for t in mine], mine)
    if all(inside):
        return own
    return BothSwap(own, TensorSwap([t for t in tensors if id(t) not in names]), inside)


def _twin_of(leaf: Any, tensors: Sequence[Tensor], twins: Sequence[Tensor]) -> Any:
    """A closure may return a parameter itself, without any torch function that the mode could see."""
    return next((twin for t, twin in zip(tensors, twins, strict=True) if leaf is t), leaf)


class _Replace(TorchFunctionMode):
    """Replaces tensors by identity among the arguments of torch functions, also inside lists and dicts."""

    def __init__(self, twins: dict[int, Tensor]) -> None:
        super().__init__()
        self.twins = twins

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if not kwargs and not any(id(a) in self.twins or isinstance(a, list | tuple | dict) for a in args):
            return func(*args)  # most calls name no parameter, and the mode sees every one
        args = tuple(self._replace(a) for a in args)
        return func(*args, **{name: self._replace(a) for name, a in (kwargs or {}).items()})

    def _replace(self, value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return self.twins.get(id(value), value)
        if isinstance(value, list | tuple | dict):
            return tree_map(lambda leaf: self.twins.get(id(leaf), leaf), value)
        return value
