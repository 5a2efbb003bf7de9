"""One fit as one call of a program, with no tensor on the way."""

import ctypes
import math
import threading
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..core.termination import RUNNING
from .building import build

if TYPE_CHECKING:
    from .programs import Program

DTYPES: dict[torch.dtype, Any] = {
    torch.float64: np.float64,
    torch.float32: np.float32,
    torch.int64: np.int64,
    torch.bool: np.bool_,
}
# A look may be unsure because too much is promised yet: from where the fit has come to rest it goes
# on, by a trial at least, so many times.
AGAIN = 6
CELL = 8  # bytes in which a number of any dtype is kept


class End(NamedTuple):
    """Where one fit has ended, in NumPy's arrays and numbers: see `programs.Descended`."""

    x: Any  # (n,)
    cost: Any
    status: int
    trials: int
    linearizations: int
    promise: Any
    gradient: Any  # (n,)
    normal: Any  # (n, n), JᵀJ, rescaled by the loss
    cosine: Any


class Single:
    """A program, ready to be called for one fit at a time, from several threads.

    Args:
        program: the compiled descent.
    """

    def __init__(self, program: "Program") -> None:
        library = build(program.text)
        kinds = [*2 * [ctypes.c_int64], *2 * [ctypes.c_void_p], ctypes.c_int,
                 *2 * [ctypes.c_int64], ctypes.c_void_p]  # fmt: skip
        self.library = library  # it stays loaded as long as this is there
        self.descend = ctypes.CFUNCTYPE(None, *kinds)(("descend", library))
        library.memory.restype = ctypes.c_int64
        self.memory = int(library.memory())
        self.constants = [constant.contiguous() for constant in program.constants]
        self.sizes = [math.prod(shape) for shape, _ in program.leaves]
        begins = np.cumsum([0, *self.sizes]).tolist()
        state: Any = program.places.state
        linearization: Any = program.places.linearization
        sure, cosine = len(program.leaves) - 2, len(program.leaves) - 1
        places = (
            state.x, state.cost, state.status, state.trials, state.linearizations,
            state.certificate.promise, linearization.gradient, linearization.normal, cosine, sure,
        )  # fmt: skip
        self.wanted = [
            (program.leaves[place][0], DTYPES[program.leaves[place][1]], begins[place])
            for place in places
        ]
        self.local = threading.local()

    def run(self, x: Tensor, given: list[Tensor], trials: int) -> End | None:
        """Descend from x (n,) on contiguous tensors; None: the end is not sure."""
        room: _Room | None = getattr(self.local, "room", None)
        if room is None:
            room = self.local.room = _Room(self, 1 + len(given))
        addresses = room.pointers
        addresses[0] = x.data_ptr()
        for place, tensor in enumerate(given, 1):
            addresses[place] = tensor.data_ptr()
        views = room.views
        status, sure = views[2], views[-1]
        for resumed in range(1 + AGAIN):
            self.descend(1, 0, addresses, room.results, min(resumed, 1), trials, -1, room.memory)
            if sure or status <= 0:
                break
            status[()] = RUNNING
        if not sure:
            return None
        x_, cost, status, spent, made, promise, gradient, normal, cosine, _ = views
        return End(
            x_.copy(), cost[()], int(status), int(spent), int(made), promise[()],
            gradient.copy(), normal.copy(), cosine[()],
        )  # fmt: skip


class _Room:
    """What a thread needs to call a program."""

    def __init__(self, single: Single, given: int) -> None:
        self.kept = np.zeros(sum(single.sizes), dtype=np.int64)
        self.rows = self.kept.ctypes.data + CELL * np.arange(len(self.kept), dtype=np.int64)
        self.scratch = np.zeros(single.memory, dtype=np.uint8)
        self.results = self.rows.ctypes.data
        self.memory = -(-self.scratch.ctypes.data // 64) * 64
        constants = [constant.data_ptr() for constant in single.constants]
        self.pointers = (ctypes.c_void_p * (given + len(constants)))(*[None] * given, *constants)
        self.views = [self._view(*one) for one in single.wanted]

    def _view(self, shape: tuple[int, ...], dtype: Any, begin: int) -> Any:
        """The numbers of a leaf where the program leaves them."""
        stop = begin + math.prod(shape)
        part = self.kept[begin:stop].view(dtype)
        return part[:: CELL // np.dtype(dtype).itemsize].reshape(shape)
