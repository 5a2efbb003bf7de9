"""What a source of derivatives gave at the latest points, for whoever asks there once more.

The end of a run is looked at for several reasons: to polish it, to certify it, to report it. Each
of them asks for the residuals and the Jacobian at the same point. For small problems an evaluation
costs more than to remember it.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from .._arrays import bits_of
from .._autodiff import Params, Pulled
from ..residuals.base import Part
from ..rows.columns import Columns
from ..rows.matrix import DenseRows
from .base import Bends, Block, JacobianSource, Workspace
from .dual_numbers import DualNumbers, bent_vectors, vectors
from .ladder import Ladder, compare, same_values
from .learned import OfFit

POINTS = 3  # where the last step began and ended, and where another was tried
ENTRIES = 2**15  # of a Jacobian that is remembered, at most
CHEAP = 8  # parameters up to which dual numbers cost about as much as two or three plain calls

COLUMNS = (Columns, DenseRows)  # the kinds of rows of which columns are given
Point = tuple[object, ...]


class Latest(Ladder):
    """A ladder that remembers values and rows of one pure function at the latest points.

    Args:
        rungs: as of `Ladder`.
        pulled: what a plain backward pass has shown already, with the parameters where it was made.
    """

    def __init__(
        self, rungs: Sequence[JacobianSource], pulled: tuple[Params, Pulled] | None = None
    ) -> None:
        super().__init__(rungs)
        self.pulled = pulled
        self.known: dict[Point, Block] = {}
        self.count = 0  # of the parameters where rows were made last
        self.learned: OfFit | None = None  # evaluations that were recorded in earlier fits

    @property
    def rows_are_cheap(self) -> bool:
        """Whether residuals and rows together cost little more than a plain call by itself."""
        return 0 < self.count <= CHEAP and isinstance(self.current, DualNumbers)

    def blocks(self, part: Part, params: Params, workspace: Workspace) -> Iterator[Block]:
        """Blocks of rows, as of `Ladder`; a single one is remembered.

        Yields:
            Residuals with rows of the richest kind that is taken.
        """
        point = (_at(part, params), workspace.kinds, workspace.together, id(self.current))
        if point in self.known:
            yield self.known[point]
            return
        self.count = self.count or sum(p.numel() for p in params)
        found = list(super().blocks(part, params, workspace))
        if len(found) == 1:
            self._remember(point, _kept(found[0]))
        yield from found

    def at_once(self, part: Part, params: Params) -> Block | None:
        """The only block of a part, with columns, where dual numbers are sure to give it.

        It is that of `blocks`, without what a first block and other sources need.

        Returns:
            The block; None: it is to be had of `blocks`.

        Raises:
            DescendedError: dual numbers have failed there, and another source is in use now.
            OutOfMemoryError: torch's own.
        """
        if type(self.rungs[0]) is not DualNumbers:  # another's rows are remembered as well
            return None
        point = (_at(part, params), COLUMNS, 1, id(self.rungs[0]))
        block = self.known.get(point)
        if block is None:
            block = self.columns(part, params)
            if block is not None:
                self._remember(point, block)
        return block

    def saw(self, part: Part, x: Any, found: Any) -> None:
        """Learn from what `at_once` gave at a point, an array: J and r, (n + 1, m)."""
        learned = self.learned
        if learned is not None:
            learned.saw(learned.evaluations.first, x, lambda p: vectors(part, (p,)), found)

    def second(self, part: Part, params: Params) -> Bends | None:
        """First and second derivatives of a part, as of `Ladder`, or replayed, as arrays."""
        learned = self.learned
        if learned is None or not self.verified or len(params) > 1:
            return super().second(part, params)
        (p,) = params
        n, known = p.numel(), learned.evaluations.second
        rows = learned.bent(p.numpy())
        if rows is not None:
            bends = dict(zip(known.keys, rows[n + 1 :], strict=True))
            return Bends(rows[n], Columns(tuple(rows[:n])), bends)
        found = super().second(part, params)
        if found is not None and isinstance(found.rows, Columns):
            keys = tuple(found.second)
            if known.record is None:
                known.keys = keys
            same = torch.stack([*found.rows.above(found.residual), *found.second.values()])
            every = same.numpy() if keys == known.keys else None
            learned.saw(known, p.numpy(), lambda p: bent_vectors(part, (p,)), every)
        return found

    def _remember(self, point: Point, block: Block) -> None:
        """Keep a block, and forget the oldest of too many."""
        self.known[point] = block
        if len(self.known) > POINTS:
            del self.known[next(iter(self.known))]

    def verify(self, part: Part, params: Params, first: Block) -> None:
        """Compare a first block with a plain backward pass, the one that was made if it may be."""
        if self.pulled is None or _numbers(self.pulled[0]) != _numbers(params):
            super().verify(part, params, first)
            return
        if isinstance(self.current, DualNumbers):
            same_values(self.pulled[1].values, first.residual)
        if not compare(first.rows, params, self.pulled[1]):
            super().verify(part, params, first)

    def evaluate(self, part: Part, params: Params) -> Tensor:
        """The residuals of the part, remembered where its rows are."""
        if self.learned is not None:
            rows = self.learned.remembered(params[0].numpy())
            if rows is not None:
                return torch.from_numpy(rows[-1])
        at = _at(part, params)
        for point, block in self.known.items():
            if point[0] == at:
                return block.residual
        return super().evaluate(part, params)


def _kept(block: Block) -> Block:
    """A block that stays as it is, whatever is written into its tensors.

    The function may write into its result when it is called the next time, and where a matrix
    stands the rows that a loss has scaled are written next.
    """
    rows = block.rows
    if isinstance(rows, Columns):  # of dual numbers, whose results are made anew by each operator
        return block
    if isinstance(rows, DenseRows):
        rows = DenseRows(rows.matrix.clone())
    return Block(block.residual.clone(), rows)


def _at(part: Part, params: Params) -> Point:
    """What tells a function and its parameters from others, on a CPU."""
    return part.function, _numbers(params)


def _numbers(params: Params) -> tuple[bytes, ...]:
    return tuple([bits_of(p) for p in params])
