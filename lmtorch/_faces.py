"""Keeps `torch.compile` and inference mode out of the functions that users call."""

import functools
import sys
from collections.abc import Callable
from types import FunctionType, MethodType
from typing import Any, ParamSpec, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_any, tree_is_leaf, tree_map

P = ParamSpec("P")
R = TypeVar("R")
# what holds no tensor, or none that would be looked for
PLAIN = frozenset({type(None), bool, int, float, str, FunctionType, MethodType, np.ndarray})


def face(function: Callable[P, R]) -> Callable[P, R]:
    """Decorate a function of the user interface so that it runs as written, wherever it is called.

    `torch.compile` would trace into the loop, where tensors decide what comes next, and fails there
    (2.13). In inference mode nothing can be differentiated, so that it is left; tensors that were
    made in it are copied, which makes them ordinary ones.
    """
    # not in a cache of functools, of which dynamo warns (torch 2.11)
    uncompiled: list[Callable[P, R]] = []

    @functools.wraps(function)
    def outside(*args: P.args, **kwargs: P.kwargs) -> R:
        # code that compiles has imported dynamo; for others the import would cost two seconds
        called = function
        if "torch._dynamo" in sys.modules:
            if not uncompiled:
                uncompiled.append(torch.compiler.disable(function))
            called = uncompiled[0]
        if not torch.is_inference_mode_enabled():
            return called(*_ordinary(args), **_ordinary(kwargs))
        with torch.inference_mode(False), torch.no_grad():
            return called(*_ordinary(args), **_ordinary(kwargs))

    return outside


def _ordinary(arguments: Any) -> Any:
    """The arguments, with a copy for each tensor that was made in inference mode."""
    return tree_map(_copied, arguments) if _inferred(arguments) else arguments


def _inferred(value: object) -> bool:
    """Whether a tensor in it was made in inference mode."""
    if type(value) in PLAIN:
        return False
    if isinstance(value, Tensor):
        return value.is_inference()
    # most arguments are leaves, for which no tree need be flattened
    if isinstance(value, dict):
        return any(map(_inferred, value.values()))
    if isinstance(value, list | tuple):
        return not PLAIN.issuperset(map(type, value)) and any(map(_inferred, value))
    return not tree_is_leaf(value) and tree_any(_inferred, value)


def _copied(value: Any) -> Any:
    """An ordinary tensor in the place of one that was made in inference mode."""
    return value.clone() if _inferred(value) else value
