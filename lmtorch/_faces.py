"""Around every face that minimises: what `torch.compile` and inference mode must not do to it."""

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
    """A function that runs as it is written, whatever it is called from.

    `torch.compile` would trace into the loop, where tensors decide what comes next, and goes wrong
    (2.13). In inference mode nothing can be differentiated; tensors that were made in it are
    copied, which makes them ordinary ones.
    """

    @functools.wraps(function)
    def outside(*args: P.args, **kwargs: P.kwargs) -> R:
        # whoever compiles has imported it; for all others it would be two seconds
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
