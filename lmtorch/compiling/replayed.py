"""A descent of many fits on NumPy's arrays, by a program in Python."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..arrays import quiet
from ..core.certificate import NEWTON
from ..core.state import Begun
from ..core.termination import RUNNING
from . import planes
from .given import Given
from .programs import Descended, Program

WIDE = 2048  # fits at work at once, whose numbers stay in the cache
SHARE = 2**14  # fits of which all numbers are kept at once
PLANE = 2**14  # numbers of a plane, likewise
# others take the places of those that have ended once these are so large a share; the last go on
# without them once they are half
FULL, THIN = 0.75, 0.5
Rows = list[Any]  # (count,) each
_MAKING = threading.Lock()


@dataclass(frozen=True)
class Replayed(Program):
    """A descent whose text is Python, see `planes`."""

    def ready(self, device: torch.device) -> None:
        """Make its functions."""
        assert self._functions

    @cached_property
    def _functions(self) -> dict[str, Any]:
        with _MAKING:
            return planes.functions(self.text)

    def __reduce__(self) -> Any:
        """Functions are made anew elsewhere."""
        return Replayed, (self.text, self.leaves, self.places, self.constants)

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
        """As the machine code does, share by share."""
        one = [Given(x, False), *given, *(Given(c, True) for c in self.constants)]
        found = []
        with quiet():
            for first in range(0, max(len(x), 1), SHARE):
                window = slice(first, first + SHARE)
                some = None if begun is None else [part[window] for part in begun]
                data = _Data(one, window)
                rows = _Descent(self, data, trials).end(some, newton)
                tensors = self._tensors(rows)
                sure = tensors[self.wanted[-2]][0]
                places = torch.arange(len(sure)) if everything else (~sure).nonzero()[:, 0]
                columns = [tensors[i] for i in self.wanted]
                found.append((columns, places + first, [one[:, places] for one in tensors]))
        whole = [torch.cat(parts, -1) for parts in zip(*(f[0] for f in found), strict=True)]
        kept = [torch.cat(parts, -1) for parts in zip(*(f[2] for f in found), strict=True)]
        columns = [self._shaped(i, part) for i, part in zip(self.wanted, whole, strict=True)]
        places = torch.cat([f[1] for f in found])
        return Descended._make([*columns, places, self._standing(kept)])

    @cached_property
    def first(self) -> list[int]:
        """The place of the first number of each leaf among the rows."""
        sizes = [int(np.prod(shape, dtype=int)) for shape, _ in self.leaves]
        return [sum(sizes[:place]) for place in range(len(sizes) + 1)]

    def _tensors(self, rows: Rows) -> list[Tensor]:
        """All leaves, (numbers, b) each."""
        ends = self.first
        return [
            torch.from_numpy(np.stack(rows[ends[i] : ends[i + 1]])) if ends[i] < ends[i + 1]
            else self._empty(i, len(rows[0]))
            for i in range(len(self.leaves))
        ]  # fmt: skip


class _Data:
    """What functions read beside what is carried: numbers of all fits, or of each.

    Args:
        given: all of it.
        window: the fits.
    """

    def __init__(self, given: Sequence[Given], window: slice) -> None:
        self.shared = [one.shared for one in given]
        self.arrays = [
            one.tensor.detach().reshape(-1).numpy() if one.shared
            else np.ascontiguousarray(one.tensor.detach()[window].flatten(1).numpy().T)
            if one.tensor.ndim > 1 else one.tensor.detach()[window].numpy()[None]
            for one in given
        ]  # fmt: skip
        self.count = self.arrays[0].shape[1]
        self.points = max(len(array) for array in self.arrays)

    def of(self, chosen: Any) -> Rows:
        """Some of the fits, by a slice or by their numbers."""
        return [
            array if shared else np.ascontiguousarray(array[:, chosen])
            for array, shared in zip(self.arrays, self.shared, strict=True)
        ]


class _Descent:
    """One run of some fits.

    Args:
        program: what is run.
        data: of the fits.
        trials: of each at most.
    """

    def __init__(self, program: Replayed, data: _Data, trials: int) -> None:
        self.program, self.data, self.trials = program, data, trials
        self.functions = program._functions
        state: Any = program.places.state
        self.status, self.made = (program.first[leaf] for leaf in (state.status, state.trials))
        self.wide = max(64, PLANE // data.points)

    def _call(self, name: str, carried: Rows, rest: Rows, data: Rows, count: int) -> Rows:
        pieces = [slice(i, min(i + self.wide, count)) for i in range(0, count, self.wide)]
        found: Rows = self.functions[name](carried, rest, data, count, pieces)
        return found

    def end(self, begun: Sequence[Tensor] | None, newton: int) -> Rows:
        """The numbers of all fits at their ends."""
        data, count = self.data, self.data.count
        pieces = [slice(i, min(i + WIDE, count)) for i in range(0, count, WIDE)]
        starts = [self._call("begin", [], [], data.of(s), s.stop - s.start) for s in pieces]
        if not starts:
            starts = [self._call("begin", [], [], data.of(slice(0, 0)), 0)]
        whole = [np.concatenate(rows) for rows in zip(*starts, strict=True)]
        state: Any = self.program.places.state
        for leaf, value in zip(state.begun, begun or (), strict=False):
            for place, row in enumerate(value.reshape(count, -1).numpy().T):
                whole[self.program.first[leaf] + place] = row.copy()
        self._iterate(whole)
        running = whole[self.status] == RUNNING
        for s in pieces:
            ended = np.flatnonzero(~running[s]) + s.start
            if len(ended):
                self._look(whole, ended, newton)
        return whole

    def _iterate(self, whole: Rows) -> None:
        """Step while fits run, some at a time."""
        todo = np.flatnonzero(self._running(whole))
        at, places = 0, todo[:0]
        rows: Rows = []
        data: Rows = []
        while True:
            if rows:
                left = self._running(rows)
                count = int(np.count_nonzero(left))
            else:
                left, count = None, 0
            waiting = len(todo) - at
            if count <= (FULL if waiting else THIN) * len(places):
                if rows:
                    gone = ~left
                    for row, kept in zip(whole, rows, strict=True):
                        row[places[gone]] = kept[gone]
                    places = places[left]
                    rows = [row[left] for row in rows]
                taken = todo[at : at + WIDE - count]
                at += len(taken)
                if not len(taken) and not count:
                    return
                if len(taken):
                    places = np.concatenate([places, taken])
                    more = [row[taken] for row in whole]
                    both = zip(rows, more, strict=True)
                    rows = [np.concatenate(parts) for parts in both] if rows else more
                data = self.data.of(places)
            rows = self._call("step", rows, [], data, len(places))

    def _running(self, rows: Rows) -> Any:
        return (rows[self.status] == RUNNING) & (rows[self.made] < self.trials)

    def _look(self, whole: Rows, places: Any, newton: int) -> None:
        """Look at the ends of some fits, and at those again to which Newton's steps lead."""
        carried = len(whole)
        data = self.data.of(places)
        found = self._call("look", [row[places] for row in whole], [], data, len(places))
        for number in range(newton + 2):
            for row, new in zip(whole, found[:carried], strict=True):
                row[places] = new
            moving = found[carried]
            if number > newton or not moving.any():
                return
            places = places[moving]
            data = self.data.of(places)
            some = [row[moving] for row in found]
            found = self._call("settle", some[:carried], some[carried:], data, len(places))
