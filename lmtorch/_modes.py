"""Modes that look at every function of torch, and that `torch.compile` leaves alone."""

import sys
from contextlib import suppress
from typing import Self

from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

_LEFT_ALONE: set[type] = set()


class FunctionMode(TorchFunctionMode):
    """Sees functions; compiled code that runs under it does not compile it along, anew for every kind of call."""

    def __enter__(self) -> Self:
        leave_alone(type(self), "__torch_function__")
        super().__enter__()  # type: ignore[no-untyped-call] # torch has no types for it
        return self


class DispatchMode(TorchDispatchMode):
    """Sees operators; left alone by the compiler as well."""

    def __enter__(self) -> Self:
        leave_alone(type(self), "__torch_dispatch__")
        super().__enter__()  # type: ignore[no-untyped-call] # as above
        return self


def leave_alone(kind: type, method: str) -> None:
    """Keep dynamo out of a method and all that it calls, if dynamo is there; it would write of it to stderr, too."""
    if kind in _LEFT_ALONE or "torch._dynamo" not in sys.modules:
        return
    _LEFT_ALONE.add(kind)
    with suppress(ImportError, AttributeError):  # its names are torch's own affair, as of 2.13
        from torch._C._dynamo import eval_frame

        skip = eval_frame._FrameExecStrategy(
            eval_frame._FrameAction.SKIP, eval_frame._FrameAction.SKIP
        )
        eval_frame.set_code_exec_strategy(getattr(kind, method).__code__, skip)
