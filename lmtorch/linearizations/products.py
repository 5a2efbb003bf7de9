"""The linear model by its products: no matrix is held, neither J nor JᵀJ nor JJᵀ.

Rows are asked for J v and Jᵀw when a solver needs them. Of rows of which no more than products is
known column norms are estimates, and with them what the loop asks about stopping: the cosines and
lengths are then good to a factor of about two, where their tolerances are powers of ten.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import ClassVar, NamedTuple, Self

import torch
from torch import Tensor

from ..arrays import squared, where
from ..distributed.processes import Processes
from ..rows.base import Rows
from ..rows.layers import LayerRows, joined
from ..rows.matrix import DenseRows
from ..rows.products import ProductRows, normal_times
from .base import Exact, Prior, Sums, Values, cost_beyond


class ByProducts(NamedTuple):
    """r and blocks of rows, which may be known by their products alone."""

    blocks: Iterable[Rows]  # kept, or read anew
    prior: Prior | None
    cost: Tensor  # (...,)
    gradient: Tensor  # (..., n)
    column_norms: Tensor  # (..., n)
    free: Tensor | None = None  # (..., n) bool: the others are held; None: all are free
    values: Values = None
    factor: float = 1.0  # rows in all over rows in `blocks`, where these are a sample
    across: Processes | None = None  # which have further blocks; None: this one has all

    @property
    def normal(self) -> Tensor:
        """JᵀJ with the prior's share, (..., n, n), by n products."""
        units = torch.eye(self.gradient.shape[-1]).to(self.gradient).unbind()
        columns = [self.normal_times(unit.expand_as(self.gradient)) for unit in units]
        return torch.stack(columns, -1)

    @property
    def rows(self) -> None:
        """They are not kept as one."""

    def normal_times(self, v: Tensor) -> Tensor:
        """(JᵀJ + W) v with the prior's W, (..., n)."""
        v = self._freed(v)
        found = self.factor * self._added(lambda: _normal_times(self.blocks, v))
        if self.prior is not None:
            found = found + self.prior.root * self.prior.root * v
        return self._freed(found)

    def squared_length(self, step: Tensor) -> Tensor:
        """‖J s‖², (...,)."""
        step = self._freed(step)
        length = self.factor * self._added(lambda: _length(self.blocks, step))
        return length if self.prior is None else length + squared(self.prior.root * step)

    def _added(self, work: Callable[[], Tensor]) -> Tensor:
        """What the blocks of all processes give."""
        return work() if self.across is None else self.across.summed("product", lambda: [work()])[0]

    def freeze(self, free: Tensor) -> Self:
        """Zero columns and gradient outside `free`."""
        prior = self.prior and Prior(self.prior.root * free, self.prior.residual * free)
        return self._replace(
            prior=prior,
            gradient=where(free, self.gradient, 0.0),
            column_norms=where(free, self.column_norms, 0.0),
            free=free if self.free is None else self.free & free,
        )

    def shifted(self, shift: Tensor) -> Self:
        """The gradient where the linear model comes to by `shift` (..., n)."""
        prior = self.prior and Prior(self.prior.root, self.prior.residual + self.prior.root * shift)
        moved = self.normal_times(shift)
        cost = cost_beyond(self, shift)
        return self._replace(prior=prior, cost=cost, gradient=self.gradient + moved, values=None)

    def _freed(self, v: Tensor) -> Tensor:
        return v if self.free is None else where(self.free, v, 0.0)


def added(shares: Iterable[Tensor], nothing: Tensor) -> Tensor:
    """The sum of what blocks contribute, of which no more than one is there at a time."""
    return reduce(add, shares, nothing)


def _as_one(blocks: Sequence[Rows]) -> Rows:
    """Blocks of factors of the same layers as one; another is alone."""
    first = blocks[0]
    if len(blocks) == 1 or not isinstance(first, LayerRows):
        return first
    every = (block for rows in blocks if isinstance(rows, LayerRows) for block in rows.blocks)
    return first._replace(blocks=joined(list(every)))


def _normal_times(blocks: Iterable[Rows], v: Tensor) -> Tensor:
    return added((normal_times(rows, v) for rows in blocks), torch.zeros_like(v))


def _length(blocks: Iterable[Rows], step: Tensor) -> Tensor:
    return added((squared(rows.times(step)) for rows in blocks), step.new_zeros(step.shape[:-1]))


def in_dtype(rows: Rows, dtype: torch.dtype) -> Rows:
    """Factors of layers in the dtype of the linear algebra; others convert what they give."""
    return rows.to(dtype) if isinstance(rows, LayerRows) else rows


