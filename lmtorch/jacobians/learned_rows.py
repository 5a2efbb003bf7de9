"""Evaluations of many rows by a record of a few, held to the function again and again.

The function is asked for the first rows, and what it does is recorded and replayed for every block
of rows (`replayed_rows`). For the first, second, fourth, eighth ... block it is asked for all rows
of the block again: what is not the same once is never replayed any more.
"""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from .._autodiff import Function, Params
from ..recording.operators import UnrecordableError
from ..rows.columns import Columns
from .base import NOISE, Block
from .learned_many import Taken
from .recorded import recorded
from .replayed_rows import RowReplay
from .signs import simplified

FEW = 7  # rows of a record
MOST = 4000  # operators of a record
MANY = 512  # rows of a block from which on a replay is asked

# evaluates a function of the parameters with its derivatives
Take = Callable[[Function, Params], Taken]


class LearnedRows:
    """What is known of evaluations of one function for blocks of rows.

    Args:
        few: the function of the parameters and of some rows of the data, (rows,).
    """

    def __init__(self, few: Callable[[Params, Sequence[Tensor]], Tensor]) -> None:
        self.few = few
        self.refused = False
        self._replay: RowReplay | None = None
        self._keys: list[int] = []  # the parameters whose derivatives are not zero
        self._asked = {True: 0, False: 0}

    def block(
        self, take: Take, function: Function, params: Params, rows: Sequence[Tensor]
    ) -> Block | None:
        """Residuals of a block of rows with their derivatives, as columns of one matrix.

        Args:
            take: evaluates a function with its derivatives.
            function: that of the block.
            params: the parameters.
            rows: the data of the block, (rows, ...) each.

        Returns:
            The block. None: the function has to be asked.

        Raises:
            OutOfMemoryError: torch's own.
        """
        found = self._found(take, function, params, rows, whole=True)
        if found is None:
            return None
        columns = dict(zip(self._keys, found[:-1].unbind(), strict=True))
        count = sum(p.numel() for p in params)
        every = tuple(map(columns.get, range(count)))
        # r(x) may be kept, and is not to keep the others
        return Block(
            found[-1].clone(), Columns(every, found[:-1] if len(columns) == count else None)
        )

    def values(
        self, take: Take, function: Function, params: Params, rows: Sequence[Tensor]
    ) -> Tensor | None:
        """Residuals of a block of rows, (rows,); None: the function has to be asked.

        Raises:
            OutOfMemoryError: torch's own.
        """
        found = self._found(take, function, params, rows, whole=False)
        return None if found is None else found[-1]

    def _found(
        self, take: Take, function: Function, params: Params, rows: Sequence[Tensor], *, whole: bool
    ) -> Tensor | None:
        """The results of a replay, (k, rows)."""
        if self.refused or len(rows[0]) < MANY:
            return None
        if any(one.device.type != "cpu" for one in (*params, *rows)):
            return None
        try:
            if self._replay is None:
                self._replay = self._learned(take, params, rows)
            found = self._replay(params, rows, whole=whole)
            self._asked[whole] += 1
            if self._asked[whole] & (self._asked[whole] - 1) == 0:  # a power of two
                self._hold(found, self._expected(take, function, params, whole))
        except torch.OutOfMemoryError:
            raise
        except Exception:  # whatever it is: the function itself is there
            self.refused = True
            return None
        return found

    def _learned(self, take: Take, params: Params, rows: Sequence[Tensor]) -> RowReplay:
        """A record of the first rows."""
        few = [one[:FEW].detach().clone() for one in rows]
        point = [one.detach().clone() for one in params]

        def results() -> list[Tensor | None]:
            value, first, _ = take(partial(self._few, few), tuple(point))
            self._keys = sorted(first)  # as columns of J
            return [*map(first.get, self._keys), value]

        record = simplified(recorded(results, point[0], [*point[1:], *few], MOST))
        return RowReplay(record, FEW, len(point))

    def _few(self, rows: Sequence[Tensor], params: Params) -> Tensor:
        return self.few(params, rows)

    def _expected(
        self, take: Take, function: Function, params: Params, whole: bool
    ) -> list[Tensor]:
        """What the function itself gives.

        Raises:
            UnrecordableError: it has derivatives in other parameters.
        """
        if not whole:
            return [function(params).detach()]
        value, first, _ = take(function, params)
        if sorted(first) != self._keys:
            raise UnrecordableError("other derivatives")
        return [*map(first.__getitem__, self._keys), value]

    def _hold(self, found: Tensor, expected: Sequence[Tensor]) -> None:
        """Compare with what the function gives.

        Raises:
            UnrecordableError: it is not the same.
        """
        for ours, own in zip(found, expected, strict=True):
            allowed = torch.finfo(own.dtype).eps ** NOISE * own.abs().amax()
            apart = ((ours - own).abs() > allowed) & own.isfinite()
            other = ours.dtype != own.dtype or ours.shape != own.shape
            if other or bool((apart | (ours.isfinite() != own.isfinite())).any()):
                raise UnrecordableError("the function gives something else")
