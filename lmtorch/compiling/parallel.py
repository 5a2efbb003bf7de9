"""A descent of many fits on a GPU, as three kernels."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..core.certificate import NEWTON
from ..core.state import Begun
from .given import Given
from .modules import module
from .programs import Descended, Program
from .threads import BLOCK, Threads

LAYOUT = Threads()
BLOCKS = 2048  # of the kernel that iterates, at most: more threads than a device runs at once


@dataclass(frozen=True)
class Parallel(Program):
    """A compiled descent whose fits run on a GPU; its text is CUDA."""

    def ready(self, device: torch.device) -> None:
        """Compile it, if it is not there."""
        module(self.text, device)

    def run(
        self,
        x: Tensor,
        given: Sequence[Given],
        trials: int,
        *,
        begun: Begun | None = None,
        newton: int = NEWTON,
        everything: bool = False,
    ) -> Descended:
        """As on a CPU, without shares: whoever calls gives no more fits than fit the memory."""
        count, device = len(x), x.device
        kernels = module(self.text, device)
        arguments = [Given(x, False), *given, *(Given(c.to(device), True) for c in self.constants)]
        parts = [self._empty(place, count, device) for place in range(len(self.leaves))]
        state: Any = self.places.state
        for place, value in zip(state.begun, begun or (), strict=False):
            parts[place].copy_(value.reshape(count, -1).T)
        laid = [_laid(one) for one in arguments]  # they live until the kernels are called
        table = [number for one, *apart in laid for number in (one.data_ptr(), *apart)]
        rows = [row.data_ptr() for part in parts for row in part]
        held = torch.tensor([0, *table, *rows], dtype=torch.int64).to(device)
        begin = held.data_ptr()
        values = (
            count, begin + 8, begin + 8 * (1 + len(table)), begin, int(begun is not None), trials,
            newton,
        )  # fmt: skip
        blocks = -(-count // BLOCK)
        kernels.launch("first", blocks, BLOCK, values)
        kernels.launch("descend", min(blocks, BLOCKS), BLOCK, values)
        kernels.launch("last", blocks, BLOCK, values)
        sure = parts[self.wanted[-2]][0]
        places = torch.arange(count, device=device) if everything else (~sure).nonzero()[:, 0]
        kept = [part[:, places] for part in parts]
        columns = [self._shaped(i, parts[i]) for i in self.wanted]
        return Descended._make([*columns, places, self._standing(kept)])


def _laid(one: Given) -> tuple[Tensor, int, int]:
    """A tensor as it is read, how far apart the numbers of two fits are, and of one fit."""
    if one.shared:
        return one.tensor.contiguous(), 0, 1
    # in any order in memory: laid side by side, so that neighbours read neighbours, they cost more
    # to turn round than they save (10.3 against 10.6 ms a million peaks, H200)
    flat = one.tensor.flatten(1) if one.tensor.ndim > 1 else one.tensor[:, None]
    return flat, flat.stride(0), flat.stride(1)