@dataclass(frozen=True)
class Anew:
    """Blocks of rows that are made again, one after another, whenever they are looked at.

    Args:
        make: begins with the first block.
    """

    make: Callable[[], Iterator[Rows]]

    def __iter__(self) -> Iterator[Rows]:
        """The blocks, of which no more than one is there at a time."""
        return self.make()


@dataclass(frozen=True)
class ProductsForm:
    """A few vectors of n numbers, whatever the number of residuals.

    Rows that come written out, as a function of the user's for the Jacobian gives them, are kept.
    """

    sampled: ClassVar[bool] = True

    def entries(self, n: int, m: int) -> int:
        """Vectors of a solution by products, and the residuals."""
        return 8 * n + m

    def described(self, n: int, m: int) -> str:
        """Vectors with their length."""
        return f"vectors of a step by products (8 x {n}, {m} residuals)"

    def accumulator(self, shape: tuple[int, ...], rows: int, like: Tensor) -> "ProductsAccumulator":
        """Blocks of rows, kept as they come."""
        return ProductsAccumulator(shape, like)


class ProductsAccumulator:
    """Keeps residuals and rows; of rows that can be read anew, sums alone.

    Attributes:
        anew: makes the rows once more; None: they are kept.
    """

    kinds = (LayerRows, ProductRows, DenseRows)
    sums: Sums = ()  # nothing is summed over rows

    def __init__(self, shape: tuple[int, ...], like: Tensor) -> None:
        self.shape, self.like = shape, like
        self.residuals: list[Tensor] = []
        self.blocks: list[Rows] = []
        self.anew: Callable[[], Iterator[Rows]] | None = None
        self.summed: tuple[Tensor, Tensor] | None = None  # Jᵀr and the squares of column norms
        self.across: Processes | None = None

    def workspace(self, rows: int) -> Tensor:
        """A matrix of its own for rows that are written out."""
        *batch, n = self.shape
        return self.like.new_empty(*batch, rows, n)

    def add(self, residual: Tensor, rows: Rows) -> None:
        """Keep a block, or what it adds."""
        residual = residual.to(self.like.dtype)
        rows = in_dtype(rows, self.like.dtype)
        if self.anew is None:
            self.residuals.append(residual)
            self.blocks.append(rows)
            return
        squares = rows.column_norms.square().to(self.like.dtype)
        share = rows.transposed_times(residual), squares
        before = self.summed
        self.summed = share if before is None else (before[0] + share[0], before[1] + share[1])

    def _join(self) -> None:
        """Make one block of those factors of layers that follow each other."""
        runs: list[tuple[list[Tensor], list[Rows]]] = []
        for residual, rows in zip(self.residuals, self.blocks, strict=True):
            if runs and isinstance(rows, LayerRows) and isinstance(runs[-1][1][-1], LayerRows):
                runs[-1][0].append(residual)
                runs[-1][1].append(rows)
            else:
                runs.append(([residual], [rows]))
        self.residuals = [torch.cat(found, -1) if found[1:] else found[0] for found, _ in runs]
        self.blocks = [_as_one(blocks) for _, blocks in runs]

    def _sums(self, whole: bool) -> tuple[Tensor, Tensor]:
        """Jᵀr, unless it is known of more rows, and the squares of column norms."""
        self._join()
        nothing = self.like.new_zeros(self.shape)
        if self.anew is not None:
            return (nothing, nothing) if self.summed is None else self.summed
        pairs = list(zip(self.residuals, self.blocks, strict=True))
        norms = (rows.column_norms.square().to(self.like.dtype) for _, rows in pairs)
        slopes = (rows.transposed_times(residual) for residual, rows in pairs if whole)
        return added(slopes, nothing), added(norms, nothing)

    def share(self, processes: Processes) -> Callable[[], None]:
        """From now on what the products of all processes give is added; no rows are sent."""
        self.across = processes
        return lambda: None

    def finish(
        self, cost: Tensor, prior: Prior | None, exact: Exact | None = None, values: Values = None
    ) -> ByProducts:
        """Jᵀr and the column norms, once."""

        def own() -> tuple[Tensor, Tensor]:
            return self._sums(exact is None)

        across = self.across
        gradient, squares = own() if across is None else across.summed("columns", own)
        blocks: Iterable[Rows] = tuple(self.blocks)
        if self.anew is not None:
            again, dtype = self.anew, self.like.dtype
            blocks = Anew(lambda: (in_dtype(rows, dtype) for rows in again()))
        factor = 1.0
        if exact is not None:
            gradient, factor = exact.gradient, exact.factor
            squares = factor * squares
        if prior is not None:
            gradient = gradient + prior.root * prior.residual
            squares = squares + prior.root.square()
        norms = squares.sqrt()
        return ByProducts(blocks, prior, cost, gradient, norms, None, values, factor, across)
