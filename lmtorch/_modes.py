"""Modes that see every call of a torch function, and that `torch.compile` does not compile."""

import sys
from contextlib import suppress
from typing import Self

import torch
from torch.autograd import forward_ad
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

_LEFT_ALONE: set[type] = set()


def within_something() -> bool:
    """Whether torch runs in a mode, a transform or a level, where a call means something else."""
    return bool(
        torch._C._len_torch_function_stack()
        or torch._C._len_torch_dispatch_stack()
        or torch._C._functorch.peek_interpreter_stack() is not None
        or forward_ad._current_level >= 0
    )


class FunctionMode(TorchFunctionMode):
    """A mode that sees functions of torch.

    Compiled code that runs under it does not compile the mode as well; it would do so anew for
    every kind of call.
    """

    def __enter__(self) -> Self:
        leave_alone(type(self), "__torch_function__")
        super().__enter__()  # type: ignore[no-untyped-call]  # torch 2.13 annotates no types on it
        return self


class DispatchMode(TorchDispatchMode):
    """A mode that sees operators of torch, and that is not compiled either."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Whether torch shall keep dynamo out of it: no, `leave_alone` does.

        Torch (2.13) would import dynamo for it at the first operator, a second of a first fit.
        """
        return False

    def __enter__(self) -> Self:
        leave_alone(type(self), "__torch_dispatch__")
        super().__enter__()  # type: ignore[no-untyped-call]  # torch 2.13 annotates no types on it
        return self


def leave_alone(kind: type, method: str) -> None:
    """Keep dynamo, if it is imported, out of a method and all that it calls.

    Otherwise it would compile them, and write about it to stderr.
    """
    if kind in _LEFT_ALONE or "torch._dynamo" not in sys.modules:
        return
    if torch.compiler.is_dynamo_compiling():  # it would end in an error at what follows
        return
    _LEFT_ALONE.add(kind)
    with suppress(ImportError, AttributeError):  # private names of torch, as they are in 2.13
        from torch._C._dynamo import eval_frame

        skip = eval_frame._FrameExecStrategy(
            eval_frame._FrameAction.SKIP, eval_frame._FrameAction.SKIP
        )
        eval_frame.set_code_exec_strategy(getattr(kind, method).__code__, skip)
