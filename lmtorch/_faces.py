"""Keeps `torch.compile` and inference mode out of the functions that users call."""

import functools
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor
from torch.utils._pytree import tree_any, tree_map

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
        if "torch._dynamo" in sys.modules:
            called: Callable[..., R] = torch.compiler.disable(function)
        else:
            called = function
        with _ordinary():
            if tree_any(_inferred, (args, kwargs)):
                args, kwargs = tree_map(lambda a: a.clone() if _inferred(a) else a, (args, kwargs))
            return called(*args, **kwargs)

    return outside


@contextmanager
def _ordinary() -> Iterator[None]:
    if not torch.is_inference_mode_enabled():
        yield
        return
    with torch.inference_mode(False), torch.no_grad():
        yield


def _inferred(value: object) -> bool:
    return isinstance(value, Tensor) and value.is_inference()
