"""Keeps `torch.compile` and inference mode out of the functions that users call."""

import functools
import sys
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor
from torch.utils._pytree import tree_any, tree_is_leaf, tree_map

P = ParamSpec("P")
R = TypeVar("R")


def face(function: Callable[P, R]) -> Callable[P, R]:
    """Decorate a function of the user interface so that it runs as written, wherever it is called.

    `torch.compile` would trace into the loop, where tensors decide what comes next, and fails there
    (2.13). In inference mode nothing can be differentiated, so that it is left; tensors that were
    made in it are copied, which makes them ordinary ones.
    """

    @functools.wraps(function)
    def outside(*args: P.args, **kwargs: P.kwargs) -> R:
        # code that compiles has imported dynamo; for others the import would cost two seconds
        called = _uncompiled(function) if "torch._dynamo" in sys.modules else function
        if _inferred(args) or _inferred(kwargs):
            args, kwargs = tree_map(_copied, (args, kwargs))
        if not torch.is_inference_mode_enabled():
            return called(*args, **kwargs)
        with torch.inference_mode(False), torch.no_grad():
            return called(*args, **kwargs)

    return outside


@functools.cache
def _uncompiled(function: Callable[P, R]) -> Callable[P, R]:
    """A function into which dynamo does not look."""
    called: Callable[P, R] = torch.compiler.disable(function)
    return called


def _inferred(value: object) -> bool:
    """Whether a tensor in it was made in inference mode."""
    if isinstance(value, Tensor):
        return value.is_inference()
    # most arguments are leaves, for which no tree need be flattened
    if isinstance(value, dict):
        return any(map(_inferred, value.values()))
    if isinstance(value, list | tuple):
        return any(map(_inferred, value))
    return not tree_is_leaf(value) and tree_any(_inferred, value)


def _copied(value: Any) -> Any:
    """An ordinary tensor in the place of one that was made in inference mode."""
    return value.clone() if _inferred(value) else value
