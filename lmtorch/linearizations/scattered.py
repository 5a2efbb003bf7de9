"""J by blocks of rows that lie with several processes, for fewer residuals than parameters.

No process has all of J. JJᵀ is made block by block, of the rows of one process and of another, and
all processes have it in the end.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Self

import torch
from torch import Tensor

from .._symmetric import mirror_
from ..arrays import where
from ..distributed.processes import Processes
from ..rows.base import scale
from ..rows.columns import Columns
from ..rows.matrix import DenseRows
from .base import Exact, Prior, Sums, Values, shifted_rows
from .dense import DenseAccumulator, no_sample


class ScatteredRows(NamedTuple):
    """Rows of J of which this process has some: products with them are made by all processes."""

    matrix: Tensor  # (rows here, n)
    counts: tuple[int, ...]  # rows of each process
    processes: Processes

    @property
    def shape(self) -> torch.Size:
        """(rows, n)."""
        return torch.Size((sum(self.counts), self.matrix.shape[-1]))

    @property
    def column_norms(self) -> Tensor:
        """‖J e_j‖, (n,)."""
        return self.processes.added([self.matrix.square().sum(0)])[0].sqrt()

    def scaled(self, root: Tensor) -> Self:
        """R J, for the roots of these rows."""
        return self._replace(matrix=scale(self.matrix, root))

    def times(self, v: Tensor) -> Tensor:
        """J v, (rows,), of all processes."""
        return self.processes.rows(self.matrix @ v, self.counts)

    def transposed_times(self, w: Tensor) -> Tensor:
        """Jᵀw of w (rows,), (n,)."""
        mine = w.split(self.counts)[self.processes.rank]
        return self.processes.added([self.matrix.mT @ mine])[0]

    def dense(self) -> Tensor:
        """All entries, (rows, n), of which each process then has all."""
        return self.processes.rows(self.matrix, self.counts)

    def gram(self, squares: Tensor) -> Tensor:
        """J D⁻² Jᵀ, (rows, rows), for D² (n,)."""
        own = self.matrix / squares.sqrt()
        size, rank = self.processes.size, self.processes.rank
        lines = own.new_zeros(len(own), sum(self.counts))
        for place, block in enumerate(lines.split(self.counts, -1)):
            other = self.processes.shown(own, place, self.counts[place])
            if _makes(rank, place, size):
                block[...] = own @ other.mT
        whole = self.processes.rows(lines, self.counts)
        for i, j, below, above in _blocks(whole, self.counts):
            if not _makes(i, j, size):
                below[...] = above.mT
        mirror_(whole)
        return whole


def _makes(i: int, j: int, size: int) -> bool:
    """Whether process i makes the block of its rows and those of j: each has as many to make."""
    apart = (i - j) % size
    return 2 * apart < size or (2 * apart == size and i > j)


def _blocks(matrix: Tensor, counts: tuple[int, ...]) -> Iterator[tuple[int, int, Tensor, Tensor]]:
    """The blocks below the diagonal with those above it, in whose place they stand."""
    lines = matrix.split(counts)
    table = [line.split(counts, -1) for line in lines]
    for i in range(len(counts)):
        for j in range(i):
            yield i, j, table[i][j], table[j][i]


class Scattered(NamedTuple):
    """r of all processes, and J where it lies; a prior's rows stand beside them, unstacked."""

    residual: Tensor  # (m,)
    rows: ScatteredRows
    prior: Prior | None
    cost: Tensor  # ()
    gradient: Tensor  # (n,)
    column_norms: Tensor  # (n,)
    values: Values = None

    @property
    def normal(self) -> Tensor:
        """JᵀJ with the prior's share, (n, n)."""
        matrix = self.rows.matrix
        (normal,) = self.rows.processes.added([matrix.mT @ matrix])
        if self.prior is not None:
            normal.diagonal().add_(self.prior.root.square())
        return normal

    def squared_length(self, step: Tensor) -> Tensor:
        """‖J s‖², ()."""
        length = (self.rows.matrix @ step).square().sum()
        (length,) = self.rows.processes.added([length])
        return length if self.prior is None else length + (self.prior.root * step).square().sum()

    def freeze(self, free: Tensor) -> Self:
        """Zero columns and gradient outside `free`."""
        matrix = where(free, self.rows.matrix, 0.0)
        return self._replace(
            rows=self.rows._replace(matrix=matrix),
            prior=self.prior and Prior(self.prior.root * free, self.prior.residual * free),
            gradient=where(free, self.gradient, 0.0),
            column_norms=where(free, self.column_norms, 0.0),
        )

    def shifted(self, shift: Tensor) -> Self:
        """Residuals and gradient where the linear model comes to by `shift` (n,)."""
        shifted: Self = shifted_rows(self, shift)
        return shifted


@dataclass(frozen=True)
class ScatteredForm:
    """The rows of each process, and JJᵀ of all of them."""

    sampled: ClassVar[bool] = False

    def entries(self, n: int, m: int) -> int:
        """The matrix JJᵀ that is solved with, m²; the rows lie apart."""
        return m * m

    def described(self, n: int, m: int) -> str:
        """JJᵀ with its shape."""
        return f"matrix of the residuals ({m} x {m})"

    def accumulator(
        self, shape: tuple[int, ...], rows: int, like: Tensor
    ) -> "ScatteredAccumulator":
        """One matrix for the rows of this process, filled block by block."""
        n = shape[-1]
        return ScatteredAccumulator(like.new_empty(rows, n), like.new_empty(rows))


class ScatteredAccumulator:
    """Blocks are written where they will stay, and stay with the process that made them."""

    kinds = DenseAccumulator.kinds
    sums: Sums = ()  # nothing is summed over rows

    def __init__(self, jacobian: Tensor, residual: Tensor) -> None:
        self.own = DenseAccumulator(jacobian, residual)

    def workspace(self, rows: int) -> Tensor:
        """The next rows of this process."""
        return self.own.workspace(rows)

    def add(self, residual: Tensor, rows: Columns | DenseRows) -> None:
        """Take a block of this process."""
        self.own.add(residual, rows)

    def share(self, processes: Processes) -> Callable[[], None]:
        """Take the residuals of all processes; the rows stay where they are."""
        own = self.own
        _, counts = processes.telling("rows", lambda: None, lambda _: [len(own.residual)], 1)
        each = tuple(int(count) for count in counts)
        self.scattered = ScatteredRows(own.jacobian, each, processes)
        self.residual = processes.rows(own.residual, each)
        return lambda: None

    def finish(
        self, cost: Tensor, prior: Prior | None, exact: Exact | None = None, values: Values = None
    ) -> Scattered:
        """Jᵀr and the column norms, once."""
        if exact is not None:
            raise no_sample()
        rows = self.scattered
        gradient, norms = rows.transposed_times(self.residual), rows.column_norms
        if prior is not None:
            gradient = gradient + prior.root * prior.residual
            norms = (norms.square() + prior.root.square()).sqrt()
        return Scattered(self.residual, rows, prior, cost, gradient, norms, values)
