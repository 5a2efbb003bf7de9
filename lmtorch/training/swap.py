"""Calling a user's closure with other values in place of the parameters, without touching them.

A closure sees its parameters through a module it closes over, or as tensors it names. The first are
replaced by `torch.func.functional_call` on an owner module whose forward calls the closure; the
second by a `TorchFunctionMode`, which swaps each registered tensor wherever it appears among the
arguments of a torch function.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._pytree import tree_map

from .._modes import FunctionMode
from .._modules import names_of
from ..calculus.base import Carrier
from ..losses.criterion import Targeted
from .recurrent import has_recurrences, taken_apart


class Swap(Protocol):
    """Calls with twins in place of the parameters."""

    @property
    def buffers(self) -> tuple[Tensor, ...]:
        """The buffers of which each call gets copies."""

    def __call__(self, twins: Sequence[Tensor], closure: Callable[..., Any], *args: Any) -> Any:
        """closure(*args), in which each parameter is its twin."""


class ModuleSwap:
    """A swap of a module's parameters. Buffers are cloned: no evaluation writes to the user's.

    Args:
        module: what the closure calls.
        names: the parameters' names in it, in the order of the twins.
        tensors: the parameters, which the closure may also name directly (`w = model.weight`).
    """

    def __init__(
        self, module: nn.Module, names: Sequence[str], tensors: Sequence[Tensor] = ()
    ) -> None:
        self.owner = _Owner(module)
        self.module = module
        everywhere = names_of(module)
        own = dict(module.named_parameters())
        self.names = [[f"module.{place}" for place in everywhere[id(own[name])]] for name in names]
        self.direct = TensorSwap(tensors)
        # a layer that is trained in a model that is not writes to its buffers, too
        self.training = any(child.training for child in module.modules())
        self.recurrent = has_recurrences(module)

    @property
    def buffers(self) -> tuple[Tensor, ...]:
        """All buffers of a module of which any layer is trained, else none."""
        return tuple(self.module.buffers()) if self.training else ()

    def __call__(self, twins: Sequence[Tensor], closure: Callable[..., Any], *args: Any) -> Any:
        """Call under `functional_call`, so that tied weights and attributes are twins, too."""
        if any(isinstance(twin, Carrier) for twin in twins):  # no tensors that a module takes
            return self.direct(twins, closure, *args)
        values = {
            place: twin for places, twin in zip(self.names, twins, strict=True) for place in places
        }
        if self.training:
            everywhere = names_of(self.module)
            for buffer in self.module.buffers():
                values |= dict.fromkeys(
                    (f"module.{place}" for place in everywhere[id(buffer)]), buffer.clone()
                )
        named = twins if self.direct.tensors else ()
        apart = taken_apart() if self.recurrent else nullcontext()
        with self.direct.replacing(named), apart:
            result = functional_call(self.owner, values, (closure, *args), tie_weights=False)
        return self.direct.replaced(result, named)


class _Owner(nn.Module):
    """Has the user's module as a child, whose parameters are swapped while a closure runs."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, closure: Callable[..., Any], *args: Any) -> Any:
        return closure(*args)


class TensorSwap:
    """A swap of tensors whose module, if any, is not known."""

    buffers: tuple[Tensor, ...] = ()

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self.tensors = tuple(tensors)

    def __call__(self, twins: Sequence[Tensor], closure: Callable[..., Any], *args: Any) -> Any:
        """Call the closure under a mode that sees every torch function."""
        with self.replacing(twins):
            result = closure(*args)
        return self.replaced(result, twins)

    def replacing(self, twins: Sequence[Tensor]) -> AbstractContextManager[Any]:
        """A mode under which torch functions take the twins in place of the tensors."""
        twin_of = {id(t): twin for t, twin in zip(self.tensors, twins, strict=True)}
        return _Replace(twin_of) if twin_of else nullcontext()

    def replaced(self, result: Any, twins: Sequence[Tensor]) -> Any:
        """The result with twins for tensors that a closure returns without a torch function."""
        twin_of = {id(t): twin for t, twin in zip(self.tensors, twins, strict=True)}
        if isinstance(result, Targeted):
            return replace(result, values=twin_of.get(id(result.values), result.values))
        return tree_map(lambda leaf: twin_of.get(id(leaf), leaf), result)


class BothSwap:
    """A swap of a module's parameters and of others that the closure names: a coefficient, say."""

    def __init__(self, inner: ModuleSwap, outer: TensorSwap, inside: Sequence[bool]) -> None:
        self.inner = inner
        self.outer = outer
        self.inside = tuple(inside)
        self.buffers = inner.buffers

    def __call__(self, twins: Sequence[Tensor], closure: Callable[..., Any], *args: Any) -> Any:
        """Call the module's swap under the mode of the other tensors."""
        mine = [twin for twin, inside in zip(twins, self.inside, strict=True) if inside]
        others = [twin for twin, inside in zip(twins, self.inside, strict=True) if not inside]
        with self.outer.replacing(others):
            result = self.inner(mine, closure, *args)
        return self.outer.replaced(result, others)


def combined(module: nn.Module, names: dict[int, str], tensors: Sequence[Tensor]) -> Swap:
    """The swap for tensors of which those in `names` (by id) are parameters of the module."""
    inside = [id(t) in names for t in tensors]
    mine = [t for t in tensors if id(t) in names]
    own = ModuleSwap(module, [names[id(t)] for t in mine], mine)
    if all(inside):
        return own
    return BothSwap(own, TensorSwap([t for t in tensors if id(t) not in names]), inside)


CONTAINERS = (list, tuple, dict)


class _Replace(FunctionMode):
    """Replaces tensors by identity in arguments of torch functions, also in lists and dicts."""

    def __init__(self, twins: dict[int, Tensor]) -> None:
        super().__init__()
        self.twins = twins

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if not kwargs:
            for arg in args:  # most calls name no parameter, and the mode sees every one
                if id(arg) in self.twins or isinstance(arg, CONTAINERS):
                    break
            else:
                return func(*args)
        args = tuple(self._replace(a) for a in args)
        kwargs = {name: self._replace(a) for name, a in (kwargs or {}).items()}
        if isinstance(args[0] if args else None, Carrier):
            # no tensor, for which methods of tensors would not look further
            return args[0].__torch_function__(func, types, args, kwargs)
        return func(*args, **kwargs)

    def _replace(self, value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return self.twins.get(id(value), value)
        if isinstance(value, CONTAINERS):
            return tree_map(lambda leaf: self.twins.get(id(leaf), leaf), value)
        return value
