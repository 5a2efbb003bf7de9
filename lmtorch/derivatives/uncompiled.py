"""Compiled functions run as they were written while Taylor mode looks at them.

Modes see none of the operators of compiled code, so torch (2.13) compiles a function anew under a
mode, and where it cannot (`fullgraph=True`), it tries again at every call, a second each. Taylor
mode needs the operators one by one in any case.
"""

import sys
from threading import Lock
from typing import Any

import torch


class Uncompiled:
    """A context in which what `torch.compile` has made runs uncompiled, in all threads.

    Torch knows one stance for all threads: the first that comes in takes it, and the last that goes
    out gives back what it was.
    """

    _lock = Lock()
    _inside = 0
    _stance: Any = None

    def __enter__(self) -> None:
        self._entered = "torch._dynamo" in sys.modules and not _compiling()
        if not self._entered:  # nothing is compiled; or it is compiled code that has called us
            return
        kind = type(self)
        with kind._lock:
            if not kind._inside:
                kind._stance = torch.compiler.set_stance("force_eager")
            kind._inside += 1

    def __exit__(self, *error: object) -> None:
        if not self._entered:
            return
        kind = type(self)
        with kind._lock:
            kind._inside -= 1
            if not kind._inside:
                kind._stance.__exit__(None, None, None)


def _compiling() -> bool:
    """Whether this thread runs in a region that dynamo compiles, where it takes no other stance."""
    if torch.compiler.is_dynamo_compiling():  # it compiles this, and could not see what follows
        return True
    try:
        from torch._C._dynamo.eval_frame import get_eval_frame_callback
    except ImportError:  # a private name of torch, as it is in 2.13
        return True
    return get_eval_frame_callback() not in (None, False)
